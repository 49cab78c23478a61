//! Memory that each design takes: bytes in the map value, bytes in the control block, and the cache lines
//! that each operation touches when nobody else is there. Counted on the platform [`Traced`], not measured:
//! the same everywhere.
//!
//! Sizes are those of the native platform with the counting engine, whose timers and works are a
//! few words: what a kernel's hrtimer or work item takes comes on top, alike for all designs.

use crossbeam_utils::CachePadded;

use crate::cell::{AsyncCell, Footprint, InitFlags, Start, Steps};
use crate::machine::{Cpu, CpuId, Machine, MachineConfig};
use crate::map::Map;
use crate::platform::Traced;
use crate::platform::traced::{Touched, trace};
use crate::program::{Program, count_only};
use crate::registry::{CELLS, CellEntry, CellVisitor, visit_cell};

/// Memory that a design takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesignFootprint {
    /// The design and kind.
    pub entry: CellEntry,
    /// Bytes in the map value and in the control block.
    pub bytes: Footprint,
    /// Lines by operation, for those that the design has, in the order of a cell's life.
    pub operations: Vec<OperationLines>,
}

/// The lines that an operation touches: of the cell, the block and the program, and of what its
/// CPU keeps. The line of a word that only its own CPU ever looks at counts like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationLines {
    /// The operation, as `set_callback`; with `_nmi` where it was called in NMI, the `irq_work`
    /// that it left included.
    pub operation: &'static str,
    /// Distinct lines of 64 bytes.
    pub lines: usize,
    /// Those of them that were written.
    pub written: usize,
}

/// Returns every design's footprint, in the order of the registry.
pub fn footprints() -> Vec<DesignFootprint> {
    CELLS
        .iter()
        .map(|entry| {
            visit_cell::<Traced, _>(entry.id, entry.kind, Life(*entry)).expect("registered")
        })
        .collect()
}

/// Leads a cell through its life and counts.
struct Life(CellEntry);

/// Far enough away to be in the future, in nanoseconds.
const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };

impl CellVisitor<Traced> for Life {
    type Output = DesignFootprint;

    fn visit<C: AsyncCell<Traced>>(self) -> DesignFootprint {
        let machine = Machine::new(MachineConfig::new(1));
        // On lines of their own: what is counted must not hang on where a stack begins.
        let map = CachePadded::new(Map::new());
        let programs = [(); 2].map(|()| Program::new([(count_only as _, 0); 2]));
        // SAFETY: used with this machine alone, and no callback runs after this function.
        let cell = CachePadded::new(unsafe { C::new() });
        let cpu = machine.cpu(CpuId(0));
        C::reserve(&cpu, 1);
        let subject = Subject { cell: &*cell, cpu: &cpu, map: &map, programs: &programs };
        // The first life shows what needs room only once, as the heap's first slot.
        subject.live();
        let operations = subject.live();
        DesignFootprint { entry: self.0, bytes: C::footprint(), operations }
    }
}

struct Subject<'a, C> {
    cell: &'a C,
    cpu: &'a Cpu<'a, Traced>,
    map: &'a Map<Traced>,
    programs: &'a [Box<Program<Traced>>; 2],
}

impl<C: AsyncCell<Traced>> Subject<'_, C> {
    /// Returns every operation that succeeds, once.
    fn live(&self) -> Vec<OperationLines> {
        let Self { cell, cpu, map, programs } = self;
        let [first, second] = programs;
        let mut counted = Vec::new();
        let mut count = |operation, attempt: &dyn Fn() -> bool| {
            let (ok, Touched { lines, written, .. }) = trace(attempt);
            if ok {
                counted.push(OperationLines { operation, lines, written });
            }
        };
        count("init", &|| cell.init(cpu, map, InitFlags::NONE).is_ok());
        // Untraced: the counted update below replaces a program.
        let _ = cell.set_callback(cpu, first, first.callback(0));
        count("set_callback", &|| cell.set_callback(cpu, second, second.callback(0)).is_ok());
        count("set_callback_same_program", &|| {
            cell.set_callback(cpu, second, second.callback(1)).is_ok()
        });
        count("start", &|| cell.start(cpu, FAR).is_ok());
        count("start_nmi", &|| cpu.nmi(|nmi| cell.start(nmi, FAR)).is_ok());
        count("cancel_async", &|| cell.cancel_async(cpu).is_ok());
        count("cancel", &|| cell.cancel(cpu).is_ok());
        if C::STEPS == Steps::One {
            // Timers and work items serve it by two operations that stand above.
            count("schedule", &|| cell.schedule(cpu, map, first, first.callback(0), FAR).is_ok());
            cpu.return_to_user();
        }
        count("cancel_and_free", &|| {
            cell.cancel_and_free(cpu);
            true
        });
        cpu.machine().settle(cpu);
        counted
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_utils::CachePadded;

    use super::{FAR, footprints};
    use crate::cell::{AsyncCell, CellKind, InitFlags};
    use crate::machine::{CpuId, Machine, MachineConfig};
    use crate::map::Map;
    use crate::platform::Traced;
    use crate::platform::traced::trace;
    use crate::program::{Program, count_only};
    use crate::registry::{CELLS, CellVisitor, visit_cell};

    #[test]
    fn every_operation_of_every_design_is_counted() {
        for design in footprints() {
            let name = format!("{} {}", design.entry.id, design.entry.kind);
            // What `struct bpf_timer`, `bpf_wq` and `bpf_task_work` reserve in the map value.
            assert!(design.bytes.cell_bytes <= 16, "{name}: {:?}", design.bytes);
            assert!(design.bytes.block_bytes > design.bytes.cell_bytes, "{name}");
            let names: Vec<_> = design.operations.iter().map(|lines| lines.operation).collect();
            let expected: &[&str] = match design.entry.kind {
                CellKind::TaskWork => &["schedule", "cancel_and_free"],
                _ => &["init", "set_callback", "set_callback_same_program", "start"],
            };
            assert!(names.starts_with(expected), "{name}: {names:?}");
            for operation in &design.operations {
                assert!(operation.written >= 1, "{name}: {operation:?} writes nothing");
                assert!(operation.written <= operation.lines, "{name}: {operation:?}");
            }
        }
    }

    #[test]
    fn the_count_is_the_same_each_time() {
        assert_eq!(footprints(), footprints());
    }

    #[test]
    fn an_update_of_the_locked_cell_touches_the_lines_it_must() {
        let locked = |footprint: &&super::DesignFootprint| {
            footprint.entry.id == "spin-tas" && footprint.entry.kind == CellKind::Timer
        };
        let all = footprints();
        let design = all.iter().find(locked).expect("registered");
        let update = design.operations.iter().find(|lines| lines.operation == "set_callback");
        let update = update.expect("counted");
        // Cell with its lock, block and two programs; the map's user count and, as interrupts come
        // on again, the CPU's list of `irq_work` are only read.
        assert_eq!((update.lines, update.written), (6, 4), "{design:?}");
    }

    /// Atomic read-modify-writes of each operation of a timer or work item that nobody else uses.
    #[derive(Debug, PartialEq, Eq)]
    struct Locked {
        /// Replaces a program.
        set_callback: usize,
        /// Sets another callback of the program that is set.
        same_program: usize,
        /// Of an idle timer, without a program; `None`: there is none.
        cancel: Option<usize>,
        /// Of a cell without a block.
        free: usize,
    }

    struct Count;

    impl CellVisitor<Traced> for Count {
        type Output = Locked;
        fn visit<C: AsyncCell<Traced>>(self) -> Locked {
            let machine = Machine::new(MachineConfig::new(1));
            let map = CachePadded::new(Map::new());
            let [first, second] = [(); 2].map(|()| Program::new([(count_only as _, 0); 2]));
            // SAFETY: used with this machine alone, and no callback runs after this function.
            let cell = CachePadded::new(unsafe { C::new() });
            let cpu = machine.cpu(CpuId(0));
            let locked = |operation: &dyn Fn()| trace(operation).1.locked;
            let free = locked(&|| cell.cancel_and_free(&cpu));
            assert_eq!(cell.init(&cpu, &map, InitFlags::NONE), Ok(()));
            let set = |program: &Program<Traced>, callback| {
                let outcome = cell.set_callback(&cpu, program, program.callback(callback));
                assert_eq!(outcome, Ok(()));
            };
            set(&first, 0);
            let set_callback = locked(&|| set(&second, 0));
            let same_program = locked(&|| set(&second, 1));
            let cancel = C::CANCELS.then(|| {
                assert_eq!(cell.start(&cpu, FAR), Ok(()));
                assert_eq!(cell.cancel(&cpu), Ok(true));
                locked(&|| assert_eq!(cell.cancel(&cpu), Ok(false)))
            });
            cell.cancel_and_free(&cpu);
            machine.settle(&cpu);
            Locked { set_callback, same_program, cancel, free }
        }
    }

    /// The locked cells take and put a reference and the lock, and write program and callback
    /// plainly.
    /// The state word is taken and given back around an exchange of the program. The update of the
    /// lockless designs takes a guard and a reference, exchanges the program, and puts the old one
    /// and
    /// the guard; the repair exchanges the callback as well. Cancelling an idle timer locks none
    /// of its
    /// words: what is counted there is the lock, the state, or the exchange of an update.
    #[test]
    fn operations_lock_as_often_as_published() {
        for cell in CELLS.iter().filter(|cell| cell.kind != CellKind::TaskWork) {
            let (set_callback, same_program, cancel, free) = match cell.id {
                "spin-tas" | "spin-queued" | "rqspin" => (3, 1, 1, 0),
                "cmpxchg-state" | "cmpxchg-state-nmi" => (5, 2, 2, 1),
                "mpmc-cell" | "seq-latch-v4" | "seq-latch-v6" | "seq-latch" => (5, 5, 1, 1),
                "cmd-queue" => (5, 5, 1, 0),
                "cmd-queue-xchg" => (6, 6, 2, 0),
                // The reference, the allocation, the exchange, the put and the list of those that
                // wait for a grace period.
                "rcu-pair" => (5, 5, 1, 0),
                "cas16-pair" => (3, 3, 1, 0),
                "seqlock-pair" => (3, 1, 1, 0),
                "rcu-alone" | "hazard-ref" | "percpu-ref" => (6, 6, 2, 0),
                id => panic!("{id}: say here how often it locks"),
            };
            let cancel = (cell.kind == CellKind::Timer).then_some(cancel);
            let expected = Locked { set_callback, same_program, cancel, free };
            let found = visit_cell::<Traced, _>(cell.id, cell.kind, Count).expect("registered");
            assert_eq!(found, expected, "{} {}", cell.kind, cell.id);
        }
    }
}
