//! The rounds of a run, gathered row by row as they come, in little memory.
//!
//! Both ends use it: the runner pushes rounds while it measures and asks whether they suffice
//! ([`Table::decision`]), a report pushes them from the file and asks for the summary.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cellbench_record::{Counter, Latency, Named, OutcomeCounts, Round, Series, Source, Verdict};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::options::{CONFIDENCE, Options};
use crate::stats::interval::{Bootstrap, Interval, MIN_VALUES};
use crate::stats::signed_rank::SignedRank;
use crate::stats::simultaneous::{Member, Simultaneous};
use crate::stats::{fairness, power};

/// Rounds of a run by row.
#[derive(Debug)]
pub struct Table {
    pub(crate) options: Options,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) rows: Vec<Row>,
    index: HashMap<Series, usize>,
    reasons: Reasons,
}

/// Whether the rounds so far decide the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every row that has a baseline is decided; more rounds would not change a verdict.
    Enough,
    /// Some row is not; so many more rounds can be expected to decide all of them.
    More(u32),
}

impl Table {
    /// Returns an empty table.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let bootstrap = Bootstrap::new(options.seed, CONFIDENCE);
        Self {
            options,
            bootstrap,
            rows: Vec::new(),
            index: HashMap::new(),
            reasons: Reasons::default(),
        }
    }

    /// Adds a round. Order does not matter; of two lines for the same row and round the first
    /// counts.
    pub fn push(&mut self, round: impl Borrow<Round>) {
        let round = round.borrow();
        let row = match self.index.get(&round.series) {
            Some(row) => *row,
            None => {
                self.index.insert(round.series.clone(), self.rows.len());
                self.rows.push(Row::new(round.series.clone()));
                self.rows.len() - 1
            }
        };
        self.rows[row].push(round, &mut self.reasons);
    }

    /// Returns the number and goodput, in operations per second, of each round of a row that
    /// counts.
    pub(crate) fn goodput_by_round(&self, series: &Series) -> impl Iterator<Item = (u32, f64)> {
        let row = self.index.get(series).map(|index| &self.rows[*index]);
        row.into_iter().flat_map(|row| &row.rounds).filter_map(|(number, round)| {
            let round = round.as_ref()?;
            Some((*number, round.ok as f64 / round.duration_s))
        })
    }

    /// Returns the row of a series.
    pub(crate) fn row(&self, series: &Series) -> Option<&Row> {
        self.index.get(series).map(|row| &self.rows[*row])
    }

    /// Returns whether a disturbed round of a row began at this time.
    pub(crate) fn was_disturbed(&self, series: &Series, start_s: f64) -> bool {
        self.index.get(series).is_some_and(|row| self.rows[*row].was_disturbed_at(start_s))
    }

    /// Returns whether the rounds so far suffice. It may be asked after every round: only at the
    /// prespecified numbers of rounds ([`power::look`]) does it look, and spends the error of that
    /// look.
    ///
    /// Rows without a baseline, or with a broken invariant, are not waited for.
    #[must_use]
    pub fn decision(&self) -> Decision {
        let pairs: Vec<(usize, Paired)> =
            self.pairs().into_iter().filter(|(_, paired)| paired.error.is_none()).collect();
        if pairs.is_empty() {
            return Decision::Enough;
        }
        let last = self.rows.iter().filter_map(|row| row.rounds.last()).map(|(number, _)| *number);
        let begun = last.max().unwrap_or(0).saturating_add(1);
        let planned = (pairs.len() as u32).max(self.options.comparisons);
        let rule = self.options.rule();
        let waiting = power::next_look(begun).saturating_sub(begun).max(1);
        let Some(share) = power::look(begun) else { return Decision::More(waiting) };
        let level = rule.alpha * share / f64::from(planned);
        let mut more = 0;
        for (_, paired) in &pairs {
            let found = SignedRank::new(&paired.log_ratios).and_then(|test| test.interval(level));
            let needed = match found {
                Some(found) if rule.judge(&found) != Verdict::Undecided => 0,
                Some(found) => {
                    rule.rounds_needed(&found, paired.log_ratios.len(), planned as usize)
                }
                None => power::rounds_needed(planned, rule.alpha)
                    .saturating_sub(paired.log_ratios.len() as u32)
                    .max(1),
            };
            more = more.max(needed);
        }
        if more == 0 { Decision::Enough } else { Decision::More(more.max(waiting)) }
    }

    /// Compares every row with its baseline row; the index of the row comes first.
    ///
    /// Rows with too few rounds to be decided in this table, however their rounds fall, are
    /// surveyed:
    /// they have an interval of their own, no verdict, and no part in the correction. Which rows
    /// those are depends on numbers of rounds alone, so that choosing them favours no outcome.
    pub(crate) fn compare(&self) -> Vec<(usize, Comparison)> {
        let pairs = self.pairs();
        let alpha = power::final_alpha(self.options.alpha);
        let fewest = fewest_to_decide(&pairs, self.options.alpha);
        let mut groups: HashMap<Series, usize> = HashMap::new();
        let mut members: Vec<Member> = Vec::new();
        for (row, paired) in &pairs {
            if paired.is_decidable(fewest) {
                let conditions = self.rows[*row].series.with_cell("");
                let next = groups.len();
                let group = *groups.entry(conditions).or_insert(next);
                members.push(Member {
                    group,
                    rounds: paired.rounds.clone(),
                    differences: paired.log_ratios.clone(),
                });
            }
        }
        let table = Simultaneous::new(self.options.seed, &members);
        drop(members);
        let level = table.level(alpha);
        let compare = |(row, paired): (usize, Paired)| {
            let surveyed = !paired.is_decidable(fewest);
            let mut found = Comparison {
                pairs: paired.log_ratios.len() as u32,
                pairs_disturbed: if paired.error.is_none() { paired.disturbed } else { 0 },
                log_ratio: None,
                estimate: None,
                p_value: None,
                p_adjusted: None,
                surveyed,
                error: paired.error,
            };
            if let Some(test) = SignedRank::new(&paired.log_ratios)
                && found.error.is_none()
            {
                found.estimate = Some(test.estimate());
                let own_level = if surveyed { 1.0 - CONFIDENCE } else { level };
                found.log_ratio = test.interval(own_level);
                if paired.log_ratios.len() >= MIN_VALUES {
                    let p_value = test.p_value();
                    found.p_value = Some(p_value);
                    // So that it is to be held against alpha as a whole, looks included.
                    let whole = self.options.alpha / alpha;
                    found.p_adjusted =
                        (!surveyed).then(|| (table.adjust(p_value) * whole).min(1.0));
                }
                if self.rows[row].series.source == Source::Sim {
                    found.hold_all_draws(&paired.log_ratios, self.options.alpha);
                }
            }
            (row, found)
        };
        pairs.into_par_iter().map(compare).collect()
    }

    /// Returns the rounds that each row shares with its baseline row; the index of the row comes
    /// first.
    fn pairs(&self) -> Vec<(usize, Paired)> {
        let baseline = &self.options.baseline;
        self.rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.series.cell != *baseline)
            .filter_map(|(index, row)| {
                let base = *self.index.get(&row.series.with_cell(baseline))?;
                Some((index, Paired::new(row, &self.rows[base])))
            })
            .collect()
    }
}

/// Returns the fewest rounds with which a row takes part: the least for which each row that has them could be
/// decided in a table of all rows that have them.
fn fewest_to_decide(pairs: &[(usize, Paired)], alpha: f64) -> usize {
    let mut rounds: Vec<usize> = pairs
        .iter()
        .filter(|(_, paired)| paired.error.is_none())
        .map(|(_, paired)| paired.log_ratios.len())
        .collect();
    rounds.sort_unstable_by(|a, b| b.cmp(a));
    let mut fewest = usize::MAX;
    let mut rows = 0;
    for same in rounds.chunk_by(|a, b| a == b) {
        rows += same.len();
        let rounds = u32::try_from(same[0]).unwrap_or(u32::MAX);
        if same[0] >= MIN_VALUES
            && power::decidable(rounds, u32::try_from(rows).unwrap_or(u32::MAX), alpha)
        {
            fewest = same[0];
        }
    }
    fewest
}

/// A row against its baseline.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) pairs: u32,
    pub(crate) pairs_disturbed: u32,
    /// Interval of the log ratio: simultaneous over the table, or for a surveyed row its own. None
    /// with too few pairs or an error.
    pub(crate) log_ratio: Option<Interval>,
    /// Estimate of the log ratio, also with few pairs.
    pub(crate) estimate: Option<f64>,
    pub(crate) p_value: Option<f64>,
    pub(crate) p_adjusted: Option<f64>,
    /// Whether there are too few rounds for a verdict in this table.
    pub(crate) surveyed: bool,
    /// Reason for which there can be no verdict.
    pub(crate) error: Option<String>,
}

impl Comparison {
    /// Widens the interval of a simulated row to hold its rounds but for a share of `alpha`, half
    /// of it at
    /// each end. A round is a draw of seed and machine: how much results differ between draws does
    /// not
    /// shrink with their number, as the error of a mean does.
    fn hold_all_draws(&mut self, log_ratios: &[f64], alpha: f64) {
        let mut sorted = log_ratios.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let outside = (alpha / 2.0 * sorted.len() as f64).floor() as usize;
        let (Some(low), Some(high)) =
            (sorted.get(outside), sorted.len().checked_sub(outside + 1).map(|last| sorted[last]))
        else {
            return;
        };
        if let Some(interval) = &mut self.log_ratio {
            interval.low = interval.low.min(*low);
            interval.high = interval.high.max(high);
        }
        // The share of draws that say the contrary, twice: above alpha exactly where the interval holds 0.
        let below = sorted.iter().filter(|ratio| **ratio <= 0.0).count();
        let above = sorted.iter().filter(|ratio| **ratio >= 0.0).count();
        let contrary = (2.0 * below.min(above) as f64 / sorted.len() as f64).min(1.0);
        self.p_adjusted = self.p_adjusted.map(|p| p.max(contrary));
    }
}

/// Log ratios of two rows, from the rounds in which both count.
pub(crate) struct Paired {
    /// Numbers of the rounds, rising.
    pub(crate) rounds: Vec<u32>,
    pub(crate) log_ratios: Vec<f64>,
    pub(crate) disturbed: u32,
    /// Reason for which there can be no verdict.
    pub(crate) error: Option<String>,
}

impl Paired {
    pub(crate) fn new(row: &Row, base: &Row) -> Self {
        let error = [row, base]
            .iter()
            .find(|side| !side.violations.is_empty())
            .map(|side| format!("{} broke an invariant", side.series.cell));
        let mut pairs = Self { rounds: Vec::new(), log_ratios: Vec::new(), disturbed: 0, error };
        let mut others = base.rounds.iter().peekable();
        for (number, ours) in &row.rounds {
            while others.next_if(|(other, _)| other < number).is_some() {}
            let Some((_, theirs)) = others.next_if(|(other, _)| other == number) else { continue };
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                pairs.disturbed += u32::from(!cellbench_mutations::mutated!(DisturbedUncounted));
                continue;
            };
            // A window without any success says "less than one": half an operation stands for it.
            // If neither side had one, the round says nothing about their ratio.
            if ours.ok > 0 || theirs.ok > 0 || cellbench_mutations::mutated!(EmptyRoundsPaired) {
                let rate = |side: &Counted| (side.ok as f64).max(0.5) / side.duration_s;
                pairs.rounds.push(*number);
                pairs.log_ratios.push(libm::log(rate(ours) / rate(theirs)));
            }
        }
        pairs
    }

    fn is_decidable(&self, fewest: usize) -> bool {
        self.error.is_none() && self.log_ratios.len() >= fewest
    }
}

/// All rounds of a series.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) series: Series,
    /// In rising order of their number; none for a round that must not count.
    pub(crate) rounds: Vec<(u32, Option<Counted>)>,
    /// Rounds that a disturbance took out.
    pub(crate) disturbed: u32,
    /// Their starts, by which a latency log without marks tells them.
    pub(crate) disturbed_starts_s: Vec<f64>,
    pub(crate) violations: Vec<String>,
    pub(crate) sums: Sums,
}

/// Sums over the rounds that count.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    pub(crate) ops: Named<OutcomeCounts>,
    pub(crate) contexts: Named<OutcomeCounts>,
    pub(crate) ok: u64,
    pub(crate) attempts: u64,
    pub(crate) duration_s: f64,
    pub(crate) per_thread_ok: Vec<u64>,
    pub(crate) counters: Named<CounterSum>,
    pub(crate) line_transfers: Named<u64>,
    pub(crate) line_waits_ns: Named<u64>,
    pub(crate) latency: Named<Vec<Latency>>,
}

/// Contribution of a round that counts.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) ok: u64,
    pub(crate) attempts: u64,
    pub(crate) duration_s: f64,
    pub(crate) jain: Option<f64>,
    pub(crate) worst_share: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct CounterSum {
    pub(crate) events: f64,
    /// Attempts in the rounds in which the counter ran.
    pub(crate) attempts: u64,
    pub(crate) multiplexed: bool,
    pub(crate) missing: Option<Arc<str>>,
}

/// Reasons for which counters are missing: few, which every row of a host repeats.
#[derive(Debug, Default)]
struct Reasons(HashSet<Arc<str>>);

impl Reasons {
    /// Returns the one copy of a reason.
    fn get(&mut self, reason: &str) -> Arc<str> {
        if let Some(known) = self.0.get(reason) {
            return Arc::clone(known);
        }
        let new: Arc<str> = reason.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// Violations kept word for word; one is enough to make the row an error.
const VIOLATIONS_KEPT: usize = 5;

impl Row {
    fn new(series: Series) -> Self {
        Self {
            series,
            rounds: Vec::new(),
            disturbed: 0,
            disturbed_starts_s: Vec::new(),
            violations: Vec::new(),
            sums: Sums::default(),
        }
    }

    fn push(&mut self, round: &Round, reasons: &mut Reasons) {
        // Rounds come in order, or nearly: the place is the end, or close to it.
        let Err(place) = self.rounds.binary_search_by_key(&round.round, |(number, _)| *number)
        else {
            return;
        };
        for violation in &round.invariants.violations {
            if self.violations.len() < VIOLATIONS_KEPT {
                self.violations.push(format!("round {}: {violation}", round.round));
            }
        }
        let counted = round.is_usable().then(|| {
            let shares: Vec<f64> = round.per_thread.iter().map(|thread| thread.ok as f64).collect();
            Counted {
                ok: round.ok(),
                attempts: round.attempts(),
                duration_s: round.duration_s,
                jain: fairness::jain(&shares),
                worst_share: fairness::worst_share(&shares),
            }
        });
        match &counted {
            Some(counted) => self.sums.add(round, counted, reasons),
            None if round.disturbed.is_empty() => {}
            None => {
                self.disturbed += 1;
                self.disturbed_starts_s.push(round.start_s);
            }
        }
        self.rounds.insert(place, (round.round, counted));
    }

    /// Returns whether a disturbed round began at this time, to the millisecond that logs hold.
    pub(crate) fn was_disturbed_at(&self, start_s: f64) -> bool {
        self.disturbed_starts_s.iter().any(|start| (start - start_s).abs() < 0.001_1)
    }

    /// Returns the rounds that count, in their order.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.rounds.iter().filter_map(|(_, round)| round.as_ref())
    }

    /// Returns the log of goodput of the rounds that count; a window without success as half an operation.
    pub(crate) fn log_goodput(&self) -> Vec<f64> {
        self.counted()
            .map(|round| libm::log((round.ok as f64).max(0.5) / round.duration_s))
            .collect()
    }

    /// Returns the share of attempts that failed, over all rounds that count; none without
    /// attempts.
    pub(crate) fn failure_share(&self) -> Option<f64> {
        let sums = self.counted().fold((0_u64, 0_u64), |(ok, attempts), round| {
            (ok.saturating_add(round.ok), attempts.saturating_add(round.attempts))
        });
        let (ok, attempts) = sums;
        (attempts > 0).then(|| 1.0 - ok as f64 / attempts as f64)
    }
}

impl Sums {
    fn add(&mut self, round: &Round, counted: &Counted, reasons: &mut Reasons) {
        self.ok = self.ok.saturating_add(counted.ok);
        self.attempts = self.attempts.saturating_add(counted.attempts);
        self.duration_s += round.duration_s;
        add_outcomes(&mut self.ops, &round.ops);
        add_outcomes(&mut self.contexts, &round.contexts);
        self.per_thread_ok.resize(self.per_thread_ok.len().max(round.per_thread.len()), 0);
        for (sum, thread) in self.per_thread_ok.iter_mut().zip(&round.per_thread) {
            *sum = sum.saturating_add(thread.ok);
        }
        for (name, counter) in &round.counters {
            let sum = self.counters.or_default(name);
            match (counter, counter.scaled()) {
                (_, Some(events)) => {
                    sum.events += events;
                    sum.attempts = sum.attempts.saturating_add(counted.attempts);
                    sum.multiplexed |= counter.is_multiplexed();
                }
                (Counter::Unavailable { unavailable }, None) => {
                    sum.missing = Some(reasons.get(unavailable));
                }
                (Counter::Counted { .. }, None) => {
                    sum.missing = Some(reasons.get("never got onto a hardware counter"));
                }
            }
        }
        for (field, count) in &round.line_transfers {
            let sum = self.line_transfers.or_default(field);
            *sum = sum.saturating_add(*count);
        }
        for (field, waited_ns) in &round.line_waits_ns {
            let sum = self.line_waits_ns.or_default(field);
            *sum = sum.saturating_add(*waited_ns);
        }
        for (op, latency) in &round.latency {
            if latency.samples > 0 {
                self.latency.or_default(op).push(latency.clone());
            }
        }
    }
}

fn add_outcomes(sums: &mut Named<OutcomeCounts>, counts: &BTreeMap<String, BTreeMap<String, u64>>) {
    for (name, outcomes) in counts {
        let sum = sums.or_default(name);
        for (outcome, count) in outcomes {
            let total = sum.or_default(outcome);
            *total = total.saturating_add(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a comparison whose interval of the median excludes 0, with its simulated rounds.
    fn drawn(log_ratios: &[f64]) -> (Interval, f64) {
        let mut found = Comparison {
            pairs: log_ratios.len() as u32,
            pairs_disturbed: 0,
            log_ratio: Some(Interval { estimate: 0.10, low: 0.08, high: 0.12 }),
            estimate: Some(0.10),
            p_value: Some(0.001),
            p_adjusted: Some(0.01),
            surveyed: false,
            error: None,
        };
        found.hold_all_draws(log_ratios, 0.05);
        (found.log_ratio.expect("it has one"), found.p_adjusted.expect("it has one"))
    }

    #[test]
    fn a_simulated_difference_is_one_only_beyond_its_draws() {
        let mut rounds = vec![0.10; 100];
        let (interval, p) = drawn(&rounds);
        assert_eq!((interval.low, interval.high, p), (0.08, 0.12, 0.01));
        // Two draws of a hundred to the contrary are within the share of errors; three are not.
        rounds[..2].fill(-0.20);
        let (interval, p) = drawn(&rounds);
        assert!(interval.low > 0.0 && p <= 0.05, "{interval:?}, {p}");
        rounds[..3].fill(-0.20);
        let (interval, p) = drawn(&rounds);
        assert!(interval.low == -0.20 && p > 0.05, "{interval:?}, {p}");
        let (interval, p) = drawn(&[0.10, 0.12, -0.01]);
        assert!(interval.low < 0.0 && p > 0.05, "{interval:?}, {p}");
    }
}
