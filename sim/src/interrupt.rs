//! What comes over a core from outside: interrupts, NMIs, stalls and preemption.
//!
//! A handler runs on top of the interrupted code, on its fiber, at the next boundary between two
//! of its accesses (or at once if it sleeps, waits in a loop or computes): where an instruction
//! boundary is on a real core. Interrupts wait while they are masked and while a handler runs; an
//! NMI waits only for another NMI; a stall waits for nothing.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::core::{State, Watched};
use crate::costs::{NEVER, Ps};
use crate::fiber;
use crate::thread;
use crate::world::World;

/// Whether masking holds an interrupt back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// A maskable interrupt.
    Irq,
    /// A non-maskable interrupt.
    Nmi,
}

/// When something comes over a core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trigger {
    /// Once, at a time.
    At {
        /// Simulated time, in nanoseconds from the start.
        at_ns: f64,
    },
    /// Again and again, at even distance. Those that come while the core cannot be interrupted
    /// are one when it can.
    Every {
        /// The first time, in nanoseconds from the start.
        first_ns: f64,
        /// Nanoseconds between two.
        period_ns: f64,
    },
    /// Again and again, at exponentially distributed distances (a Poisson process).
    Random {
        /// Mean distance in nanoseconds.
        mean_ns: f64,
    },
    /// Once, just before the core's n-th access, counted from 1: to try every place in a piece of
    /// code. While such a trigger is pending the core's accesses are simulated more slowly.
    BeforeAccess {
        /// Number of the access.
        number: u64,
    },
}

/// A handler; it may run many times, but never on top of itself.
pub(crate) type Handler = Rc<RefCell<dyn FnMut()>>;

/// What happens to the core.
#[derive(Clone)]
pub(crate) enum Action {
    Handle(Interrupt, Handler),
    /// The core stands still, as in a system management interrupt or a descheduled virtual CPU.
    Stall(Ps),
    /// Other code runs on the core; interrupts are served.
    Preempt(Ps),
}

/// How an event goes on after it happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Repeat {
    Never,
    Every(Ps),
    Random(f64),
}

#[derive(Clone)]
struct Scheduled {
    at: Ps,
    repeat: Repeat,
    /// Sent by a core: the receiver's code does not end before it was served.
    sent: bool,
    action: Action,
}

/// What is to come over a core.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct PendingInterrupts {
    /// Nothing is due before: [`Self::attention_at`], or 0 if anything depends on the number of an
    /// access.
    quiet_until: Ps,
    /// When the core is interrupted next, as it is now, or [`NEVER`].
    attention_at: Ps,
    /// Ordered by number of the access.
    by_access: Vec<(u64, Action)>,
    /// Ordered by time, then by age.
    timed: Vec<Scheduled>,
    masked: u32,
    in_irq: bool,
    in_nmi: bool,
    /// Other code runs on the core: its own cannot be preempted once more.
    preempted: bool,
}

impl Default for PendingInterrupts {
    fn default() -> Self {
        Self {
            quiet_until: NEVER,
            attention_at: NEVER,
            by_access: Vec::new(),
            timed: Vec::new(),
            masked: 0,
            in_irq: false,
            in_nmi: false,
            preempted: false,
        }
    }
}

impl fmt::Debug for PendingInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingInterrupts")
            .field("timed", &self.timed.len())
            .field("by_access", &self.by_access.len())
            .finish_non_exhaustive()
    }
}

impl PendingInterrupts {
    pub(crate) fn add(&mut self, at: Ps, repeat: Repeat, sent: bool, action: Action) {
        let scheduled = Scheduled { at, repeat, sent, action };
        let position = self.timed.partition_point(|other| other.at <= at);
        self.timed.insert(position, scheduled);
        self.refresh();
    }

    pub(crate) fn add_before_access(&mut self, number: u64, action: Action) {
        let position = self.by_access.partition_point(|(other, _)| *other <= number);
        self.by_access.insert(position, (number, action));
        self.refresh();
    }

    /// When something is due that the core may be interrupted by as it is now.
    #[inline]
    pub(crate) fn attention_at(&self) -> Ps {
        self.attention_at
    }

    #[inline]
    pub(crate) fn counts_accesses(&self) -> bool {
        !self.by_access.is_empty()
    }

    /// Before when nothing is due, whatever the core does until then.
    #[inline]
    pub(crate) fn quiet_until(&self) -> Ps {
        self.quiet_until
    }

    #[inline]
    pub(crate) fn is_due(&self, now: Ps, accesses: u64) -> bool {
        self.quiet_until <= now && self.is_really_due(now, accesses)
    }

    #[cold]
    fn is_really_due(&self, now: Ps, accesses: u64) -> bool {
        let by_access = |(at, action): &(u64, Action)| *at <= accesses && self.admits(action);
        self.attention_at <= now || self.by_access.iter().any(by_access)
    }

    /// Whether something sent by a core has not been served.
    fn owes(&self) -> bool {
        self.timed.iter().any(|scheduled| scheduled.sent)
    }

    fn admits(&self, action: &Action) -> bool {
        match action {
            Action::Stall(_) => true,
            Action::Handle(Interrupt::Nmi, _) => !self.in_nmi,
            Action::Handle(Interrupt::Irq, _) => self.takes_interrupts(),
            Action::Preempt(_) => self.takes_interrupts() && !self.preempted,
        }
    }

    fn takes_interrupts(&self) -> bool {
        self.masked == 0 && !self.in_irq && !self.in_nmi
    }

    fn preempt(&mut self, preempted: bool) {
        self.preempted = preempted;
        self.refresh();
    }

    fn refresh(&mut self) {
        let admitted = self.timed.iter().find(|scheduled| self.admits(&scheduled.action));
        self.attention_at = admitted.map_or(NEVER, |scheduled| scheduled.at);
        self.quiet_until = if self.counts_accesses() { 0 } else { self.attention_at };
    }

    fn nest(&mut self, kind: Interrupt, entering: bool) {
        match kind {
            Interrupt::Irq => self.in_irq = entering,
            Interrupt::Nmi => self.in_nmi = entering,
        }
        self.refresh();
    }
}

impl World {
    /// Takes what is due on the running core.
    fn take_due(&mut self) -> Option<Action> {
        let me = self.me();
        let (now, accesses) = (me.now, me.accesses);
        let pending_interrupts = &mut me.pending_interrupts;
        let due =
            |(at, action): &(u64, Action)| *at <= accesses && pending_interrupts.admits(action);
        if let Some(position) = pending_interrupts.by_access.iter().position(due) {
            let action = pending_interrupts.by_access.remove(position).1;
            pending_interrupts.refresh();
            return Some(action);
        }
        let due = |other: &Scheduled| other.at <= now && pending_interrupts.admits(&other.action);
        let position = pending_interrupts.timed.iter().position(due)?;
        let scheduled = pending_interrupts.timed.remove(position);
        let next = match scheduled.repeat {
            Repeat::Never => None,
            // Those missed meanwhile are one, as interrupts of one line that is pending are.
            Repeat::Every(period) => Some(now + period - (now - scheduled.at) % period),
            Repeat::Random(mean) => Some(now + (me.rng.exponential(mean) as Ps).max(1)),
        };
        let pending_interrupts = &mut self.me().pending_interrupts;
        match next {
            Some(at) => {
                pending_interrupts.add(at, scheduled.repeat, false, scheduled.action.clone())
            }
            None => pending_interrupts.refresh(),
        }
        Some(scheduled.action)
    }

    fn enter_handler(&mut self, kind: Interrupt) -> Interrupted {
        let entry = self.costs.interrupt / 2;
        let core = self.me();
        core.interrupts += 1;
        core.now += entry;
        let interrupted = Interrupted {
            watching: std::mem::take(&mut core.watching),
            watched: std::mem::take(&mut core.watched),
            operation: core.operation,
        };
        core.replay.forget();
        core.pending_interrupts.nest(kind, true);
        self.set_limit();
        interrupted
    }

    fn leave_handler(&mut self, kind: Interrupt, interrupted: Interrupted) {
        let exit = self.costs.interrupt - self.costs.interrupt / 2;
        let core = self.me();
        core.now += exit;
        core.watching = interrupted.watching;
        core.watched = interrupted.watched;
        core.replay.forget();
        core.operation = interrupted.operation;
        core.pending_interrupts.nest(kind, false);
        self.set_limit();
    }

    /// Stops the running core for good, if the stall is endless; else lets the time pass.
    /// Returns whether it goes on.
    fn stall(&mut self, duration: Ps) -> bool {
        if duration == NEVER {
            self.set_state(self.current, State::Stopped);
            return self.hand_over();
        }
        let core = self.me();
        core.now = core.now.saturating_add(duration);
        core.off += duration;
        true
    }

    pub(crate) fn mask(&mut self, masked: bool) {
        let pending_interrupts = &mut self.me().pending_interrupts;
        pending_interrupts.masked = if masked {
            pending_interrupts.masked + 1
        } else {
            pending_interrupts.masked.saturating_sub(1)
        };
        pending_interrupts.refresh();
        self.set_limit();
    }

    /// Whether the running core's code may not end yet, and until when to wait then.
    pub(crate) fn owes_until(&self) -> Option<Ps> {
        let pending_interrupts = &self.cores[self.current as usize].pending_interrupts;
        pending_interrupts
            .owes()
            .then(|| pending_interrupts.attention_at())
            .filter(|&at| at != NEVER)
    }
}

/// What a handler must give back as it was.
struct Interrupted {
    watching: bool,
    watched: Vec<Watched>,
    operation: u16,
}

/// Runs, on top of the caller, all that is due on the running core.
pub(crate) fn attend() {
    while let Some(action) = in_world(World::take_due).flatten() {
        match action {
            Action::Handle(kind, handler) => {
                let Some(interrupted) = in_world(|world| world.enter_handler(kind)) else { return };
                (handler.borrow_mut())();
                in_world(|world| world.leave_handler(kind, interrupted));
            }
            Action::Stall(duration) => {
                if in_world(|world| world.stall(duration)) == Some(false) {
                    fiber::switch();
                }
            }
            Action::Preempt(duration) => {
                let begin = in_world(|world| {
                    let switch = world.costs.context_switch;
                    let until = world.now().saturating_add(duration).saturating_add(2 * switch);
                    world.me().pending_interrupts.preempt(true);
                    (world.now(), until)
                });
                let Some((from, until)) = begin else { return };
                rest_until(until);
                in_world(|world| {
                    let core = world.me();
                    core.off += until - from;
                    core.pending_interrupts.preempt(false);
                    world.set_limit();
                });
            }
        }
    }
}

/// Lets time pass on the running core until a time, serving what comes over it meanwhile.
pub(crate) fn rest_until(until: Ps) {
    while let Some(goes_on) = in_world(|world| {
        if world.now() >= until {
            return None;
        }
        Some(world.me().is_due() || world.rest(until))
    })
    .flatten()
    {
        if !goes_on {
            fiber::switch();
        }
        attend();
    }
}

/// Runs `f` on the simulation, if one runs.
pub(crate) fn in_world<R>(f: impl FnOnce(&mut World) -> R) -> Option<R> {
    thread::with(|thread| match &mut thread.world {
        Some(world) if !world.abandoned => Some(f(world)),
        _ => None,
    })
}
