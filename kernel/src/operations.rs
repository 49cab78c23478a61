//! The table of operations that are measured.
//!
//! Adding an operation is a program under `src/bpf/` and an entry here.

use cellbench_record::Kind;

use crate::rows::Layout;

/// A BPF object, one per source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Timer,
    Wq,
    TaskWork,
    SpinLock,
    ResLock,
    IrqWork,
}

/// Condition on the callbacks after a measurement.
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

/// Fixed properties of an operation. See [`OPERATIONS`].
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

const IRQ_WORK: Operation = Operation {
    kind: Kind::Primitive,
    source: Source::IrqWork,
    needs: &["bpf_user_ringbuf_drain", "bpf_loop"],
    prepare: false,
    layouts: SAME,
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
        callbacks: Callbacks::None,
        ..WQ
    },
    Operation {
        name: "wq-set_callback",
        about: "bpf_wq_set_callback with the same callback",
        program: "set_callback",
        any_context: true,
        batch: BATCH_MAX,
        callbacks: Callbacks::None,
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
        callbacks: Callbacks::None,
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
        // Even this deadlock takes a millisecond to be found, in which the kernel does not switch.
        batch: 1,
        layouts: OWN,
        ..RES_LOCK
    },
    Operation {
        name: "bpf_res_spin_lock-abba",
        about: "two locks in opposite orders: deadlocks are found and broken",
        program: "lock_abba",
        layouts: SAME,
        // As above, and more.
        batch: 1,
        threads_min: 2,
        ..RES_LOCK
    },
    Operation {
        name: "irq_work-empty",
        about: "the loop alone: find the cell, count, nothing else",
        program: "empty_row",
        ..IRQ_WORK
    },
    Operation {
        name: "irq_work-without",
        about: "bpf_user_ringbuf_drain of an empty ring, which queues nothing",
        program: "drain",
        ..IRQ_WORK
    },
    Operation {
        name: "irq_work-queue",
        about: "the same, which queues an irq_work: this CPU interrupts itself and runs it",
        program: "drain_and_queue",
        ..IRQ_WORK
    },
];
