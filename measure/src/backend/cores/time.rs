//! Time source of the measuring loops. A trait, so that tests can put a clock of their own under the loops
//! and stall it; in a run it is [`Clock`], inlined.

use cellbench_host::clock::{Clock, Ticks};

/// A clock in ticks.
pub trait TimeSource: Sync {
    /// Returns the time, unordered: for windows.
    fn now(&self) -> u64;
    /// Returns the time before a timed operation.
    fn start(&self) -> u64;
    /// Returns the time after a timed operation.
    fn stop(&self) -> u64;
    /// Returns nanoseconds from one tick to another, rounded; 0 if they are in the wrong order.
    fn elapsed_ns(&self, from: u64, to: u64) -> u64;
}

impl TimeSource for Clock {
    #[inline(always)]
    fn now(&self) -> u64 {
        Clock::now(self).0
    }

    #[inline(always)]
    fn start(&self) -> u64 {
        Clock::start(self).0
    }

    #[inline(always)]
    fn stop(&self) -> u64 {
        Clock::stop(self).0
    }

    #[inline(always)]
    fn elapsed_ns(&self, from: u64, to: u64) -> u64 {
        Clock::elapsed_ns(self, Ticks(from), Ticks(to)).round() as u64
    }
}
