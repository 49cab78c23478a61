//! Rounds on a simulated machine: the cells, workloads and records of the real runs, on virtual
//! cores whose every access is charged by the coherence model of `cellbench-sim`.
//!
//! | step | where |
//! |---|---|
//! | Which configurations can be simulated, and on which hardware threads? | [`plan`] |
//! | One configuration with one seed | [`trial`] |
//! | The host as a machine to simulate | [`host`] |
//! | How fast is that? | [`meter`] |
//!
//! Times are simulated. What a run writes depends on machine, choice and seed alone: neither on how
//! many simulations run at a time nor on the host.

pub mod host;
pub mod meter;
pub mod plan;
pub mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cellbench_impls::machine;
use cellbench_record::{Charges, Host, Run, Series, Topology};
use cellbench_sim::MachineModel;
use rayon::prelude::*;

use self::meter::Meter;
use self::trial::{Effort, Machine, SimulateError, Simulated, effort, simulate};
use cellbench_measure::backend::{Backend, BackendError, Measured, Pace};
use cellbench_measure::session::plan::Spec;

/// Configurations between two writes: what a killed run loses at most, and what is in memory.
const BATCH: usize = 128;

/// A field that was to have its own line is in nothing that was simulated.
#[derive(Debug, thiserror::Error)]
#[error(
    "--own-line {label}: nothing that is simulated has a field of this label; take one from `coherence.fields` in a run's rounds.jsonl"
)]
pub struct NoField {
    /// Label of the field.
    pub label: String,
}

/// A simulated machine as a source of rounds. Simulations of a batch run on all cores of the host.
pub struct Simulator<'a> {
    machine: &'a MachineModel,
    own_lines: &'a [String],
    /// Charge for masking interrupts, in nanoseconds.
    irq_save_ns: f64,
    /// Charges for the rest of what user space cannot do.
    charges: Charges,
    seed: u64,
    /// Whether every round is on the machine as its file says.
    is_exact: bool,
    meter: Meter,
    /// Time that the batches took, and configurations in them.
    spent: (Duration, u32),
    /// How long to simulate each configuration, once known.
    efforts: BTreeMap<Series, Effort>,
    /// Labels of `own_lines` that something simulated has.
    found: BTreeSet<String>,
}

impl<'a> Simulator<'a> {
    /// Prepares simulations on `machine`, whose fields with the labels `own_lines` are given cache
    /// lines of their own.
    #[must_use]
    pub fn new(machine: &'a MachineModel, own_lines: &'a [String], seed: u64) -> Self {
        Self {
            machine,
            own_lines,
            irq_save_ns: 0.0,
            charges: Charges::default(),
            seed,
            is_exact: false,
            meter: Meter::default(),
            spent: (Duration::ZERO, 0),
            efforts: BTreeMap::new(),
            found: BTreeSet::new(),
        }
    }

    /// Simulates every round on the machine as its file says, if `is_exact`. Otherwise each round is on a
    /// machine of its own, drawn within the uncertainty of the figures; all rows of a round have the same.
    #[must_use]
    pub fn exact(mut self, is_exact: bool) -> Self {
        self.is_exact = is_exact;
        self
    }

    /// Sets the charges for what user space cannot do: `irq_save_ns` for masking interrupts, and the rest.
    #[must_use]
    pub fn charging(mut self, (irq_save_ns, charges): (f64, Charges)) -> Self {
        self.irq_save_ns = irq_save_ns;
        self.charges = charges;
        self
    }

    /// Returns the charges in turns, of which each takes a nanosecond here.
    fn charged_turns(&self) -> machine::Charges {
        let turns = |ns: f64| ns.round() as u32;
        machine::Charges {
            irq_save: turns(self.irq_save_ns),
            arm_timer: turns(self.charges.arm_timer_ns),
            queue_work: turns(self.charges.queue_work_ns),
            irq_work: turns(self.charges.irq_work_ns),
        }
    }

    /// Returns how fast the simulations were.
    #[must_use]
    pub fn speed(&self) -> cellbench_record::SimulationSpeed {
        self.meter.speed()
    }
}

impl Backend for Simulator<'_> {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Batches(BATCH)
    }

    fn describe(&self, run: &mut Run) {
        let topology = plan::topology(self.machine);
        // The host of a simulated run is the simulated machine.
        run.host = Host {
            cpu_model: Some(format!("simulated: {}", self.machine.title)),
            topology: Topology {
                cpus_online: topology.cpus.len() as u32,
                packages: topology.packages().map(|n| n as u32),
                llc_groups: topology.llc_groups().map(|n| n as u32),
                cores: topology.cores() as u32,
                numa_nodes: topology.numa_nodes().map(|n| n as u32),
                cpus: Vec::new(),
            },
            ..Host::default()
        };
        run.notes.push(format!(
            "simulated on {}: {}; times are simulated, see METHODOLOGY.md for what the model leaves out",
            self.machine.name, self.machine.title
        ));
        if !self.is_exact {
            run.notes.push(
                "each round is on a machine of its own, drawn within the uncertainty of the figures: 10 % for \
                 what was measured or stated by the vendor, 30 % for estimates"
                    .to_owned(),
            );
        }
        if !self.own_lines.is_empty() {
            run.notes.push(format!("on cache lines of their own: {}", self.own_lines.join(", ")));
        }
        run.settings.own_lines = self.own_lines.to_vec();
        run.settings.irq_save_cost_ns = self.irq_save_ns;
        run.settings.charges = Some(self.charges);
        run.settings.latency_sample_every = 1;
        // The whole model: a run can be repeated when the built-in machine has changed.
        run.simulated_machine = Some(self.machine.to_toml());
        if self.spent.1 > 0 {
            run.simulated = Some(self.speed());
        }
    }

    fn cost(&self, _: &Spec, _: Duration) -> Duration {
        self.spent.0 / self.spent.1.max(1)
    }

    /// Simulates with windows of the simulator's own.
    fn measure(
        &mut self,
        batch: &[&Spec],
        _: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let began = Instant::now();
        let found_by = Machine {
            model: self.machine,
            own_lines: self.own_lines,
            charges: self.charged_turns(),
            meter: &self.meter,
        };
        let drawn = (!self.is_exact).then(|| self.machine.drawn(seed));
        let on = Machine { model: drawn.as_ref().unwrap_or(self.machine), ..found_by };
        let simulated: Result<Vec<(Effort, Simulated)>, SimulateError> = batch
            .par_iter()
            .with_max_len(1)
            .map(|spec| {
                let effort = match self.efforts.get(&spec.series) {
                    Some(known) => *known,
                    None => effort(spec, &found_by, self.seed)?,
                };
                Ok((effort, simulate(spec, &on, effort, seed)?))
            })
            .collect();
        let simulated = simulated.map_err(BackendError::failed)?;
        self.spent.0 += began.elapsed();
        self.spent.1 += batch.len() as u32;
        let mut measured = Vec::with_capacity(batch.len());
        for (spec, (effort, simulated)) in batch.iter().zip(simulated) {
            self.efforts.entry(spec.series.clone()).or_insert(effort);
            let Simulated { round, latencies, without } = simulated;
            let has = |label: &&String| !without.contains(label);
            self.found.extend(self.own_lines.iter().filter(has).cloned());
            let latencies =
                latencies.iter().map(|(op, values)| (op.to_owned(), values.clone())).collect();
            measured.push(Measured { latencies, ..Measured::of(round) });
        }
        Ok(measured)
    }

    fn end_round(&mut self) -> Result<(), BackendError> {
        match self.own_lines.iter().find(|label| !self.found.contains(*label)) {
            Some(label) => Err(BackendError::failed(NoField { label: label.clone() })),
            None => Ok(()),
        }
    }
}
