//! CPU numbers and sets of them, written and read as the kernel writes them: `0-3,8,10-11`.
//!
//! The numbers are the host's own. They may have holes, and may exceed 1024 (the size of the C
//! library's fixed `cpu_set_t`), so a set here is never a fixed mask.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Largest CPU number accepted from text: eight times what Linux can be configured for (8192),
/// so that a corrupt list fails instead of filling memory.
const MAX_CPU: u32 = 65_535;

/// Number of a CPU as the host names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of CPUs, iterated in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet(BTreeSet<CpuId>);

/// A text that is not a CPU list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a CPU list such as `0-3,8`: {part:?} is not a CPU number or an ascending range"
)]
pub struct ParseCpuSetError {
    text: String,
    part: String,
}

impl CpuSet {
    /// Returns the empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `cpu`; whether it was new.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        self.0.insert(cpu)
    }

    /// Returns whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0.contains(&cpu)
    }

    /// Returns the number of CPUs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the CPUs, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = CpuId> + '_ {
        self.0.iter().copied()
    }

    /// Returns the smallest CPU number.
    #[must_use]
    pub fn first(&self) -> Option<CpuId> {
        self.0.first().copied()
    }

    /// Returns the largest CPU number.
    #[must_use]
    pub fn last(&self) -> Option<CpuId> {
        self.0.last().copied()
    }

    /// Returns CPUs in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Returns CPUs of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl CpuSet {
    /// Reads a mask as the kernel writes it: words of 32 bits in hexadecimal, separated by commas,
    /// the highest first.
    ///
    /// # Errors
    /// [`ParseCpuSetError`] if a word is no such number or a bit stands for too large a CPU.
    pub fn from_mask(text: &str) -> Result<Self, ParseCpuSetError> {
        let mut set = Self::new();
        for (index, word) in (0u32..).zip(text.trim().rsplit(',')) {
            let bad = || ParseCpuSetError { text: text.trim().into(), part: word.into() };
            let bits = u32::from_str_radix(word.trim(), 16).map_err(|_| bad())?;
            for bit in (0..32).filter(|bit| bits & (1 << bit) != 0) {
                let cpu = index.saturating_mul(32).saturating_add(bit);
                if cpu > MAX_CPU {
                    return Err(bad());
                }
                set.0.insert(CpuId(cpu));
            }
        }
        Ok(set)
    }
}

impl FromStr for CpuSet {
    type Err = ParseCpuSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::new();
        for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            match (low.trim().parse::<u32>(), high.trim().parse::<u32>()) {
                (Ok(low), Ok(high)) if low <= high && high <= MAX_CPU => {
                    set.0.extend((low..=high).map(CpuId));
                }
                _ => return Err(ParseCpuSetError { text: text.trim().into(), part: part.into() }),
            }
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().map(|cpu| cpu.0).peekable();
        let mut separator = "";
        while let Some(low) = cpus.next() {
            let mut high = low;
            while cpus.next_if_eq(&(high + 1)).is_some() {
                high += 1;
            }
            if low == high {
                write!(f, "{separator}{low}")?;
            } else {
                write!(f, "{separator}{low}-{high}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_survive_reading_and_writing() {
        for list in ["", "0", "0-3", "0-1,4,6-7", "0,2,4", "1023-1025,4096"] {
            assert_eq!(list.parse::<CpuSet>().unwrap().to_string(), list);
        }
        assert_eq!("3,1-2,2\n".parse::<CpuSet>().unwrap().to_string(), "1-3");
    }

    #[test]
    fn nonsense_is_refused_with_the_part_named() {
        for (list, part) in
            [("0-3,x", "\"x\""), ("5-2", "\"5-2\""), ("-1", "\"-1\""), ("0-99999999", "99999999")]
        {
            let message = list.parse::<CpuSet>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn set_operations_keep_order() {
        let online: CpuSet = "0-7".parse().unwrap();
        let allowed: CpuSet = "2-3,6,9".parse().unwrap();
        assert_eq!(online.intersection(&allowed).to_string(), "2-3,6");
        assert_eq!(allowed.difference(&online).to_string(), "9");
        assert_eq!(allowed.iter().map(|cpu| cpu.0).collect::<Vec<_>>(), [2, 3, 6, 9]);
    }
}
