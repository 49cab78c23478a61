//! A cell on a machine of its own, what is done to it, and what must hold at rest.

use std::collections::BTreeSet;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::Stepped;
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine, Outcome};

/// Every access to a word is a step at which a test may interrupt.
pub(crate) type P = Stepped;

/// In the future for as long as a test runs, in nanoseconds.
pub(crate) const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };
/// Later than everything.
pub(crate) const END_NS: u64 = u64::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Op {
    Init,
    SetCallback,
    Start,
    Cancel,
    CancelAsync,
    Free,
    Schedule,
}

pub(crate) use Op::{Cancel, CancelAsync, Free, Init, Schedule, SetCallback, Start as StartOp};

/// The operations of timers and work items.
pub(crate) const OPS: [Op; 6] = [Init, SetCallback, StartOp, Cancel, CancelAsync, Free];

/// Errors that were returned, by operation.
#[derive(Default)]
pub(crate) struct Seen(Mutex<BTreeSet<(Op, Errno)>>);

impl Seen {
    pub(crate) fn note(&self, op: Op, result: Result<bool, Errno>) -> Result<bool, Errno> {
        if let Err(errno) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((op, errno));
        }
        result
    }

    pub(crate) fn take(self) -> BTreeSet<(Op, Errno)> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cell with its map and programs on a machine of two CPUs.
pub(crate) struct Scene<'s, C> {
    pub(crate) cell: C,
    pub(crate) map: Map<P>,
    pub(crate) programs: [Box<Program<P>>; 2],
    pub(crate) seen: &'s Seen,
    pub(crate) machine: Machine<P>,
}

impl<'s, C: AsyncCell<P>> Scene<'s, C> {
    pub(crate) fn new(seen: &'s Seen) -> Self {
        Self {
            // SAFETY: used with this machine only, and settled in `rest` before it is gone.
            cell: unsafe { C::new() },
            map: Map::new(),
            programs: [(); 2].map(|()| Program::new([(count_only as _, 0); 2])),
            seen,
            machine: Machine::new(MachineConfig::new(2)),
        }
    }

    pub(crate) fn cpu(&self, number: u32) -> Cpu<'_, P> {
        self.machine.cpu(CpuId(number))
    }

    /// Does an operation and notes what it returned.
    pub(crate) fn perform(&self, cpu: &Cpu<'_, P>, op: Op) -> Result<bool, Errno> {
        let [first, second] = &self.programs;
        let done = |outcome: Outcome| outcome.map(|()| true);
        let result = match op {
            Init => done(self.cell.init(cpu, &self.map, InitFlags::NONE)),
            SetCallback => done(self.cell.set_callback(cpu, second, second.callback(0))),
            StartOp => done(self.cell.start(cpu, FAR)),
            Cancel => self.cell.cancel(cpu),
            CancelAsync => self.cell.cancel_async(cpu),
            Free => {
                self.cell.cancel_and_free(cpu);
                Ok(true)
            }
            Schedule => {
                done(self.cell.schedule(cpu, &self.map, first, first.callback(0), Start::default()))
            }
        };
        self.seen.note(op, result)
    }

    /// Makes the cell initialised, with the first program's first callback.
    pub(crate) fn make_ready(&self, cpu: &Cpu<'_, P>) {
        let first = &self.programs[0];
        assert_eq!(self.perform(cpu, Init), Ok(true));
        assert_eq!(self.cell.set_callback(cpu, first, first.callback(0)), Ok(()));
    }

    /// Runs all timers and works as if their time had come; returns how many ran.
    pub(crate) fn fire(&self, cpu: &Cpu<'_, P>) -> usize {
        let engine = self.machine.engine();
        (0..self.machine.cpus())
            .map(|base| engine.run_timers(cpu, base, END_NS) + engine.run_works(cpu, base))
            .sum()
    }

    /// Returns how often callbacks ran.
    pub(crate) fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.callback(0).runs()).sum()
    }

    /// Checks that at rest all belongs together, and that nothing is left when the cell is freed.
    pub(crate) fn rest(&self, cpu: &Cpu<'_, P>) {
        self.machine.settle(cpu);
        let found = self.cell.inspect();
        // SAFETY: the callbacks are those of this scene's programs.
        if let Some(callback) = unsafe { found.callback.as_ref() } {
            assert!(callback.belongs_to(found.program), "the callback is another program's");
        }
        for program in &self.programs {
            let held = u64::from(ptr::eq(found.program, &raw const **program));
            assert_eq!(program.refs(), 1 + held, "program references at rest");
        }
        self.cell.cancel_and_free(cpu);
        self.machine.settle(cpu);
        assert!(!self.cell.inspect().initialised);
        for program in &self.programs {
            assert_eq!(program.refs(), 1, "program references after freeing");
        }
        assert_eq!(self.machine.heap().stats().live(), 0, "a block or a command leaked");
        for number in 0..self.machine.cpus() {
            let rest = self.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number}: {rest:?}");
        }
    }
}
