//! `cellbench stress`: is every cell right, on real cores, for as long as wanted?

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use cellbench_record::{Kind, rfc3339_utc, write_atomically};
use cellbench_workloads::EngineNeed;
use cellbench_workloads::registry::{Entry, WORKLOADS};

use crate::check::stress::account::{Account, Report};
use crate::check::stress::deck::Deck;
use crate::check::stress::slice::{self, Order};
use crate::check::stress::slices::{self, Common, Limits};
use cellbench_host::cpus::CpuSet;
use cellbench_host::describe::describe;
use cellbench_host::{Placement, Roots, Topology};
use cellbench_measure::backend::BackendError;
use cellbench_measure::cmd::args::{Output, parse_duration};
use cellbench_measure::cmd::command_line::{command_line, given};
use cellbench_measure::cmd::output;
use cellbench_measure::cmd::run::{EXIT_NOTHING, EXIT_VIOLATION, seed_from_clock};
use cellbench_measure::session::ctrl_c::{self, CtrlC};
use cellbench_measure::session::plan::{PlanError, known_cells, known_workloads};
use cellbench_measure::session::run::SessionError;
use cellbench_measure::session::subject::{self, Reclaim, Subject};

/// Workers on each CPU unless told otherwise.
const WORKERS_PER_CPU: usize = 4;
/// Time for a run that is not told.
const DEFAULT_TIME: Duration = Duration::from_secs(60);

/// Check every cell on real cores: threads, signals and callbacks at once, freed memory poisoned
///
/// Exit status: 0 all is well, 1 a violation, 2 wrong input, 3 some cells never ran, 130
/// interrupted.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    /// How long, as 600, 600s or 10m [default: 60s, or as long as --interrupts takes]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    seconds: Option<Duration>,
    /// Go on until each cell was interrupted so often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    interrupts: Option<u64>,
    /// Cells and locks by name [default: all but the locks of others]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    cells: Vec<String>,
    /// Kinds: timer, wq, task_work, lock
    #[arg(long, value_name = "K,L", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Workloads by name [default: all but those that stall, `stress` half of the time]
    #[arg(long, value_name = "X,Y", value_delimiter = ',', visible_alias = "workload")]
    workloads: Vec<String>,
    /// Workers in each slice [default: 4 on each CPU]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Length of a slice: one cell under one workload, then the check at rest
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_slice)]
    slice: Duration,
    /// Interruptions of each worker and context a second; 0: as many as are handled
    /// [default: the workload's]
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    interrupt_rate: Option<u32>,
    /// Interrupt one worker before a chosen access of each operation, in place of signals:
    /// millions of interruptions a second, timers never fire
    #[arg(long, conflicts_with_all = ["threads", "interrupt_rate"])]
    stepped: bool,
    /// End at the first violation
    #[arg(long)]
    fail_fast: bool,
    /// Seed of every random choice [default: from the clock; it stands in the record]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Switch on a known bug, which must be found
    #[cfg(feature = "planted")]
    #[arg(long, value_name = "BUG")]
    planted: Option<String>,
    /// Run one slice, as a record has it, and print what came of it as JSON
    #[arg(long, value_name = "JSON", conflicts_with_all = ["seconds", "interrupts", "cells", "kinds", "workloads", "threads", "seed"])]
    order: Option<String>,
}

fn parse_slice(text: &str) -> Result<Duration, String> {
    let slice = parse_duration(text)?;
    if (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&slice) {
        Ok(slice)
    } else {
        Err(format!("a slice lasts 1ms to 1h, not {text}"))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(order) = &args.order {
        return run_slice(order);
    }
    let topology = Topology::read()?;
    let usable = topology.place(Placement::Compact, topology.usable.len())?;
    let threads = match args.threads {
        _ if args.stepped => 1,
        Some(threads) => threads as usize,
        None => WORKERS_PER_CPU * usable.len(),
    };
    let cpus: Vec<u32> = usable.iter().map(|cpu| cpu.0).cycle().take(threads).collect();
    let decks = decks(args, threads as u32)?;
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;

    let seed = args.seed.unwrap_or_else(seed_from_clock);
    let given = given();
    let used: CpuSet = usable.iter().copied().collect();
    let started_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let accounts =
        decks.iter().map(|deck| Account::new(&deck.subject.name, &deck.subject.kind.to_string()));
    let report = Report {
        command_line: command_line(("cellbench", &given), args.seed.is_none().then_some(seed)),
        seed,
        started_unix_s,
        elapsed_s: 0.0,
        threads: threads as u32,
        host: describe(&Roots::live(), &topology, &used),
        cells: accounts.collect(),
        violations: Vec::new(),
        interrupted: false,
    };
    let path = create_record(args, started_unix_s)?;
    let limits = Limits {
        time: args.seconds.or((args.interrupts.is_none()).then_some(DEFAULT_TIME)),
        interruptions: args.interrupts,
        at_first_violation: args.fail_fast,
    };
    let common = Common {
        cpus,
        slice: args.slice,
        interrupt_rate_hz: args.interrupt_rate,
        stepped: args.stepped,
        #[cfg(feature = "planted")]
        planted: args.planted.clone(),
        #[cfg(not(feature = "planted"))]
        planted: None,
    };
    let all = slices::time_for_all(&decks, args.slice);
    if let Some(limit) = limits.time.filter(|limit| *limit < all) {
        output::note(&format!(
            "every cell under each of its workloads takes {} s; this run has {} s",
            all.as_secs() + 1,
            limit.as_secs()
        ));
    }
    let report = RefCell::new(report);
    let bar = Bar::new(limits)?;
    let ended = slices::run(
        decks,
        common,
        limits,
        &report,
        &|| ctrl_c.is_requested(),
        &|report| save(&path, report),
        &|order| match order {
            Some(order) => bar.show(&report.borrow(), order),
            None => bar.bar.tick(),
        },
    );
    bar.bar.finish_and_clear();
    let mut report = report.into_inner();
    report.interrupted = ctrl_c.is_requested();
    save(&path, &report)?;
    let ended = match ended {
        Err(error) if report.without_slices().count() == report.cells.len() => {
            return Err(error.into());
        }
        // What was found before an error is shown.
        ended => ended,
    };
    if args.output.json {
        output::emit_json(&report)?;
    } else {
        output::emit(&report.to_text()?)?;
    }
    output::note(&format!("recorded in {}", path.display()));
    ended?;
    let complete = report.without_slices().next().is_none();
    Ok(match (report.violations.is_empty(), report.interrupted) {
        (false, _) => ExitCode::from(EXIT_VIOLATION),
        (true, true) => ExitCode::from(ctrl_c::EXIT_STATUS),
        (true, false) if !complete => ExitCode::from(EXIT_NOTHING),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// Returns one slice, for the supervisor or for whoever repeats a violation.
fn run_slice(text: &str) -> anyhow::Result<ExitCode> {
    let order: Order = serde_json::from_str(text).context("--order")?;
    let tell = |outcome: &slice::Outcome| -> anyhow::Result<ExitCode> {
        let mut line = serde_json::to_string(outcome)?;
        line.push('\n');
        output::emit(&line)?;
        let sound = outcome.violations.is_empty();
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VIOLATION) })
    };
    let stuck = move |outcome: slice::Outcome| {
        // Nothing is left to be done if standard output is gone.
        let _ = tell(&outcome);
        std::process::exit(i32::from(EXIT_VIOLATION));
    };
    tell(&slice::run(&order, Box::new(stuck))?)
}

/// Returns the chosen cells with the chosen workloads that suit each.
fn decks(args: &Args, threads: u32) -> anyhow::Result<Vec<Deck>> {
    let unknown =
        |what, name: &str, known| PlanError::Unknown { what, name: name.to_owned(), known };
    let mut subjects: Vec<Subject> = Vec::new();
    for name in &args.cells {
        let found = subject::named(name);
        if found.is_empty() {
            return Err(unknown("cell", name, known_cells()).into());
        }
        if found.iter().any(|subject| subject.reclaim == Reclaim::Epoch) {
            bail!(
                "--cells {name}: poisoned memory comes with RCU by quiescent states only; leave out `{}`",
                subject::EPOCH
            );
        }
        subjects.extend(found);
    }
    if args.cells.is_empty() {
        subjects = subject::all();
        // A primitive promises nothing that could be broken.
        subjects.retain(|subject| !subject.is_peer() && subject.kind != Kind::Primitive);
    }
    let kinds = [Kind::Timer, Kind::Wq, Kind::TaskWork, Kind::Lock].map(|kind| kind.to_string());
    if let Some(name) = args.kinds.iter().find(|name| !kinds.contains(name)) {
        return Err(unknown("kind", name, kinds.join(", ")).into());
    }
    let mut workloads: Vec<&'static Entry> = Vec::new();
    for name in &args.workloads {
        let found = WORKLOADS.iter().find(|workload| workload.id == name);
        workloads.push(found.ok_or_else(|| unknown("workload", name, known_workloads()))?);
    }
    if args.workloads.is_empty() {
        workloads = WORKLOADS.iter().filter(|workload| !workload.needs.stalls).collect();
    }
    let mut decks: Vec<Deck> = Vec::new();
    for subject in subjects {
        let kind = subject.kind.to_string();
        let chosen = args.kinds.is_empty() || args.kinds.contains(&kind);
        let known = decks.iter().any(|deck| deck.subject == subject);
        if !chosen || known {
            continue;
        }
        let suits = |workload: &&'static Entry| {
            workload.suits(subject.id, subject.under())
                && threads >= workload.needs.least_workers
                && (!args.stepped || workload.engine == EngineNeed::Count)
                && (args.interrupts.is_none() && !args.stepped
                    || !workload.needs.interrupts.is_empty())
        };
        let workloads = workloads.iter().copied().filter(suits).collect();
        decks.extend(Deck::new(subject.clone(), workloads));
    }
    if decks.is_empty() {
        bail!(
            "nothing to do: no chosen cell runs under a chosen workload{} with {threads} thread(s); see `cellbench list`",
            if args.interrupts.is_some() || args.stepped { " that interrupts" } else { "" }
        );
    }
    Ok(decks)
}

/// Returns the file of this run, in a directory of its own.
fn create_record(args: &Args, started_unix_s: u64) -> anyhow::Result<PathBuf> {
    let stamp: String =
        rfc3339_utc(started_unix_s).chars().filter(|c| !"-:".contains(*c)).collect();
    let dir = args.output.dir().join(format!("stress-{stamp}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("--out: {}", dir.display()))?;
    Ok(dir.join("stress.json"))
}

/// The progress bar of a run.
struct Bar {
    bar: indicatif::ProgressBar,
    limits: Limits,
    began: Instant,
}

impl Bar {
    fn new(limits: Limits) -> anyhow::Result<Self> {
        let style = indicatif::ProgressStyle::with_template("{bar:30} {msg}")?;
        let bar = indicatif::ProgressBar::new(1000).with_style(style);
        Ok(Self { bar, limits, began: Instant::now() })
    }

    /// Shows how far the run is.
    fn show(&self, report: &Report, order: &Order) {
        let elapsed = self.began.elapsed();
        let done = match (self.limits.time, self.limits.interruptions) {
            (Some(limit), _) => elapsed.as_secs_f64() / limit.as_secs_f64(),
            (None, Some(wanted)) => {
                let done: u64 =
                    report.cells.iter().map(|cell| cell.interruptions.min(wanted)).sum();
                done as f64 / (wanted as f64 * report.cells.len() as f64)
            }
            (None, None) => 0.0,
        };
        self.bar.set_position((done * 1000.0) as u64);
        self.bar.set_message(format!(
            "{} s; {} operations, {} violations; {} ({}) under {}",
            elapsed.as_secs(),
            report.operations(),
            report.violations.len(),
            order.cell,
            order.kind,
            order.workload
        ));
    }
}

/// Writes the record as it stands.
fn save(path: &Path, report: &Report) -> Result<(), SessionError> {
    let mut text = serde_json::to_vec_pretty(report)
        .map_err(|error| SessionError::Backend(BackendError::failed(error)))?;
    text.push(b'\n');
    Ok(write_atomically(path, &text)?)
}
