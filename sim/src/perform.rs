//! One access, as the code of a core makes it, on that core's fiber.
//!
//! The common case, a hit of a core that nobody can reach meanwhile, is decided in a few
//! comparisons ([`World::hit`]). Everything else goes through `world::issue`. Where that means waiting,
//! the access is left with its core as a [`Pending`](crate::pending::Pending) one, and the fiber is left
//! at once: what happens then, the access's own end included, happens on the stack of the simulation, and
//! the fiber goes on when its access is to take effect. So each fiber touches little of its stack.

use crate::access::Access;
use crate::attend::{self, in_world};
use crate::fiber;
use crate::pending::Step;
use crate::thread::{self, ThreadState};
#[cfg(doc)]
use crate::world::World;

/// Performs an access by the word behind `handle`, which is at `address`.
#[inline]
pub(crate) fn perform<R>(
    handle: u32,
    address: usize,
    access: &Access,
    apply: impl Fn(&mut u64) -> R,
) -> R {
    let done = thread::with(|thread| {
        let index = thread.index(handle);
        let ThreadState { slots, words, world, .. } = thread;
        match world {
            Some(world) => world
                .hit(&mut slots[index], address, access, false)
                .then(|| world.apply(index, slots[index].line, &apply)),
            None => Some(apply(&mut words[index].value)),
        }
    });
    match done {
        Some(result) => result,
        None => {
            let step = stepwise(handle, address, access);
            thread::with(|thread| {
                let index = thread.index(handle);
                let ThreadState { slots, words, world, .. } = thread;
                match (step, world) {
                    (Step::Perform, Some(world)) => world.apply(index, slots[index].line, &apply),
                    (Step::Forward, Some(world)) => apply(&mut world.me().pending.forwarded),
                    (Step::Buffered, _) => apply(&mut 0),
                    _ => apply(&mut words[index].value),
                }
            })
        }
    }
}

/// Makes an access that does not certainly hit; returns how it is to take effect.
///
/// Inlined down to where the fiber is left: a processor predicts no return from a function that was
/// called on another stack than the last calls, so there are to be few.
#[inline(always)]
fn stepwise(handle: u32, address: usize, access: &Access) -> Step {
    let mut step = begin(handle, address, access);
    loop {
        match step {
            Step::Switch => {}
            Step::Attend => {
                if !attend() {
                    return Step::Perform;
                }
            }
            done => return done,
        }
        fiber::switch();
        step = in_world(|world| world.me().pending.step).unwrap_or(Step::Perform);
    }
}

#[inline(never)]
fn begin(handle: u32, address: usize, access: &Access) -> Step {
    thread::with(|thread| {
        let index = thread.index(handle);
        let ThreadState { slots, labels, world, .. } = thread;
        match world {
            Some(world) if !world.abandoned => {
                world.begin(index as u32, &mut slots[index], address, access, labels)
            }
            _ => Step::Perform,
        }
    })
}

/// Runs what is due on top of the running core, whose access then waits again. Returns whether it
/// does; it does not if the simulation was abandoned.
#[cold]
#[inline(never)]
fn attend() -> bool {
    // What runs on top makes accesses of its own.
    let Some(mut pending) = in_world(|world| world.me().pending) else { return false };
    pending.waits = true;
    in_world(|world| world.me().pending.waits = false);
    attend::attend();
    in_world(|world| world.me().pending = pending).is_some()
}
