//! The operations that are measured, and which of them a kernel has.
//!
//! One table: adding an operation is a program under `src/bpf/` and a line here.

use std::fmt;

use cellbench_record::Kind;

use crate::info::KernelInfo;

/// Where an operation is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// A system call: interrupts on, may be preempted.
    Task,
    /// A software perf event's timer interrupt.
    Hardirq,
    /// A hardware perf event's overflow.
    Nmi,
}

impl Context {
    /// Name as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Hardirq => "hardirq",
            Self::Nmi => "nmi",
        }
    }
}

/// How the cells lie, and who uses which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// All threads on one cell.
    Same,
    /// A cell for each thread, 128 bytes apart.
    OwnPadded,
    /// A cell for each thread, side by side: neighbours share a cache line.
    OwnPacked,
    /// Many cells side by side, chosen with Zipf-distributed probability.
    Zipf {
        /// Number of cells.
        cells: u32,
        /// Exponent: the k-th cell has a share proportional to `1 / k^exponent`.
        exponent: f64,
    },
}

impl Layout {
    /// 64 cells with exponent 0.99, that of the Yahoo cloud serving benchmark. No more cells, because
    /// `init` allocates without waiting and, where the memory controller accounts for it (Linux 6.17
    /// and 6.18), only from slabs that other allocations already prepared: some 150 cells on an idle
    /// host, then ENOMEM for good.
    pub const ZIPF: Self = Self::Zipf { cells: 64, exponent: 0.99 };

    /// Name as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same-cell",
            Self::OwnPadded => "own-cell-padded",
            Self::OwnPacked => "own-cell-packed",
            Self::Zipf { .. } => "map-zipf",
        }
    }
}

/// A BPF object, one per source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Timer,
    Wq,
    TaskWork,
    SpinLock,
    ResLock,
}

/// What must be true of the callbacks after a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callbacks {
    /// None ran: timers are started for a time that does not come.
    None,
    /// One for each successful schedule.
    EachSchedule,
    /// At most one for each successful start or schedule: pending ones absorb further starts, and
    /// freeing drops them.
    AtMostEach,
}

/// What is fixed about an operation. See [`OPERATIONS`].
#[cfg_attr(not(feature = "bpf"), allow(dead_code, reason = "some fields steer measuring only"))]
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) source: Source,
    /// Program in the object.
    pub(crate) program: &'static str,
    /// Kernel functions needed; of names joined by `|` one is enough.
    pub(crate) needs: &'static [&'static str],
    /// Cells are initialised and have a callback before the measurement.
    pub(crate) prepare: bool,
    /// Attempts per entry into the program: few where the work done on leaving is part of the row.
    pub(crate) batch: u32,
    /// Frees cells, whose memory comes back after a grace period only: after a failed entry the thread
    /// waits, so that the row shows what it costs, not how fast an empty allocator refuses.
    pub(crate) frees: bool,
    /// Has a program that perf events enter.
    pub(crate) any_context: bool,
    pub(crate) callbacks: Callbacks,
    pub(crate) layouts: &'static [Layout],
    /// Least number of threads.
    pub(crate) threads_min: u32,
}

/// Largest count that bpf_loop takes.
const BATCH_MAX: u32 = 8 << 20;
const ALL: &[Layout] = &[Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF];
const SAME: &[Layout] = &[Layout::Same];
const OWN: &[Layout] = &[Layout::OwnPadded];

const TIMER: Operation = Operation {
    kind: Kind::Timer,
    name: "",
    about: "",
    source: Source::Timer,
    program: "",
    needs: &["bpf_timer_init", "bpf_loop"],
    prepare: true,
    batch: BATCH_MAX,
    frees: false,
    any_context: false,
    callbacks: Callbacks::None,
    layouts: ALL,
    threads_min: 1,
};

/// Rows that free and make cells: few per entry, so that memory can come back between.
const FREEING_BATCH: u32 = 32;

const WQ_NEEDS: &[&str] =
    &["bpf_wq_init", "bpf_wq_start", "bpf_wq_set_callback|bpf_wq_set_callback_impl", "bpf_loop"];

const WQ: Operation = Operation {
    kind: Kind::Wq,
    source: Source::Wq,
    needs: WQ_NEEDS,
    // The worker runs on the same CPU, and gets it when the program is left.
    batch: 1000,
    callbacks: Callbacks::AtMostEach,
    ..TIMER
};

const TASK_WORK: Operation = Operation {
    kind: Kind::TaskWork,
    source: Source::TaskWork,
    needs: &[
        "bpf_task_work_schedule_signal|bpf_task_work_schedule_signal_impl",
        "bpf_get_current_task_btf",
        "bpf_loop",
    ],
    prepare: false,
    // The callbacks run when the program is left, and the system call returns.
    batch: 256,
    callbacks: Callbacks::EachSchedule,
    ..TIMER
};

const RES_LOCK: Operation = Operation {
    kind: Kind::Lock,
    source: Source::ResLock,
    needs: &["bpf_res_spin_lock", "bpf_loop"],
    prepare: false,
    ..TIMER
};

/// Every operation.
pub(crate) static OPERATIONS: &[Operation] = &[
    Operation {
        name: "timer-empty",
        about: "the loop alone: find the cell, count, nothing else",
        program: "empty_row",
        layouts: SAME,
        any_context: true,
        ..TIMER
    },
    Operation {
        name: "timer-set_callback",
        about: "bpf_timer_set_callback with the same callback",
        program: "set_callback",
        any_context: true,
        ..TIMER
    },
    Operation {
        name: "timer-start",
        about: "bpf_timer_start of a timer that already runs, far in the future",
        program: "start",
        any_context: true,
        ..TIMER
    },
    Operation {
        name: "timer-cancel",
        about: "bpf_timer_cancel of a timer that does not run",
        program: "cancel",
        ..TIMER
    },
    Operation {
        name: "timer-start-cancel",
        about: "set_callback, start, cancel",
        program: "start_cancel",
        ..TIMER
    },
    Operation {
        name: "timer-cancel_async",
        about: "bpf_timer_cancel_async of a timer that does not run; from interrupts it is queued, \
                which it reports as ECANCELED",
        program: "cancel_async",
        needs: &["bpf_timer_init", "bpf_timer_cancel_async", "bpf_loop"],
        any_context: true,
        ..TIMER
    },
    Operation {
        name: "timer-start-cancel_async",
        about: "set_callback, start, cancel_async",
        program: "start_cancel_async",
        needs: &["bpf_timer_init", "bpf_timer_cancel_async", "bpf_loop"],
        ..TIMER
    },
    Operation {
        name: "timer-init-free",
        about: "bpf_timer_init, then an update of the element, which frees the timer",
        program: "init_free",
        batch: FREEING_BATCH,
        frees: true,
        prepare: false,
        ..TIMER
    },
    Operation {
        name: "timer-lifecycle",
        about: "init, set_callback, start, element update",
        program: "lifecycle",
        batch: FREEING_BATCH,
        frees: true,
        prepare: false,
        ..TIMER
    },
    Operation {
        name: "timer-mixed",
        about: "50 % set_callback, 40 % start, 10 % element update and a new init",
        program: "mixed",
        batch: FREEING_BATCH,
        frees: true,
        ..TIMER
    },
    Operation {
        name: "wq-empty",
        about: "the loop alone: find the cell, count, nothing else",
        program: "empty_row",
        layouts: SAME,
        any_context: true,
        ..WQ
    },
    Operation {
        name: "wq-set_callback",
        about: "bpf_wq_set_callback with the same callback",
        program: "set_callback",
        any_context: true,
        batch: BATCH_MAX,
        ..WQ
    },
    Operation {
        name: "wq-start",
        about: "bpf_wq_start; most find the work still queued",
        program: "start",
        any_context: true,
        ..WQ
    },
    Operation {
        name: "wq-init-free",
        about: "bpf_wq_init, then an update of the element, which frees the work",
        program: "init_free",
        batch: FREEING_BATCH,
        frees: true,
        prepare: false,
        ..WQ
    },
    Operation {
        name: "wq-lifecycle",
        about: "init, set_callback, start, element update",
        program: "lifecycle",
        batch: FREEING_BATCH,
        frees: true,
        prepare: false,
        ..WQ
    },
    Operation {
        name: "wq-mixed",
        about: "50 % set_callback, 40 % start, 10 % element update and a new init",
        program: "mixed",
        batch: FREEING_BATCH,
        frees: true,
        ..WQ
    },
    Operation {
        name: "task_work-empty",
        about: "the loop alone: find the cell, count, nothing else",
        program: "empty_row",
        layouts: SAME,
        any_context: true,
        batch: BATCH_MAX,
        ..TASK_WORK
    },
    Operation {
        name: "task_work-schedule",
        about: "schedule for the current task (signal mode), 256 attempts per system call; 256 own \
                cells a thread, or one cell where all but one attempt find it taken",
        program: "schedule",
        any_context: true,
        ..TASK_WORK
    },
    Operation {
        name: "task_work-schedule-resume",
        about: "the same in resume mode",
        program: "schedule_on_resume",
        needs: &[
            "bpf_task_work_schedule_resume|bpf_task_work_schedule_resume_impl",
            "bpf_get_current_task_btf",
            "bpf_loop",
        ],
        ..TASK_WORK
    },
    Operation {
        name: "task_work-schedule-free",
        about: "schedule, then an update of the element, which frees the work",
        program: "schedule_free",
        batch: FREEING_BATCH,
        frees: true,
        callbacks: Callbacks::AtMostEach,
        ..TASK_WORK
    },
    Operation {
        name: "bpf_spin_lock-empty",
        about: "the loop alone: find the cell, count, nothing else",
        kind: Kind::Lock,
        source: Source::SpinLock,
        program: "empty_row",
        needs: &["bpf_spin_lock", "bpf_loop"],
        layouts: SAME,
        ..RES_LOCK
    },
    Operation {
        name: "bpf_spin_lock",
        about: "bpf_spin_lock and unlock around one increment; saves interrupts",
        kind: Kind::Lock,
        source: Source::SpinLock,
        program: "lock_pair",
        needs: &["bpf_spin_lock", "bpf_loop"],
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock-empty",
        about: "the loop alone: find the cell, count, nothing else",
        program: "empty_row",
        layouts: SAME,
        any_context: true,
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock",
        about: "bpf_res_spin_lock and unlock around one increment",
        program: "lock_pair",
        any_context: true,
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock_irqsave",
        about: "the same, saving interrupts",
        program: "lock_pair_irqsave",
        needs: &["bpf_res_spin_lock_irqsave", "bpf_loop"],
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock-aa",
        about: "taking the lock already held: every attempt fails with EDEADLK",
        program: "lock_aa",
        // Even this deadlock takes a millisecond to be found.
        batch: 8,
        layouts: OWN,
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock-abba",
        about: "two locks in opposite orders: deadlocks are found and broken",
        program: "lock_abba",
        layouts: SAME,
        // As above, and more.
        batch: 8,
        threads_min: 2,
        ..RES_LOCK
    },
];

/// An operation in a context, on the kernel it was made for.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) operation: &'static Operation,
    /// Where it is called from.
    pub context: Context,
    /// Name of what is measured, as records have it: the generation (`locked`, `cmd-queue`), for locks
    /// the lock.
    pub cell: String,
    /// Why this kernel cannot run it; none if it can, as far as its type description tells.
    pub skipped: Option<String>,
}

impl Row {
    /// Name, unique among rows: `timer-set_callback`, `timer-set_callback@hardirq`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.context {
            Context::Task => self.operation.name.to_owned(),
            context => format!("{}@{}", self.operation.name, context.name()),
        }
    }

    /// One line on what it does.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.operation.about
    }

    /// Timer, work queue, task work or lock.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.operation.kind.clone()
    }

    /// The layouts it can be measured in.
    #[must_use]
    pub fn layouts(&self) -> &'static [Layout] {
        match self.context {
            Context::Task => self.operation.layouts,
            // An interrupt's CPU is its own; contention comes from the same cell alone.
            Context::Hardirq | Context::Nmi => SAME,
        }
    }

    /// Least number of threads it makes sense with.
    #[must_use]
    pub fn threads_min(&self) -> u32 {
        self.operation.threads_min
    }

    /// The row of the same object that does nothing: its loop and its clock are this row's.
    #[cfg(feature = "bpf")]
    pub(crate) fn empty_of_same_source(&self) -> Self {
        let empty = OPERATIONS
            .iter()
            .find(|o| o.source == self.operation.source && o.program == "empty_row");
        Self {
            operation: empty.unwrap_or(self.operation),
            context: Context::Task,
            cell: self.cell.clone(),
            skipped: self.skipped.clone(),
        }
    }

    /// The model's workload that does the same to its cells, and whose figures this row's may stand
    /// beside; none if there is no such workload.
    #[must_use]
    pub fn model_workload(&self, layout: Layout, threads: u32) -> Option<&'static str> {
        if self.context != Context::Task {
            return None;
        }
        match (self.operation.program, layout, threads) {
            ("empty_row", ..) => Some("empty"),
            ("set_callback", Layout::Same, 1) => Some("solo-set-same"),
            ("start", Layout::Same, 1) => Some("solo-start"),
            ("cancel", Layout::Same, 1) => Some("solo-cancel"),
            ("start_cancel", Layout::Same, 1) => Some("solo-cycle"),
            ("init_free", Layout::Same, 1) => Some("solo-init"),
            ("set_callback", Layout::Same | Layout::OwnPadded | Layout::OwnPacked, _) => {
                Some(layout.name())
            }
            ("lock_pair" | "lock_pair_irqsave", Layout::Same, _) => Some("lock-0ns"),
            _ => None,
        }
    }

    /// Name of the workload in records: the model's where there is one, else `operation/layout`.
    #[must_use]
    pub fn workload(&self, layout: Layout, threads: u32) -> String {
        self.model_workload(layout, threads)
            .map_or_else(|| format!("{}/{}", self.name(), layout.name()), str::to_owned)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn cell_name(operation: &Operation, info: &KernelInfo) -> String {
    let generation = match operation.source {
        Source::Timer => info.cells.timer,
        Source::Wq => info.cells.wq,
        Source::TaskWork => return "task-work".to_owned(),
        Source::SpinLock | Source::ResLock => {
            let name = operation.name;
            return name.strip_suffix("-empty").unwrap_or(name).to_owned();
        }
    };
    generation.map_or("none", |g| g.name()).to_owned()
}

fn skip_reason(operation: &Operation, info: &KernelInfo) -> Option<String> {
    let lacking: Vec<String> = operation
        .needs
        .iter()
        .filter(|any_of| !any_of.split('|').any(|name| info.has(name)))
        .map(|any_of| any_of.replace('|', " or "))
        .collect();
    (!lacking.is_empty())
        .then(|| format!("Linux {} has no {}", info.release, lacking.join(", no ")))
}

/// Every row there is, each with the reason why this kernel cannot run it, if so.
///
/// A row in an interrupt context may still turn out to be refused by the verifier, or to lack a
/// hardware counter; [`Error::Unsupported`](crate::Error::Unsupported) then says so when it is opened.
#[must_use]
pub fn rows(info: &KernelInfo) -> Vec<Row> {
    let contexts = [Context::Task, Context::Hardirq, Context::Nmi];
    OPERATIONS
        .iter()
        .flat_map(|operation| contexts.map(|context| (operation, context)))
        .filter(|(operation, context)| *context == Context::Task || operation.any_context)
        .map(|(operation, context)| Row {
            operation,
            context,
            cell: cell_name(operation, info),
            skipped: skip_reason(operation, info),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generation::{CellGenerations, Generation};
    use crate::info::KERNEL_FUNCTIONS;

    fn info(generation: Generation, functions: &[&str]) -> KernelInfo {
        KernelInfo {
            release: "6.9".to_owned(),
            cells: CellGenerations {
                timer: Some(generation),
                wq: Some(generation),
                task_work: true,
                evidence: Vec::new(),
            },
            functions: functions.iter().map(|f| (*f).to_owned()).collect(),
            missing_capabilities: Vec::new(),
            emulator: None,
            jit: Some(true),
        }
    }

    #[test]
    fn names_are_unique() {
        let rows = rows(&info(Generation::Locked, &KERNEL_FUNCTIONS));
        let names: BTreeSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
    }

    #[test]
    fn every_function_needed_is_looked_for() {
        for operation in OPERATIONS {
            for name in operation.needs.iter().flat_map(|any_of| any_of.split('|')) {
                assert!(KERNEL_FUNCTIONS.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_kernel_with_everything_skips_nothing() {
        let rows = rows(&info(Generation::CmdQueue, &KERNEL_FUNCTIONS));
        assert!(rows.iter().all(|row| row.skipped.is_none()));
        let row = rows.iter().find(|row| row.name() == "timer-set_callback").unwrap();
        assert_eq!(row.cell, "cmd-queue");
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let old = ["bpf_timer_init", "bpf_loop", "bpf_spin_lock"];
        let rows = rows(&info(Generation::Locked, &old));
        let reason = |name: &str| rows.iter().find(|r| r.name() == name).unwrap().skipped.clone();
        assert_eq!(reason("timer-start"), None);
        assert_eq!(reason("bpf_spin_lock"), None);
        assert_eq!(reason("bpf_res_spin_lock").unwrap(), "Linux 6.9 has no bpf_res_spin_lock");
        assert_eq!(
            reason("wq-start").unwrap(),
            "Linux 6.9 has no bpf_wq_init, no bpf_wq_start, no bpf_wq_set_callback or \
             bpf_wq_set_callback_impl"
        );
        assert_eq!(
            reason("timer-cancel_async").unwrap(),
            "Linux 6.9 has no bpf_timer_cancel_async"
        );
    }

    #[test]
    fn either_name_of_a_function_does() {
        let newer = ["bpf_wq_init", "bpf_wq_start", "bpf_wq_set_callback", "bpf_loop"];
        let older = ["bpf_wq_init", "bpf_wq_start", "bpf_wq_set_callback_impl", "bpf_loop"];
        for functions in [newer, older] {
            let rows = rows(&info(Generation::Locked, &functions));
            let row = rows.iter().find(|row| row.name() == "wq-start").unwrap();
            assert_eq!(row.skipped, None);
        }
    }

    #[test]
    fn only_alike_workloads_share_the_models_name() {
        let rows = rows(&info(Generation::Locked, &KERNEL_FUNCTIONS));
        let row = |name: &str| rows.iter().find(|row| row.name() == name).unwrap();
        assert_eq!(row("timer-set_callback").workload(Layout::Same, 2), "same-cell");
        assert_eq!(row("timer-set_callback").workload(Layout::Same, 1), "solo-set-same");
        assert_eq!(row("timer-start").workload(Layout::Same, 2), "timer-start/same-cell");
        assert_eq!(
            row("timer-set_callback@hardirq").workload(Layout::Same, 2),
            "timer-set_callback@hardirq/same-cell"
        );
    }
}
