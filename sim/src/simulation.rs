//! A simulation: a machine, code for its cores, what comes over them, and a seed.

use std::cell::RefCell;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use corosensei::CoroutineResult;

use crate::attend::{self, in_world};
use crate::control::fence;
use crate::core::State;
use crate::costs::{Costs, NEVER, Ps, ps};
use crate::fiber::{self, Fiber};
use crate::interrupt::{Action, Handler, Interrupt, Repeat, Trigger};
use crate::machine::{MachineError, MachineModel};
use crate::pending::Step;
use crate::report::{End, Report};
use crate::rng::Rng;
use crate::summary;
use crate::thread::{self, ThreadState};
use crate::timeline::Timeline;
use crate::world::World;

/// Simulated time after which a run ends unless told otherwise: ten seconds.
const DEFAULT_TIME_LIMIT_NS: f64 = 10e9;
/// Cores start within this time of each other unless told otherwise: what threads released by one
/// barrier differ by.
const DEFAULT_START_SPREAD_NS: f64 = 100.0;

/// Why a simulation cannot be set up or run.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The machine has no such core.
    #[error("machine `{machine}` has no hardware thread {core}: choose one from 0 to {last}")]
    NoSuchCore {
        /// Name of the machine.
        machine: String,
        /// The one asked for.
        core: usize,
        /// The highest there is.
        last: usize,
    },
    /// The core was given code twice.
    #[error("hardware thread {core} already has code: give each hardware thread code once")]
    CoreTaken {
        /// The core.
        core: usize,
    },
    /// A simulation is running on this OS thread.
    #[error("a simulation runs on this OS thread already: run the other one on another thread")]
    Nested,
    /// No memory for a fiber's stack.
    #[error("cannot allocate the stack of a virtual core: {0}: simulate fewer cores at once")]
    Stack(#[from] io::Error),
    /// The machine cannot be simulated.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// A simulation, until it is run.
///
/// It runs on the calling OS thread, with one fiber for each virtual core. Words and other objects
/// that the code uses must be created on this OS thread, before the run or by the code itself.
/// The code of a core that never ends (it waits for ever, or is stopped, or the time limit comes)
/// is forgotten together with all it owns, as a thread that never runs again would be.
pub struct Simulation {
    machine: String,
    seed: u64,
    world: World,
    rng: Rng,
    code: Vec<(u16, Box<dyn FnOnce()>)>,
    start_spread: Ps,
}

impl Simulation {
    /// Makes a simulation of a machine. The seed decides all random variation; equal seeds give equal
    /// runs.
    pub fn new(machine: &MachineModel, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let limit = ps(DEFAULT_TIME_LIMIT_NS);
        let world = World::new(Costs::new(machine), machine.protocol, rng.next_u64(), limit);
        Self {
            machine: machine.name.clone(),
            seed,
            world,
            rng,
            code: Vec::new(),
            start_spread: ps(DEFAULT_START_SPREAD_NS),
        }
    }

    /// Ends the run at a simulated time, if it has not ended by then. (Default: ten seconds.)
    pub fn time_limit_ns(&mut self, limit_ns: f64) -> &mut Self {
        self.world.time_limit = ps(limit_ns);
        self
    }

    /// Starts the cores at random within this time of each other. (Default: 100 ns.)
    pub fn start_spread_ns(&mut self, spread_ns: f64) -> &mut Self {
        self.start_spread = ps(spread_ns);
        self
    }

    /// Records what happens to one line: the first one touched that holds a word with this label.
    /// At most `max_events` events are kept.
    pub fn record_timeline(&mut self, label: &str, max_events: usize) -> &mut Self {
        self.world.timeline = Timeline::of_label(label, max_events);
        self
    }

    /// Gives every word with this label a cache line of its own, wherever it is: what padding the
    /// field would buy. Words that were in its line stay together.
    pub fn own_line(&mut self, label: &str) -> &mut Self {
        self.world.own_lines.push(label.to_owned());
        self
    }

    /// Gives a core (a hardware thread of the machine, by number) its code.
    ///
    /// # Errors
    /// [`SimError::NoSuchCore`], [`SimError::CoreTaken`].
    pub fn spawn(&mut self, core: usize, code: impl FnOnce() + 'static) -> Result<(), SimError> {
        let number = self.check(core)?;
        if self.code.iter().any(|&(other, _)| other == number) {
            return Err(SimError::CoreTaken { core });
        }
        self.code.push((number, Box::new(code)));
        Ok(())
    }

    /// Lets interrupts or NMIs come over a core; `handler` runs on top of its code.
    ///
    /// # Errors
    /// [`SimError::NoSuchCore`].
    pub fn interrupt(
        &mut self,
        core: usize,
        kind: Interrupt,
        trigger: Trigger,
        handler: impl FnMut() + 'static,
    ) -> Result<(), SimError> {
        let handler: Handler = Rc::new(RefCell::new(handler));
        self.schedule(core, trigger, Action::Handle(kind, handler))
    }

    /// Stalls a core: it stands still for `duration_ns`, keeping its cache lines and serving no
    /// interrupts, as in a system management interrupt or when its virtual CPU is descheduled.
    /// With an infinite duration it is stopped for ever.
    ///
    /// # Errors
    /// [`SimError::NoSuchCore`].
    pub fn stall(
        &mut self,
        core: usize,
        trigger: Trigger,
        duration_ns: f64,
    ) -> Result<(), SimError> {
        let duration = if duration_ns.is_finite() { ps(duration_ns) } else { NEVER };
        self.schedule(core, trigger, Action::Stall(duration))
    }

    /// Preempts a core's code for `duration_ns` and two context switches: other code runs on the
    /// core meanwhile, interrupts are served. Masking interrupts holds preemption back.
    ///
    /// # Errors
    /// [`SimError::NoSuchCore`].
    pub fn preempt(
        &mut self,
        core: usize,
        trigger: Trigger,
        duration_ns: f64,
    ) -> Result<(), SimError> {
        self.schedule(core, trigger, Action::Preempt(ps(duration_ns)))
    }

    fn schedule(&mut self, core: usize, trigger: Trigger, action: Action) -> Result<(), SimError> {
        let core = self.check(core)?;
        let pending_interrupts = &mut self.world.cores[core as usize].pending_interrupts;
        match trigger {
            Trigger::At { at_ns } => {
                pending_interrupts.add(ps(at_ns), Repeat::Never, false, action)
            }
            Trigger::Every { first_ns, period_ns } => {
                pending_interrupts.add(
                    ps(first_ns),
                    Repeat::Every(ps(period_ns).max(1)),
                    false,
                    action,
                );
            }
            Trigger::Random { mean_ns } => {
                let mean = mean_ns.max(0.001) * 1e3;
                let first = self.rng.exponential(mean) as Ps;
                pending_interrupts.add(first, Repeat::Random(mean), false, action);
            }
            Trigger::BeforeAccess { number } => {
                pending_interrupts.add_before_access(number, action)
            }
        }
        Ok(())
    }

    fn check(&self, core: usize) -> Result<u16, SimError> {
        let count = self.world.cores.len();
        if core >= count {
            let machine = self.machine.clone();
            return Err(SimError::NoSuchCore { machine, core, last: count - 1 });
        }
        Ok(core as u16)
    }

    /// Runs the simulation to its end.
    ///
    /// # Errors
    /// [`SimError::Nested`], [`SimError::Stack`].
    ///
    /// # Panics
    /// With the panic of a core's code.
    pub fn run(self) -> Result<Report, SimError> {
        let Self { machine, seed, mut world, code, start_spread, .. } = self;
        if thread::with(|thread| thread.world.is_some()) {
            return Err(SimError::Nested);
        }
        let used: Vec<u16> = code.iter().map(|&(core, _)| core).collect();
        let mut fibers: Vec<Option<Fiber>> = Vec::new();
        fibers.resize_with(world.cores.len(), || None);
        for (core, code) in code {
            fibers[core as usize] = Some(fiber::create(code, finish)?);
        }
        thread::with(|thread| {
            thread.epoch += 1;
            world.words = std::mem::take(&mut thread.words);
            world.start(thread.epoch, &used, start_spread);
            if used.is_empty() {
                world.end = Some(End::Completed);
            } else {
                world.hand_over();
            }
            thread.world = Some(Box::new(world));
        });
        let panicked = drive(&mut fibers);
        let world = thread::with(|thread| {
            let mut world = thread.world.take();
            if let Some(world) = &mut world {
                world.flush_stores();
                thread.words = std::mem::take(&mut world.words);
            }
            world
        });
        for fiber in fibers.into_iter().flatten() {
            fiber::retire(fiber);
        }
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
        let world = world.expect("the simulation put its world there itself");
        Ok(summary::report(*world, &machine, seed))
    }
}

/// Resumes one fiber after the other until the simulation ends; returns a panic, if one ended it.
fn drive(fibers: &mut [Option<Fiber>]) -> Option<Box<dyn std::any::Any + Send>> {
    while let Some(core) = thread::with(advance) {
        let fiber = fibers[core as usize].as_mut().expect("only cores with code are resumed");
        if let CoroutineResult::Return(Err(payload)) = fiber.resume(()) {
            return Some(payload);
        }
    }
    None
}

/// Goes on with the accesses that wait, until a fiber has to go on; returns its core, or `None` when
/// the simulation has ended.
pub(crate) fn advance(thread: &mut ThreadState) -> Option<u16> {
    let ThreadState { slots, world, .. } = thread;
    let world = world.as_mut().filter(|world| !world.abandoned)?;
    while world.end.is_none() {
        let me = world.current;
        let pending = &world.me().pending;
        if !pending.waits {
            return Some(me);
        }
        let (index, address, access) = (pending.index, pending.address, pending.access);
        // SAFETY: `perform` borrows the access, and is suspended until it finds `waits` false.
        let access = unsafe { &*access };
        let step = world.go_on_with(index, &mut slots[index as usize], address, access);
        if step != Step::Switch {
            let pending = &mut world.cores[me as usize].pending;
            pending.step = step;
            pending.waits = false;
            return Some(me);
        }
    }
    None
}

/// Ends the code of a core: serves what is owed, and drains its store buffer.
fn finish() {
    while let Some(until) = in_world(|world| world.me().pending_interrupts.owes_until()).flatten() {
        attend::rest_until(until);
        attend::attend();
    }
    fence(Ordering::SeqCst);
    in_world(|world| {
        let core = world.current;
        let now = world.now();
        world.me().finished_at = Some(now);
        world.set_state(core, State::Finished);
        world.unfinished -= 1;
        if world.unfinished == 0 {
            world.end = Some(End::Completed);
        } else {
            world.hand_over();
        }
    });
}
