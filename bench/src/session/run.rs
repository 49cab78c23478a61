//! A run from beginning to end: host, calibration, interleaved rounds, records.
//!
//! Each round goes once over the blocks that are not decided yet, in shuffled order, and within a
//! block over its cells in shuffled order: cells that are compared run within a second of each
//! other, and none always runs first. Every round is on disk before the next begins.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cellbench_plots::{Decision, Options, Table};
use cellbench_record::{Run, RunWriter, Settings as RunSettings, WriteError};

use super::budget;
use super::ctrl_c::CtrlC;
use super::plan::{Block, Plan};
use super::progress::Progress;
use crate::backend::cores::calibrate::{CalibrateError, Instruments, calibrate};
use crate::backend::cores::round::{Bench, Conditions, Measured, RoundError, WhenStuck};
use crate::rng::Rng;
use cellbench_host::clock::Clock;
use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::describe::describe;
use cellbench_host::topology::Topology;
use cellbench_host::{Roots, doctor};

/// Between two looks whether a block is decided: looking often finds what is not there.
const ROUNDS_BETWEEN_LOOKS: u32 = 5;

/// How to measure a plan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory that the run's own is made in.
    pub out: PathBuf,
    /// Seed of every random choice.
    pub seed: u64,
    /// Time for everything but the reports.
    pub time_budget: Duration,
    /// Length of a window; none: as the budget allows.
    pub window: Option<Duration>,
    /// Rounds after which to stop, decided or not.
    pub most_rounds: Option<u32>,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Cell that the others are compared with.
    pub baseline: String,
    /// Cost added to each interrupt-off section of the model.
    pub irq_save_cost_ns: f64,
    /// Interruptions of each worker and context a second; none: what each workload says.
    pub interrupt_rate_hz: Option<u32>,
    /// Name of the matrix, for the record.
    pub matrix: String,
    /// Command that repeats the run.
    pub command_line: String,
}

/// What a session left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Directory of the run.
    pub dir: PathBuf,
    /// Rounds begun.
    pub rounds: u32,
    /// Why it ended.
    pub ended: Ended,
    /// Rows whose invariants broke, with what broke, the first time for each.
    pub violations: Vec<String>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every comparison is decided.
    Decided,
    /// The time budget, or the number of rounds, is used up.
    Spent,
    /// The user interrupted.
    Interrupted,
}

/// A session failed; what was recorded before stays readable.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The record.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A round.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// The calibration.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
}

/// Called with the run's directory when workers do not come back, see [`WhenStuck`].
pub type WhenRunStuck = fn(&Path, RoundError);

/// Measures `plan`.
///
/// # Errors
/// [`SessionError`]; rounds that were finished are on disk.
pub fn run(
    mut plan: Plan,
    topology: &Topology,
    settings: &Settings,
    ctrl_c: CtrlC,
    when_stuck: WhenRunStuck,
) -> Result<Finished, SessionError> {
    let began = Instant::now();
    let cpus = used_cpus(&plan);
    let mut writer = RunWriter::create(&settings.out, describe_run(topology, &cpus, settings))?;
    let dir = writer.dir().to_owned();
    let when_stuck = |error| when_stuck(&dir, error);
    let when_stuck: WhenStuck<'_> = &when_stuck;

    let short = settings.time_budget / 100;
    let watch = (short * 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
    let findings = doctor::examine(topology, &cpus.iter().copied().collect(), watch);
    let bench = Bench::new(Clock::new(), &cpus.iter().copied().collect());
    let effort = (short / 10).clamp(Duration::from_millis(3), Duration::from_millis(20));
    let instruments = calibrate(&bench, topology, &cpus, effort, when_stuck)?;

    let left = settings.time_budget.saturating_sub(began.elapsed());
    budget::fit(&mut plan, left);
    let window = settings.window.unwrap_or_else(|| budget::window(&plan, left));
    writer.update_run(|run| {
        run.findings = findings;
        run.calibration = instruments.calibration.clone();
        run.settings.window_s = window.as_secs_f64();
        run.notes = plan.skipped.iter().map(|what| format!("left out: {what}")).collect();
    })?;

    let conditions = Conditions {
        warm_up: budget::warm_up(window),
        window,
        sampled: true,
        turns_per_us: instruments.turns_per_us,
        irq_save_turns: irq_save_turns(settings, &instruments),
        interrupt_rate_hz: settings.interrupt_rate_hz,
    };
    let mut session = Session {
        bench,
        conditions,
        options: Options::of(writer.run()),
        writer,
        settings,
        ctrl_c,
        began,
        progress: Progress::new(settings.time_budget),
        rng: Rng::new(settings.seed),
        violations: Vec::new(),
        sampled_every: 0,
    };
    let (ended, rounds) = session.rounds(&plan, when_stuck)?;
    let Session { mut writer, violations, sampled_every, progress, .. } = session;
    progress.finish();
    writer.update_run(|run| {
        run.settings.latency_sample_every = sampled_every;
        run.finished_unix_s = Some(unix_s());
        match ended {
            Ended::Interrupted => run.notes.push("interrupted by the user".to_owned()),
            Ended::Decided => {
                run.notes.push(format!("every comparison was decided after {rounds} rounds"))
            }
            Ended::Spent => {}
        }
    })?;
    Ok(Finished { dir: writer.dir().to_owned(), rounds, ended, violations })
}

/// The CPUs that some configuration uses, in the order of the largest one.
fn used_cpus(plan: &Plan) -> Vec<CpuId> {
    let mut cpus: Vec<CpuId> = Vec::new();
    let mut specs: Vec<_> = plan.specs().collect();
    specs.sort_by_key(|spec| std::cmp::Reverse(spec.cpus.len()));
    for cpu in specs.iter().flat_map(|spec| &spec.cpus) {
        if !cpus.contains(cpu) {
            cpus.push(*cpu);
        }
    }
    cpus
}

/// What is known of a run before it measures.
pub(crate) fn describe_run(topology: &Topology, cpus: &[CpuId], settings: &Settings) -> Run {
    let used: CpuSet = cpus.iter().copied().collect();
    Run {
        git_revision: option_env!("CELLBENCH_GIT_REVISION").map(str::to_owned),
        command_line: settings.command_line.clone(),
        baseline: settings.baseline.clone(),
        host: describe(&Roots::live(), topology, &used),
        settings: RunSettings {
            time_budget_s: Some(settings.time_budget.as_secs_f64()),
            threshold_share: settings.threshold_share,
            irq_save_cost_ns: settings.irq_save_cost_ns,
            matrix: settings.matrix.clone(),
            ..RunSettings::default()
        },
        ..Run::new(env!("CARGO_PKG_VERSION"), settings.seed)
    }
}

fn irq_save_turns(settings: &Settings, instruments: &Instruments) -> u32 {
    (settings.irq_save_cost_ns * f64::from(instruments.turns_per_us) / 1000.0).round() as u32
}

pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A block and what is known of it.
struct Progressing<'a> {
    block: &'a Block,
    table: Table,
    decided: bool,
}

/// The loop over rounds.
struct Session<'a> {
    bench: Bench,
    conditions: Conditions,
    options: Options,
    writer: RunWriter,
    settings: &'a Settings,
    ctrl_c: CtrlC,
    began: Instant,
    progress: Progress,
    rng: Rng,
    violations: Vec<String>,
    sampled_every: u32,
}

impl Session<'_> {
    fn rounds(
        &mut self,
        plan: &Plan,
        when_stuck: WhenStuck<'_>,
    ) -> Result<(Ended, u32), SessionError> {
        // A look at one block spends its part of the error of all that are compared.
        let compared = plan.blocks.iter().filter(|block| !block.surveyed);
        let comparisons = compared.map(|block| block.specs.len().saturating_sub(1) as u32).sum();
        let options = Options { comparisons, ..self.options.clone() };
        let mut blocks: Vec<Progressing<'_>> = plan
            .blocks
            .iter()
            .map(|block| Progressing { block, table: Table::new(options.clone()), decided: false })
            .collect();
        for number in 0..self.settings.most_rounds.unwrap_or(u32::MAX) {
            let mut order = due(&blocks, number);
            if order.is_empty() {
                return Ok((Ended::Decided, number));
            }
            self.rng.shuffle(&mut order);
            for (place, index) in order.iter().enumerate() {
                let first = number == 0 && place == 0;
                if self.ctrl_c.is_requested() {
                    return Ok((Ended::Interrupted, number + 1));
                }
                if !first && self.is_spent(blocks[*index].block) {
                    return Ok((Ended::Spent, number + 1));
                }
                self.progress.at(number, place, order.len(), self.began.elapsed());
                self.block(&mut blocks[*index], number, when_stuck)?;
            }
        }
        Ok((Ended::Spent, self.settings.most_rounds.unwrap_or(u32::MAX)))
    }

    /// Whether there is no time for another block.
    fn is_spent(&self, block: &Block) -> bool {
        let cost: Duration =
            block.specs.iter().map(|spec| budget::cost(spec, self.conditions.window)).sum();
        self.began.elapsed() + cost > self.settings.time_budget
    }

    /// Measures every cell of a block once.
    fn block(
        &mut self,
        progressing: &mut Progressing<'_>,
        number: u32,
        when_stuck: WhenStuck<'_>,
    ) -> Result<(), SessionError> {
        let mut order: Vec<usize> = (0..progressing.block.specs.len()).collect();
        self.rng.shuffle(&mut order);
        // The same for all cells of the block: their workloads make the same choices.
        let seed = self.rng.next();
        for (position, index) in order.into_iter().enumerate() {
            let spec = &progressing.block.specs[index];
            let start_s = self.began.elapsed().as_secs_f64();
            let mut measured = self.bench.measure(spec, &self.conditions, seed, when_stuck)?;
            measured.round.round = number;
            measured.round.position = position as u32;
            measured.round.start_s = start_s;
            self.record(&mut measured)?;
            progressing.table.push(&measured.round);
        }
        if (number + 1).is_multiple_of(ROUNDS_BETWEEN_LOOKS) {
            progressing.decided = progressing.table.decision() == Decision::Enough;
        }
        Ok(())
    }

    fn record(&mut self, measured: &mut Measured) -> Result<(), SessionError> {
        let Measured { round, latencies, .. } = measured;
        self.writer.append_measured(round, latencies)?;
        if let Some(violation) = round.invariants.violations.first() {
            let row = round.series.to_string();
            if !self.violations.iter().any(|known| known.starts_with(&row)) {
                self.violations.push(format!("{row}: {violation}"));
            }
        }
        if let Some(every) = round.latency_sample_every {
            self.sampled_every =
                if self.sampled_every == 0 { every } else { self.sampled_every.min(every) };
        }
        Ok(())
    }
}

/// The blocks of a round: first all, then those that are compared, then those that are surveyed,
/// each until it is decided.
fn due(blocks: &[Progressing<'_>], number: u32) -> Vec<usize> {
    let undecided = |surveyed: Option<bool>| -> Vec<usize> {
        (0..blocks.len())
            .filter(|index| {
                let at = &blocks[*index];
                !at.decided && surveyed.is_none_or(|surveyed| at.block.surveyed == surveyed)
            })
            .collect()
    };
    if number < budget::SURVEY_ROUNDS {
        return undecided(None);
    }
    let compared = undecided(Some(false));
    if compared.is_empty() { undecided(Some(true)) } else { compared }
}
