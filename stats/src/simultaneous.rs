//! Correction over the table: with a hundred rows, five are called different by chance alone.
//!
//! P. Westfall and S. Young ("Resampling-Based Multiple Testing", 1993), single step: the signs of
//! all rounds are drawn anew, many times; the smallest probability that any row of the table then
//! shows tells how small a probability must be to surprise in this table. Rows that share their
//! rounds and their baseline have their signs drawn jointly, so that rows which move together cost
//! less than rows which do not, as the real ones do. Each row is first moved by its own estimate, so
//! that a row that does differ takes nothing from the others.
//!
//! One level results for every row of the table, never below the one by Bonferroni, which needs no
//! resampling to be right. The interval of every row is the one at that level: verdicts and
//! simultaneous intervals are the same statement. (The step-down form would decide a little more, but
//! has no intervals.)

use std::collections::HashMap;

use cellbench_mutations::mutated;
use rayon::prelude::*;

use super::normal;
use super::random::SplitMix64;
use super::signed_rank::{SignedRank, law, moments};

/// Drawings for tables of usual size. One more than this is the unit of probability.
const DRAWINGS: usize = 4_095;
/// Drawings where a row has very many rounds.
const FEWER_DRAWINGS: usize = 1_023;
/// Rounds of a row that are very many.
const MANY_ROUNDS: usize = 2_048;

/// The differences of one row.
#[derive(Clone, Debug)]
pub struct Member {
    /// Rows of one group share their rounds: same workload, threads and place.
    pub group: usize,
    /// Numbers of the rounds, rising.
    pub rounds: Vec<u32>,
    /// The difference in each.
    pub differences: Vec<f64>,
}

/// The smallest probabilities that a table of equal rows shows.
#[derive(Clone, Debug)]
pub struct Simultaneous {
    /// In rising order.
    smallest: Vec<f64>,
    comparisons: usize,
}

impl Simultaneous {
    /// Draws signs for all members. Deterministic in `seed`, whatever the number of threads.
    #[must_use]
    pub fn new(seed: u64, members: &[Member]) -> Self {
        let longest = members.iter().map(|member| member.differences.len()).max().unwrap_or(0);
        let drawings = if longest > MANY_ROUNDS { FEWER_DRAWINGS } else { DRAWINGS };
        let mut groups: HashMap<usize, Vec<&Member>> = HashMap::new();
        for member in members {
            groups.entry(member.group).or_default().push(member);
        }
        let groups: Vec<(usize, Vec<&Member>)> = groups.into_iter().collect();
        let none = || Extremes { tail: vec![0.5; drawings], z: vec![0.0; drawings] };
        let extremes = groups
            .par_iter()
            .fold(none, |mut extremes, (group, members)| {
                extremes.draw(seed, *group, members);
                extremes
            })
            .reduce(none, Extremes::join);
        let mut smallest = extremes.probabilities();
        smallest.sort_unstable_by(f64::total_cmp);
        Self { smallest, comparisons: members.len() }
    }

    /// Returns the number of rows in the table.
    #[must_use]
    pub fn comparisons(&self) -> usize {
        self.comparisons
    }

    /// Returns the level for each row at which the table as a whole is wrong with probability at
    /// most `alpha`.
    #[must_use]
    pub fn level(&self, alpha: f64) -> f64 {
        if mutated!(TableUncorrected) {
            return alpha;
        }
        let bonferroni = alpha / self.comparisons.max(1) as f64;
        let units = (alpha * (self.smallest.len() + 1) as f64).floor() as usize;
        let resampled = match units.checked_sub(1) {
            Some(index) if index < self.smallest.len() => self.smallest[index].next_down(),
            _ => 0.0,
        };
        resampled.max(bonferroni).min(alpha)
    }

    /// Returns a row's probability corrected over the table: at most alpha exactly if `p_value` is
    /// at
    /// most the level for that alpha.
    #[must_use]
    pub fn adjust(&self, p_value: f64) -> f64 {
        if mutated!(ProbabilityUnadjusted) {
            return p_value;
        }
        let bonferroni = p_value * self.comparisons.max(1) as f64;
        let not_above = self.smallest.partition_point(|smallest| *smallest <= p_value);
        let resampled = (not_above + 1) as f64 / (self.smallest.len() + 1) as f64;
        resampled.min(bonferroni).max(p_value).min(1.0)
    }
}

/// The most extreme row of each drawing.
struct Extremes {
    /// Smallest one-sided tail of rows with an exact law.
    tail: Vec<f64>,
    /// Largest standard score of the others.
    z: Vec<f64>,
}

impl Extremes {
    fn draw(&mut self, seed: u64, group: usize, members: &[&Member]) {
        let mut rounds: Vec<u32> =
            members.iter().flat_map(|member| member.rounds.iter().copied()).collect();
        rounds.sort_unstable();
        rounds.dedup();
        let bytes = rounds.len().div_ceil(8);
        // One bit a round, for each drawing.
        let mut random = SplitMix64::for_part(seed, group as u64);
        let words = bytes.div_ceil(8);
        let signs: Vec<u8> =
            (0..self.tail.len() * words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        for member in members {
            let Some(ranks) = ranks(member, &rounds) else { continue };
            let n = member.differences.len();
            // Rank sums of each eight rounds for all settings of their signs.
            let sums: Vec<[u64; 256]> = ranks.chunks(8).map(sums_of_eight).collect();
            let total = (n * (n + 1) / 2) as u64;
            let law = law(n);
            let (mean, deviation) = moments(n);
            for (drawing, signs) in signs.chunks_exact(words * 8).enumerate() {
                let sum: u64 =
                    sums.iter().zip(signs).map(|(sums, signs)| sums[usize::from(*signs)]).sum();
                let smaller = sum.min(total - sum);
                match law {
                    Some(law) => {
                        let tail = law[smaller as usize];
                        self.tail[drawing] = self.tail[drawing].min(tail);
                    }
                    None => {
                        let z = (mean - 0.5 - smaller as f64) / deviation;
                        self.z[drawing] = self.z[drawing].max(z);
                    }
                }
            }
        }
    }

    fn join(mut self, other: Self) -> Self {
        for (one, other) in self.tail.iter_mut().zip(other.tail) {
            *one = one.min(other);
        }
        for (one, other) in self.z.iter_mut().zip(other.z) {
            *one = one.max(other);
        }
        self
    }

    fn probabilities(self) -> Vec<f64> {
        let both = self.tail.into_iter().zip(self.z);
        both.map(|(tail, z)| (2.0 * tail.min(normal::cdf(-z))).min(1.0)).collect()
    }
}

/// Returns the rank of a member's magnitude in each of `rounds`, 0 where it has none.
fn ranks(member: &Member, rounds: &[u32]) -> Option<Vec<u64>> {
    let centre = SignedRank::new(&member.differences)?.estimate();
    let centre = if mutated!(TableUncentred) { 0.0 } else { centre };
    let mut order: Vec<usize> = (0..member.differences.len()).collect();
    let size = |index: usize| (member.differences[index] - centre).abs();
    order.sort_by(|a, b| size(*a).total_cmp(&size(*b)));
    let mut ranks = vec![0; rounds.len()];
    for (rank, index) in (1..).zip(order) {
        ranks[rounds.binary_search(&member.rounds[index]).ok()?] = rank;
    }
    Some(ranks)
}

fn sums_of_eight(ranks: &[u64]) -> [u64; 256] {
    let mut sums = [0; 256];
    for signs in 1..256_usize {
        let lowest = signs.trailing_zeros() as usize;
        sums[signs] = sums[signs & (signs - 1)] + ranks.get(lowest).copied().unwrap_or(0);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(random: &mut SplitMix64, n: usize) -> Vec<f64> {
        (0..n).map(|_| random.normal_pair()[0]).collect()
    }

    fn member(group: usize, differences: Vec<f64>) -> Member {
        Member { group, rounds: (0..differences.len() as u32).collect(), differences }
    }

    #[test]
    fn one_row_needs_no_correction_and_copies_of_it_neither() {
        let mut random = SplitMix64::new(1);
        let row = noise(&mut random, 20);
        let alone = Simultaneous::new(7, &[member(0, row.clone())]);
        assert_eq!(alone.level(0.05), 0.05);
        // Ten rows that are one and the same: the table surprises as seldom as the row.
        let copies: Vec<Member> = (0..10).map(|_| member(0, row.clone())).collect();
        let copied = Simultaneous::new(7, &copies);
        assert!(copied.level(0.05) > 0.04, "{}", copied.level(0.05));
        // The same rows in groups of their own know nothing of each other.
        let apart: Vec<Member> = (0..10).map(|group| member(group, row.clone())).collect();
        let apart = Simultaneous::new(7, &apart);
        assert!((0.005..0.0065).contains(&apart.level(0.05)), "{}", apart.level(0.05));
    }

    #[test]
    fn adjusted_probability_and_level_say_the_same() {
        let mut random = SplitMix64::new(2);
        let rows: Vec<Member> = (0..30).map(|i| member(i / 6, noise(&mut random, 18))).collect();
        let table = Simultaneous::new(3, &rows);
        for alpha in [0.05, 0.04, 0.01] {
            let level = table.level(alpha);
            assert!(level >= alpha / 30.0 && level < alpha);
            assert!(table.adjust(level) <= alpha, "{} at {level}", table.adjust(level));
            assert!(table.adjust(level * 1.01) > alpha);
        }
        assert_eq!(table.adjust(1.0), 1.0);
    }

    #[test]
    fn a_row_that_differs_takes_nothing_from_the_others() {
        let mut random = SplitMix64::new(6);
        let equal: Vec<Vec<f64>> = (0..12).map(|_| noise(&mut random, 20)).collect();
        let level = |shift: f64| {
            let rows = equal.iter().enumerate().map(|(number, row)| {
                // Every second row differs.
                let shift = if number % 2 == 0 { shift } else { 0.0 };
                member(number / 4, row.iter().map(|value| value + shift).collect())
            });
            Simultaneous::new(8, &rows.collect::<Vec<_>>()).level(0.05)
        };
        assert_eq!(level(0.0), level(7.0));
    }

    #[test]
    fn a_table_of_equal_rows_is_wrong_in_at_most_5_percent() {
        let mut random = SplitMix64::new(4);
        let mut wrong = 0;
        for seed in 0..300 {
            // Rows that share a baseline.
            let rows: Vec<Member> = (0..4)
                .flat_map(|group| {
                    let base = noise(&mut random, 15);
                    let rows: Vec<Member> = (0..5)
                        .map(|_| {
                            let own = noise(&mut random, 15);
                            let row = own.iter().zip(&base).map(|(a, b)| a - b).collect();
                            member(group, row)
                        })
                        .collect();
                    rows
                })
                .collect();
            let level = Simultaneous::new(seed, &rows).level(0.05);
            let rejects =
                |row: &Member| SignedRank::new(&row.differences).unwrap().p_value() <= level;
            wrong += usize::from(rows.iter().any(rejects));
        }
        assert!((1..=22).contains(&wrong), "{wrong} of 300");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let mut random = SplitMix64::new(5);
        let rows: Vec<Member> = (0..12).map(|i| member(i / 3, noise(&mut random, 70))).collect();
        let expected = Simultaneous::new(9, &rows).level(0.05);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| Simultaneous::new(9, &rows).level(0.05)), expected);
        }
    }
}
