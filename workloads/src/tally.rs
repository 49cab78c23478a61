//! Counts of attempts by operation and outcome.

use cellbench_impls::{Errno, Outcome};

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        /// An operation that a workload attempts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Op {
            $($(#[$doc])* $name,)*
        }

        impl Op {
            /// All of them; an operation's place here is its index.
            pub const ALL: &'static [Op] = &[$(Op::$name,)*];

            /// Returns the name in records and reports.
            pub const fn id(self) -> &'static str {
                match self { $(Op::$name => $id,)* }
            }
        }
    };
}

ops! {
    /// Nothing: what the harness itself costs.
    Empty = "empty",
    /// A call of `AsyncCell::init`.
    Init = "init",
    /// A call of `AsyncCell::set_callback`.
    SetCallback = "set_callback",
    /// A call of `AsyncCell::start`.
    Start = "start",
    /// A call of `AsyncCell::cancel`.
    Cancel = "cancel",
    /// A call of `AsyncCell::cancel_async`.
    CancelAsync = "cancel_async",
    /// A call of `AsyncCell::cancel_and_free`.
    Free = "cancel_and_free",
    /// A call of `AsyncCell::schedule`.
    Schedule = "schedule",
    /// A lock and unlock pair with its critical section.
    Lock = "lock",
    /// Taking a lock while holding another, so that the wait closes a cycle.
    LockCycle = "lock_cycle",
    /// A step of a primitive.
    Step = "step",
}

/// Number of outcomes: ok and each errno.
pub const OUTCOMES: usize = 1 + Errno::ALL.len();

/// Returns the name of an outcome in records: `ok`, or the errno's.
pub fn outcome_id(index: usize) -> &'static str {
    match index.checked_sub(1) {
        None => "ok",
        Some(errno) => Errno::ALL[errno].name(),
    }
}

/// Attempts by operation and outcome; the first outcome is ok, the others are [`Errno::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [[u64; OUTCOMES]; Op::ALL.len()],
}

impl Tally {
    /// Counts one attempt.
    #[inline(always)]
    pub fn count<T>(&mut self, op: Op, outcome: &Result<T, Errno>) {
        match outcome {
            Ok(_) => self.counts[op as usize][0] += 1,
            Err(errno) => self.counts[op as usize][1 + *errno as usize] += 1,
        }
    }

    /// Makes `attempts` attempts and counts them. Successes are counted in a register, so that
    /// counting costs a fraction of a nanosecond.
    #[inline(always)]
    pub fn repeat<T>(
        &mut self,
        op: Op,
        attempts: u32,
        mut attempt: impl FnMut() -> Result<T, Errno>,
    ) {
        let mut ok = 0;
        on_a_line_of_its_own();
        for _ in 0..attempts {
            match attempt() {
                Ok(_) => ok += 1,
                Err(errno) => self.counts[op as usize][1 + errno as usize] += 1,
            }
        }
        self.counts[op as usize][0] += ok;
    }

    /// Counts `attempts` successful ones.
    #[inline(always)]
    pub fn count_ok(&mut self, op: Op, attempts: u64) {
        self.counts[op as usize][0] += attempts;
    }

    /// Counts one attempt and hands the outcome on.
    #[inline(always)]
    pub fn note(&mut self, op: Op, outcome: Outcome) -> Outcome {
        self.count(op, &outcome);
        outcome
    }

    /// Attempts of `op` that ended with the outcome of index `outcome` (see [`outcome_id`]).
    pub fn get(&self, op: Op, outcome: usize) -> u64 {
        self.counts[op as usize][outcome]
    }

    /// Attempts of `op` that succeeded.
    pub fn ok(&self, op: Op) -> u64 {
        self.get(op, 0)
    }

    /// Attempts of `op` that failed with `errno`.
    pub fn failed(&self, op: Op, errno: Errno) -> u64 {
        self.get(op, 1 + errno as usize)
    }

    /// Returns all attempts.
    pub fn attempts(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// Returns all attempts that succeeded.
    pub fn successes(&self) -> u64 {
        self.counts.iter().map(|outcomes| outcomes[0]).sum()
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *mine += theirs;
        }
    }

    /// Returns operations and outcomes that were counted, as (operation, outcome's name, count).
    pub fn iter(&self) -> impl Iterator<Item = (Op, &'static str, u64)> {
        Op::ALL.iter().flat_map(move |op| {
            (0..OUTCOMES)
                .map(move |outcome| (*op, outcome_id(outcome), self.get(*op, outcome)))
                .filter(|(_, _, count)| *count > 0)
        })
    }
}

/// Starts the code that follows on a cache line. Where the linker happens to put a loop decides
/// whether its few instructions straddle two lines, and then each turn of a short one takes a cycle
/// more: 0.55 ns in place of 0.27 for the empty step on a Zen 4.
#[inline(always)]
fn on_a_line_of_its_own() {
    // SAFETY: no instruction but padding, which does nothing.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    unsafe {
        core::arch::asm!(".p2align 6", options(nomem, nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use super::{Op, Tally};
    use cellbench_impls::Errno;

    #[test]
    fn counts_by_operation_and_outcome() {
        let mut tally = Tally::default();
        tally.count::<()>(Op::Start, &Err(Errno::EBUSY));
        tally.count(Op::Start, &Ok(()));
        tally.count_ok(Op::Lock, 1);
        let mut outcomes = [Ok(()), Err(Errno::EDEADLK), Ok(())].into_iter();
        tally.repeat(Op::Lock, 3, || outcomes.next().expect("three attempts"));
        let mut sum = tally.clone();
        sum.add(&tally);
        assert_eq!(sum.failed(Op::Start, Errno::EBUSY), 2);
        assert_eq!((sum.attempts(), sum.successes()), (12, 8));
        let listed: Vec<_> = tally.iter().collect();
        let expected = [
            (Op::Start, "ok", 1),
            (Op::Start, "EBUSY", 1),
            (Op::Lock, "ok", 3),
            (Op::Lock, "EDEADLK", 1),
        ];
        assert_eq!(listed, expected);
    }
}
