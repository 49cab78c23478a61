//! Field that workloads on cells share: a machine with cells, programs and a map, and the checks that hold
//! for every one of them at rest.

use cellbench_impls::cell::{InitFlags, Steps};
use cellbench_impls::heap::HeapStats;
use cellbench_impls::map::Map;
use cellbench_impls::program::{Callback, CallbackFn, Program, count_only};
use cellbench_impls::{AsyncCell, Cpu, CpuId, Machine, Platform};
use crossbeam_utils::CachePadded;

use crate::ensure;
use crate::params::Params;
use crate::trial::Violation;

/// How cells lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One after the other, as in a map's values: neighbours share a cache line.
    Packed,
    /// Each on a cache line of its own.
    Padded,
}

/// Map values.
enum Values<C> {
    // Aligned as a page, so that where lines begin does not depend on the allocator's mood.
    Packed(Vec<C>),
    Padded(Vec<CachePadded<C>>),
}

/// A machine with cells, programs and a map.
pub struct Field<P: Platform, C> {
    // Before the machine: the machine is dropped last, and frees the blocks.
    values: Values<C>,
    map: Map<P>,
    programs: Vec<Box<Program<P>>>,
    machine: Machine<P>,
}

/// How many callbacks each program of a field has: enough to alternate.
pub const CALLBACKS: usize = 2;

impl<P: Platform, C: AsyncCell<P>> Field<P, C> {
    /// Makes `cells` uninitialised cells and `programs` programs whose callbacks only count.
    pub fn new(params: &Params, layout: Layout, cells: usize, programs: usize) -> Self {
        Self::with_callback(params, layout, cells, programs, (count_only, 0))
    }

    /// Makes as [`new`](Self::new) does, with callbacks that do something, all with the same data.
    pub fn with_callback(
        params: &Params,
        layout: Layout,
        cells: usize,
        programs: usize,
        callback: (CallbackFn<P>, usize),
    ) -> Self {
        let machine = params.machine();
        // SAFETY: the cells are used with this field's machine only, programs and map are the
        // field's own, and the cells are dropped after the last callback ran: `check` settles
        // the machine, and a field dropped without it runs no callbacks any more.
        let cell = || unsafe { C::new() };
        let values = match layout {
            Layout::Packed => Values::Packed((0..cells).map(|_| cell()).collect()),
            Layout::Padded => {
                Values::Padded((0..cells).map(|_| CachePadded::new(cell())).collect())
            }
        };
        let programs = (0..programs).map(|_| Program::new([callback; CALLBACKS])).collect();
        Self { values, map: Map::new(), programs, machine }
    }

    /// Returns the machine.
    #[inline(always)]
    pub fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    /// Returns the map that the cells are values of.
    #[inline(always)]
    pub fn map(&self) -> &Map<P> {
        &self.map
    }

    /// Returns the number of cells.
    #[inline(always)]
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Packed(cells) => cells.len(),
            Values::Padded(cells) => cells.len(),
        }
    }

    /// Returns whether there are no cells.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the cell with number `index`.
    #[inline(always)]
    pub fn cell(&self, index: usize) -> &C {
        match &self.values {
            Values::Packed(cells) => &cells[index],
            Values::Padded(cells) => &cells[index],
        }
    }

    /// Returns all cells.
    pub fn cells(&self) -> impl Iterator<Item = &C> {
        (0..self.len()).map(|index| self.cell(index))
    }

    /// Returns the program with number `index`.
    #[inline(always)]
    pub fn program(&self, index: usize) -> &Program<P> {
        &self.programs[index]
    }

    /// Returns a program and a callback of it, by number.
    #[inline(always)]
    pub fn callback(&self, program: usize, callback: usize) -> (&Program<P>, &Callback<P>) {
        let program = self.program(program);
        (program, program.callback(callback))
    }

    /// Returns how often the programs' callbacks ran. Exact at rest.
    pub fn runs(&self) -> u64 {
        let callbacks = |program: &Program<P>| -> u64 {
            (0..program.callbacks()).map(|callback| program.callback(callback).runs()).sum()
        };
        self.programs.iter().map(|program| callbacks(program)).sum()
    }

    /// Initialises the cell and sets the first callback of `program`. A task work is always ready.
    ///
    /// # Panics
    /// If that fails: nobody else is there yet.
    pub fn make_ready(&self, cpu: &Cpu<'_, P>, cell: usize, program: usize) {
        if C::STEPS == Steps::One {
            return;
        }
        let (program, callback) = self.callback(program, 0);
        let cell = self.cell(cell);
        cell.init(cpu, &self.map, InitFlags::NONE).expect("init of a fresh cell");
        cell.set_callback(cpu, program, callback).expect("first set_callback");
    }

    /// Brings the whole field to rest and checks the invariants that hold for every workload:
    /// callback and program belong together, references balance before and after freeing,
    /// nothing leaks, locks' queues and tables are clean.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, cpu: &Cpu<'_, P>) -> Result<(), Violation> {
        self.machine.settle(cpu);
        let mut held = vec![0_u64; self.programs.len()];
        for (index, cell) in self.cells().enumerate() {
            let found = cell.inspect();
            // SAFETY: callbacks are those of this field's programs.
            if let Some(callback) = unsafe { found.callback.as_ref() } {
                ensure!(
                    C::PROMISES.callback_may_differ || callback.belongs_to(found.program),
                    "cell {index}: the callback is not one of its program's"
                );
            }
            if let Some(program) =
                self.programs.iter().position(|own| core::ptr::eq(&**own, found.program))
            {
                held[program] += 1;
            }
        }
        self.check_references(&held, "at rest")?;
        for cell in self.cells() {
            cell.cancel_and_free(cpu);
        }
        self.machine.settle(cpu);
        self.check_references(&vec![0; held.len()], "after freeing")?;
        let HeapStats { allocated, freed } = self.machine.heap().stats();
        ensure!(allocated == freed, "leak: {} of {allocated} objects", allocated - freed);
        check_clean(&self.machine)
    }

    fn check_references(&self, held: &[u64], when: &str) -> Result<(), Violation> {
        for (index, program) in self.programs.iter().enumerate() {
            let expected = 1 + held[index];
            ensure!(
                program.refs() == expected,
                "program {index} {when}: {} references, {expected} expected",
                program.refs()
            );
        }
        Ok(())
    }
}

/// Checks that no CPU is left in a lock's queue, holds a lock or has interrupts off.
///
/// # Errors
/// What does not hold.
pub fn check_clean<P: Platform>(machine: &Machine<P>) -> Result<(), Violation> {
    for cpu in (0..machine.cpus()).map(CpuId) {
        let rest = machine.rest(cpu);
        ensure!(rest.is_clean(), "CPU {} is not at rest: {rest:?}", cpu.0);
    }
    Ok(())
}
