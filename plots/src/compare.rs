//! Two runs against each other: before and after a patch, two hosts, model and kernel.
//!
//! The runs were measured apart, so that whatever changed in between is in the ratio. What differs in
//! host and settings is therefore named first; every interval is widened by what the halves of a
//! run, between which nothing was changed, differ by; and every ratio is also given relative to the
//! baseline cell, which moved with the host but not with the patch. `cellbench ab` measures both in
//! one run and needs none of this.
//!
//! Simulated rounds with one seed are pairs: the same draws before and after. They are compared
//! within rounds, as cells of one run are.

use std::collections::HashMap;

use cellbench_mutations::mutated;
use cellbench_record::{Host, Run, Series, Source, Verdict};
use serde::Serialize;

use crate::run::Loaded;
use crate::stats::interval::{Interval, MIN_VALUES};
use crate::stats::median;
use crate::stats::signed_rank::SignedRank;
use crate::stats::simultaneous::{Member, Simultaneous};
use crate::stats::two_sample::TwoSample;
use crate::summarise::by_conditions;
use crate::table::{Paired, Row};

/// Outcome of a comparison of run `b` with run `a`.
#[derive(Clone, Debug, Serialize)]
pub struct RunComparison {
    /// The first run.
    pub a: Side,
    /// The second run.
    pub b: Side,
    /// Differences between the runs apart from the results.
    pub differences: Vec<Difference>,
    /// Whether rows were matched across sources (real cores and kernel), since none matched in
    /// theirs.
    pub across_sources: bool,
    /// Whether rounds were compared in pairs: simulated with one seed.
    pub paired: bool,
    /// Difference between the halves of one run, where nothing was changed: 95 % of
    /// all rows of both runs by less than this share. None where no row has rounds enough.
    pub a_a_spread_share: Option<f64>,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Rows in both runs.
    pub rows: Vec<ComparedRow>,
    /// Rows in `a` alone.
    pub only_a: Vec<Series>,
    /// Rows in `b` alone.
    pub only_b: Vec<Series>,
}

/// One of two runs that are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Id of the run.
    pub run_id: String,
    /// Command that made it.
    pub command_line: String,
    /// Revision of the sources.
    pub revision: Option<String>,
}

impl Side {
    fn of(run: &Run) -> Self {
        Self {
            run_id: run.run_id.clone(),
            command_line: run.command_line.clone(),
            revision: run.git_revision.clone(),
        }
    }
}

/// Something about the runs that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name: `kernel`, `window_s`, ...
    pub what: String,
    /// In the first run.
    pub a: String,
    /// In the second run.
    pub b: String,
}

/// A row in both runs.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRow {
    /// The row as named in the second run.
    pub series: Series,
    /// Median goodput in the first run.
    pub goodput_a_ops_s: Option<f64>,
    /// Median goodput in the second run.
    pub goodput_b_ops_s: Option<f64>,
    /// Share of attempts that failed in the first run.
    pub failure_share_a: Option<f64>,
    /// Share of attempts that failed in the second run.
    pub failure_share_b: Option<f64>,
    /// Rounds of the first run.
    pub rounds_a: u32,
    /// Rounds of the second run.
    pub rounds_b: u32,
    /// Goodput of `b` divided by that of `a`; above 1 is faster. None without an interval.
    pub ratio: Option<f64>,
    /// Lower end of the 95 % interval, which is simultaneous over all rows.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// `ratio` divided by that of the baseline cell under the same conditions, from the ratios
    /// within rounds.
    pub relative: Option<f64>,
    /// Lower end of its interval.
    pub relative_low: Option<f64>,
    /// Upper end.
    pub relative_high: Option<f64>,
    /// Whether an invariant broke in either run.
    pub broken: bool,
    /// The verdict on `b`, from the interval alone; none with too few rounds, or if an invariant
    /// broke in either run.
    pub verdict: Option<Verdict>,
}

impl RunComparison {
    /// Returns the number of rows with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == Some(verdict)).count()
    }
}

/// Compares run `b` with run `a`, by the options `b` was read with.
#[must_use]
pub fn compare(a: &Loaded, b: &Loaded) -> RunComparison {
    let mut matched = Matched::new(a, b, Series::clone);
    let across_sources = matched.pairs.is_empty();
    if across_sources {
        matched = Matched::new(a, b, without_source);
    }
    let Matched { mut pairs, only_a, only_b } = matched;
    pairs.sort_by(|(_, one), (_, other)| by_conditions(&b.designs, &one.series, &other.series));
    let is_simulated = |row: &Row| row.series.source == Source::Sim;
    let paired = !pairs.is_empty()
        && a.run.seed == b.run.seed
        && pairs.iter().all(|(of_a, of_b)| is_simulated(of_a) && is_simulated(of_b));
    let options = &b.table.options;
    let tests = Tests::new(&pairs, paired, options.alpha, options.seed);
    let spreads: Vec<Option<f64>> = pairs
        .iter()
        .map(|(of_a, of_b)| [of_a, of_b].into_iter().filter_map(|row| halves(row)).reduce(f64::max))
        .collect();
    let known: Vec<f64> = spreads.iter().flatten().copied().collect();
    let usual = median(&mut known.clone()).unwrap_or(0.0);

    let rule = options.rule();
    let mut rows: Vec<ComparedRow> = Vec::with_capacity(pairs.len());
    for (index, (of_a, of_b)) in pairs.iter().enumerate() {
        let mut row = describe(of_a, of_b);
        // Nothing drifts between simulated rounds.
        let drift = if paired || mutated!(DriftNotAdded) {
            0.0
        } else {
            spreads[index].unwrap_or(usual).max(usual)
        };
        if !row.broken
            && let Some(found) = tests.interval(index)
        {
            let widened = Interval { low: found.low - drift, high: found.high + drift, ..found };
            let Interval { estimate, low, high } = widened.exp();
            (row.ratio, row.ratio_low, row.ratio_high) = (Some(estimate), Some(low), Some(high));
            row.verdict = Some(rule.judge(&widened));
        }
        if !row.broken
            && let Some(found) = relative(a, of_a, b, of_b, tests.level)
        {
            let Interval { estimate, low, high } = found.exp();
            row.relative = Some(estimate);
            (row.relative_low, row.relative_high) = (Some(low), Some(high));
        }
        rows.push(row);
    }
    RunComparison {
        a: Side::of(&a.run),
        b: Side::of(&b.run),
        differences: differences(&a.run, &b.run),
        across_sources: across_sources && !rows.is_empty(),
        paired,
        a_a_spread_share: percentile_95(known).map(libm::expm1),
        threshold_share: rule.threshold_share,
        rows,
        only_a,
        only_b,
    }
}

/// The tests of all rows, and the level at which the comparison as a whole keeps its error.
struct Tests {
    rows: Vec<Test>,
    level: f64,
}

enum Test {
    /// Ratios within rounds; whether all of them are exactly 1.
    Paired(Option<SignedRank>, bool),
    Apart(Option<TwoSample>),
}

impl Tests {
    fn new(pairs: &[(&Row, &Row)], paired: bool, alpha: f64, seed: u64) -> Self {
        let is_long = |row: &Row| row.counted().count() >= MIN_VALUES;
        if !paired {
            let rows = pairs.iter().map(|(of_a, of_b)| {
                let is_tested = is_long(of_a) && is_long(of_b);
                let test = || TwoSample::new(&of_b.log_goodput(), &of_a.log_goodput());
                Test::Apart(is_tested.then(test).flatten())
            });
            let rows: Vec<Test> = rows.collect();
            let tested = rows.iter().filter(|test| matches!(test, Test::Apart(Some(_)))).count();
            let tested = if mutated!(CompareUncorrected) { 1 } else { tested };
            return Self { rows, level: alpha / tested.max(1) as f64 };
        }
        let differences: Vec<Paired> =
            pairs.iter().map(|(of_a, of_b)| Paired::new(of_b, of_a)).collect();
        let members: Vec<Member> = pairs
            .iter()
            .zip(&differences)
            .enumerate()
            .filter(|(_, (_, paired))| paired.log_ratios.len() >= MIN_VALUES)
            .map(|(group, (_, paired))| Member {
                // Cells before and after share no baseline: each row stands for itself.
                group,
                rounds: paired.rounds.clone(),
                differences: paired.log_ratios.clone(),
            })
            .collect();
        let level = Simultaneous::new(seed, &members).level(alpha);
        let rows = differences.iter().map(|paired| {
            let test = SignedRank::new(&paired.log_ratios);
            Test::Paired(test, paired.log_ratios.iter().all(|ratio| *ratio == 0.0))
        });
        Self { rows: rows.collect(), level }
    }

    fn interval(&self, row: usize) -> Option<Interval> {
        match &self.rows[row] {
            // A simulation that repeats itself to the last operation is the same: no chance is in it.
            Test::Paired(Some(_), true) => Some(Interval { estimate: 0.0, low: 0.0, high: 0.0 }),
            Test::Paired(test, _) => test.as_ref()?.interval(self.level),
            Test::Apart(test) => test.as_ref()?.interval(self.level),
        }
    }
}

/// Returns the change of a row's ratio to its baseline; none for the baseline itself.
fn relative(a: &Loaded, of_a: &Row, b: &Loaded, of_b: &Row, level: f64) -> Option<Interval> {
    let baseline = &b.table.options.baseline;
    if of_b.series.cell == *baseline {
        return None;
    }
    let before = Paired::new(of_a, a.table.row(&of_a.series.with_cell(baseline))?);
    let after = Paired::new(of_b, b.table.row(&of_b.series.with_cell(baseline))?);
    if before.log_ratios.len() < MIN_VALUES || after.log_ratios.len() < MIN_VALUES {
        return None;
    }
    TwoSample::new(&after.log_ratios, &before.log_ratios)?.interval(level)
}

/// Returns the difference between the median log goodputs of the halves of a row's rounds.
fn halves(row: &Row) -> Option<f64> {
    let rates = row.log_goodput();
    if rates.len() < 2 * MIN_VALUES {
        return None;
    }
    let (first, second) = rates.split_at(rates.len() / 2);
    Some((median(&mut second.to_vec())? - median(&mut first.to_vec())?).abs())
}

fn percentile_95(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(((values.len() as f64 * 0.95).ceil() as usize).checked_sub(1)?).copied()
}

/// Rows of two runs by a key.
struct Matched<'a> {
    pairs: Vec<(&'a Row, &'a Row)>,
    only_a: Vec<Series>,
    only_b: Vec<Series>,
}

impl<'a> Matched<'a> {
    fn new(a: &'a Loaded, b: &'a Loaded, key: impl Fn(&Series) -> Series) -> Self {
        let mut of_a: HashMap<Series, &Row> = HashMap::new();
        for row in &a.table.rows {
            of_a.entry(key(&row.series)).or_insert(row);
        }
        let mut matched = Self { pairs: Vec::new(), only_a: Vec::new(), only_b: Vec::new() };
        for row in &b.table.rows {
            match of_a.remove(&key(&row.series)) {
                Some(found) => matched.pairs.push((found, row)),
                None => matched.only_b.push(row.series.clone()),
            }
        }
        matched.only_a = of_a.into_values().map(|row| row.series.clone()).collect();
        matched.only_a.sort_by(|one, other| by_conditions(&a.designs, one, other));
        matched.only_b.sort_by(|one, other| by_conditions(&b.designs, one, other));
        matched
    }
}

/// Returns the part of a row's name that is the same on real cores, simulated and in the kernel.
fn without_source(series: &Series) -> Series {
    let (host, machine, engine) = (None, None, String::new());
    Series { host, source: Source::Model, machine, engine, ..series.clone() }
}

/// Collects both sides of a row, not yet compared.
fn describe(of_a: &Row, of_b: &Row) -> ComparedRow {
    let goodput = |row: &Row| {
        median(
            &mut row.counted().map(|round| round.ok as f64 / round.duration_s).collect::<Vec<_>>(),
        )
    };
    let (goodput_a_ops_s, goodput_b_ops_s) = (goodput(of_a), goodput(of_b));
    ComparedRow {
        series: of_b.series.clone(),
        goodput_a_ops_s,
        goodput_b_ops_s,
        failure_share_a: of_a.failure_share(),
        failure_share_b: of_b.failure_share(),
        rounds_a: of_a.counted().count() as u32,
        rounds_b: of_b.counted().count() as u32,
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        relative: None,
        relative_low: None,
        relative_high: None,
        broken: !(of_a.violations.is_empty() && of_b.violations.is_empty()),
        verdict: None,
    }
}

/// Lists the facts about host, tool and settings that differ.
fn differences(a: &Run, b: &Run) -> Vec<Difference> {
    let facts = |run: &Run| -> Vec<(&'static str, String)> {
        let Host { topology, .. } = &run.host;
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        let number = |value: Option<f64>| value.map_or("unset".into(), |value| value.to_string());
        let settings = &run.settings;
        vec![
            ("CPU model", text(&run.host.cpu_model)),
            ("architecture", run.host.architecture.clone()),
            ("CPUs online", topology.cpus_online.to_string()),
            ("microcode", text(&run.host.microcode)),
            ("kernel", text(&run.host.kernel)),
            ("preemption", text(&run.host.preemption)),
            ("governor", text(&run.host.governor)),
            ("boost", run.host.boost.map_or("unknown".into(), |on| on.to_string())),
            ("SMT", text(&run.host.smt)),
            ("isolated CPUs", text(&run.host.isolation)),
            ("virtualisation", text(&run.host.virtualisation)),
            ("spinlocks", text(&run.host.spinlocks.map(|form| format!("{form:?}")))),
            ("tool version", run.tool_version.clone()),
            ("window_s", settings.window_s.to_string()),
            ("time_budget_s", number(settings.time_budget_s)),
            ("latency_sample_every", settings.latency_sample_every.to_string()),
            ("own_lines", settings.own_lines.join(" ")),
            ("irq_save_cost_ns", settings.irq_save_cost_ns.to_string()),
            ("matrix", settings.matrix.clone()),
        ]
    };
    facts(a)
        .into_iter()
        .zip(facts(b))
        .filter(|((_, a), (_, b))| a != b)
        .map(|((what, a), (_, b))| Difference { what: what.into(), a, b })
        .collect()
}
