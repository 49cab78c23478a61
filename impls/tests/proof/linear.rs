//! Linearizability: what calls that ran at the same time returned, and which callbacks ran, must
//! be what the model has ([`crate::model`]). Histories come from random schedules, and for small
//! cases from all schedules with few preemptions. One that the model does not have is made smaller
//! and printed as a timeline.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cellbench_impls::AsyncCell;
use cellbench_impls::cell::{CellKind, Promises, Steps};
use cellbench_impls::platform::Shuttle;
use cellbench_impls::platform::shuttle::advance_ns;
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use libtest_mimic::{Failed, Trial};

use crate::arena::{Body, Setup};
use crate::cases::{self, Case, State};
use crate::history::{self, Call, Op, timeline};
use crate::model::{Grain, explains};
use crate::random::{Numbers, draw, seed};
use crate::report::{self, Explored, RowKey};
use crate::schedules::{Schedules, run, run_threads};

/// Random histories for each cell and way of scheduling.
const HISTORIES: u64 = 60;
/// Schedules for each of them.
const SCHEDULES: usize = 100;

/// Result of the search for a history that the model does not have.
#[derive(Default)]
struct Sought {
    /// Counts the different histories.
    explored: Explored,
    counterexample: Option<Counterexample>,
}

/// A history that the model does not have.
struct Counterexample {
    case: Case,
    calls: Vec<Call>,
}

/// Whether a design with these promises may have the history: [`explains`], or for the test of this
/// file a model that is wrong.
type Explains = fn(Promises, Grain, &[Call]) -> bool;

/// Returns the operations that the model has.
fn ops<C: AsyncCell<Shuttle>>() -> Vec<Op> {
    let mut ops = cases::ops::<Shuttle, C>();
    ops.retain(|op| *op != Op::PutUser);
    ops
}

/// Runs a case under the given schedules and looks at each history that comes of it.
fn seek<C: AsyncCell<Shuttle>>(
    case: &Case,
    setup: Setup,
    grain: Grain,
    schedules: Schedules,
    explains: Explains,
) -> Sought {
    let began = Instant::now();
    let order: Vec<usize> = (0..case.threads.len()).collect();
    let histories = Arc::new(Mutex::new(HashSet::new()));
    let (found, threads) = (Arc::clone(&histories), case.clone());
    let mut explored = run(schedules, move || {
        advance_ns(1);
        let setup = Setup { body: Body::Nothing, ..setup };
        let calls = threads.observe::<Shuttle, C>(setup, &order, run_threads);
        found.lock().unwrap_or_else(PoisonError::into_inner).insert(calls);
    });
    // Here, as the search is deeper than the checker's stacks.
    let histories = histories.lock().unwrap_or_else(PoisonError::into_inner);
    let not_explained = histories.iter().filter(|calls| !explains(C::PROMISES, grain, calls));
    // The same one in each run: that which is over first.
    let least = not_explained.min_by_key(|calls| (timeline(calls).lines().count(), calls.to_vec()));
    let counterexample =
        least.map(|calls| Counterexample { case: case.clone(), calls: calls.clone() });
    explored.seconds = began.elapsed().as_secs_f64();
    explored.executions = histories.len() as u64;
    Sought { explored, counterexample }
}

/// Leaves out one operation after the other as long as a counterexample remains.
fn shrink<C: AsyncCell<Shuttle>>(
    mut least: Counterexample,
    setup: impl Fn(&Case) -> Setup,
    grain: Grain,
    schedules: Schedules,
    explains: Explains,
) -> Counterexample {
    'smaller: loop {
        for thread in 0..least.case.threads.len() {
            for place in 0..least.case.threads[thread].len() {
                let mut case = least.case.clone();
                case.threads[thread].remove(place);
                case.threads.retain(|ops| !ops.is_empty());
                if case.threads.is_empty() {
                    // A machine has a CPU: what nothing at all shows is the model's own fault, and
                    // one operation shows it as well.
                    continue;
                }
                let sought = seek::<C>(&case, setup(&case), grain, schedules, explains);
                if let Some(counterexample) = sought.counterexample {
                    least = counterexample;
                    continue 'smaller;
                }
            }
        }
        return least;
    }
}

impl Counterexample {
    /// Returns the counterexample as a timeline, for people to read.
    fn to_text(&self) -> String {
        format!("{}\n{}", self.case, timeline(&self.calls))
    }
}

/// Runs random histories of 3 to 5 threads, which the steps of the model must explain.
fn random<C: AsyncCell<Shuttle>>(schedules: fn(u64) -> Schedules) -> (Explored, Option<String>) {
    let mut all = Explored::default();
    let ops = ops::<C>();
    for seed in seed()..seed() + HISTORIES {
        history::set_seed(seed);
        let mut numbers = Numbers::new(seed);
        let threads = 3 + numbers.below(3);
        let case = draw(&mut numbers, &ops, threads, 8 / threads + 1);
        let sought = seek::<C>(&case, case.setup(), Grain::Step, schedules(seed), explains);
        all.executions += sought.explored.executions;
        all.seconds += sought.explored.seconds;
        if let Some(counterexample) = sought.counterexample {
            let least =
                shrink::<C>(counterexample, Case::setup, Grain::Step, schedules(seed), explains);
            return (all, Some(least.to_text()));
        }
    }
    (all, None)
}

/// Returns all cases of one operation against one or two, the smaller ones first.
fn small_cases(ops: &[Op]) -> Vec<Case> {
    let states = [State::Ready, State::Armed];
    let case = |state, first: Op, second: &[Op]| Case {
        state,
        threads: vec![vec![first], second.to_vec()],
    };
    let mut cases = Vec::new();
    for state in states {
        for first in ops {
            cases.extend(ops.iter().map(|second| case(state, *first, &[*second])));
        }
    }
    for state in states {
        for first in ops {
            for second in ops {
                cases.extend(ops.iter().map(|third| case(state, *first, &[*second, *third])));
            }
        }
    }
    cases
}

/// Returns the first small case in which some call does not take effect at one point, if there is one.
fn not_at_one_point<C: AsyncCell<Shuttle>>() -> Sought {
    let mut all = Sought::default();
    for case in small_cases(&ops::<C>()) {
        let sought =
            seek::<C>(&case, case.setup(), Grain::Operation, Schedules::Bounded(1), explains);
        all.explored.executions += sought.explored.executions;
        all.explored.seconds += sought.explored.seconds;
        if sought.counterexample.is_some() {
            all.counterexample = sought.counterexample;
            break;
        }
    }
    all
}

struct Cells;

impl CellVisitor<Shuttle> for Cells {
    type Output = Vec<Trial>;
    fn visit<C: AsyncCell<Shuttle>>(self) -> Vec<Trial> {
        if C::STEPS == Steps::One {
            // Its one operation that starts has a table of its own; see the pairs.
            return Vec::new();
        }
        vec![
            steps::<C>("random", |seed| Schedules::Random { seed, count: SCHEDULES }),
            steps::<C>("pct", |seed| Schedules::Pct { seed, count: SCHEDULES }),
            one_point::<C>(),
        ]
    }
}

fn steps<C: AsyncCell<Shuttle>>(tool: &'static str, schedules: fn(u64) -> Schedules) -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    Trial::test(format!("linear/{tool}/{subject}"), move || {
        let (explored, counterexample) = random::<C>(schedules);
        let property = "linearizable by steps".to_owned();
        report::add(RowKey { tool, subject, property }, explored);
        counterexample.map_or(Ok(()), |text| Err(Failed::from(text)))
    })
}

/// Makes the test that keeps, as a finding, the smallest of the histories that have no one point for each
/// call: a design that becomes more atomic or less shows here.
fn one_point<C: AsyncCell<Shuttle>>() -> Trial {
    let subject = format!("{}/{}", C::KIND, C::ID);
    Trial::test(format!("linear/bounded/{subject}"), move || {
        let sought = not_at_one_point::<C>();
        let property = "linearizable, first exception".to_owned();
        let kept = format!("{}-{}", C::KIND, C::ID);
        report::add(RowKey { tool: "bounded", subject, property }, sought.explored);
        let found = sought.counterexample.map(|found| found.to_text());
        compare_with_kept(&kept, &found.unwrap_or_else(|| "every call has its point\n".to_owned()))
    })
}

/// Compares a text with the one that is kept under this name; with `CELLBENCH_KEEP` set, keeps it.
fn compare_with_kept(name: &str, text: &str) -> Result<(), Failed> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proof/timelines");
    let path = format!("{folder}/{name}.txt");
    if std::env::var_os("CELLBENCH_KEEP").is_some() {
        return std::fs::write(&path, text).map_err(|error| format!("{path}: {error}").into());
    }
    let kept = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    if kept == text { Ok(()) } else { Err(format!("found:\n{text}\n{path} has:\n{kept}").into()) }
}

/// A planted bug breaks linearizability: it is found, made smaller, and shown.
struct WithBug(cellbench_impls::planted::Bug);
impl CellVisitor<Shuttle> for WithBug {
    type Output = Result<String, Failed>;
    fn visit<C: AsyncCell<Shuttle>>(self) -> Self::Output {
        let setup = |case: &Case| Setup { bug: Some(self.0), ..case.setup() };
        let threads = vec![
            vec![Op::CancelAsync, Op::Set(1)],
            vec![Op::Start, Op::Fire],
            vec![Op::Set(0), Op::Init],
        ];
        let case = Case { state: State::Ready, threads };
        let schedules = Schedules::Bounded(1);
        let sought = seek::<C>(&case, setup(&case), Grain::Step, schedules, explains);
        let found = sought.counterexample.ok_or("the planted bug escaped")?;
        Ok(shrink::<C>(found, setup, Grain::Step, schedules, explains).to_text())
    }
}
fn planted() -> Trial {
    Trial::test("linear/planted/CommandNotClaimed", || {
        let bug = WithBug(cellbench_impls::planted::Bug::CommandNotClaimed);
        let text = visit_cell("mpmc-cell", CellKind::Timer, bug).expect("registered")?;
        compare_with_kept("planted-CommandNotClaimed", &text)
    })
}

/// A model that explains nothing, on a cell: its counterexample is printed like any other.
struct WrongModel;
impl CellVisitor<Shuttle> for WrongModel {
    type Output = String;
    fn visit<C: AsyncCell<Shuttle>>(self) -> String {
        let nothing: Explains = |_, _, _| false;
        let case = Case { state: State::Ready, threads: vec![vec![Op::Start], vec![Op::Set(0)]] };
        let schedules = Schedules::Bounded(1);
        let found = seek::<C>(&case, case.setup(), Grain::Step, schedules, nothing);
        let found = found.counterexample.expect("the model explains nothing");
        shrink::<C>(found, Case::setup, Grain::Step, schedules, nothing).to_text()
    }
}
fn wrong_model() -> Trial {
    Trial::test("linear/a wrong model prints a counterexample", || {
        let text = visit_cell("cmd-queue", CellKind::Timer, WrongModel).expect("registered");
        let (case, _) = text.split_once('\n').ok_or("a case and a timeline")?;
        if case == "ready: set_callback(p0)" { Ok(()) } else { Err(text.into()) }
    })
}

/// Returns the tests of all registered timers and work items.
pub(crate) fn trials() -> Vec<Trial> {
    let cells = CELLS.iter();
    let trials =
        cells.flat_map(|entry| visit_cell(entry.id, entry.kind, Cells).expect("registered"));
    let trials = trials.chain([planted(), wrong_model()]);
    trials.collect()
}
