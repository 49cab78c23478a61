//! A simulated run from beginning to end: configurations in parallel, records in order.
//!
//! Each round takes every configuration once, all with the same seed: cells that are compared make
//! the same choices. Simulations of a batch run on all cores of the host; what they found is
//! written in the plan's order, whichever ended first.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cellbench_record::{
    Host, Run, RunWriter, Settings as RunSettings, SimulationSpeed, Topology as HostTopology,
    WriteError,
};
use cellbench_sim::MachineModel;
use rayon::prelude::*;

use super::meter::Meter;
use super::trial::{Effort, Machine, SimulateError, Simulated, effort, simulate};
use crate::backend::cores::round::Spec;
use crate::session::ctrl_c::CtrlC;
use crate::session::plan::Plan;
use crate::session::run::{Ended, Finished};

/// Configurations between two writes: what a killed run loses at most, and what is in memory.
const BATCH: usize = 128;

/// How to simulate a plan.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory that the run's own is made in.
    pub out: PathBuf,
    /// Seed of every random choice.
    pub seed: u64,
    /// Rounds, each with another seed.
    pub rounds: u32,
    /// Time after which no further round is begun; none: no limit.
    pub time_budget: Option<Duration>,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Cell that the others are compared with.
    pub baseline: String,
    /// Name of the matrix, for the record.
    pub matrix: String,
    /// Labels of fields that are given cache lines of their own.
    pub own_lines: Vec<String>,
    /// Command that repeats the run.
    pub command_line: String,
}

/// A simulated run failed; what was recorded before stays readable.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The record.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A simulation.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// A field that was to have its own line is in nothing that was simulated.
    #[error(
        "--own-line {label}: nothing that is simulated has a field of this label; take one from `coherence.fields` in a run's rounds.jsonl"
    )]
    NoField {
        /// Its label.
        label: String,
    },
}

/// Simulates `plan` on `machine`; returns how fast that was, too.
///
/// # Errors
/// [`SessionError`]; rounds that were finished are on disk.
pub fn run(
    plan: &Plan,
    machine: &MachineModel,
    settings: &Settings,
    ctrl_c: CtrlC,
) -> Result<(Finished, SimulationSpeed), SessionError> {
    let began = Instant::now();
    let meter = Meter::default();
    let on = Machine { model: machine, own_lines: &settings.own_lines, meter: &meter };
    let mut writer = RunWriter::create(&settings.out, describe(plan, machine, settings))?;
    // Blocks begin with position 0, as in runs on real cores.
    let specs: Vec<(u32, &Spec)> =
        plan.blocks.iter().flat_map(|block| (0..).zip(&block.specs)).collect();
    let mut session = Session { machine: &on, ctrl_c, violations: Vec::new() };
    let Some(efforts) = session.efforts(&specs, settings.seed)? else {
        return session.finish(writer, Ended::Interrupted, 0);
    };
    for number in 0..settings.rounds {
        let elapsed = began.elapsed();
        let next = elapsed / number.max(1);
        if number > 0 && settings.time_budget.is_some_and(|budget| elapsed + next > budget) {
            return session.finish(writer, Ended::Spent, number);
        }
        let seed = round_seed(settings.seed, number);
        let mut missing = settings.own_lines.clone();
        let all: Vec<_> = specs.iter().zip(&efforts).collect();
        for batch in all.chunks(BATCH) {
            if ctrl_c.is_requested() {
                return session.finish(writer, Ended::Interrupted, number + 1);
            }
            let simulated: Result<Vec<Simulated>, SimulateError> = batch
                .par_iter()
                .with_max_len(1)
                .map(|((_, spec), effort)| simulate(spec, &on, **effort, seed))
                .collect();
            for (((position, _), _), mut simulated) in batch.iter().zip(simulated?) {
                missing.retain(|label| simulated.without.contains(label));
                simulated.round.round = number;
                simulated.round.position = *position;
                session.record(&mut writer, simulated)?;
            }
        }
        if let Some(label) = missing.pop() {
            return Err(SessionError::NoField { label });
        }
    }
    session.finish(writer, Ended::Spent, settings.rounds)
}

/// Seeds of the rounds of one run, far apart from those of runs with neighbouring seeds (the
/// finaliser of SplitMix64; Steele, Lea, Flood 2014).
fn round_seed(seed: u64, round: u32) -> u64 {
    let mut z = seed ^ (u64::from(round) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Session<'a> {
    machine: &'a Machine<'a>,
    ctrl_c: CtrlC,
    violations: Vec<String>,
}

impl Session<'_> {
    /// How long each configuration is to be simulated; none if the user interrupted.
    fn efforts(
        &self,
        specs: &[(u32, &Spec)],
        seed: u64,
    ) -> Result<Option<Vec<Effort>>, SimulateError> {
        let mut efforts = Vec::with_capacity(specs.len());
        for batch in specs.chunks(BATCH) {
            if self.ctrl_c.is_requested() {
                return Ok(None);
            }
            let found: Result<Vec<Effort>, SimulateError> = batch
                .par_iter()
                .with_max_len(1)
                .map(|(_, spec)| effort(spec, self.machine, seed))
                .collect();
            efforts.extend(found?);
        }
        Ok(Some(efforts))
    }

    fn record(&mut self, writer: &mut RunWriter, simulated: Simulated) -> Result<(), WriteError> {
        let Simulated { mut round, latencies, .. } = simulated;
        let latencies: Vec<_> =
            latencies.iter().map(|(op, histogram)| (op.to_owned(), histogram.clone())).collect();
        writer.append_measured(&mut round, &latencies)?;
        if let Some(violation) = round.invariants.violations.first() {
            let row = round.series.to_string();
            if !self.violations.iter().any(|known| known.starts_with(&row)) {
                self.violations.push(format!("{row}: {violation}"));
            }
        }
        Ok(())
    }

    fn finish(
        self,
        mut writer: RunWriter,
        ended: Ended,
        rounds: u32,
    ) -> Result<(Finished, SimulationSpeed), SessionError> {
        let speed = self.machine.meter.speed();
        writer.update_run(|run| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            run.finished_unix_s = Some(now.map_or(0, |since| since.as_secs()));
            if ended == Ended::Interrupted {
                run.notes.push("interrupted by the user".to_owned());
            }
            run.simulated = Some(speed);
        })?;
        let dir = writer.dir().to_owned();
        Ok((Finished { dir, rounds, ended, violations: self.violations }, speed))
    }
}

/// What is known of a run before it begins. The host of a simulated run is the simulated machine.
fn describe(plan: &Plan, machine: &MachineModel, settings: &Settings) -> Run {
    let topology = super::plan::topology(machine);
    let mut notes = vec![format!(
        "simulated on {}: {}; times are simulated, see METHODOLOGY.md for what the model leaves out",
        machine.name, machine.title
    )];
    if !settings.own_lines.is_empty() {
        notes.push(format!("on cache lines of their own: {}", settings.own_lines.join(", ")));
    }
    notes.extend(plan.skipped.iter().map(|what| format!("left out: {what}")));
    let mut run = Run {
        git_revision: option_env!("CELLBENCH_GIT_REVISION").map(str::to_owned),
        command_line: settings.command_line.clone(),
        baseline: settings.baseline.clone(),
        host: Host {
            cpu_model: Some(format!("simulated: {}", machine.title)),
            topology: HostTopology {
                cpus_online: topology.cpus.len() as u32,
                packages: topology.packages().map(|n| n as u32),
                llc_groups: topology.llc_groups().map(|n| n as u32),
                cores: topology.cores() as u32,
                numa_nodes: topology.numa_nodes().map(|n| n as u32),
                cpus: Vec::new(),
            },
            ..Host::default()
        },
        settings: RunSettings {
            time_budget_s: settings.time_budget.map(|budget| budget.as_secs_f64()),
            threshold_share: settings.threshold_share,
            latency_sample_every: 1,
            matrix: settings.matrix.clone(),
            own_lines: settings.own_lines.clone(),
            ..RunSettings::default()
        },
        notes,
        ..Run::new(env!("CARGO_PKG_VERSION"), settings.seed)
    };
    // The whole model: a run can be repeated when the built-in machine has changed.
    run.simulated_machine = Some(machine.to_toml());
    run
}
