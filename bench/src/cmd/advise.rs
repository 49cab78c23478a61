//! `cellbench advise`: which design to choose, and the figures that say so.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::anyhow;
use cellbench_impls::Context;
use cellbench_plots::{Loaded, number};
use cellbench_record::Entry;
use cellbench_sim::MachineModel;
use serde::Serialize;

use crate::advise::{Candidate, Ranked, Use};
use crate::backend::sim::Simulator;
use crate::backend::sim::plan::plan;
use cellbench_measure::cmd::args::usual_charges;
use cellbench_measure::cmd::args::{Output, parse_duration};
use cellbench_measure::cmd::command_line::{command_line, given};
use cellbench_measure::cmd::output;
use cellbench_measure::cmd::run::EXIT_NOTHING;
use cellbench_measure::session::ctrl_c::CtrlC;
use cellbench_measure::session::plan::{Matrix, Selection, Shard};
use cellbench_measure::session::run::{self as session, Settings};

/// Machine that is simulated where no run has the rows.
const MACHINE: &str = "xeon-spr-2s";
/// Rounds of a simulation: enough for an interval.
const ROUNDS: u32 = 10;
/// Columns of a terminal.
const WIDTH: usize = 80;
/// Rows that are shown.
const SHOWN: usize = 8;

/// Say which lock or cell to choose for a described use, by figures measured here or simulated
///
/// Exit status: 0 there is an answer, 2 wrong input, 3 no design fits.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    /// Threads that work on one object
    #[arg(long, value_name = "T", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: u32,
    /// Length of a critical section, as 50ns or 2us
    #[arg(long, value_name = "TIME", default_value = "50ns", value_parser = parse_short)]
    section: u32,
    /// Time between two sections of a thread
    #[arg(long, value_name = "TIME", default_value = "0ns", value_parser = parse_short)]
    outside: u32,
    /// Percentage of operations that start what others set up: choose a cell and not a lock
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    readers: Option<u32>,
    /// Contexts in which operations are made: task, softirq, hardirq, nmi
    #[arg(long, value_name = "C,D", value_delimiter = ',', default_value = "task")]
    contexts: Vec<String>,
    /// An operation may fail where another is in the way
    #[arg(long)]
    may_fail: bool,
    /// All threads must be served alike
    #[arg(long)]
    even: bool,
    /// Take the figures from this run [default: the latest, if it has the rows]
    #[arg(long, value_name = "RUN", conflicts_with = "machine")]
    run: Option<PathBuf>,
    /// Simulate this machine [default: xeon-spr-2s, if no run has the rows]
    #[arg(long, value_name = "NAME|FILE")]
    machine: Option<String>,
}

/// Parses a time of nanoseconds to seconds.
fn parse_short(text: &str) -> Result<u32, String> {
    let ns = match text.strip_suffix("ns").map(str::parse::<u32>) {
        Some(ns) => ns.map_err(|_| format!("{text}: not a time such as 50ns"))?,
        None => u32::try_from(parse_duration(text)?.as_nanos()).unwrap_or(u32::MAX),
    };
    if ns <= 1_000_000_000 { Ok(ns) } else { Err(format!("{text}: at most 1s")) }
}

/// An answer, for programs.
#[derive(Serialize)]
struct Answer {
    /// Where the figures come from, in a sentence.
    source: String,
    /// Workload of the suite that is nearest to the use.
    workload: &'static str,
    threads: u32,
    /// Designs that fit, best first.
    ranked: Vec<Ranked>,
    /// Designs that do not, with the reason.
    ruled_out: Vec<Candidate>,
    /// Conditions that would change the answer, a sentence each.
    changes: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let of = Use {
        threads: args.threads,
        section_ns: args.section,
        outside_ns: args.outside,
        readers_percent: args.readers,
        contexts: args.contexts.iter().map(|name| context(name)).collect::<Result<_, _>>()?,
        may_fail: args.may_fail,
        even: args.even,
    };
    let (source, entries, other_threads) = figures(args, &of)?;
    let candidates = of.candidates();
    let fits = |id: &str| {
        candidates.iter().any(|candidate| candidate.id == id && candidate.ruled_out.is_none())
    };
    let ranked = of.rank(&entries, of.threads, fits);
    let changes = changes(&of, &entries, &other_threads, &ranked, fits);
    let ruled_out = candidates.iter().filter(|one| one.ruled_out.is_some()).cloned().collect();
    let answer =
        Answer { source, workload: of.workload(), threads: of.threads, ranked, ruled_out, changes };
    if args.output.json {
        output::emit_json(&answer)?;
    } else {
        output::emit(&text(&answer))?;
    }
    Ok(if answer.ranked.is_empty() { ExitCode::from(EXIT_NOTHING) } else { ExitCode::SUCCESS })
}

fn context(name: &str) -> anyhow::Result<Context> {
    let known = [Context::Task, Context::Softirq, Context::Hardirq, Context::Nmi];
    known.into_iter().find(|context| context.name() == name).ok_or_else(|| {
        let names = known.map(|context| context.name()).join(", ");
        anyhow!("--contexts: unknown context `{name}`; known are {names}")
    })
}

/// Returns where the figures come from, the rows, and the other numbers of threads that they have.
fn figures(args: &Args, of: &Use) -> anyhow::Result<Figures> {
    if let Some(dir) = &args.run {
        return measured(dir, of)?.ok_or_else(|| {
            anyhow!(
                "--run {}: no row of {} with {} thread(s), so not known; measure it: cellbench run \
                 --kinds {} --workloads {} --threads {}",
                dir.display(),
                of.workload(),
                of.threads,
                of.kind(),
                of.workload(),
                of.threads
            )
        });
    }
    let latest = args.output.dir().join("latest");
    // A run that cannot be read has no rows; who asked for none is not told of it.
    if args.machine.is_none()
        && let Ok(Some(found)) = measured(&latest, of)
    {
        return Ok(found);
    }
    simulated(args, of)
}

/// Where figures come from, the rows, and the numbers of threads that they have beside the use's.
type Figures = (String, Vec<Entry>, Vec<u32>);

/// Reads the figures of a run; `None` if it has no row of the use.
fn measured(dir: &Path, of: &Use) -> anyhow::Result<Option<Figures>> {
    let loaded = Loaded::read(dir, |_| {})?;
    let own =
        |entry: &&Entry| entry.series.kind == of.kind() && entry.series.workload == of.workload();
    let mut threads: Vec<u32> =
        loaded.summary.entries.iter().filter(own).map(|entry| entry.series.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    if !threads.contains(&of.threads) {
        return Ok(None);
    }
    threads.retain(|threads| *threads != of.threads);
    let cpu = loaded.run.host.cpu_model.clone().unwrap_or_else(|| "an unknown CPU".to_owned());
    let source = format!("measured on {cpu}, run {}", loaded.run.run_id);
    Ok(Some((source, loaded.summary.entries, threads)))
}

/// Simulates the use with one thread, its own number and twice as many.
fn simulated(args: &Args, of: &Use) -> anyhow::Result<Figures> {
    let name = args.machine.as_deref().unwrap_or(MACHINE);
    let machine = MachineModel::find(name)?;
    let most = machine.places().len() as u32;
    let mut threads = vec![1, of.threads, (2 * of.threads).min(most)];
    threads.sort_unstable();
    threads.dedup();
    let selection = Selection {
        workloads: vec![of.workload().to_owned()],
        kinds: vec![of.kind().to_string()],
        threads: threads.clone(),
        ..Selection::of(Matrix::Quick)
    };
    let plan = plan(&selection, &machine)?;
    let settings = Settings {
        // Apart from the runs that were asked for, whose `latest` stays what it was.
        out: args.output.dir().join("advise"),
        seed: 1,
        shard: Shard::WHOLE,
        window: None,
        most_rounds: Some(ROUNDS),
        stops_when_decided: false,
        time_budget: None,
        threshold_share: 0.01,
        baseline: plan.specs().next().map(|spec| spec.series.cell.clone()).unwrap_or_default(),
        matrix: "advice".to_owned(),
        command_line: command_line(("cellbench", &given()), None),
        watch: false,
        announce: |_| (),
    };
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let mut simulator = Simulator::new(&machine, &[], settings.seed)
        .charging(usual_charges(machine.core.interrupt_ns));
    let finished = session::run(plan, &mut simulator, &settings, ctrl_c)?;
    let loaded = Loaded::read(&finished.dir, |_| {})?;
    threads.retain(|threads| *threads != of.threads);
    let source = format!("simulated on {name}, not measured");
    Ok((source, loaded.summary.entries, threads))
}

/// Returns what would change the answer: other numbers of threads, and conditions that were given up.
fn changes(
    of: &Use,
    entries: &[Entry],
    other_threads: &[u32],
    ranked: &[Ranked],
    fits: impl Fn(&str) -> bool,
) -> Vec<String> {
    let Some(first) = ranked.first() else { return Vec::new() };
    let mut changes = Vec::new();
    for threads in other_threads {
        if let Some(best) = of.rank(entries, *threads, &fits).first() {
            let times = best.goodput_ops_s / goodput(of, entries, *threads, &first.id);
            let how = if best.id == first.id {
                "the same".to_owned()
            } else {
                format!("{}, {}x of {}", best.id, number::ratio(Some(times)), first.id)
            };
            changes.push(format!("with {}: {how}", number::count(*threads, "thread")));
        }
    }
    let free = Use { even: false, ..of.clone() };
    if let Some(best) = free.rank(entries, of.threads, |_| true).first()
        && best.id != first.id
    {
        let times = number::ratio(Some(best.goodput_ops_s / first.goodput_ops_s));
        changes.push(format!("without the conditions: {}, {times}x of {}", best.id, first.id));
    }
    changes
}

/// Returns the goodput of a design's row, not a number where it has none.
fn goodput(of: &Use, entries: &[Entry], threads: u32, id: &str) -> f64 {
    let any = Use { even: false, ..of.clone() };
    any.rank(entries, threads, |one| one == id).first().map_or(f64::NAN, |row| row.goodput_ops_s)
}

fn text(answer: &Answer) -> String {
    let mut text = format!(
        "{} with {},\n{}.\n\n",
        answer.workload,
        number::count(answer.threads, "thread"),
        answer.source
    );
    if answer.ranked.is_empty() {
        text += "No design fits.\n";
    } else {
        text += &format!(
            "  {:<20} {:>7} {:<15} {:>6} {:>7} {:>8}\n",
            "design", "ok/s", "95 % interval", "even", "failed", "p99"
        );
    }
    for row in answer.ranked.iter().take(SHOWN) {
        let (low, high) = row.interval_ops_s.unzip();
        let interval = match (low, high) {
            (Some(_), Some(_)) => format!("{} .. {}", number::si(low), number::si(high)),
            _ => "unknown".to_owned(),
        };
        let tie = if row.ties_with_first { " tie" } else { "" };
        text += &format!(
            "  {:<20} {:>7} {interval:<15} {:>6} {:>7} {:>8}{tie}\n",
            row.id,
            number::si(Some(row.goodput_ops_s)),
            row.fairness_jain.map_or("-".to_owned(), |jain| format!("{jain:.2}")),
            number::percent(row.failure_share),
            number::time_ns(row.p99_ns),
        );
    }
    if answer.ranked.iter().any(|row| row.ties_with_first) {
        text += "  tie: the figures do not tell it from the first\n";
    }
    if answer.ranked.len() > SHOWN {
        text += &format!("  and {} more (--json)\n", answer.ranked.len() - SHOWN);
    }
    if !answer.changes.is_empty() {
        text += "\nWhat would change the answer:\n";
        for change in &answer.changes {
            text += &format!("  {change}\n");
        }
    }
    if !answer.ruled_out.is_empty() {
        text += "\nRuled out:\n";
        let mut reasons: Vec<&str> =
            answer.ruled_out.iter().filter_map(|one| one.ruled_out.as_deref()).collect();
        reasons.dedup();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let names: Vec<&str> = answer
                .ruled_out
                .iter()
                .filter(|one| one.ruled_out.as_deref() == Some(reason))
                .map(|one| one.id.as_str())
                .collect();
            text += &format!("  {reason}:\n");
            let mut line = String::new();
            for name in names {
                if line.len() + name.len() > WIDTH - 6 {
                    text += &format!("    {line}\n");
                    line.clear();
                }
                line += if line.is_empty() { "" } else { " " };
                line += name;
            }
            text += &format!("    {line}\n");
        }
    }
    text
}
