//! The host's side of a validation.

use std::time::Duration;

use cellbench_impls::machine::Charges;
use cellbench_impls::platform::Native;

use super::{DESIGNS, Measured, MeasuredRow, PRIMITIVE, selection};
use crate::backend::cores::round::{Bench, Conditions, OnStuck, RoundError};
use crate::backend::sim::host::{self, HostError, Microbenchmarks};
use crate::backend::sim::primitive::{self, PRIMITIVES};
use crate::session::ctrl_c::CtrlC;
use crate::session::plan::Spec;
use crate::session::plan::{Plan, PlanError};
use cellbench_host::c2c::{C2cError, Effort};
use cellbench_host::clock::median;
use cellbench_host::cpus::CpuId;
use cellbench_host::placement::{Placement, PlacementError};
use cellbench_host::{Clock, Topology};

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

/// Measuring failed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The microbenchmarks.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A ping-pong.
    #[error(transparent)]
    C2c(#[from] C2cError),
    /// Two CPUs.
    #[error("a validation needs two CPUs: {0}")]
    Placement(#[from] PlacementError),
    /// The rows.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A lock or cell.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// A primitive.
    #[error(transparent)]
    Pin(#[from] cellbench_host::pin::PinError),
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

/// One pass over everything.
struct Pass {
    microbenchmarks: Microbenchmarks,
    /// Compare-exchange ping-pong before and after.
    before_ns: f64,
    after_ns: f64,
    /// By row; none where the round was disturbed.
    rows_ns: Vec<Option<f64>>,
}

impl Pass {
    fn held_still(&self) -> bool {
        (self.after_ns / self.before_ns - 1.0).abs() < STILL_SHARE
    }
}

/// What is measured.
enum Subject {
    Primitive(&'static str),
    Spec(Box<Spec>),
}

/// Measures two CPUs of the host.
///
/// # Errors
/// [`MeasureError`], also if the host did not hold still.
pub fn measure(
    topology: &Topology,
    ctrl_c: CtrlC,
    on_stuck: OnStuck,
) -> Result<Measured, MeasureError> {
    let cpus = topology.place(Placement::Compact, 2)?;
    let bench = Bench::new(Clock::new(), &cpus.iter().copied().collect(), on_stuck);
    let mut subjects: Vec<Subject> =
        PRIMITIVES.iter().map(|one| Subject::Primitive(one.name)).collect();
    for kind in ["lock", "timer"] {
        let plan = Plan::new(&selection(kind), topology)?;
        subjects.extend(plan.specs().map(|spec| Subject::Spec(Box::new(spec.clone()))));
    }
    let mut passes: Vec<Pass> = Vec::with_capacity(PASSES);
    for number in 0..PASSES {
        if ctrl_c.is_requested() {
            return Err(MeasureError::Interrupted);
        }
        passes.push(pass(topology, &bench, &cpus, &subjects, number)?);
    }
    let mut transfers_ns: Vec<f64> = passes.iter().map(|pass| pass.before_ns).collect();
    let usual_ns = median(&mut transfers_ns.clone());
    passes
        .retain(|pass| pass.held_still() && (pass.before_ns / usual_ns - 1.0).abs() < STILL_SHARE);
    if passes.len() < FEWEST {
        let one_way = |ns: &mut f64| format!("{ns:.0}");
        let listed: Vec<String> = transfers_ns.iter_mut().map(one_way).collect();
        return Err(MeasureError::Unsteady {
            kept: passes.len(),
            passes: PASSES,
            transfers_ns: format!("{} ns", listed.join(", ")),
        });
    }
    let found = subjects.iter().enumerate().filter_map(|(index, subject)| {
        let times_ns: Vec<f64> = passes.iter().filter_map(|pass| pass.rows_ns[index]).collect();
        (times_ns.len() >= FEWEST).then(|| row(subject, times_ns))
    });
    let rows = found.collect();
    let all: Vec<Microbenchmarks> =
        passes.iter().map(|pass| pass.microbenchmarks.clone()).collect();
    Ok(Measured {
        passes: PASSES,
        kept: passes.len(),
        designs: DESIGNS,
        microbenchmarks: Microbenchmarks::median_of(&all),
        rows,
    })
}

fn pass(
    topology: &Topology,
    bench: &Bench,
    cpus: &[CpuId],
    subjects: &[Subject],
    number: usize,
) -> Result<Pass, MeasureError> {
    let clock = bench.clock();
    let microbenchmarks = host::measure(topology, cpus, EFFORT, clock)?;
    let pair = [cpus[0], cpus[1]];
    let before_ns = host::one_way_ns(pair, EFFORT, clock)?;
    let turn_ns = microbenchmarks.alone.turn_ns;
    let conditions = Conditions {
        warm_up: WINDOW / 5,
        window: WINDOW,
        sampled: false,
        turns_per_us: (1e3 / turn_ns).round() as u32,
        charges: Charges::default(),
        interrupt_rate_hz: None,
    };
    let mut rows_ns = vec![None; subjects.len()];
    // In another order each time: a host that drifts meets all alike.
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    order.rotate_left(number * subjects.len() / PASSES);
    for index in order {
        rows_ns[index] = match &subjects[index] {
            Subject::Primitive(name) => {
                let batch = primitive::build::<Native>(name, turn_ns);
                let window = primitive::measure(cpus, clock, WINDOW, &batch)?;
                (!window.disturbed).then_some(window.step_ns)
            }
            Subject::Spec(spec) => {
                let seed = number as u64 + 1;
                let round = bench.measure(spec, &conditions, seed)?.round;
                (round.disturbed.is_empty() && round.ok() > 0)
                    .then(|| round.duration_s * 1e9 / round.ok() as f64)
            }
        };
    }
    let after_ns = host::one_way_ns(pair, EFFORT, clock)?;
    Ok(Pass { microbenchmarks, before_ns, after_ns, rows_ns })
}

fn row(subject: &Subject, mut times_ns: Vec<f64>) -> MeasuredRow {
    let (subject, kind, workload) = match subject {
        Subject::Primitive(name) => ((*name).to_owned(), PRIMITIVE.to_owned(), String::new()),
        Subject::Spec(spec) => {
            (spec.subject.name.clone(), spec.subject.kind.to_string(), spec.workload.to_owned())
        }
    };
    times_ns.sort_by(f64::total_cmp);
    let last = times_ns.len() - 1;
    let (lower_ns, upper_ns) = (times_ns[last / 4], times_ns[last - last / 4]);
    MeasuredRow { subject, kind, workload, median_ns: median(&mut times_ns), lower_ns, upper_ns }
}
