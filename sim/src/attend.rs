//! Running what came over a core: handlers on top of the interrupted code, on its fiber.

use crate::core::{Interrupted, State};
use crate::costs::{NEVER, Ps};
use crate::fiber;
use crate::interrupt::{Action, Interrupt};
use crate::thread;
use crate::world::World;

/// Runs, on top of the caller, all that is due on the running core.
pub(crate) fn attend() {
    while let Some(action) = in_world(take_due).flatten() {
        match action {
            Action::Handle(kind, handler) => {
                let Some(interrupted) = in_world(|world| enter_handler(world, kind)) else {
                    return;
                };
                (handler.borrow_mut())();
                in_world(|world| leave_handler(world, kind, interrupted));
            }
            Action::Stall(duration) => {
                if in_world(|world| stall(world, duration)) == Some(false) {
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

/// Runs `f` on the simulation of this OS thread, if one runs.
pub(crate) fn in_world<R>(f: impl FnOnce(&mut World) -> R) -> Option<R> {
    thread::with(|thread| match &mut thread.world {
        Some(world) if !world.abandoned => Some(f(world)),
        _ => None,
    })
}

/// Takes what is due on the running core.
fn take_due(world: &mut World) -> Option<Action> {
    let me = world.me();
    me.pending_interrupts.take_due(me.now, me.accesses, &mut me.rng)
}

fn enter_handler(world: &mut World, kind: Interrupt) -> Interrupted {
    let entry = world.costs.interrupt / 2;
    let interrupted = world.me().enter_handler(kind, entry);
    world.set_limit();
    interrupted
}

fn leave_handler(world: &mut World, kind: Interrupt, interrupted: Interrupted) {
    let exit = world.costs.interrupt - world.costs.interrupt / 2;
    world.me().leave_handler(kind, exit, interrupted);
    world.set_limit();
}

/// Stops the running core for good, if the stall is endless; else lets the time pass. Returns whether
/// the core goes on.
fn stall(world: &mut World, duration: Ps) -> bool {
    if duration == NEVER {
        world.set_state(world.current, State::Stopped);
        return world.hand_over();
    }
    let core = world.me();
    core.now = core.now.saturating_add(duration);
    core.off += duration;
    true
}
