//! Events that come over a core from outside: interrupts, NMIs, stalls and preemption.
//!
//! A handler runs on top of the interrupted code, on its fiber, at the next boundary between two
//! of its accesses (or at once if it sleeps, waits in a loop or computes): where an instruction
//! boundary is on a real core. Interrupts wait while they are masked and while a handler runs; an
//! NMI waits only for another NMI; a stall waits for nothing.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::costs::{NEVER, Ps};
use crate::rng::Rng;

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

/// The effect on the core.
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

/// The interrupts, stalls and preemptions to come over one core.
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

    /// Returns when something is due that the core may be interrupted by as it is now.
    #[inline]
    pub(crate) fn attention_at(&self) -> Ps {
        self.attention_at
    }

    #[inline]
    pub(crate) fn counts_accesses(&self) -> bool {
        !self.by_access.is_empty()
    }

    /// Returns the time before which nothing is due, whatever the core does until then.
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

    pub(crate) fn preempt(&mut self, preempted: bool) {
        self.preempted = preempted;
        self.refresh();
    }

    fn refresh(&mut self) {
        let admitted = self.timed.iter().find(|scheduled| self.admits(&scheduled.action));
        self.attention_at = admitted.map_or(NEVER, |scheduled| scheduled.at);
        self.quiet_until = if self.counts_accesses() { 0 } else { self.attention_at };
    }

    pub(crate) fn nest(&mut self, kind: Interrupt, entering: bool) {
        match kind {
            Interrupt::Irq => self.in_irq = entering,
            Interrupt::Nmi => self.in_nmi = entering,
        }
        self.refresh();
    }

    /// Takes what is due on the core at a time, after a number of accesses.
    pub(crate) fn take_due(&mut self, now: Ps, accesses: u64, rng: &mut Rng) -> Option<Action> {
        let due = |(at, action): &(u64, Action)| *at <= accesses && self.admits(action);
        if let Some(position) = self.by_access.iter().position(due) {
            let action = self.by_access.remove(position).1;
            self.refresh();
            return Some(action);
        }
        let due = |other: &Scheduled| other.at <= now && self.admits(&other.action);
        let position = self.timed.iter().position(due)?;
        let scheduled = self.timed.remove(position);
        let next = match scheduled.repeat {
            Repeat::Never => None,
            // Those missed meanwhile are one, as interrupts of one line that is pending are.
            Repeat::Every(period) => Some(now + period - (now - scheduled.at) % period),
            Repeat::Random(mean) => Some(now + (rng.exponential(mean) as Ps).max(1)),
        };
        match next {
            Some(at) => self.add(at, scheduled.repeat, false, scheduled.action.clone()),
            None => self.refresh(),
        }
        Some(scheduled.action)
    }

    /// Masks interrupts once more, or once less.
    pub(crate) fn mask(&mut self, masked: bool) {
        self.masked = if masked { self.masked + 1 } else { self.masked.saturating_sub(1) };
        self.refresh();
    }

    /// Returns when something that a core sent is served, if it has not been yet: the receiver's code may
    /// not end before.
    pub(crate) fn owes_until(&self) -> Option<Ps> {
        let owes = self.timed.iter().any(|scheduled| scheduled.sent);
        owes.then_some(self.attention_at).filter(|&at| at != NEVER)
    }
}
