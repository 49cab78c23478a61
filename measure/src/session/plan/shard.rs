//! A plan in parts of nearly equal size, each for a process of its own.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use cellbench_record::ShardOf;

/// One of several parts of a plan: every N-th configuration, beginning with the K-th.
///
/// Neighbours in a plan take about the same time, so parts made in turns do, too. Which part holds
/// a configuration depends on its place in the whole plan alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: u32,
    count: NonZeroU32,
}

impl Shard {
    /// The whole plan.
    pub const WHOLE: Self = Self { index: 0, count: NonZeroU32::MIN };

    /// Returns whether the plan's configuration number `index`, from 0, is in this part.
    #[must_use]
    pub fn holds(self, index: usize) -> bool {
        index % self.count.get() as usize == self.index as usize
    }

    /// Returns the number of parts.
    #[must_use]
    pub fn count(self) -> usize {
        self.count.get() as usize
    }

    /// Returns the part as a run's record has it, of a plan with so many `configurations`; none
    /// for the
    /// whole plan. What joins the parts reads this.
    #[must_use]
    pub fn record(self, configurations: usize) -> Option<ShardOf> {
        let (index, of) = (self.index, self.count.get());
        let configurations = u32::try_from(configurations).unwrap_or(u32::MAX);
        (self != Self::WHOLE).then_some(ShardOf { index, of, configurations })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, count)| {
            let number: u32 = number.parse().ok()?;
            let count: NonZeroU32 = count.parse().ok()?;
            let index = number.checked_sub(1)?;
            (number <= count.get()).then_some(Self { index, count })
        });
        parts.ok_or_else(|| format!("`{text}` is no shard; write 1/4 to 4/4 for the parts of four"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configuration_is_in_one_shard() {
        let shards: Vec<Shard> =
            (1..=3).map(|number| format!("{number}/3").parse().unwrap()).collect();
        for index in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.holds(index)).count(), 1, "{index}");
        }
        assert!((0..10).all(|index| Shard::WHOLE.holds(index)));
    }

    #[test]
    fn shards_are_counted_from_one() {
        for text in ["1/1", "3/4", "4/4"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        for text in ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/4"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
        assert_eq!("1/1".parse(), Ok(Shard::WHOLE));
    }
}
