//! One worker that stops in the middle of something, and what the others do meanwhile: the
//! protocol of the workloads that suspend a worker.
//!
//! Others act only while worker 0 stands still, so that what they count is what they get then; the
//! one attempt that outlasts the stall is the price. Worker 0 acts only while the others are out,
//! so that what it is found in the middle of is its own.

use cellbench_impls::Platform;
use cellbench_impls::platform::{Ordering, Word};
use crossbeam_utils::CachePadded;

use crate::params::Params;

/// Worker 0 works, the others wait.
const ALONE: u32 = 0;
/// Worker 0 stands still, the others work.
const STALLED: u32 = 1;

/// How long the others wait for worker 0 to stand still before they let their caller look whether
/// time is up.
const PATIENCE_NS: u64 = 20_000_000;

/// See the module.
pub(crate) struct Stall<P: Platform> {
    phase: CachePadded<P::U32>,
    /// For each worker, whether it is inside its attempt.
    inside: Box<[CachePadded<P::U32>]>,
    duration_ns: u64,
    turns_per_us: u32,
}

impl<P: Platform> Stall<P> {
    pub(crate) fn new(params: &Params) -> Self {
        let inside = || CachePadded::new(P::U32::new("stall.inside", 0));
        Self {
            phase: CachePadded::new(P::U32::new("stall.phase", ALONE)),
            inside: (0..params.threads).map(|_| inside()).collect(),
            duration_ns: params.stall_ns,
            turns_per_us: params.turns_per_us,
        }
    }

    /// Waits, as worker 0, until the others are out.
    pub(crate) fn wait_for_others(&self) {
        // After the phase was set, before the looks: see `attempt`.
        P::fence();
        for inside in &self.inside {
            // Acquire pairs with the release in `attempt`.
            P::wait_until(|| (inside.load(Ordering::Acquire) == 0).then_some(()));
        }
    }

    /// Stands still, as worker 0, where it is: by a handler on top of it, or by itself.
    pub(crate) fn stand_still(&self) {
        let until_ns = P::now_ns() + self.duration_ns;
        // Release pairs with the acquire in `attempt`: what it did so far is seen.
        self.phase.store(STALLED, Ordering::Release);
        while P::now_ns() < until_ns {
            P::spend(self.turns_per_us);
        }
        self.phase.store(ALONE, Ordering::Release);
    }

    /// Makes, as any other worker, the attempt as soon as worker 0 stands still. `None` if it did not
    /// for a while.
    pub(crate) fn attempt<R>(&self, worker: u32, attempt: impl FnOnce() -> R) -> Option<R> {
        let inside = &self.inside[worker as usize];
        let mut until_ns = None;
        loop {
            let stalled = P::wait_until_or(
                || (self.phase.load(Ordering::Acquire) == STALLED).then_some(true),
                || {
                    let now_ns = P::now_ns();
                    (now_ns >= *until_ns.get_or_insert(now_ns + PATIENCE_NS)).then_some(false)
                },
            );
            if !stalled {
                return None;
            }
            // Relaxed: the fence orders it before the second look. Worker 0 sets the phase, then
            // looks who is inside: one of the two sees the other.
            inside.store(1, Ordering::Relaxed);
            P::fence();
            if self.phase.load(Ordering::Acquire) == STALLED {
                let result = attempt();
                inside.store(0, Ordering::Release);
                return Some(result);
            }
            inside.store(0, Ordering::Relaxed);
        }
    }
}
