//! From the table to the summary: the one place where rates, shares and verdicts are derived.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;

use cellbench_record::{
    Calibration, Entry, Extra, Kind, Latency, Named, OutcomeCounts, Round, Run, Scaling, Series,
    Source, Summary, Verdict,
};

use crate::designs::Designs;
use crate::options::{CONFIDENCE, Options};
use crate::stats::interval::Interval;
use crate::stats::{median, usl};
use crate::table::{Comparison, Counted, Row, Sums, Table};

/// Latencies by row and operation over all samples of its undisturbed rounds.
pub(crate) type Pooled = HashMap<Series, Named<Latency>>;

/// Summarises the rounds of `run`, which may be streamed: memory is needed for a few numbers each.
#[must_use]
pub fn summarise<R: Borrow<Round>>(
    run: &Run,
    rounds: impl IntoIterator<Item = R>,
    options: &Options,
) -> Summary {
    let mut table = Table::new(options.clone());
    for round in rounds {
        table.push(round);
    }
    table.finish(run, &Pooled::new()).1
}

impl Table {
    /// Returns the summary of the rounds so far.
    #[must_use]
    pub fn summary(&self, run: &Run) -> Summary {
        let none = Pooled::new();
        let of_host = Calibrations::of(run);
        let entries = self.rows.iter().map(|row| self.describe(&of_host, row, &none)).collect();
        self.assemble(run, entries)
    }

    /// Returns the summary, and the table without the sums that went into it: half the memory of
    /// [`Self::summary`].
    pub(crate) fn finish(mut self, run: &Run, pooled: &Pooled) -> (Self, Summary) {
        let mut entries = Vec::with_capacity(self.rows.len());
        let of_host = Calibrations::of(run);
        for index in 0..self.rows.len() {
            entries.push(self.describe(&of_host, &self.rows[index], pooled));
            self.rows[index].sums = Sums::default();
        }
        let summary = self.assemble(run, entries);
        (self, summary)
    }

    fn assemble(&self, run: &Run, mut entries: Vec<Entry>) -> Summary {
        let comparisons = self.compare();
        let decided = |found: &Comparison| found.p_adjusted.is_some();
        let compared = comparisons.iter().filter(|(_, found)| decided(found)).count();
        for (row, found) in &comparisons {
            self.enter(&mut entries[*row], found, compared);
        }
        let goodput_of_baseline: HashMap<Series, f64> = entries
            .iter()
            .filter(|entry| entry.series.cell == self.options.baseline)
            .filter_map(|entry| Some((entry.series.clone(), entry.goodput_ops_s?)))
            .collect();
        for entry in &mut entries {
            let base = goodput_of_baseline.get(&entry.series.with_cell(&self.options.baseline));
            entry.bimodal = base.is_some_and(|base| has_modes(entry, *base));
        }
        let rows = entries.iter().map(|entry| &entry.series);
        let designs = Designs::of(run, &self.options.baseline, rows);
        entries.sort_unstable_by(|a, b| by_conditions(&designs, &a.series, &b.series));
        Summary {
            run_id: run.run_id.clone(),
            baseline: self.options.baseline.clone(),
            confidence: CONFIDENCE,
            threshold_share: self.options.threshold_share,
            comparisons: compared as u32,
            rounds_disturbed: entries.iter().map(|entry| u64::from(entry.rounds_disturbed)).sum(),
            scaling: scaling(&designs, &entries),
            entries,
            ..Summary::default()
        }
    }

    /// Returns everything about a row but its comparison.
    fn describe(&self, of_host: &Calibrations<'_>, row: &Row, pooled: &Pooled) -> Entry {
        let mut entry = describe(row, of_host.of_row(&row.series));
        enter_latency(&mut entry, row, pooled.get(&row.series));
        if let Some(interval) = self.bootstrap.median(&row.log_goodput())
            && entry.goodput_ops_s > Some(0.0)
        {
            let interval = interval.exp();
            entry.goodput_low_ops_s = Some(interval.low);
            entry.goodput_high_ops_s = Some(interval.high);
        }
        entry
    }

    fn enter(&self, entry: &mut Entry, found: &Comparison, comparisons: usize) {
        let rule = self.options.rule();
        entry.baseline = Some(self.options.baseline.clone());
        entry.pairs = found.pairs;
        entry.pairs_disturbed = found.pairs_disturbed;
        if found.error.is_some() {
            return; // a wrong cell is an error, not a result
        }
        entry.ratio = found.estimate.map(libm::exp);
        entry.p_value = found.p_value;
        entry.p_adjusted = found.p_adjusted;
        entry.survey = found.surveyed;
        let Some(log_ratio) = &found.log_ratio else { return };
        let Interval { low, high, .. } = log_ratio.exp();
        entry.ratio_low = Some(low);
        entry.ratio_high = Some(high);
        if !found.surveyed {
            let verdict = rule.judge(log_ratio);
            entry.verdict = Some(verdict);
            entry.rounds_needed = (verdict == Verdict::Undecided)
                .then(|| rule.rounds_needed(log_ratio, found.pairs as usize, comparisons));
        }
    }
}

/// Ratio of rates that differ less from the ratio within rounds than this do not contradict it.
const CONTRADICTION_SHARE: f64 = 0.03;

/// Returns whether the median rates of a row and its baseline contradict its ratio within rounds,
/// as they do
/// where rounds fall into several modes.
fn has_modes(entry: &Entry, baseline_ops_s: f64) -> bool {
    let (Some(goodput), Some(ratio)) = (entry.goodput_ops_s, entry.ratio) else { return false };
    let (Some(low), Some(high)) = (entry.ratio_low, entry.ratio_high) else { return false };
    let of_rates = goodput / baseline_ops_s;
    let is_outside = !(low..=high).contains(&of_rates);
    is_outside && libm::log(of_rates / ratio).abs() > libm::log1p(CONTRADICTION_SHARE)
}

/// Orders the summary: rows of one comparison stand together, threads rise, cells stand by
/// generation.
pub(crate) fn by_conditions(designs: &Designs, a: &Series, b: &Series) -> Ordering {
    conditions(a)
        .cmp(&conditions(b))
        .then(a.threads.cmp(&b.threads))
        .then_with(|| by_cell(designs, a, b))
}

fn by_cell(designs: &Designs, a: &Series, b: &Series) -> Ordering {
    designs.rank(&a.cell).cmp(&designs.rank(&b.cell)).then_with(|| a.cell.cmp(&b.cell))
}

/// Everything by which a row is known but its threads and its cell.
type Conditions<'a> = (
    (&'a Option<String>, &'a Source, &'a Option<String>, &'a Kind),
    (&'a str, &'a str, &'a str, Option<u64>),
);

fn conditions(series: &Series) -> Conditions<'_> {
    (
        (&series.host, &series.source, &series.machine, &series.kind),
        (&series.workload, &series.engine, &series.placement, series.offered_ops_s),
    )
}

/// Calibration of each host of a run, found by its label: a merged run may have thousands.
struct Calibrations<'a> {
    own: &'a Calibration,
    by_label: HashMap<&'a str, &'a Calibration>,
}

impl<'a> Calibrations<'a> {
    fn of(run: &'a Run) -> Self {
        let labelled =
            run.merged_from.iter().filter_map(|part| Some((part.host_label.as_deref()?, part)));
        let by_label = labelled.map(|(label, part)| (label, &part.calibration)).collect();
        Self { own: &run.calibration, by_label }
    }

    /// Returns that of the host that measured the series; none for simulated and unknown hosts.
    fn of_row(&self, series: &Series) -> Option<&'a Calibration> {
        match (&series.host, &series.source) {
            (_, Source::Sim) => None,
            (None, _) => Some(self.own),
            (Some(label), _) => self.by_label.get(label.as_str()).copied(),
        }
    }
}

/// Returns everything about a row but its comparison.
fn describe(row: &Row, calibration: Option<&Calibration>) -> Entry {
    let sums = &row.sums;
    let mut entry = Entry::new(row.series.clone());
    let medians = |of: &dyn Fn(&Counted) -> Option<f64>| {
        median(&mut row.counted().filter_map(of).collect::<Vec<f64>>())
    };
    entry.goodput_ops_s = medians(&|round| Some(round.ok as f64 / round.duration_s));
    entry.attempts_ops_s = medians(&|round| Some(round.attempts as f64 / round.duration_s));
    entry.fairness_jain = medians(&|round| round.jain);
    entry.worst_thread_share = medians(&|round| round.worst_share);
    entry.rounds = row.counted().count() as u32;
    entry.rounds_disturbed = row.disturbed;
    entry.violations = row.violations.clone();

    entry.outcomes = sum_outcomes(&sums.ops);
    entry.ops = sums.ops.clone();
    entry.contexts = sums.contexts.clone();
    let attempts = sums.attempts as f64;
    if sums.attempts > 0 {
        entry.failure_share = Some(1.0 - sums.ok as f64 / attempts);
        entry.line_transfers_per_op = sums
            .line_transfers
            .iter()
            .map(|(field, count)| (field.clone(), *count as f64 / attempts))
            .collect();
    }
    if sums.duration_s > 0.0 {
        let time_ns = sums.duration_s * 1e9 * f64::from(row.series.threads.max(1));
        entry.line_wait_shares = sums
            .line_waits_ns
            .iter()
            .map(|(field, waited_ns)| (field.clone(), *waited_ns as f64 / time_ns))
            .collect();
        entry.per_thread_ops_s =
            sums.per_thread_ok.iter().map(|ok| *ok as f64 / sums.duration_s).collect();
    }
    for (name, sum) in &sums.counters {
        if sum.attempts > 0 {
            entry.counters_per_op.insert(name.clone(), sum.events / sum.attempts as f64);
            if sum.multiplexed {
                entry.counters_multiplexed.push(name.clone());
            }
        } else if let Some(reason) = &sum.missing {
            entry.counters_missing.insert(name.clone(), reason.to_string());
        }
    }

    if row.series.threads >= 2
        && let Some(transfer_ns) = calibration.and_then(|c| c.line_transfer_ns)
        && let Some(goodput) = entry.goodput_ops_s
    {
        entry.line_transfer_share = Some(goodput * transfer_ns * 1e-9);
    }
    entry
}

/// Samples that must lie beyond a percentile for it to be shown.
const SAMPLES_BEYOND: f64 = 10.0;

/// Returns the latencies of a row, of all samples together where there are logs.
fn enter_latency(entry: &mut Entry, row: &Row, pooled: Option<&Named<Latency>>) {
    entry.latency_pooled = pooled.is_some();
    entry.latency = match pooled {
        Some(pooled) => pooled.clone(),
        None => {
            let by_op = row.sums.latency.iter();
            by_op.map(|(op, rounds)| (op.clone(), over_rounds(rounds))).collect()
        }
    };
    let Some((op, main)) = entry.latency.iter().max_by_key(|(_, latency)| latency.samples) else {
        return;
    };
    // A median over rounds is no better founded than the percentile of one round.
    let samples = match (pooled, row.sums.latency.get(op)) {
        (None, Some(rounds)) => {
            median(&mut rounds.iter().map(|round| round.samples as f64).collect::<Vec<f64>>())
                .unwrap_or(0.0)
        }
        _ => main.samples as f64,
    };
    let shown = |share_beyond: f64, value_ns: u64| {
        (samples * share_beyond >= SAMPLES_BEYOND - 1e-9).then_some(value_ns as f64)
    };
    let (p50, p99, p999) =
        (shown(0.5, main.p50_ns), shown(0.01, main.p99_ns), shown(0.001, main.p999_ns));
    let (max_ns, samples) = (main.max_ns as f64, main.samples);
    (entry.p50_ns, entry.p99_ns, entry.p999_ns) = (p50, p99, p999);
    entry.max_ns = Some(max_ns);
    entry.latency_samples = Some(samples);
}

/// Outcomes over all operations.
fn sum_outcomes(ops: &Named<OutcomeCounts>) -> OutcomeCounts {
    let mut sums = OutcomeCounts::new();
    for (outcome, count) in ops.values().flatten() {
        let sum = sums.or_default(outcome);
        *sum = sum.saturating_add(*count);
    }
    sums
}

/// Returns medians over rounds of each percentile, the largest of the maxima, and the sum of the samples.
fn over_rounds(rounds: &[Latency]) -> Latency {
    let medians = |of: fn(&Latency) -> f64| {
        median(&mut rounds.iter().map(of).collect::<Vec<f64>>()).unwrap_or(0.0)
    };
    Latency {
        samples: rounds.iter().fold(0, |sum, round| sum.saturating_add(round.samples)),
        mean_ns: medians(|round| round.mean_ns),
        p50_ns: medians(|round| round.p50_ns as f64).round() as u64,
        p90_ns: medians(|round| round.p90_ns as f64).round() as u64,
        p99_ns: medians(|round| round.p99_ns as f64).round() as u64,
        p999_ns: medians(|round| round.p999_ns as f64).round() as u64,
        p9999_ns: medians(|round| round.p9999_ns as f64).round() as u64,
        max_ns: rounds.iter().map(|round| round.max_ns).max().unwrap_or(0),
        hlog: rounds.iter().find_map(|round| round.hlog.clone()),
    }
}

/// Returns a fit for each closed-loop series that was measured at two thread counts or more.
fn scaling(designs: &Designs, entries: &[Entry]) -> Vec<Scaling> {
    let mut groups: HashMap<(Conditions<'_>, &str), Vec<&Entry>> = HashMap::new();
    for entry in entries.iter().filter(|entry| entry.series.offered_ops_s.is_none()) {
        let series = &entry.series;
        groups.entry((conditions(series), &series.cell)).or_default().push(entry);
    }
    let mut groups: Vec<Vec<&Entry>> =
        groups.into_values().filter(|group| group.len() >= 2).collect();
    groups.sort_by(|a, b| {
        let (a, b) = (&a[0].series, &b[0].series);
        conditions(a).cmp(&conditions(b)).then_with(|| by_cell(designs, a, b))
    });
    groups.iter().map(|group| fit_group(group)).collect()
}

fn fit_group(group: &[&Entry]) -> Scaling {
    // Entries come sorted by threads, so the last has most.
    let points: Vec<(f64, f64)> = group
        .iter()
        .filter_map(|entry| Some((f64::from(entry.series.threads), entry.goodput_ops_s?)))
        .collect();
    let mut scaling = Scaling {
        series: group[group.len() - 1].series.clone(),
        threads_fitted: group.iter().map(|entry| entry.series.threads).collect(),
        lambda_ops_s: None,
        sigma: None,
        kappa: None,
        peak_threads: None,
        peak_ops_s: None,
        r_squared: None,
        note: None,
        extra: Extra::new(),
    };
    match usl::fit(&points) {
        Ok(fit) => {
            scaling.lambda_ops_s = Some(fit.lambda);
            scaling.sigma = Some(fit.sigma);
            scaling.kappa = Some(fit.kappa);
            scaling.peak_threads = fit.peak_threads();
            scaling.peak_ops_s = scaling.peak_threads.map(|threads| fit.goodput(threads));
            scaling.r_squared = fit.r_squared;
            let most = points.iter().map(|(threads, _)| *threads).fold(0.0, f64::max);
            scaling.note = if points.len() == 3 {
                Some("three points determine the curve; nothing checks it".into())
            } else if scaling.peak_threads.is_some_and(|peak| peak > 2.0 * most) {
                Some("the peak lies far beyond the threads measured".into())
            } else {
                None
            };
        }
        Err(reason) => scaling.note = Some(reason.to_string()),
    }
    scaling
}
