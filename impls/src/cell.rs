//! The async cell: the slot in a map value, its operations and their errors.
//!
//! [`AsyncCell`] is what every design implements, for timers ([`Timer`]) and work items ([`Wq`])
//! alike. Each design is one file below this one. What they share: [`block`], the control block
//! and its callback; [`slot`], the map value without a lock; [`worker`] and [`counted`], two ways
//! of giving a block back; [`direct`], the frame of the counter-proposals.
//!
//! Operations return what the kernel returns. Which errors a design may return, and when, is part
//! of its interface: a lockless design that answers EBUSY instead of waiting has made a different
//! promise than one that waits.

pub mod block;
pub mod command;
pub mod counted;
mod counted_life;
pub mod direct;
pub mod errno;
pub mod exchanged;
pub mod kind;
pub mod latch;
pub mod life_hazard;
pub mod life_percpu;
pub mod life_rcu;
pub mod locked;
pub mod mpmc;
pub mod newest;
pub mod outlined;
pub mod pair_rcu;
pub mod pair_seqlock;
pub mod pair_wide;
pub mod queue;
pub mod refs;
pub mod slot;
pub mod state;
pub mod task_work;
pub mod worker;

pub use errno::{Errno, Outcome};
pub use kind::{ALL_KINDS, CellKind, Kind, Steps, TWO_STEP_KINDS, Timer, UnknownKind, Wq};

use crate::machine::Cpu;
use crate::map::Map;
use crate::platform::Platform;
use crate::program::{Callback, Program};
use crate::task::Task;

/// Arguments of [`AsyncCell::init`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitFlags(pub u64);

impl InitFlags {
    /// No flags: a timer on the real-time clock, or a work item. Valid for every kind.
    pub const NONE: Self = Self(0);
}

/// Arguments of [`AsyncCell::start`]. Work items ignore the time and take no flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Nanoseconds from now, or a point in time with [`Start::ABSOLUTE`].
    pub ns: u64,
    /// Any of the flags below.
    pub flags: u64,
}

impl Start {
    /// `ns` is a point in time (`BPF_F_TIMER_ABS`).
    pub const ABSOLUTE: u64 = 1;
    /// Fire on the CPU that starts (`BPF_F_TIMER_CPU_PIN`).
    pub const CPU_PIN: u64 = 2;

    /// Returns a start in `ns` nanoseconds, without flags.
    pub fn after_ns(ns: u64) -> Self {
        Self { ns, flags: 0 }
    }
}

/// How much memory a design takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes in the map value.
    pub cell_bytes: usize,
    /// Bytes in the control block.
    pub block_bytes: usize,
}

/// Promises of a design's operations, beyond their errors: each generation has promised something else. The
/// conformance tables and the linearizability model are derived from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// `init` works in NMI context.
    pub init_in_nmi: bool,
    /// So do `set_callback`, and `schedule`.
    pub update_in_nmi: bool,
    /// So do `start` and `cancel_and_free`.
    pub start_in_nmi: bool,
    /// `set_callback` takes memory, and fails where this context may take none.
    pub update_allocates: bool,
    /// Operations go on while another one stands still in the middle.
    pub lockless: bool,
    /// `set_callback` looks at the map's user count.
    pub update_needs_user: bool,
    /// `start` of a timer without a program is refused.
    pub start_needs_program: bool,
    /// `cancel_async` knows what it found, unless it was left to an `irq_work`.
    pub async_reports: bool,
    /// `cancel` leaves the callback where an update is in its way.
    pub cancel_may_not_clear: bool,
    /// `start`, `cancel_async` and `cancel_and_free` may leave their last step to another CPU that
    /// is inside a call, and a newer command replaces one that waits.
    pub posts: bool,
    /// `cancel_and_free` leaves the cancel to a worker.
    pub free_by_worker: bool,
    /// `cancel` is refused in hardirq context and with interrupts off, not in NMI alone.
    pub cancel_needs_irqs: bool,
    /// With interrupts off, `start` and `cancel_async` wait for them, though not in NMI.
    pub waits_for_irqs: bool,
    /// As published, updates that met may leave the callback of one beside the program of another
    /// (VERIFICATION.md, finding 7).
    pub callback_may_differ: bool,
    /// As published, a command may be executed twice (VERIFICATION.md, finding 11).
    pub may_repeat: bool,
}

impl Promises {
    /// A lockless design that refuses NMI: what the others are written as exceptions to.
    pub const BASE: Self = Self {
        init_in_nmi: false,
        update_in_nmi: false,
        start_in_nmi: false,
        update_allocates: false,
        lockless: true,
        update_needs_user: false,
        start_needs_program: true,
        async_reports: true,
        cancel_may_not_clear: false,
        posts: false,
        free_by_worker: false,
        cancel_needs_irqs: false,
        waits_for_irqs: false,
        callback_may_differ: false,
        may_repeat: false,
    };
}

/// An async cell.
///
/// Every operation may be called by any number of CPUs at once. Errors common to all: EOPNOTSUPP
/// in a context in which the design cannot work, EINVAL for bad flags or an uninitialised cell.
pub trait AsyncCell<P: Platform>: Send + Sync + Sized + 'static {
    /// The design's name in reports, such as `spin-queued`.
    const ID: &'static str;
    /// Kind of work that the cell runs later.
    const KIND: CellKind;
    /// How it is scheduled. The operations of the other way are EOPNOTSUPP, and a design does not
    /// write them: generic code asks here which it may call.
    const STEPS: Steps = Self::KIND.steps();
    /// Whether [`cancel`](Self::cancel) exists: work items have none.
    const CANCELS: bool = false;
    /// Whether [`cancel_async`](Self::cancel_async) exists.
    const CANCELS_ASYNC: bool = false;
    /// Promises of the cell's operations.
    const PROMISES: Promises;
    /// Whether updates work in NMI context.
    const NMI_SAFE: bool = Self::PROMISES.update_in_nmi;
    /// Whether [`cancel_and_free`](Self::cancel_and_free) may be called in NMI context. Not where
    /// it
    /// cancels at once or hands the block to a worker: both take locks of the engine, which what
    /// was
    /// interrupted may hold, whatever lock or state word the cell itself has.
    const FREES_IN_NMI: bool = Self::PROMISES.start_in_nmi;
    /// Whether an operation can keep others out: see [`is_occupied`](Self::is_occupied).
    const OCCUPIES: bool = false;

    /// Returns an uninitialised cell.
    ///
    /// # Safety
    /// The cell is used with the CPUs of one machine, and not after that machine is gone. The map
    /// and programs that its operations are given stay valid until the machine was settled after
    /// [`cancel_and_free`](Self::cancel_and_free). The cell itself stays where it is, and valid,
    /// as long as callbacks may run.
    unsafe fn new() -> Self;

    /// Allocates the control block and publishes it. [`Steps::Two`].
    ///
    /// # Errors
    /// EBUSY: initialised already, or another CPU was first. ENOMEM. EPERM: user space holds no
    /// reference to the map any more.
    fn init(&self, _: &Cpu<'_, P>, _: &Map<P>, _: InitFlags) -> Outcome {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets what runs: the callback and the program that owns it. [`Steps::Two`].
    ///
    /// # Errors
    /// EINVAL: not initialised. EPERM: the map was abandoned, or the cell freed meanwhile. ENOENT:
    /// the program is on its way out. EBUSY (lockless designs): another update was in the way.
    fn set_callback(&self, _: &Cpu<'_, P>, _: &Program<P>, _: &Callback<P>) -> Outcome {
        Err(Errno::EOPNOTSUPP)
    }

    /// Arms the timer, or queues the work. [`Steps::Two`].
    ///
    /// # Errors
    /// EINVAL: not initialised, or (most designs) no callback set.
    fn start(&self, _: &Cpu<'_, P>, _: Start) -> Outcome {
        Err(Errno::EOPNOTSUPP)
    }

    /// Cancels the timer, clears its callback and waits for a running one. Returns whether it was
    /// armed.
    ///
    /// # Errors
    /// EDEADLK: called from this timer's own callback, or from that of a timer that somebody
    /// cancels from a callback in turn.
    fn cancel(&self, _: &Cpu<'_, P>) -> Result<bool, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Cancels without waiting, in any context. Returns whether it was armed, as far as that is
    /// known when it returns.
    ///
    /// # Errors
    /// EOPNOTSUPP where the design has no such operation. EPERM, which is the kernel's -1: the
    /// callback runs. ECANCELED: left to an `irq_work`.
    fn cancel_async(&self, _: &Cpu<'_, P>) -> Result<bool, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Frees the cell's block: the element is updated or deleted. The cell can be initialised
    /// again.
    fn cancel_and_free(&self, cpu: &Cpu<'_, P>);

    /// Sets the callback and starts: the one scheduling operation of task work, which timers and
    /// work items serve in two steps. `start` is not tried when the update failed.
    ///
    /// # Errors
    /// Those of the two steps.
    #[inline(always)]
    fn schedule(
        &self,
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        start: Start,
    ) -> Outcome {
        let _ = map;
        self.set_callback(cpu, program, callback)?;
        self.start(cpu, start)
    }

    /// Makes room on this CPU for `count` more blocks, and commands where the design has them, so
    /// that operations in hardirq and NMI context, in which the allocator cannot take fresh
    /// memory, fail with ENOMEM only beyond that.
    fn reserve(cpu: &Cpu<'_, P>, count: usize);

    /// Returns whether an operation is inside that others cannot pass: it holds the lock, has set
    /// the
    /// state to BUSY, or a writer's flag. Exact when all who use the cell stand still, be it in
    /// mid-operation: what happens to others if one is suspended there is what the designs differ
    /// in.
    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        let _ = cpu;
        false
    }

    /// Schedules as [`schedule`](Self::schedule) does, for the given task instead of the CPU's own. Timers and work
    /// items run in no task.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn schedule_on(
        &self,
        cpu: &Cpu<'_, P>,
        task: &Task<P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        start: Start,
    ) -> Outcome {
        let _ = task;
        self.schedule(cpu, map, program, callback, start)
    }

    /// Returns what the cell refers to. Exact at rest.
    fn inspect(&self) -> Inspection<P>;

    /// Returns the memory taken by a cell.
    fn footprint() -> Footprint;
}

/// References that a cell holds, for the checks at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection<P: Platform> {
    /// It has a control block.
    pub initialised: bool,
    /// The program it holds a reference on, or null.
    pub program: *const Program<P>,
    /// The callback, or null.
    pub callback: *const Callback<P>,
}

impl<P: Platform> Inspection<P> {
    /// Returns a cell without a block.
    pub fn uninitialised() -> Self {
        Self { initialised: false, program: core::ptr::null(), callback: core::ptr::null() }
    }
}
