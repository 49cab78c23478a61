//! Where the workers of a round meet: all arrive, then all begin at the same tick.
//!
//! Spinning, because a sleeping waiter would begin late by the time it takes to wake up.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::time::TimeSource;

/// Turns of pure spinning before a waiter lets others run: on a host with fewer free CPUs than
/// workers the last one to arrive may need this one's CPU.
const SPINS_BEFORE_YIELD: u32 = 1 << 14;

/// A meeting of a fixed number of workers, once.
#[derive(Debug)]
pub(crate) struct Gate {
    parties: u32,
    arrived: AtomicU32,
    /// Tick at which all begin; 0 until it is known.
    opens: AtomicU64,
    abandoned: AtomicBool,
}

/// A worker failed on its way to the gate: the round does not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abandoned;

impl Gate {
    pub(crate) fn new(parties: u32) -> Self {
        Self {
            parties,
            arrived: AtomicU32::new(0),
            opens: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Waits for all, and then for the common first tick, which it returns. It lies `lead_ticks`
    /// after the arrival of the last one, time for everybody to see it.
    pub(crate) fn pass(&self, time: &impl TimeSource, lead_ticks: u64) -> Result<u64, Abandoned> {
        // AcqRel: whatever each prepared before it arrived is seen by all who pass.
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.parties {
            // Release pairs with the acquire below. A clock at 0 is as good as at 1.
            self.opens.store((time.now() + lead_ticks).max(1), Ordering::Release);
        }
        let mut spins = 0;
        let opens = loop {
            let opens = self.opens.load(Ordering::Acquire);
            if opens != 0 {
                break opens;
            }
            // Relaxed: nothing else is read on the strength of it.
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(Abandoned);
            }
            spins += 1;
            if spins % SPINS_BEFORE_YIELD == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        };
        while time.now() < opens {
            std::hint::spin_loop();
        }
        Ok(opens)
    }

    /// Sends everybody who waits, or comes later, home.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Abandons the gate when dropped without having passed: a worker that fails or panics before the
/// others begin must not leave them waiting.
pub(crate) struct OnFailure<'a>(Option<&'a Gate>);

impl<'a> OnFailure<'a> {
    pub(crate) fn abandon(gate: &'a Gate) -> Self {
        Self(Some(gate))
    }

    /// Takes back the alarm: all went well.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for OnFailure<'_> {
    fn drop(&mut self) {
        if let Some(gate) = self.0 {
            gate.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellbench_host::Clock;

    #[test]
    fn all_begin_at_the_same_tick_and_none_before_the_last_arrived() {
        let clock = Clock::new();
        let gate = Gate::new(4);
        let passed: Vec<(u64, u64, u64)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let arrived = TimeSource::now(&clock);
                        let opens = gate.pass(&clock, 1000).unwrap();
                        (arrived, opens, TimeSource::now(&clock))
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let opens = passed[0].1;
        for (arrived, theirs, after) in passed {
            assert_eq!(theirs, opens);
            assert!(arrived < opens && after >= opens, "{arrived} {opens} {after}");
        }
    }

    #[test]
    fn a_worker_that_panics_sends_the_others_home() {
        let clock = Clock::new();
        let gate = Gate::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.pass(&clock, 1000));
            let failing = scope.spawn(|| {
                let _guard = OnFailure::abandon(&gate);
                std::panic::resume_unwind(Box::new("on purpose"));
            });
            assert!(failing.join().is_err());
            assert_eq!(waiting.join().unwrap(), Err(Abandoned));
        });
    }
}
