//! Findings of the kept runs, for the head of RESULTS.md: a few sentences, each with its figure and
//! where it comes from, all derived from the runs, so that none can outlive its data.

use cellbench_record::{Entry, Kind, Source};

use super::layout::{self, host_lines};
use super::outcome::outcome;
use super::verdict::conditions;
use crate::chart::{CHARTS, Drawing};
use crate::number;
use crate::overview::{Overview, excess_failures, headline, overviews, uncontended};
use crate::run::{Loaded, Report};

/// A sentence, where it comes from, and its picture.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) text: String,
    /// Origin: measured, simulated, in the kernel; and the run.
    pub(super) source: String,
    pub(super) figure: Option<Drawing>,
}

/// Most findings that are shown.
const MOST: usize = 8;

/// Returns the findings of all runs in the order in which they answer the question.
pub(super) fn findings(runs: &[(String, Loaded)]) -> Result<Vec<Finding>, String> {
    let mut found = Vec::new();
    let mut told: Vec<Place<'_>> = Vec::new();
    for (name, loaded) in runs {
        // A run with some fields elsewhere is told beside its base.
        if !loaded.run.settings.own_lines.is_empty() {
            continue;
        }
        let report = loaded.report();
        found.extend(in_kernel(name, &report));
        // A second run of one source, as that whose rows stand beside the kernel's, is background.
        let place = place(loaded);
        if told.contains(&place) {
            continue;
        }
        told.push(place);
        let Some(overview) = headline(overviews(&report)) else { continue };
        let source = source(name, &report, &overview);
        let mut of_run = Vec::new();
        if let Some(sentence) = outcome(&report).sentence {
            of_run.push(Finding {
                text: sentence,
                source: source.clone(),
                figure: forest(name, &report)?,
            });
        }
        let sentences =
            [alone(&report, &overview), refused(&report, &overview), waiting(&overview, &report)];
        for text in sentences.into_iter().flatten() {
            of_run.push(Finding { text, source: source.clone(), figure: None });
        }
        found.extend(of_run);
    }
    found.truncate(MOST);
    Ok(found)
}

/// Where a run was measured or simulated: its source, and the machine.
type Place<'a> = (Option<&'a Source>, Option<&'a str>);

fn place(loaded: &Loaded) -> Place<'_> {
    let series = loaded.summary.entries.first().map(|entry| &entry.series);
    (series.map(|series| &series.source), series.and_then(|series| series.machine.as_deref()))
}

/// Returns where the figures of a run come from, with its host or machine.
fn source(name: &str, report: &Report<'_>, overview: &Overview<'_>) -> String {
    let [hardware, _] = host_lines(&report.run.host);
    match (&overview.series.source, &overview.series.machine) {
        (Source::Sim, Some(machine)) => format!("simulated on {machine}, `results/{name}`"),
        (Source::Sim, None) => format!("simulated, `results/{name}`"),
        (Source::Kernel, Some(machine)) => {
            format!("in a guest's kernel ({machine}) on {hardware}, `results/{name}`")
        }
        (Source::Kernel, None) => {
            let kernel = report.run.host.kernel.as_deref().unwrap_or("an unknown kernel");
            format!("in {kernel} on {hardware}, `results/{name}`")
        }
        _ => format!("measured on {hardware}, `results/{name}`"),
    }
}

/// Returns the first forest plot, under the name of the run.
fn forest(name: &str, report: &Report<'_>) -> Result<Option<Drawing>, String> {
    let Some(chart) = CHARTS.first() else { return Ok(None) };
    let first = chart.draw(report)?.into_iter().next();
    Ok(first.map(|drawing| Drawing { name: name.to_owned(), ..drawing }))
}

/// Says what the designs cost where nothing is contended.
fn alone(report: &Report<'_>, overview: &Overview<'_>) -> Option<String> {
    let summary = report.summary;
    let contended = *overview.telling().first()?;
    let rows: Vec<&Entry> = overview
        .cells
        .iter()
        .filter_map(|(cell, _)| overview.entry(cell, contended))
        .filter_map(|entry| uncontended(summary, &entry.series))
        .collect();
    let by_ratio =
        |a: &&&Entry, b: &&&Entry| a.ratio.unwrap_or(1.0).total_cmp(&b.ratio.unwrap_or(1.0));
    let (least, most) = (rows.iter().min_by(by_ratio)?, rows.iter().max_by(by_ratio)?);
    if rows.len() < 2 {
        return None;
    }
    Some(format!(
        "Without contention ({}, {}) the designs run from {}x ({}) to {}x ({}) of {}.",
        conditions(&least.series),
        number::count(least.series.threads, "thread"),
        number::ratio(least.ratio),
        least.series.cell,
        number::ratio(most.ratio),
        most.series.cell,
        summary.baseline
    ))
}

/// Returns which design fails where its baseline does not.
fn refused(report: &Report<'_>, overview: &Overview<'_>) -> Option<String> {
    let baseline = &report.summary.baseline;
    let rows = (0..overview.workloads.len()).flat_map(|column| {
        let base = overview.entry(baseline, column);
        overview.cells.iter().filter_map(move |(cell, _)| {
            let entry = overview.entry(cell, column)?;
            Some((excess_failures(entry, base)?, entry, base?))
        })
    });
    let (_, entry, base) = rows.max_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
    Some(format!(
        "The price of not waiting: in {} at {}, {} of the attempts of {} fail, where {baseline} \
         fails in {}.",
        conditions(&entry.series),
        number::count(entry.series.threads, "thread"),
        number::percent(entry.failure_share),
        entry.series.cell,
        number::percent(base.failure_share)
    ))
}

/// Says for which line the cores wait, under the baseline and under the design with most goodput.
fn waiting(overview: &Overview<'_>, report: &Report<'_>) -> Option<String> {
    let column = *overview.telling().first()?;
    let base = overview.entry(&report.summary.baseline, column)?;
    let most = |entry: &Entry| -> Option<(String, f64)> {
        let waits = entry.line_wait_shares.iter();
        let (field, share) = waits.max_by(|a, b| a.1.total_cmp(b.1))?;
        Some((field.clone(), *share))
    };
    let rows = overview.cells.iter().filter_map(|(cell, _)| overview.entry(cell, column));
    let best = rows
        .filter(|entry| entry.violations.is_empty())
        .max_by(|a, b| a.ratio.unwrap_or(0.0).total_cmp(&b.ratio.unwrap_or(0.0)))?;
    let ((of_base, share), (of_best, best_share)) = (most(base)?, most(best)?);
    Some(format!(
        "In {} at {} the cores of {} spend {} of their time waiting for the line of `{of_base}`, \
         those of {} {} for that of `{of_best}`.",
        conditions(&base.series),
        number::count(base.series.threads, "thread"),
        base.series.cell,
        number::percent(Some(share)),
        best.series.cell,
        number::percent(Some(best_share))
    ))
}

/// Says how long the running kernel's own timers and locks take.
fn in_kernel(name: &str, report: &Report<'_>) -> Option<Finding> {
    let entries = || {
        let alone = |entry: &&Entry| {
            entry.series.source == Source::Kernel
                && entry.series.threads == 1
                && entry.goodput_ops_s.is_some_and(|goodput| goodput > 0.0)
        };
        report.summary.entries.iter().filter(alone)
    };
    let time = |entry: &Entry| number::time_ns(entry.goodput_ops_s.map(|goodput| 1e9 / goodput));
    let named = |workload: &str, cell: Option<&str>| {
        entries().find(|entry| {
            entry.series.workload == workload && cell.is_none_or(|cell| entry.series.cell == cell)
        })
    };
    let mut parts = Vec::new();
    if let Some(entry) = named("solo-start", None).filter(|entry| entry.series.kind == Kind::Timer)
    {
        parts.push(format!("a start of its own timer takes {}", time(entry)));
    }
    if let Some(entry) = named("lock-0ns", Some("bpf_res_spin_lock")) {
        parts.push(format!("a resilient spinlock {} a pair", time(entry)));
    }
    if let Some(entry) = named("lock-irqsave", Some("bpf_res_spin_lock_irqsave")) {
        parts.push(format!("{} with interrupts masked", time(entry)));
    }
    let first = entries().next()?;
    if parts.is_empty() {
        parts.push(format!("{} takes {}", first.series, time(first)));
    }
    let kernel = report.run.host.kernel.as_deref().unwrap_or("an unknown kernel");
    let [hardware, _] = host_lines(&report.run.host);
    let (whose, kernel) = match &first.series.machine {
        Some(machine) => ("a guest's kernel", format!("a guest's kernel ({machine})")),
        None => ("the running kernel", kernel.to_owned()),
    };
    Some(Finding {
        text: format!("In {whose}, on one CPU, {}.", parts.join(", ")),
        source: format!("in {kernel} on {hardware}, `results/{name}`"),
        figure: None,
    })
}

/// Returns what would change the answer, from what the runs say of themselves.
pub(super) fn reservations(runs: &[(String, Loaded)]) -> Vec<String> {
    let mut lines = Vec::new();
    let of = |source: Source| {
        runs.iter().find(move |(_, loaded)| {
            loaded.summary.entries.first().is_some_and(|entry| entry.series.source == source)
        })
    };
    if let Some((_, loaded)) = of(Source::Model) {
        let most = loaded.summary.entries.iter().map(|entry| entry.series.threads).max();
        let threads = number::count(most.unwrap_or(1), "thread");
        lines.push(format!(
            "More CPUs: the measured host ran {threads} at most; beyond, the simulator speaks alone."
        ));
        if let Some(transfer) = loaded.run.calibration.line_transfer_ns {
            lines.push(format!(
                "Farther CPUs: a line moved between the measured ones in {}; contention is paid in \
                 such transfers.",
                number::time_ns(Some(transfer))
            ));
        }
        let charged = layout::charged(&loaded.run.settings);
        lines.push(if charged.is_empty() {
            "The cost of masking interrupts and arming timers, which user space cannot pay and was not \
             charged."
                .into()
        } else {
            format!("What user space cannot do, and was charged: {charged}.")
        });
    }
    lines.push(
        "Whether a caller may be refused: a design that answers EBUSY has promised less than one \
         that waits."
            .into(),
    );
    lines
}
