//! Outcomes that a workload can rule out while it runs: by the context of the attempt, or because
//! nobody else is there. Noted where they happen, also in a signal handler, and reported by the
//! check.

use core::sync::atomic::{AtomicU64, Ordering};

use cellbench_impls::Errno;

use crate::ensure;
use crate::tally::Op;
use crate::trial::Violation;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unexpected {
    count: AtomicU64,
    /// Operation and errno of one of them, as indices.
    sample: AtomicU64,
}

impl Unexpected {
    /// Notes the outcome unless it is ok or one of `allowed`.
    #[inline(always)]
    pub(crate) fn note<T>(&self, op: Op, outcome: &Result<T, Errno>, allowed: &[Errno]) {
        if let Err(errno) = outcome
            && !allowed.contains(errno)
        {
            // Relaxed: read at rest.
            self.sample.store((op as u64) << 32 | *errno as u64, Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Fails if there was any; `rule` says what they break.
    pub(crate) fn check(&self, rule: &str) -> Result<(), Violation> {
        let count = self.count.load(Ordering::Relaxed);
        let sample = self.sample.load(Ordering::Relaxed);
        let (op, errno) = (sample >> 32, sample & u64::from(u32::MAX));
        ensure!(
            count == 0,
            "{rule}: {count} times not so, such as {} returning {}",
            Op::ALL[op as usize].id(),
            Errno::ALL[errno as usize]
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_how_often() {
        let unexpected = Unexpected::default();
        unexpected.note(Op::Start, &Ok(()), &[]);
        unexpected.note::<()>(Op::Start, &Err(Errno::EBUSY), &[Errno::EBUSY]);
        assert_eq!(unexpected.check("rule"), Ok(()));
        unexpected.note::<()>(Op::Start, &Err(Errno::ENOMEM), &[Errno::EBUSY]);
        let said = unexpected.check("rule").unwrap_err().0;
        assert_eq!(said, "rule: 1 times not so, such as start returning ENOMEM");
    }
}
