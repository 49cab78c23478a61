//! Timers and work items: what differs between the two, below the synchronisation that is studied.

use super::{Errno, InitFlags, Outcome, Start};
use crate::engine::{Cancelled, Engine, Expiry, Handler};
use crate::machine::Cpu;
use crate::platform::Platform;

/// What a cell runs later.
pub trait Kind: Send + Sync + 'static {
    /// Name in reports.
    const NAME: &'static str;
    /// Whether the kind has a cancel operation, and callbacks that can be asked for by CPU.
    const CANCELS: bool;
    /// Whether a start without a program is refused even by designs that do not look otherwise.
    const START_NEEDS_PROGRAM: bool;
    /// Whether designs with a worker leave the cancel that precedes freeing to it, without trying
    /// first: so the kernel does with work items.
    const CANCELLED_BY_WORKER: bool;
    /// The part of the control block that the engine knows.
    type Node<P: Platform>: Send + Sync;

    /// EINVAL for a bad clock or bad flags.
    fn check_init(flags: InitFlags) -> Outcome;
    /// EINVAL for unknown flags.
    fn check_start(start: Start) -> Outcome;
    /// A node at rest.
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
    const NAME: &'static str = "timer";
    const CANCELS: bool = true;
    const START_NEEDS_PROGRAM: bool = false;
    const CANCELLED_BY_WORKER: bool = false;
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
    const NAME: &'static str = "wq";
    const CANCELS: bool = false;
    const START_NEEDS_PROGRAM: bool = true;
    const CANCELLED_BY_WORKER: bool = true;
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
