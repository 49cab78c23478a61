//! Waiting: a core sleeps until a line that its condition read changes hands.
//!
//! A spinning core reads its lines again and again; while its copies are valid the reads hit and
//! tell it nothing new. So the core sleeps instead, and is woken when one of the lines is
//! invalidated. It is charged as the spinning core it stands for: it goes on with its loop of load and
//! pause, so that it notices when it looks next, its re-read is a miss that queues at the directory,
//! and its copy is one more to invalidate.

use crate::attend::{self, in_world};
use crate::costs::{Ps, ps};
use crate::fiber;
use crate::thread;
use crate::world::World;

/// Runs `condition` until it returns a value, sleeping in between until a line that it read is
/// invalidated.
///
/// The condition is an expression over loads (a compare-and-exchange in it is allowed), and over
/// nothing else that changes while it waits; it runs once for each time that something it read has
/// changed. (Loads that find what they found before are charged, but the condition is not run for
/// them, unless it did something else than to load.) A condition that reads nothing is run again
/// after each pause.
///
/// # Panics
/// Outside a running simulation, if the condition does not hold at once: nobody could change that.
pub fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R {
    wait(None, condition)
}

/// Waits as [`wait_until`] does, but runs the condition at least every `poll_ns` of simulated time too, and
/// each time that a line it read was invalidated: for conditions that look at the clock, as the
/// timeout of a resilient lock does.
///
/// # Panics
/// As [`wait_until`].
pub fn wait_until_deadline<R>(poll_ns: f64, condition: impl FnMut() -> Option<R>) -> R {
    wait(Some(ps(poll_ns).max(1)), condition)
}

fn wait<R>(poll: Option<Ps>, mut condition: impl FnMut() -> Option<R>) -> R {
    loop {
        let simulated = thread::with(|thread| match &mut thread.world {
            Some(world) if !world.abandoned => {
                world.watch_begins();
                true
            }
            _ => false,
        });
        let result = condition();
        if simulated {
            in_world(World::watch_ends);
        }
        if let Some(result) = result {
            return result;
        }
        assert!(
            simulated,
            "waiting outside a running simulation for something that nobody can change"
        );
        let goes_on =
            thread::with(|thread| thread.world.as_mut().is_none_or(|world| world.sleep(poll)));
        if !goes_on {
            fiber::switch();
        }
        // What came while a load was repeated is attended to behind that load.
        if in_world(|world| world.me().waiter.replay.are_known()) != Some(true) {
            attend::attend();
        }
    }
}
