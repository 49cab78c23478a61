//! The machine as a value: what the kernel keeps per CPU, and the handle that says on which CPU
//! and in which context an operation runs.
//!
//! Nothing here is global. A [`Machine`] owns the queue nodes, the held-lock tables, the RCU
//! state, the allocator and the engine; a [`Cpu`] borrows it. Dropping the machine frees all.

mod cpu;

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

use crate::cell::life_hazard::Hazards;
use crate::engine::Engine;
use crate::heap::Heap;
use crate::irq_work::IrqWorkList;
use crate::lock::futex::Sleepers;
use crate::lock::held::HeldTable;
use crate::lock::node::{WaitArray, WaitNodes};
use crate::lock::queued::QueueNodes;
use crate::percpu::Counters;
use crate::platform::{Platform, Word};
use crate::rcu::Reclaim;
use crate::task::Task;

pub use cpu::{Cpu, IrqOff};

/// The number of a CPU of a [`Machine`], from 0. Not the number the host gives its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u32);

impl CpuId {
    /// Returns the number as an index.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where an operation runs. Ordered: each can interrupt those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// A task, in the kernel on behalf of a program or a system call.
    Task,
    /// Softirq: timers fire here.
    Softirq,
    /// Hardware interrupt: `irq_work` runs here. Held off by interrupt-off sections.
    Hardirq,
    /// Non-maskable interrupt. Held off by nothing.
    Nmi,
}

impl Context {
    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Context::Task => "task",
            Context::Softirq => "softirq",
            Context::Hardirq => "hardirq",
            Context::Nmi => "nmi",
        }
    }
}

/// A counter that only its own CPU and that CPU's interrupts touch: `this_cpu_*` in the kernel.
/// Relaxed atomics, so plain moves; not part of what model checkers and the simulator look at.
#[derive(Default)]
pub(crate) struct CpuLocal(AtomicU32);

impl CpuLocal {
    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Data that the kernel keeps for one CPU.
pub(crate) struct PerCpu<P: Platform> {
    /// Nodes for waiting in queued locks; others write into them.
    pub(crate) queue: CachePadded<QueueNodes<P>>,
    /// Nodes and words of the other queue locks.
    pub(crate) wait: CachePadded<WaitNodes<P>>,
    /// Blocks that it uses now; others read them before they free one.
    pub(crate) hazards: CachePadded<Hazards<P>>,
    /// The NUMA node it is on.
    numa_node: u16,
    /// Locks this CPU holds or waits for; others read them when they look for a deadlock.
    pub(crate) held: CachePadded<HeldTable<P>>,
    /// Work to run in hardirq context as soon as interrupts allow.
    pub(crate) irq_works: CachePadded<IrqWorkList<P>>,
    /// The task that runs here; others add works to it.
    task: CachePadded<Task<P>>,
    /// Depth of interrupt-off sections; running interrupt handlers are one.
    irq_off: CpuLocal,
    /// The control block whose timer callback runs here now, null when none.
    running: P::Ptr<()>,
    /// Its count of cancels in progress.
    running_cancelling: AtomicPtr<P::U32>,
    /// The control block whose commands run here now, null when none (`async_cb_running`).
    executing: P::Ptr<()>,
    /// Somebody has the CPU's handle.
    claimed: AtomicBool,
}

/// A timer callback that runs.
#[derive(Clone, Copy)]
pub(crate) struct Running<P: Platform> {
    /// Its control block, by address.
    pub(crate) block: *mut (),
    /// That block's count of cancels in progress. Valid while the callback runs: so a canceller
    /// needs not know of which type the block is.
    pub(crate) cancelling: *const P::U32,
}

/// Charges of a machine for what user space cannot do, in turns of
/// [`Memory::charge`](crate::platform::Memory::charge). Whoever makes a machine takes the figures from a
/// kernel run; see METHODOLOGY.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// Masking interrupts and letting them in again: for each [`Cpu::irq_save`].
    pub irq_save: u32,
    /// Arming a timer, with its base locked (`hrtimer_start`).
    pub arm_timer: u32,
    /// Queueing a work (`queue_work`).
    pub queue_work: u32,
    /// The interrupt that a CPU sends itself to run `irq_work`.
    pub irq_work: u32,
}

/// How large a machine is, and what it charges.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Number of CPUs.
    pub cpus: u32,
    /// Charges of the machine.
    pub charges: Charges,
    /// The NUMA node of each CPU, for locks that prefer theirs; CPUs beyond the list are on node 0.
    pub numa_nodes: Vec<u16>,
    /// How long a waiter of a lock with a time-out waits, in nanoseconds. The head of a resilient
    /// lock's queue waits twice as long, its test-and-set form four times.
    pub lock_timeout_ns: u64,
}

/// The kernel's time-out of a resilient lock (`RES_DEF_TIMEOUT`), in nanoseconds.
pub const LOCK_TIMEOUT_NS: u64 = 250_000_000;

impl MachineConfig {
    /// Returns a machine with `cpus` CPUs that charges nothing and whose locks have the kernel's
    /// time-out.
    pub fn new(cpus: u32) -> Self {
        let charges = Charges::default();
        Self { cpus, charges, numa_nodes: Vec::new(), lock_timeout_ns: LOCK_TIMEOUT_NS }
    }
}

/// A machine: its CPUs' state, allocator, RCU and engine.
pub struct Machine<P: Platform> {
    per_cpu: Box<[CachePadded<PerCpu<P>>]>,
    config: MachineConfig,
    rcu: P::Reclaim,
    engine: P::Engine,
    wait_array: WaitArray<P>,
    sleepers: Sleepers<P>,
    // Boxed: counters point to it. Behind those who free blocks, which have counters.
    percpu: Box<Counters<P>>,
    // Last: it frees the memory that the others' lists point into.
    heap: Heap<P>,
    #[cfg(feature = "planted")]
    bug: Option<crate::planted::Bug>,
}

impl<P: Platform> Machine<P> {
    /// Returns a machine at rest, all CPUs offline.
    pub fn new(config: MachineConfig) -> Self {
        let cpus = config.cpus as usize;
        Self {
            per_cpu: (0..cpus)
                .map(|cpu| {
                    CachePadded::new(PerCpu {
                        queue: CachePadded::new(QueueNodes::new(CpuId(cpu as u32))),
                        wait: CachePadded::new(WaitNodes::new()),
                        hazards: CachePadded::new(Hazards::new()),
                        numa_node: config.numa_nodes.get(cpu).copied().unwrap_or_default(),
                        held: CachePadded::new(HeldTable::new()),
                        irq_works: CachePadded::new(IrqWorkList::new()),
                        task: CachePadded::new(Task::new()),
                        irq_off: CpuLocal::default(),
                        running: P::Ptr::new("cpu.running", ptr::null_mut()),
                        running_cancelling: AtomicPtr::new(ptr::null_mut()),
                        executing: P::Ptr::new("cpu.executing", ptr::null_mut()),
                        claimed: AtomicBool::new(false),
                    })
                })
                .collect(),
            rcu: P::Reclaim::new(cpus),
            engine: P::Engine::new(cpus),
            wait_array: WaitArray::new(),
            sleepers: Sleepers::new(),
            percpu: Box::new(Counters::new(cpus)),
            heap: Heap::new(cpus),
            config,
            #[cfg(feature = "planted")]
            bug: None,
        }
    }

    /// Builds as [`new`](Self::new) does, with a known bug switched on.
    #[cfg(feature = "planted")]
    pub fn with_bug(config: MachineConfig, bug: crate::planted::Bug) -> Self {
        Self { bug: Some(bug), ..Self::new(config) }
    }

    /// Returns how large the machine is.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Returns the number of CPUs.
    pub fn cpus(&self) -> u32 {
        self.config.cpus
    }

    /// Brings a CPU online in task context and returns the handle of it. The handle stays on one
    /// thread; dropping it takes the CPU offline.
    ///
    /// # Panics
    /// If the CPU does not exist or somebody has its handle.
    pub fn cpu(&self, id: CpuId) -> Cpu<'_, P> {
        assert!(id.0 < self.config.cpus, "CPU {} of a machine with {}", id.0, self.config.cpus);
        let this = &self.per_cpu[id.index()];
        // Acquire pairs with the release in `Cpu::drop`: the CPU's state as its last user left it.
        assert!(!this.claimed.swap(true, Ordering::Acquire), "CPU {} is in use", id.0);
        let cpu = Cpu {
            machine: self,
            this,
            id,
            context: Context::Task,
            outermost: true,
            not_send: PhantomData,
        };
        self.rcu.online(&cpu);
        cpu
    }

    /// Returns the RCU state.
    #[inline(always)]
    pub fn rcu(&self) -> &P::Reclaim {
        &self.rcu
    }

    /// Returns what runs the callbacks.
    #[inline(always)]
    pub fn engine(&self) -> &P::Engine {
        &self.engine
    }

    /// Returns the allocator.
    #[inline(always)]
    pub fn heap(&self) -> &Heap<P> {
        &self.heap
    }

    /// Returns the task that runs on a CPU.
    #[inline(always)]
    pub fn task(&self, cpu: CpuId) -> &Task<P> {
        &self.per_cpu(cpu).task
    }

    /// Returns the NUMA node of a CPU.
    #[inline(always)]
    pub fn numa_node(&self, cpu: CpuId) -> u16 {
        self.per_cpu(cpu).numa_node
    }

    /// Returns where far waiters of all locks wait.
    #[inline(always)]
    pub(crate) fn wait_array(&self) -> &WaitArray<P> {
        &self.wait_array
    }

    /// Returns who sleeps on words, where the platform has no such thing.
    #[inline(always)]
    pub(crate) fn sleepers(&self) -> &Sleepers<P> {
        &self.sleepers
    }

    /// Returns the counters of which each CPU has its own.
    #[inline(always)]
    pub(crate) fn percpu(&self) -> &Counters<P> {
        &self.percpu
    }

    /// Returns what each CPU uses now.
    pub(crate) fn hazards(&self) -> impl Iterator<Item = &Hazards<P>> {
        self.per_cpu.iter().map(|this| &*this.hazards)
    }

    /// Returns what is left of a CPU's activity; clean when nobody runs there.
    pub fn rest(&self, cpu: CpuId) -> Rest {
        let this = self.per_cpu(cpu);
        Rest {
            queue_nodes: this.queue.used() + this.wait.used(),
            held_locks: this.held.len(),
            irq_off_depth: this.irq_off.get(),
            pending_irq_work: this.irq_works.any(),
            in_callback: !this.running.load(Ordering::Relaxed).is_null(),
            pending_task_work: this.task.has_works(),
            task_refs_of_others: this.task.refs().saturating_sub(1),
        }
    }

    #[inline(always)]
    pub(crate) fn per_cpu(&self, id: CpuId) -> &PerCpu<P> {
        &self.per_cpu[id.index()]
    }

    /// Brings the machine to rest: runs what is queued and due in the engine's own deferred work,
    /// every task's works and all RCU callbacks, again and again until nothing is left. All other
    /// CPUs must be offline. Armed timers stay armed.
    pub fn settle(&self, cpu: &Cpu<'_, P>) {
        loop {
            cpu.run_irq_works();
            let worked = self.engine.settle(cpu);
            // Each task's works run, so this counts instead of stopping at the first.
            let tasks = self.per_cpu.iter().filter(|this| this.task.run(cpu)).count();
            let freed = self.rcu.drain(cpu);
            if !worked && tasks == 0 && !freed {
                return;
            }
        }
    }
}

/// State that a CPU has left behind, see [`Machine::rest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Queue nodes in use.
    pub queue_nodes: u32,
    /// Entries in the table of held locks.
    pub held_locks: usize,
    /// Open interrupt-off sections.
    pub irq_off_depth: u32,
    /// `irq_work` that did not run.
    pub pending_irq_work: bool,
    /// A timer callback has not returned.
    pub in_callback: bool,
    /// Task work that did not run.
    pub pending_task_work: bool,
    /// References on the task beyond its own.
    pub task_refs_of_others: u32,
}

impl Rest {
    /// Returns whether nothing is left.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether a known bug is switched on, for the tests that show that the checkers find it: in the
/// machine of a CPU or in the process. Expands to `false` in every other build. Where no CPU is at
/// hand the code asks [`cellbench_mutations::mutated!`], which knows those of the process.
macro_rules! planted {
    ($cpu:expr, $bug:ident) => {{
        #[cfg(feature = "planted")]
        let on = $cpu.planted($crate::planted::Bug::$bug);
        #[cfg(not(feature = "planted"))]
        let on = {
            let _ = &$cpu;
            cellbench_mutations::mutated!($bug)
        };
        on
    }};
}
pub(crate) use planted;
