//! `cellbench stress`: is every cell right, on real cores, for as long as wanted?

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};
use cellbench_record::{Kind, rfc3339_utc, write_atomically};
use cellbench_workloads::registry::{Entry, WORKLOADS};
use cellbench_workloads::{EngineNeed, Worker};

use super::args::{Output, parse_duration};
use super::command_line::{command_line, given};
use super::output;
use super::run::{EXIT_VIOLATION, seed_from_clock};
use crate::check::stress::account::{Account, Report};
use crate::check::stress::deck::{Deck, shuffle};
use crate::check::stress::slice::{self, Order};
use crate::check::stress::supervisor;
use crate::session::ctrl_c::{self, CtrlC};
use crate::session::plan::{PlanError, known_cells, known_workloads};
use crate::session::subject::{self, Reclaim, Subject};
use cellbench_host::cpus::CpuSet;
use cellbench_host::describe::describe;
use cellbench_host::{Placement, Roots, Topology};

/// Workers on each CPU unless told otherwise.
const WORKERS_PER_CPU: usize = 4;
/// Time for a run that is not told.
const DEFAULT_TIME: Duration = Duration::from_secs(60);

/// Check every cell on real cores: threads, signals and callbacks at once, freed memory poisoned
///
/// Exit status: 0 all is well, 1 a violation, 2 wrong input, 130 interrupted.
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
    /// CtrlC one worker before a chosen access of each operation, in place of signals:
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
    let mut stress = Stress {
        args,
        cpus,
        dice: Worker::new(0, seed),
        began: Instant::now(),
        ctrl_c,
        report,
        path,
        bar: bar()?,
    };
    let ended = stress.rounds(decks);
    stress.bar.finish_and_clear();
    stress.report.interrupted = ctrl_c.is_requested();
    stress.save()?;
    ended?;
    let Stress { report, path, .. } = &stress;
    if args.output.json {
        output::emit_json(report)?;
    } else {
        output::emit(&report.to_text()?)?;
    }
    output::note(&format!("recorded in {}", path.display()));
    Ok(match (report.violations.is_empty(), report.interrupted) {
        (false, _) => ExitCode::from(EXIT_VIOLATION),
        (true, true) => ExitCode::from(ctrl_c::EXIT_STATUS),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// One slice, for the supervisor or for whoever repeats a violation.
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

/// The chosen cells with the chosen workloads that suit each.
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
        subjects.retain(|subject| !subject.is_peer());
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

/// The file of this run, in a directory of its own.
fn create_record(args: &Args, started_unix_s: u64) -> anyhow::Result<PathBuf> {
    let stamp: String =
        rfc3339_utc(started_unix_s).chars().filter(|c| !"-:".contains(*c)).collect();
    let dir = args.output.dir().join(format!("stress-{stamp}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("--out: {}", dir.display()))?;
    Ok(dir.join("stress.json"))
}

fn bar() -> anyhow::Result<indicatif::ProgressBar> {
    let style = indicatif::ProgressStyle::with_template("{bar:30} {msg}")?;
    Ok(indicatif::ProgressBar::new(1000).with_style(style))
}

/// A run on its way.
struct Stress<'a> {
    args: &'a Args,
    /// Host CPU of each worker.
    cpus: Vec<u32>,
    dice: Worker,
    began: Instant,
    ctrl_c: CtrlC,
    report: Report,
    path: PathBuf,
    bar: indicatif::ProgressBar,
}

impl Stress<'_> {
    /// Every cell in turn until time is up, all were interrupted often enough, or the user has
    /// enough.
    fn rounds(&mut self, mut decks: Vec<Deck>) -> anyhow::Result<()> {
        loop {
            shuffle(&mut decks, &mut self.dice);
            for deck in &mut decks {
                if self.is_over() {
                    return Ok(());
                }
                let workload = deck.draw(&mut self.dice);
                self.slice(&deck.subject, workload)?;
            }
            self.save()?;
            let wanted = self.args.interrupts.unwrap_or(u64::MAX);
            let report = &self.report;
            decks.retain(|deck| interruptions(report, &deck.subject) < wanted);
            if decks.is_empty() {
                return Ok(());
            }
        }
    }

    fn is_over(&self) -> bool {
        let limit = match (self.args.seconds, self.args.interrupts) {
            (Some(limit), _) => limit,
            (None, None) => DEFAULT_TIME,
            (None, Some(_)) => Duration::MAX,
        };
        let failed = self.args.fail_fast && !self.report.violations.is_empty();
        failed || self.ctrl_c.is_requested() || self.began.elapsed() >= limit
    }

    fn slice(&mut self, subject: &Subject, workload: &'static Entry) -> anyhow::Result<()> {
        let order = Order {
            cell: subject.name.clone(),
            kind: subject.kind.to_string(),
            workload: workload.id.to_owned(),
            cpus: self.cpus.clone(),
            window_ms: self.args.slice.as_millis() as u64,
            // 53 bits, which every JSON reader keeps.
            seed: self.dice.random() >> 11,
            interrupt_rate_hz: self.args.interrupt_rate,
            stepped: self.args.stepped,
            #[cfg(feature = "planted")]
            planted: self.args.planted.clone(),
            #[cfg(not(feature = "planted"))]
            planted: None,
        };
        self.show(&order);
        let bar = &self.bar;
        let outcome = supervisor::run(&order, || bar.tick())?;
        self.report.enter(&order, &outcome);
        self.report.elapsed_s = self.began.elapsed().as_secs_f64();
        Ok(())
    }

    /// How far it is, for whoever watches.
    fn show(&self, order: &Order) {
        let elapsed = self.began.elapsed();
        let done = match (self.args.seconds, self.args.interrupts) {
            (None, Some(wanted)) => {
                let done: u64 =
                    self.report.cells.iter().map(|cell| cell.interruptions.min(wanted)).sum();
                done as f64 / (wanted as f64 * self.report.cells.len() as f64)
            }
            (limit, _) => elapsed.as_secs_f64() / limit.unwrap_or(DEFAULT_TIME).as_secs_f64(),
        };
        self.bar.set_position((done * 1000.0) as u64);
        self.bar.set_message(format!(
            "{} s; {} operations, {} violations; {} ({}) under {}",
            elapsed.as_secs(),
            self.report.operations(),
            self.report.violations.len(),
            order.cell,
            order.kind,
            order.workload
        ));
    }

    /// Writes the record as it stands.
    fn save(&self) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.report)?;
        text.push(b'\n');
        Ok(write_atomically(&self.path, &text)?)
    }
}

fn interruptions(report: &Report, subject: &Subject) -> u64 {
    let kind = subject.kind.to_string();
    let own = |cell: &&Account| cell.cell == subject.name && cell.kind == kind;
    report.cells.iter().find(own).map_or(0, |cell| cell.interruptions)
}
