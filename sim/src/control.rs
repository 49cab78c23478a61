//! Functions by which code on a virtual core asks and acts besides accessing words.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::attend::{self, in_world};
use crate::core::State;
use crate::costs::{NEVER, Ps, ns, ps, scale};
use crate::events::Event;
use crate::fiber;
use crate::interrupt::{Action, Interrupt, Repeat};
use crate::world::World;

/// Computation longer than this can be interrupted in its midst; shorter one is not worth the
/// detour through the event queue.
const INTERRUPTIBLE: Ps = 500_000;

/// Returns the simulated time of the calling core in nanoseconds from the start; 0 outside a simulation.
#[inline(always)]
pub fn now_ns() -> f64 {
    in_world(|world| ns(world.now())).unwrap_or(0.0)
}

/// Reads the clock as code on a real machine would: [`now_ns`], after the time that reading it takes
/// ([`crate::machine::CoreCosts::clock_ns`]).
pub fn read_clock_ns() -> f64 {
    in_world(|world| {
        let cost = world.costs.hit[world.pace()].clock;
        world.me().now += cost;
    });
    now_ns()
}

/// Returns the hardware thread of the simulated machine that the caller runs on; `None` outside a
/// simulation.
pub fn current_core() -> Option<usize> {
    in_world(|world| usize::from(world.current))
}

/// Computes: lets `duration_ns` nanoseconds pass on the calling core, more beside a busy
/// SMT sibling, with the machine's random variation.
pub fn advance(duration_ns: f64) {
    let rest = in_world(|world| {
        let shared = world.pace() == 1;
        let slowdown = if shared { world.costs.smt_slowdown } else { 1.0 };
        let duration = scale(ps(duration_ns * slowdown), world.factor(world.current));
        let core = world.me();
        let until = core.now.saturating_add(duration);
        if duration < INTERRUPTIBLE && until < core.pending_interrupts.attention_at() {
            core.now = until;
            return None;
        }
        Some(until)
    });
    if let Some(until) = rest.flatten() {
        attend::rest_until(until);
    }
}

/// Computes as an out-of-order core does, which overlaps that with its accesses as long as these hit:
/// [`advance`], if the calling core has waited for a line since the last call of this.
pub fn advance_after_stall(duration_ns: f64) {
    if in_world(|world| std::mem::take(&mut world.me().stalled)) == Some(true) {
        advance(duration_ns);
    }
}

/// Executes the spin-loop hint, for loops that cannot be written with [`crate::wait_until`].
pub fn pause() {
    in_world(|world| {
        let cost = world.costs.hit[world.pace()].pause;
        world.me().now += cost;
    });
}

/// Executes a memory fence. Only `SeqCst` costs anything: it waits until the store buffer is empty.
pub fn fence(order: Ordering) {
    if order != Ordering::SeqCst {
        return;
    }
    while in_world(|world| world.drain()) == Some(false) {
        fiber::switch();
    }
}

/// Attributes the accesses of the calling core, from now on, to an operation; returns the one
/// before (empty at first, and outside a simulation).
pub fn set_operation(name: &'static str) -> &'static str {
    in_world(|world| {
        let number = world.stats.operation(name);
        let before = std::mem::replace(&mut world.me().operation, number);
        world.stats.operations[before as usize]
    })
    .unwrap_or("")
}

/// Attributes accesses to an operation until the guard is dropped.
#[must_use = "the operation ends when the guard is dropped"]
pub fn operation(name: &'static str) -> OperationGuard {
    OperationGuard { before: set_operation(name), here: PhantomData }
}

/// Gives back the operation before; made by [`operation`].
#[derive(Debug)]
pub struct OperationGuard {
    before: &'static str,
    /// It must be dropped on the core it was made on.
    here: PhantomData<Rc<()>>,
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        set_operation(self.before);
    }
}

/// Holds interrupts and preemption back on the calling core; calls nest.
pub fn mask_interrupts() {
    in_world(|world| mask(world, true));
}

/// Undoes one [`mask_interrupts`]; what was held back comes at once if it was the outermost.
pub fn unmask_interrupts() {
    in_world(|world| mask(world, false));
    attend::attend();
}

fn mask(world: &mut World, masked: bool) {
    world.me().pending_interrupts.mask(masked);
    world.set_limit();
}

/// Sends an interrupt to a core (the caller's own included): `handler` runs on top of that core's
/// code `delay_ns` nanoseconds from now, or as soon after that as it may be interrupted. The
/// receiver's code does not end before it was served.
///
/// Returns whether it was sent: not to a core whose code has ended or that was given none, and
/// not outside a simulation.
///
/// # Panics
/// If the machine has no such core.
pub fn send_interrupt(
    core: usize,
    kind: Interrupt,
    delay_ns: f64,
    handler: impl FnOnce() + 'static,
) -> bool {
    let mut handler = Some(handler);
    let run_once = Rc::new(RefCell::new(move || {
        if let Some(handler) = handler.take() {
            handler();
        }
    }));
    let mut action = Some(Action::Handle(kind, run_once));
    // A deed that is not taken is dropped out here, where its destructors may run.
    in_world(|world| {
        let at = world.now() + ps(delay_ns);
        let target = &mut world.cores[core];
        if matches!(target.state, State::Unused | State::Finished) {
            return false;
        }
        let Some(action) = action.take() else { return false };
        target.pending_interrupts.add(at, Repeat::Never, true, action);
        let (sleep, wake_at) = (target.waiter.sleep, target.pending_interrupts.attention_at());
        if target.is_sleeping() && wake_at < NEVER {
            let wake_at = wake_at.max(world.now());
            world.push(wake_at, Event::timer(core as u16, sleep));
        }
        if core as u16 == world.current {
            world.set_limit();
        }
        true
    })
    .unwrap_or(false)
}
