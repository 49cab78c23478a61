//! The rounds of a run, gathered row by row as they come, in little memory.
//!
//! Both ends use it: the runner pushes rounds while it measures and asks whether they suffice
//! ([`Table::decision`]), a report pushes them from the file and asks for the summary.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cellbench_record::{Counter, Latency, Named, OutcomeCounts, Round, Series, Source, Verdict};

use crate::options::{CONFIDENCE, Options, Test};
use crate::stats::interval::{Bootstrap, Interval, MIN_VALUES};
use crate::stats::verdict::Rule;
use crate::stats::{fairness, holm, median, rank_test};

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

/// Rounds before which nothing counts as decided: from here on the coverage of the intervals is
/// verified.
const FEWEST_TO_STOP: usize = 15;

/// Stopping when a difference shows, after looking many times, finds differences that are not
/// there. The looks on the way therefore ask for this probability, so small that together they add
/// next to nothing to the 5 % of the final look (R. Peto et al., British Journal of Cancer 1976).
const ALPHA_ON_THE_WAY: f64 = 0.001;

impl Table {
    /// An empty table.
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

    /// Adds a round. Order does not matter; of two lines for the same row and round the first counts.
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

    /// Number and goodput, in operations per second, of each round of a row that counts.
    pub(crate) fn goodput_by_round(&self, series: &Series) -> impl Iterator<Item = (u32, f64)> {
        let row = self.index.get(series).map(|index| &self.rows[*index]);
        row.into_iter().flat_map(|row| &row.rounds).filter_map(|(number, round)| {
            let round = round.as_ref()?;
            Some((*number, round.ok as f64 / round.duration_s))
        })
    }

    /// Whether the rounds so far suffice. Call it between rounds: it computes for some milliseconds
    /// on all cores, more in a large table.
    ///
    /// Rows without a baseline, or with a broken invariant, are not waited for.
    #[must_use]
    pub fn decision(&self) -> Decision {
        let mut comparisons = self.compare();
        comparisons.retain(|(_, found)| found.error.is_none());
        let strict = Rule { alpha: ALPHA_ON_THE_WAY, ..self.options.rule() };
        let mut more = 0;
        for (row, found) in &comparisons {
            let fewest = match self.rows[*row].series.source {
                Source::Sim => MIN_VALUES, // a simulated round has no outliers and no neighbours
                _ => FEWEST_TO_STOP,
            };
            let pairs = found.pairs as usize;
            if pairs < fewest {
                more = more.max((fewest - pairs) as u32);
                continue;
            }
            let judged =
                found.log_ratio.as_ref().map(|ratio| strict.judge(ratio, found.p_adjusted));
            if judged.is_none_or(|verdict| verdict == Verdict::Undecided) {
                more = more.max(strict.rounds_needed(
                    found.log_ratio.as_ref(),
                    pairs,
                    comparisons.len(),
                ));
            }
        }
        if more == 0 { Decision::Enough } else { Decision::More(more) }
    }

    /// Compares every row with its baseline row; the index of the row comes first.
    pub(crate) fn compare(&self) -> Vec<(usize, Comparison)> {
        let baseline = &self.options.baseline;
        let mut comparisons: Vec<(usize, Comparison)> = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.series.cell != *baseline)
            .filter_map(|(index, row)| {
                let base = *self.index.get(&row.series.with_cell(baseline))?;
                Some((index, self.compare_rows(row, &self.rows[base])))
            })
            .collect();
        let compared: Vec<usize> =
            (0..comparisons.len()).filter(|i| comparisons[*i].1.log_ratio.is_some()).collect();
        let p_values: Vec<f64> = compared.iter().map(|i| comparisons[*i].1.p_value).collect();
        for (i, adjusted) in compared.into_iter().zip(holm::adjust(&p_values)) {
            comparisons[i].1.p_adjusted = adjusted;
        }
        comparisons
    }

    fn compare_rows(&self, row: &Row, base: &Row) -> Comparison {
        let error = [row, base]
            .iter()
            .find(|side| !side.violations.is_empty())
            .map(|side| format!("{} broke an invariant", side.series.cell));
        let pairs = pair(row, base);
        let mut comparison = Comparison {
            pairs: pairs.log_ratios.len() as u32,
            pairs_disturbed: if error.is_none() { pairs.disturbed } else { 0 },
            log_ratio: None,
            median: median(&mut pairs.log_ratios.clone()),
            p_value: 1.0,
            p_adjusted: 1.0,
            error,
        };
        if comparison.error.is_none() {
            comparison.log_ratio = self.bootstrap.median(&pairs.log_ratios);
            comparison.p_value = match self.options.test {
                Test::SignedRank => rank_test::signed_rank(&pairs.log_ratios),
                Test::Sign => rank_test::sign(&pairs.log_ratios),
            };
        }
        comparison
    }
}

/// A row against its baseline.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) pairs: u32,
    pub(crate) pairs_disturbed: u32,
    /// Interval of the log ratio; none with too few pairs or an error.
    pub(crate) log_ratio: Option<Interval>,
    /// Median log ratio, also with few pairs.
    pub(crate) median: Option<f64>,
    pub(crate) p_value: f64,
    pub(crate) p_adjusted: f64,
    /// Why there can be no verdict.
    pub(crate) error: Option<String>,
}

/// Log ratios of two rows in the order of their rounds, from rounds in which both count.
struct Pairs {
    log_ratios: Vec<f64>,
    disturbed: u32,
}

fn pair(row: &Row, base: &Row) -> Pairs {
    let mut pairs = Pairs { log_ratios: Vec::new(), disturbed: 0 };
    let mut others = base.rounds.iter().peekable();
    for (number, ours) in &row.rounds {
        while others.next_if(|(other, _)| other < number).is_some() {}
        let Some((_, theirs)) = others.next_if(|(other, _)| other == number) else { continue };
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            pairs.disturbed += 1;
            continue;
        };
        // A window without any success says "less than one": half an operation stands for it. If
        // neither side had one, the round says nothing about their ratio.
        if ours.ok > 0 || theirs.ok > 0 {
            let rate = |side: &Counted| (side.ok as f64).max(0.5) / side.duration_s;
            pairs.log_ratios.push(libm::log(rate(ours) / rate(theirs)));
        }
    }
    pairs
}

/// All rounds of a series.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) series: Series,
    /// In rising order of their number; none for a round that must not count.
    pub(crate) rounds: Vec<(u32, Option<Counted>)>,
    /// Rounds that a disturbance took out.
    pub(crate) disturbed: u32,
    pub(crate) violations: Vec<String>,
    pub(crate) sums: Sums,
}

/// What is only summed over the rounds that count.
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

/// What a round that counts contributed.
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

/// Why counters are missing: few reasons, which every row of a host repeats.
#[derive(Debug, Default)]
struct Reasons(HashSet<Arc<str>>);

impl Reasons {
    /// The one copy of a reason.
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
            None => self.disturbed += u32::from(!round.disturbed.is_empty()),
        }
        self.rounds.insert(place, (round.round, counted));
    }

    /// The rounds that count, in their order.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &Counted> {
        self.rounds.iter().filter_map(|(_, round)| round.as_ref())
    }

    /// Log of goodput of the rounds that count; a window without success as half an operation.
    pub(crate) fn log_goodput(&self) -> Vec<f64> {
        self.counted()
            .map(|round| libm::log((round.ok as f64).max(0.5) / round.duration_s))
            .collect()
    }

    /// Share of attempts that failed, over all rounds that count; none without attempts.
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
