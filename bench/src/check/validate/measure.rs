//! The host's side of a validation: rounds of a session, each a pass over everything between two
//! ping-pongs.

use std::time::{Duration, Instant};

use cellbench_host::c2c::Effort;
use cellbench_host::clock::median;
use cellbench_host::cpus::CpuId;
use cellbench_host::placement::{Placement, PlacementError};
use cellbench_host::{Clock, Topology};
use cellbench_impls::machine::Charges;
use cellbench_record::Run;

use super::{DESIGNS, KINDS, MeasuredRow, selection};
use crate::backend::sim::host::{self, Microbenchmarks};
use cellbench_measure::backend::cores;
use cellbench_measure::backend::cores::round::{Bench, Conditions, OnStuck};
use cellbench_measure::backend::{Backend, BackendError, Measured, Pace};
use cellbench_measure::rng::Rng;
use cellbench_measure::session::ctrl_c::CtrlC;
use cellbench_measure::session::plan::{Block, Plan, PlanError, Shard, Spec};
use cellbench_measure::session::rounds::{Ended, Observer, Rounds};
use cellbench_measure::session::run::SessionError;

/// Passes that are made.
const PASSES: usize = 25;
/// Fewest that must count, and in which a row must have been undisturbed to be shown.
const FEWEST: usize = 9;
/// Ping-pongs of one pass differ by less than this, and so do those of the passes that count.
const STILL_SHARE: f64 = 0.15;
/// Window of each measurement.
const WINDOW: Duration = Duration::from_millis(5);
/// Of each ping-pong: some milliseconds.
const EFFORT: Effort = Effort { samples: 60, round_trips: 200 };
/// Seed of the order in each pass, and of every choice in it.
const SEED: u64 = 1;

/// Measuring failed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// Two CPUs.
    #[error("a validation needs two CPUs: {0}")]
    Placement(#[from] PlacementError),
    /// The rows.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A pass.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The hypervisor moved the CPUs, or others used them.
    #[error(
        "the host did not hold still: line transfers were alike in {kept} of {passes} passes only ({transfers_ns}); stop what else runs here, or measure on a host of your own"
    )]
    Unsteady {
        /// Passes that were alike.
        kept: usize,
        /// Passes that were made.
        passes: usize,
        /// Ping-pong of each.
        transfers_ns: String,
    },
    /// The user has seen enough.
    #[error("interrupted by the user")]
    Interrupted,
}

/// Measures two CPUs of the host.
///
/// # Errors
/// [`MeasureError`], also if the host did not hold still.
pub fn measure(
    topology: &Topology,
    ctrl_c: CtrlC,
    on_stuck: OnStuck,
) -> Result<super::Measured, MeasureError> {
    let cpus = topology.place(Placement::Compact, 2)?;
    let mut plan = Plan { blocks: Vec::new(), skipped: Vec::new() };
    for kind in KINDS {
        let all = Plan::new(&selection(kind), topology)?;
        let alone = |spec: &Spec| Block { specs: vec![spec.clone()], surveyed: false };
        plan.blocks.extend(all.specs().map(alone));
    }
    let bench = Bench::new(Clock::new(), &cpus.iter().copied().collect(), on_stuck);
    let mut host = Host { bench, topology, cpus, passes: Vec::new() };
    let mut times = Times { rows: plan.len(), passes: Vec::new() };
    let rounds = Rounds {
        first: 0,
        most: PASSES as u32,
        look_every: PASSES as u32,
        shard: Shard::WHOLE,
        window: WINDOW,
        began: Instant::now(),
        time_budget: None,
        seed: SEED,
        stop: &|| ctrl_c.is_requested(),
        progress: &|_, _, _| {},
    };
    let (ended, _) = rounds.run(&plan, &mut host, &mut times, &mut Rng::new(SEED))?;
    if ended == Ended::Interrupted {
        return Err(MeasureError::Interrupted);
    }
    let mut passes: Vec<(Pass, Vec<Option<f64>>)> =
        host.passes.into_iter().zip(times.passes).collect();
    let mut transfers_ns: Vec<f64> = passes.iter().map(|(pass, _)| pass.before_ns).collect();
    let usual_ns = median(&mut transfers_ns.clone());
    passes.retain(|(pass, _)| pass.held_still(usual_ns));
    if passes.len() < FEWEST {
        let one_way = |ns: &mut f64| format!("{ns:.0}");
        let listed: Vec<String> = transfers_ns.iter_mut().map(one_way).collect();
        return Err(MeasureError::Unsteady {
            kept: passes.len(),
            passes: PASSES,
            transfers_ns: format!("{} ns", listed.join(", ")),
        });
    }
    let found = plan.specs().enumerate().filter_map(|(index, spec)| {
        let times_ns: Vec<f64> = passes.iter().filter_map(|(_, rows)| rows[index]).collect();
        (times_ns.len() >= FEWEST).then(|| row(spec, times_ns))
    });
    let rows = found.collect();
    let all: Vec<Microbenchmarks> =
        passes.iter().map(|(pass, _)| pass.microbenchmarks.clone()).collect();
    Ok(super::Measured {
        passes: PASSES,
        kept: passes.len(),
        designs: DESIGNS,
        microbenchmarks: Microbenchmarks::median_of(&all),
        rows,
        left_out: Vec::new(),
    })
}

/// The state of the host in one pass over everything.
struct Pass {
    microbenchmarks: Microbenchmarks,
    /// Compare-exchange ping-pong before.
    before_ns: f64,
    /// And after; none while the pass goes on.
    after_ns: Option<f64>,
}

impl Pass {
    /// Returns whether lines took as long after the pass as before, and as in most passes.
    fn held_still(&self, usual_ns: f64) -> bool {
        let is_like = |one: f64, other: f64| (one / other - 1.0).abs() < STILL_SHARE;
        self.after_ns.is_some_and(|after_ns| is_like(after_ns, self.before_ns))
            && is_like(self.before_ns, usual_ns)
    }
}

/// The cores of this host, with the microbenchmarks before each pass and a ping-pong after it.
struct Host<'a> {
    bench: Bench,
    topology: &'a Topology,
    cpus: Vec<CpuId>,
    passes: Vec<Pass>,
}

impl Host<'_> {
    fn one_way_ns(&self) -> Result<f64, BackendError> {
        let pair = [self.cpus[0], self.cpus[1]];
        host::one_way_ns(pair, EFFORT, self.bench.clock()).map_err(BackendError::failed)
    }

    /// Returns the pass that goes on, which it begins if none does.
    fn pass(&mut self) -> Result<&Pass, BackendError> {
        if self.passes.last().is_none_or(|pass| pass.after_ns.is_some()) {
            let found = host::measure(self.topology, &self.cpus, EFFORT, self.bench.clock());
            let microbenchmarks = found.map_err(BackendError::failed)?;
            let before_ns = self.one_way_ns()?;
            self.passes.push(Pass { microbenchmarks, before_ns, after_ns: None });
        }
        Ok(self.passes.last().expect("one goes on"))
    }
}

impl Backend for Host<'_> {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn describe(&self, _: &mut Run) {}

    fn cost(&self, spec: &Spec, window: Duration) -> Duration {
        cores::cost(spec, window)
    }

    fn measure(
        &mut self,
        batch: &[&Spec],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        let turn_ns = self.pass()?.microbenchmarks.alone.turn_ns;
        let conditions = Conditions {
            warm_up: window / 5,
            window,
            sampled: false,
            turns_per_us: (1e3 / turn_ns).round() as u32,
            charges: Charges::default(),
            interrupt_rate_hz: None,
        };
        let measure = |spec: &&Spec| self.bench.measure(spec, &conditions, seed);
        batch.iter().map(measure).collect::<Result<_, _>>().map_err(BackendError::failed)
    }

    fn end_round(&mut self) -> Result<(), BackendError> {
        let after_ns = self.one_way_ns()?;
        if let Some(pass) = self.passes.last_mut() {
            pass.after_ns = Some(after_ns);
        }
        Ok(())
    }
}

/// Times by pass and row; none where the round was disturbed.
struct Times {
    rows: usize,
    passes: Vec<Vec<Option<f64>>>,
}

impl Observer<Spec> for Times {
    fn measured(&mut self, block: usize, _: &Spec, found: Measured) -> Result<(), SessionError> {
        let round = found.round;
        if self.passes.len() <= round.round as usize {
            self.passes.push(vec![None; self.rows]);
        }
        let pass = self.passes.last_mut().expect("pushed above");
        pass[block] = (round.is_usable() && round.ok() > 0)
            .then(|| round.duration_s * 1e9 / round.ok() as f64);
        Ok(())
    }
}

fn row(spec: &Spec, mut times_ns: Vec<f64>) -> MeasuredRow {
    times_ns.sort_by(f64::total_cmp);
    let last = times_ns.len() - 1;
    let (lower_ns, upper_ns) = (times_ns[last / 4], times_ns[last - last / 4]);
    MeasuredRow {
        subject: spec.subject.name.clone(),
        kind: spec.subject.kind.to_string(),
        workload: spec.workload.to_owned(),
        median_ns: median(&mut times_ns),
        lower_ns,
        upper_ns,
    }
}
