//! Two runs against each other: before and after a patch, two hosts, model and kernel.
//!
//! The runs were measured apart, so rounds cannot be paired and whatever changed in between is in
//! the ratio: what differs in host and settings is therefore named first, and every ratio is also
//! given relative to the baseline cell, which moved with the host but not with the patch.

use std::collections::HashMap;

use cellbench_record::{Host, Run, Series, Source, Verdict};
use serde::Serialize;

use crate::report::Loaded;
use crate::stats::interval::Interval;
use crate::stats::{holm, median, rank_test};
use crate::summarise::by_conditions;
use crate::table::Row;

/// Outcome of a comparison of run `b` with run `a`.
#[derive(Clone, Debug, Serialize)]
pub struct RunComparison {
    /// Id of the first run.
    pub a: String,
    /// Id of the second run.
    pub b: String,
    /// What differs between the runs apart from the results.
    pub differences: Vec<Difference>,
    /// Whether rows were matched across sources (model and kernel), since none matched in theirs.
    pub across_sources: bool,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Rows in both runs.
    pub rows: Vec<ComparedRow>,
    /// Rows in `a` alone.
    pub only_a: Vec<Series>,
    /// Rows in `b` alone.
    pub only_b: Vec<Series>,
}

/// Something about the runs that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What: `kernel`, `window_s`, ...
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
    /// Median goodput of `b` by that of `a`; above 1 is faster.
    pub ratio: Option<f64>,
    /// Lower end of the 95 % interval.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// `ratio` by that of the baseline cell under the same conditions.
    pub ratio_to_baseline: Option<f64>,
    /// Probability of such a ratio if the runs were equal, after Holm's correction over the rows.
    pub p_adjusted: Option<f64>,
    /// The verdict on `b`; none if an invariant broke in either run.
    pub verdict: Option<Verdict>,
}

impl RunComparison {
    /// Number of rows with this verdict.
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
    pairs.sort_by(|(_, a), (_, b)| by_conditions(&a.series, &b.series));
    let log_ratios: Vec<Option<Interval>> = pairs
        .iter()
        .map(|(of_a, of_b)| {
            let is_whole = of_a.violations.is_empty() && of_b.violations.is_empty();
            let difference =
                || b.table.bootstrap.difference(&of_b.log_goodput(), &of_a.log_goodput());
            is_whole.then(difference).flatten()
        })
        .collect();
    let tested = || pairs.iter().zip(&log_ratios).filter(|(_, log_ratio)| log_ratio.is_some());
    let p_values: Vec<f64> = tested()
        .map(|((of_a, of_b), _)| rank_test::mann_whitney(&of_b.log_goodput(), &of_a.log_goodput()))
        .collect();
    let mut adjusted = holm::adjust(&p_values).into_iter();

    let rule = b.table.options.rule();
    let mut rows: Vec<ComparedRow> = Vec::with_capacity(pairs.len());
    for ((of_a, of_b), log_ratio) in pairs.iter().zip(&log_ratios) {
        let mut row = describe(of_a, of_b);
        if let Some(log_ratio) = log_ratio {
            let p_adjusted = adjusted.next().unwrap_or(1.0);
            let Interval { estimate, low, high } = log_ratio.exp();
            row.ratio = Some(estimate);
            row.ratio_low = Some(low);
            row.ratio_high = Some(high);
            row.p_adjusted = Some(p_adjusted);
            row.verdict = Some(rule.judge(log_ratio, p_adjusted));
        }
        rows.push(row);
    }
    relate_to_baseline(&mut rows, &b.table.options.baseline);
    RunComparison {
        a: a.run.run_id.clone(),
        b: b.run.run_id.clone(),
        differences: differences(&a.run, &b.run),
        across_sources: across_sources && !rows.is_empty(),
        threshold_share: rule.threshold_share,
        rows,
        only_a,
        only_b,
    }
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
        matched.only_a.sort_by(by_conditions);
        matched.only_b.sort_by(by_conditions);
        matched
    }
}

/// What a model, a simulated and a kernel row of the same case have in common.
fn without_source(series: &Series) -> Series {
    let (host, machine, engine) = (None, None, String::new());
    Series { host, source: Source::Model, machine, engine, ..series.clone() }
}

/// Both sides of a row, not yet compared: with few rounds a ratio, without an interval or verdict.
fn describe(of_a: &Row, of_b: &Row) -> ComparedRow {
    let goodput = |row: &Row| {
        median(
            &mut row.counted().map(|round| round.ok as f64 / round.duration_s).collect::<Vec<_>>(),
        )
    };
    let (goodput_a_ops_s, goodput_b_ops_s) = (goodput(of_a), goodput(of_b));
    let is_whole = of_a.violations.is_empty() && of_b.violations.is_empty();
    let ratio = goodput_a_ops_s.zip(goodput_b_ops_s).filter(|(a, _)| is_whole && *a > 0.0);
    ComparedRow {
        series: of_b.series.clone(),
        goodput_a_ops_s,
        goodput_b_ops_s,
        failure_share_a: of_a.failure_share(),
        failure_share_b: of_b.failure_share(),
        rounds_a: of_a.counted().count() as u32,
        rounds_b: of_b.counted().count() as u32,
        ratio: ratio.map(|(a, b)| b / a),
        ratio_low: None,
        ratio_high: None,
        ratio_to_baseline: None,
        p_adjusted: None,
        verdict: is_whole.then_some(Verdict::Undecided),
    }
}

fn relate_to_baseline(rows: &mut [ComparedRow], baseline: &str) {
    let of_baseline: HashMap<Series, f64> = rows
        .iter()
        .filter(|row| row.series.cell == baseline)
        .filter_map(|row| Some((row.series.clone(), row.ratio?)))
        .collect();
    for row in rows.iter_mut().filter(|row| row.series.cell != baseline) {
        let base = of_baseline.get(&row.series.with_cell(baseline));
        row.ratio_to_baseline = row.ratio.zip(base).map(|(ratio, base)| ratio / base);
    }
}

/// What of host, tool and settings differs.
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
            ("revision", text(&run.git_revision)),
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
