//! Waiting with an end, by a process that may be stopped meanwhile.

use std::time::{Duration, Instant};

/// Time that something may take. Of the time between two looks no more than a second counts: a process that
/// was stopped (Ctrl-Z, a frozen cgroup, a job that was suspended, a guest that was paused) finds that hours
/// have passed, in which those it waits for could do nothing either.
pub struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// Longest time between two looks that counts.
    pub const LOOK: Duration = Duration::from_secs(1);

    /// Begins to wait, for `limit` at most.
    pub fn new(limit: Duration) -> Self {
        Self { left: limit, looked: Instant::now() }
    }

    /// Tells whether there is time left, now that another look was taken.
    pub fn lasts(&mut self) -> bool {
        let now = Instant::now();
        let passed = now - self.looked;
        self.looked = now;
        self.spend(passed)
    }

    fn spend(&mut self, passed: Duration) -> bool {
        self.left = self.left.saturating_sub(passed.min(Self::LOOK));
        !self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_in_which_the_process_was_stopped_counts_as_a_second() {
        let mut patience = Patience::new(Duration::from_secs(60));
        assert!(patience.spend(Duration::from_secs(3600)));
        let looks = (0..1000).take_while(|_| patience.spend(Duration::from_millis(500))).count();
        assert_eq!(looks, 2 * 59 - 1);
    }
}
