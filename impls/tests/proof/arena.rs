//! A machine with one cell in it, the operations on it, and what must hold afterwards: the
//! invariants of the cell, checked at rest by every tool alike.

use core::ptr;
use std::sync::Arc;

use cellbench_impls::cell::{InitFlags, Start, Steps};
use cellbench_impls::engine::{Queued, QueuedEngine};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::{Platform, World};
use cellbench_impls::program::{Callback, Program};
use cellbench_impls::rcu::ReclaimKind;
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine, Memory};

use crate::history::{Call, Log, Op, Reply};

/// A platform whose callbacks the tests run.
pub(crate) trait Driven: Platform<Engine = QueuedEngine<Self>> {}
impl<M: Memory, R: ReclaimKind> Driven for World<M, R, Queued> {}

/// When a relative start fires: longer than any machine runs.
const RELATIVE_NS: u64 = 1 << 62;
/// When an absolute start fires: before any machine's time.
const ABSOLUTE_NS: u64 = 50;

/// Programs that the operations choose from.
pub(crate) const PROGRAMS: usize = 2;

/// A thread's part of an execution.
pub(crate) type ThreadBody = Box<dyn FnOnce() + Send>;

/// Action of an arena's callback besides being logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// No action.
    Nothing,
    /// Lets others run in the middle of it.
    Pause,
}

/// Data that a callback's `data` points to.
struct Hook {
    log: Arc<Log>,
    program: u8,
    body: Body,
}

/// See the module.
pub(crate) struct Arena<P: Driven, C: AsyncCell<P>> {
    /// The cell under test.
    pub(crate) cell: C,
    /// The map it lies in.
    pub(crate) map: Map<P>,
    /// Its programs.
    pub(crate) programs: Vec<Box<Program<P>>>,
    /// Log of calls and callbacks.
    pub(crate) log: Arc<Log>,
    /// After the cell and the programs: it frees the memory of the blocks.
    pub(crate) machine: Machine<P>,
    task_cpu: CpuId,
    excuses: bool,
    /// Hooks that the callbacks' data points to.
    _hooks: Box<[Hook]>,
}

/// The machine to build an arena on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// CPUs of the machine.
    pub(crate) cpus: u32,
    /// The CPU whose task the task works are for.
    pub(crate) task_cpu: u32,
    /// Action of the callbacks.
    pub(crate) body: Body,
    /// A known bug to switch on.
    pub(crate) bug: Option<cellbench_impls::planted::Bug>,
    /// Whether the faults that a design has as published are excused ([`crate::published`]).
    pub(crate) excuses: bool,
}

impl Setup {
    /// Makes a setup of `cpus` CPUs whose callbacks pause.
    pub(crate) fn new(cpus: u32) -> Self {
        Self { cpus, task_cpu: 0, body: Body::Pause, bug: None, excuses: true }
    }

    /// Makes the machine.
    pub(crate) fn machine<P: Platform>(&self) -> Machine<P> {
        // Two CPUs on a NUMA node, for the locks that care.
        let numa_nodes = (0..self.cpus as u16).map(|cpu| cpu / 2 % 2).collect();
        let config = MachineConfig { numa_nodes, ..MachineConfig::new(self.cpus) };
        if let Some(bug) = self.bug {
            return Machine::with_bug(config, bug);
        }
        Machine::new(config)
    }
}

fn callback<P: Platform>(cpu: &Cpu<'_, P>, callback: &Callback<P>, _: *const ()) {
    // SAFETY: the arena exposed the address of a hook, and keeps it while callbacks may run.
    let hook = unsafe { &*ptr::with_exposed_provenance::<Hook>(callback.data) };
    hook.log.run(cpu.id().0, hook.program, || {
        if hook.body == Body::Pause {
            P::relax();
        }
    });
}

impl<P: Driven, C: AsyncCell<P>> Arena<P, C> {
    /// Makes an arena at rest with an uninitialised cell.
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        let log = Log::new(setup.cpus);
        let hooks: Box<[Hook]> = (0..PROGRAMS as u8)
            .map(|program| Hook { log: Arc::clone(&log), program, body: setup.body })
            .collect();
        let programs = hooks
            .iter()
            .map(|hook| {
                let data = ptr::from_ref(hook).expose_provenance();
                Program::new([(callback::<P> as _, data)])
            })
            .collect();
        Arc::new(Self {
            // SAFETY: used with this arena's machine only, stays in its `Arc`, and every use ends
            // with `check_rest`, or with a failed test.
            cell: unsafe { C::new() },
            map: Map::new(),
            programs,
            log,
            machine: setup.machine(),
            task_cpu: CpuId(setup.task_cpu),
            excuses: setup.excuses,
            _hooks: hooks,
        })
    }

    /// Does and logs operations, one after the other.
    pub(crate) fn perform_all(&self, cpu: &Cpu<'_, P>, ops: &[Op]) {
        let mut irq_off = None;
        for op in ops {
            if *op == Op::IrqsOff {
                irq_off = Some(cpu.irq_save());
            } else {
                let _ = self.perform(cpu, *op);
            }
        }
        drop(irq_off);
    }

    /// Does and logs an operation.
    pub(crate) fn perform(&self, cpu: &Cpu<'_, P>, op: Op) -> Reply {
        self.log.call(cpu.id().0, op, || self.perform_unlogged(cpu, op))
    }

    fn perform_unlogged(&self, cpu: &Cpu<'_, P>, op: Op) -> Reply {
        let program = |number: u8| &*self.programs[usize::from(number)];
        let start = Start::after_ns(RELATIVE_NS);
        match op {
            Op::Init => self.cell.init(cpu, &self.map, InitFlags::NONE).map(|()| true),
            Op::Set(number) => {
                let program = program(number);
                self.cell.set_callback(cpu, program, program.callback(0)).map(|()| true)
            }
            Op::Start => self.cell.start(cpu, start).map(|()| true),
            Op::StartAt => {
                let start = Start { ns: ABSOLUTE_NS, flags: Start::ABSOLUTE };
                self.cell.start(cpu, start).map(|()| true)
            }
            Op::Schedule(number) => {
                let (program, task) = (program(number), self.machine.task(self.task_cpu));
                self.cell
                    .schedule_on(cpu, task, &self.map, program, program.callback(0), start)
                    .map(|()| true)
            }
            Op::Cancel => self.cell.cancel(cpu),
            Op::CancelAsync => self.cell.cancel_async(cpu),
            Op::Free => {
                self.cell.cancel_and_free(cpu);
                Ok(true)
            }
            Op::PutUser => {
                self.map.put_user(cpu, [&self.cell]);
                Ok(true)
            }
            Op::Fire => {
                self.fire(cpu);
                Ok(true)
            }
            Op::IrqsOff => unreachable!("not an operation on the cell, see `perform_all`"),
        }
    }

    /// Runs what is due on every base, and the works of this CPU's task; returns how many items
    /// of the bases ran.
    fn fire(&self, cpu: &Cpu<'_, P>) -> usize {
        let engine = self.machine.engine();
        self.check_expiry(engine.next_expiry_ns(cpu.id().0));
        let ran = (0..self.machine.cpus())
            .map(|base| engine.run_timers(cpu, base, u64::MAX - 1) + engine.run_works(cpu, base))
            .sum();
        cpu.return_to_user();
        ran
    }

    /// Does operations one after the other on CPU 0, before anything runs at the same time. None
    /// may meet another: EBUSY is an error, unless `init` found the cell initialised.
    pub(crate) fn prepare(&self, ops: &[Op]) {
        let cpu = self.machine.cpu(CpuId(0));
        for op in ops {
            let reply = self.perform(&cpu, *op);
            assert!(reply.is_ok(), "preparing: {op} returned {reply:?} with nothing in its way");
        }
    }

    /// Checks what must hold when all threads have ended, and that the cell, freed, leaves
    /// nothing behind. Returns the whole history.
    pub(crate) fn check_rest(&self) -> Vec<Call> {
        let cpu = self.machine.cpu(CpuId(0));
        for number in 0..self.machine.cpus() {
            self.check_expiry(self.machine.engine().next_expiry_ns(number));
        }
        // What was started runs now, and may start again.
        while self.settle(&cpu) > 0 {
            self.check_references();
        }
        self.check_references();
        assert!(
            !(self.map.is_abandoned() && self.cell.inspect().initialised),
            "the map was abandoned, and its cell has a block"
        );
        self.check_runs(&self.log.history());
        let runs = self.runs();
        let _ = self.perform(&cpu, Op::Free);
        self.settle(&cpu);
        assert_eq!(self.runs(), runs, "a callback ran after free");
        assert!(!self.cell.inspect().initialised, "freed cell still has a block");
        self.check_references();
        let late = self.fire(&cpu);
        assert_eq!(late, 0, "something ran after free and a grace period");
        let stats = self.machine.heap().stats();
        assert_eq!(stats.live(), 0, "leak: {stats:?}");
        drop(cpu);
        for number in 0..self.machine.cpus() {
            let rest = self.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number} left behind {rest:?}");
        }
        let history = self.log.history();
        check_overlaps(&history, C::ID == "task-work");
        history
    }

    /// Lets the cell show what is in it when all threads have ended, by calls that nothing meets,
    /// and frees it. Returns the whole history, which says whether that was right.
    pub(crate) fn observe_rest(&self) -> Vec<Call> {
        let cpu = self.machine.cpu(CpuId(0));
        let _ = self.perform(&cpu, Op::Fire);
        let _ = self.perform(&cpu, Op::Start);
        let _ = self.perform(&cpu, Op::Fire);
        let _ = self.perform(&cpu, Op::Free);
        self.settle(&cpu);
        self.log.history()
    }

    /// Checks that the armed time was asked for: not the time of one start with the flags of another.
    fn check_expiry(&self, expires_ns: u64) {
        assert!(
            expires_ns == ABSOLUTE_NS || expires_ns > RELATIVE_NS,
            "armed for {expires_ns} ns, which no start asked for"
        );
    }

    /// Checks that each start ran once; more starts of a timer or a work that waits are one. Nothing is said
    /// where a cancel, a free, or an update in the way of the callback may have prevented the run.
    fn check_runs(&self, history: &[Call]) {
        let started = |call: &&Call| call.reply.is_ok() && starts(call.op);
        let starts = history.iter().filter(started).count() as u64;
        let runs = self.runs();
        let repeats = self.excuses && C::PROMISES.may_repeat;
        assert!(repeats || runs <= starts, "a callback ran more often than started");
        let stopped = history
            .iter()
            .any(|call| matches!(call.op, Op::Free | Op::PutUser | Op::Cancel | Op::CancelAsync));
        let set = history.iter().find(|call| call.reply.is_ok() && matches!(call.op, Op::Set(_)));
        let first = history.iter().find(started);
        let ready = first.is_some_and(|start| {
            C::STEPS == Steps::One || set.is_some_and(|set| set.returned < start.invoked)
        });
        if ready && !stopped {
            let expected = if C::STEPS == Steps::One { starts } else { 1 };
            assert!(runs >= expected, "a start returned 0, and never ran");
        }
    }

    /// Returns how often callbacks ran.
    pub(crate) fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.callback(0).runs()).sum()
    }

    /// Lets everything run that is due, as one call; returns how many items ran, apart from those
    /// that the machine itself runs to come to rest.
    pub(crate) fn settle(&self, cpu: &Cpu<'_, P>) -> usize {
        let mut ran = 0;
        let _ = self.log.call(cpu.id().0, Op::Fire, || {
            ran = self.fire(cpu);
            self.machine.settle(cpu);
            Ok(true)
        });
        ran
    }

    /// References held by cells are those of the programs that cells have set, and a callback
    /// belongs to its program.
    fn check_references(&self) {
        let seen = self.cell.inspect();
        let differ = self.excuses && C::PROMISES.callback_may_differ;
        assert!(
            differ || seen.program.is_null() == seen.callback.is_null(),
            "at rest program and callback are set together: {:?}, {:?}",
            seen.program,
            seen.callback
        );
        for (number, program) in self.programs.iter().enumerate() {
            let set = ptr::eq(seen.program, &raw const **program);
            assert_eq!(
                program.refs(),
                1 + u64::from(set),
                "references of p{number}, which the cell {}",
                if set { "has set" } else { "has not set" }
            );
            if set && !differ {
                // SAFETY: at rest, and the callbacks live as long as the arena.
                let callback = unsafe { &*seen.callback };
                assert!(callback.belongs_to(&**program), "the callback is another program's");
            }
        }
    }
}

/// Returns whether an operation has a callback run, if it succeeds.
fn starts(op: Op) -> bool {
    matches!(op, Op::Start | Op::StartAt | Op::Schedule(_))
}

/// Checks that EBUSY means that another operation was in the way; `init` also says so of a cell that has a
/// block, which some earlier call made, and `schedule` of one that still waits to run. Task work as merged
/// (`says_abandoned`) says so too when user space has dropped the map.
fn check_overlaps(history: &[Call], says_abandoned: bool) {
    for call in history.iter().filter(|call| call.reply == Err(Errno::EBUSY)) {
        let excused = history.iter().any(|other| {
            let earlier = other.reply.is_ok() && other.returned < call.invoked;
            let made_block = earlier && (call.op, other.op) == (Op::Init, Op::Init);
            !ptr::eq(other, call) && (other.overlaps(call) || made_block)
        });
        let scheduled = || {
            let earlier = history.iter().filter(|other| other.returned < call.invoked);
            let scheduled =
                earlier.filter(|other| matches!(other.op, Op::Schedule(_)) && other.reply.is_ok());
            let ran = history.iter().flat_map(|other| &other.runs);
            scheduled.count() > ran.filter(|run| run.ended < call.invoked).count()
        };
        let abandoned = || {
            let dropped = |other: &Call| other.op == Op::PutUser && other.invoked < call.returned;
            says_abandoned && history.iter().any(dropped)
        };
        let schedules = matches!(call.op, Op::Schedule(_));
        assert!(
            excused || (schedules && (scheduled() || abandoned())),
            "EBUSY with nothing in the way"
        );
    }
}
