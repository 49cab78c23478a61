//! Timers and work items: what differs between the two, below the synchronisation that is studied.

use core::fmt;
use core::str::FromStr;

use super::{Errno, InitFlags, Outcome, Start};
use crate::engine::{Cancelled, Engine, Expiry, Handler};
use crate::machine::Cpu;
use crate::platform::Platform;

/// The kind of a cell: what the map value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CellKind {
    /// A cell of `bpf_timer`.
    Timer,
    /// A cell of `bpf_wq`.
    Wq,
    /// A cell of `bpf_task_work`.
    TaskWork,
}

/// How a cell of some kind is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// By one operation, which initialises, sets the callback and starts:
    /// [`AsyncCell::schedule`](super::AsyncCell::schedule).
    One,
    /// By `init`, `set_callback` and `start`, each on its own.
    Two,
}

/// The kinds that are scheduled in two steps.
pub const TWO_STEP_KINDS: &[CellKind] = &[CellKind::Timer, CellKind::Wq];
/// Every kind.
pub const ALL_KINDS: &[CellKind] = &[CellKind::Timer, CellKind::Wq, CellKind::TaskWork];

impl CellKind {
    /// Returns the name in files and on the command line: `timer`, `wq` or `task_work`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Wq => "wq",
            Self::TaskWork => "task_work",
        }
    }

    /// Returns how its cells are scheduled.
    pub const fn steps(self) -> Steps {
        match self {
            Self::Timer | Self::Wq => Steps::Two,
            Self::TaskWork => Steps::One,
        }
    }

    /// Returns whether the kind is in a list, for constants.
    pub const fn is_in(self, kinds: &[Self]) -> bool {
        let mut index = 0;
        while index < kinds.len() {
            if kinds[index] as u8 == self as u8 {
                return true;
            }
            index += 1;
        }
        false
    }
}

impl fmt::Display for CellKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no kind of cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: no kind of cell; there are timer, wq and task_work", self.0)
    }
}

impl core::error::Error for UnknownKind {}

impl FromStr for CellKind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        ALL_KINDS
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// A kind that is scheduled in two steps, below the synchronisation that is studied.
pub trait Kind: Send + Sync + 'static {
    /// The kind as a value.
    const KIND: CellKind;
    /// Whether the kind has a cancel operation, and callbacks that can be asked for by CPU.
    const CANCELS: bool;
    /// Whether a start without a program is refused even by designs that do not look otherwise.
    const START_NEEDS_PROGRAM: bool;
    /// Whether designs with a worker leave the cancel that precedes freeing to it, without trying
    /// first: so the kernel does with work items.
    const CANCELLED_BY_WORKER: bool;
    /// Whether the handler is inside an RCU section from its first access on, as in softirq. A
    /// work's
    /// opens one when it has read the callback.
    const HANDLED_UNDER_RCU: bool;
    /// The part of the control block that the engine knows.
    type Node<P: Platform>: Send + Sync;

    /// Returns EINVAL for a bad clock or bad flags.
    fn check_init(flags: InitFlags) -> Outcome;
    /// Returns EINVAL for unknown flags.
    fn check_start(start: Start) -> Outcome;
    /// Returns a node at rest.
    fn node<P: Platform>(handler: Handler<P>, owner: *mut ()) -> Self::Node<P>;
    /// Arms or queues.
    ///
    /// # Safety
    /// The node stays valid until it was cancelled or its handler returned.
    unsafe fn start<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>, start: Start);
    /// Takes it out of the queue if it is there; never waits.
    fn try_cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> Cancelled;
    /// Takes it out of the queue and waits for a running handler; whether it was queued.
    fn cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> bool;
}

/// A timer (`bpf_timer`).
pub struct Timer;

impl Kind for Timer {
    const KIND: CellKind = CellKind::Timer;
    const CANCELS: bool = true;
    const START_NEEDS_PROGRAM: bool = false;
    const CANCELLED_BY_WORKER: bool = false;
    const HANDLED_UNDER_RCU: bool = true;
    type Node<P: Platform> = <P::Engine as Engine<P>>::Timer;

    #[inline(always)]
    fn check_init(flags: InitFlags) -> Outcome {
        const BOOTTIME: u64 = 7;
        match flags.0 {
            0 | 1 | BOOTTIME => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    #[inline(always)]
    fn check_start(start: Start) -> Outcome {
        if start.flags & !(Start::ABSOLUTE | Start::CPU_PIN) == 0 {
            Ok(())
        } else {
            Err(Errno::EINVAL)
        }
    }

    #[inline(always)]
    fn node<P: Platform>(handler: Handler<P>, owner: *mut ()) -> Self::Node<P> {
        P::Engine::timer(handler, owner)
    }

    #[inline(always)]
    unsafe fn start<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>, start: Start) {
        let expiry = Expiry {
            ns: start.ns,
            absolute: start.flags & Start::ABSOLUTE != 0,
            pinned: start.flags & Start::CPU_PIN != 0,
        };
        // SAFETY: the same contract.
        unsafe { cpu.machine().engine().arm(cpu, node, expiry) };
    }

    #[inline(always)]
    fn try_cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> Cancelled {
        cpu.machine().engine().try_cancel(cpu, node)
    }

    #[inline(always)]
    fn cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> bool {
        cpu.machine().engine().cancel(cpu, node)
    }
}

/// A work item (`bpf_wq`).
pub struct Wq;

impl Kind for Wq {
    const KIND: CellKind = CellKind::Wq;
    const CANCELS: bool = false;
    const START_NEEDS_PROGRAM: bool = true;
    const CANCELLED_BY_WORKER: bool = true;
    const HANDLED_UNDER_RCU: bool = false;
    type Node<P: Platform> = <P::Engine as Engine<P>>::Work;

    #[inline(always)]
    fn check_init(flags: InitFlags) -> Outcome {
        if flags.0 == 0 { Ok(()) } else { Err(Errno::EINVAL) }
    }

    #[inline(always)]
    fn check_start(start: Start) -> Outcome {
        if start.flags == 0 { Ok(()) } else { Err(Errno::EINVAL) }
    }

    #[inline(always)]
    fn node<P: Platform>(handler: Handler<P>, owner: *mut ()) -> Self::Node<P> {
        P::Engine::work(handler, owner)
    }

    #[inline(always)]
    unsafe fn start<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>, _: Start) {
        // SAFETY: the same contract.
        unsafe { cpu.machine().engine().queue(cpu, node) };
    }

    #[inline(always)]
    fn try_cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> Cancelled {
        cpu.machine().engine().try_cancel_work(cpu, node)
    }

    #[inline(always)]
    fn cancel<P: Platform>(cpu: &Cpu<'_, P>, node: &Self::Node<P>) -> bool {
        cpu.machine().engine().cancel_work(cpu, node)
    }
}

#[cfg(test)]
mod tests {
    use super::{ALL_KINDS, CellKind, Steps, TWO_STEP_KINDS};

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        for kind in ALL_KINDS {
            assert_eq!(kind.to_string().parse(), Ok(*kind));
        }
        let error = "task-work".parse::<CellKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "task-work: no kind of cell; there are timer, wq and task_work"
        );
    }

    #[test]
    fn the_list_of_two_step_kinds_holds_those_and_no_other() {
        for kind in ALL_KINDS {
            assert_eq!(kind.is_in(TWO_STEP_KINDS), kind.steps() == Steps::Two);
        }
    }
}
