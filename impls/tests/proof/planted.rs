//! Every planted bug must be caught: each is hunted with the tool that is to find it, in a process
//! of its own, as a checker's failed execution may abort, or never end.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Instant;

use cellbench_impls::cell::{CellKind, Start};
use cellbench_impls::lock::resilient::Resilient;
use cellbench_impls::planted::{Bug, hunted};
use cellbench_impls::platform::checked::{Strength, set_strength};
use cellbench_impls::platform::{Loom, Shuttle};
use cellbench_impls::registry::{CellVisitor, LockVisitor, visit_cell, visit_lock};
use cellbench_impls::{AsyncCell, CpuId, Errno, Lock};
use libtest_mimic::{Failed, Trial};

use crate::arena::{Arena, Body, Setup, ThreadBody};
use crate::cases::{Case, State};
use crate::explore::{Bound, explore, run_threads};
use crate::history::{FAILED_EXECUTION, Op};
use crate::report::{self, Explored, RowKey};
use crate::schedules::Schedules;
use crate::{loom_cells, loom_locks, orders, published, shuttle_cells, shuttle_locks};

/// Names the bug that this process is to hunt.
const HUNT: &str = "CELLBENCH_HUNT";
/// Asks that process for the strength of the kernel's memory model.
const STRENGTH: &str = "CELLBENCH_STRENGTH";

/// Where a bug is looked for, and what catches it.
pub(crate) struct Hunt {
    /// The tool.
    tool: &'static str,
    /// Scene that is run, in words.
    scene: String,
    /// Text in the report of the failed execution.
    symptom: &'static str,
    /// Runs it.
    run: Box<dyn FnOnce() + Send>,
}

impl Hunt {
    /// Hunts in all interleavings of operations on a cell.
    pub(crate) fn case(
        flaw: impl Into<Flaw>,
        (id, kind): (&'static str, CellKind),
        state: State,
        threads: &[&[Op]],
        symptom: &'static str,
    ) -> Self {
        let flaw = flaw.into();
        let threads = threads.iter().map(|ops| ops.to_vec()).collect();
        let case = Case { state, threads };
        let scene = format!("{kind}/{id}, {case}");
        let run =
            move || visit_cell::<Loom, _>(id, kind, Flawed { case, flaw }).expect("registered");
        Self { tool: "loom", scene, symptom, run: Box::new(run) }
    }

    /// Hunts under all schedules with two preemptions.
    pub(crate) fn bounded(
        flaw: impl Into<Flaw>,
        (id, kind): (&'static str, CellKind),
        state: State,
        threads: &[&[Op]],
        symptom: &'static str,
    ) -> Self {
        let flaw = flaw.into();
        let threads = threads.iter().map(|ops| ops.to_vec()).collect();
        let case = Case { state, threads };
        let scene = format!("{kind}/{id}, {case}");
        let run = move || {
            visit_cell::<Shuttle, _>(id, kind, Flawed { case, flaw }).expect("registered");
        };
        Self { tool: "bounded", scene, symptom, run: Box::new(run) }
    }

    /// Hunts in all interleavings of threads that take a lock, or under random schedules of many.
    fn on(bug: Bug, id: &'static str, scene: Scene, symptom: &'static str) -> Self {
        let random = matches!(scene, Scene::Six);
        let run = move || {
            let visitor = LockWithBug { scene, bug };
            let found = if random {
                visit_lock::<Shuttle, _>(id, visitor)
            } else {
                visit_lock::<Loom, _>(id, visitor)
            };
            found.expect("registered");
        };
        let tool = if random { "random" } else { "loom" };
        Self { tool, scene: format!("lock/{id}, {scene:?}"), symptom, run: Box::new(run) }
    }

    /// Hunts in all interleavings of waiters for a resilient lock that is never released.
    fn lock(bug: Bug, waiters: u32, symptom: &'static str) -> Self {
        let setup = Setup { bug: Some(bug), ..Setup::new(1) };
        let run = move || {
            loom_locks::holder_for_ever::<Resilient<Loom>>(setup, waiters, Bound::new(1));
        };
        let scene = format!("lock/rqspin, {waiters} waiters time out");
        Self { tool: "loom", scene, symptom, run: Box::new(run) }
    }
}

/// Use that the threads of a hunt make of a lock.
#[derive(Clone, Copy, Debug)]
enum Scene {
    /// Two CPUs take it twice.
    TwoTwice,
    /// Three CPUs take it once.
    Three,
    /// Two CPUs have it run sections, twice.
    Delegate,
    /// One waiter, or two, may time out.
    Timeout(u32),
    /// So many waiters do.
    HeldForEver(u32),
    /// Two CPUs deadlock, and a third one waits.
    OppositeOrder,
    /// Six CPUs under random schedules.
    Six,
}

struct LockWithBug {
    scene: Scene,
    bug: Bug,
}

impl LockVisitor<Loom> for LockWithBug {
    type Output = ();
    fn visit<L: Lock<Loom>>(self) {
        let setup = Setup { bug: Some(self.bug), ..Setup::new(1) };
        let bound = Bound::new(2);
        match self.scene {
            Scene::TwoTwice => loom_locks::exclusion::<L>(setup, 2, 2, bound),
            Scene::Three => loom_locks::exclusion::<L>(setup, 3, 1, bound),
            Scene::Delegate => loom_locks::delegation::<L>(setup, 2, 2, bound),
            Scene::Timeout(waiters) => loom_locks::timeout::<L>(setup, waiters, bound),
            Scene::HeldForEver(waiters) => loom_locks::holder_for_ever::<L>(setup, waiters, bound),
            Scene::OppositeOrder => loom_locks::opposite_order_of_three::<L>(setup, bound),
            Scene::Six => unreachable!("for random schedules"),
        };
    }
}

impl LockVisitor<Shuttle> for LockWithBug {
    type Output = ();
    fn visit<L: Lock<Shuttle>>(self) {
        let setup = Setup { bug: Some(self.bug), ..Setup::new(1) };
        shuttle_locks::exclusion::<L>(setup, Schedules::Random { seed: 1, count: 2_000 });
    }
}

/// Flaw whose failed execution is looked for.
#[derive(Clone, Copy)]
pub(crate) enum Flaw {
    /// A bug that is switched on.
    Planted(Bug),
    /// The design itself, as published, with nothing excused.
    Published,
}

impl From<Bug> for Flaw {
    fn from(bug: Bug) -> Self {
        Self::Planted(bug)
    }
}

impl Flaw {
    /// Returns the setup of the machine to hunt on.
    fn setup(self, case: &Case) -> Setup {
        match self {
            Self::Planted(bug) => Setup { bug: Some(bug), ..case.setup() },
            // A callback that pauses would be switched from, which costs the way back.
            Self::Published => Setup { excuses: false, body: Body::Nothing, ..case.setup() },
        }
    }
}

struct Flawed {
    case: Case,
    flaw: Flaw,
}

impl CellVisitor<Loom> for Flawed {
    type Output = ();
    fn visit<C: AsyncCell<Loom>>(self) {
        let setup = self.flaw.setup(&self.case);
        loom_cells::check_case::<C>(&self.case, setup, Bound::new(2));
    }
}

impl CellVisitor<Shuttle> for Flawed {
    type Output = ();
    fn visit<C: AsyncCell<Shuttle>>(self) {
        let setup = self.flaw.setup(&self.case);
        shuttle_cells::check_case::<C>(&self.case, setup, Schedules::Bounded(2));
    }
}

/// An irq step that comes late: it added its work, which ran to the end, and another round began,
/// for a task that has exited and takes no works. Afterwards the cell must be ready.
struct LateIrqStep(Bug);

impl CellVisitor<Loom> for LateIrqStep {
    type Output = ();
    fn visit<C: AsyncCell<Loom>>(self) {
        let setup = Setup { bug: Some(self.0), body: Body::Nothing, ..Setup::new(3) };
        explore(Bound::new(2), move || {
            let arena = Arena::<Loom, C>::new(setup);
            let exited = arena.machine.task(CpuId(2));
            assert!(exited.get(), "it has not exited yet");
            arena.machine.cpu(CpuId(2)).exit_task();
            let schedule = |arena: &Arena<Loom, C>, cpu: u32, task: u32| {
                let cpu = arena.machine.cpu(CpuId(cpu));
                let (task, program) = (arena.machine.task(CpuId(task)), &arena.programs[0]);
                let callback = program.callback(0);
                let map = &arena.map;
                arena.cell.schedule_on(&cpu, task, map, program, callback, Start::default())
            };
            let (first, second) = (Arc::clone(&arena), Arc::clone(&arena));
            let threads: [ThreadBody; 2] = [
                Box::new(move || {
                    let _ = second.perform(&second.machine.cpu(CpuId(1)), Op::Fire);
                    let _ = schedule(&second, 1, 2);
                }),
                Box::new(move || {
                    let outcome = schedule(&first, 0, 1);
                    assert!(matches!(outcome, Ok(()) | Err(Errno::EBUSY)), "{outcome:?}");
                }),
            ];
            run_threads(threads.into());
            arena.settle(&arena.machine.cpu(CpuId(0)));
            assert_eq!(schedule(&arena, 0, 0), Ok(()), "the cell must be ready");
            exited.put();
        });
    }
}

/// Returns the hunt for a bug that the list leaves to these hunts.
fn hunt(bug: Bug) -> Hunt {
    use Op::{CancelAsync, Fire, Free, Init, IrqsOff, PutUser, Schedule, Set, Start, StartAt};
    use State::{Armed, Fresh, Ready};
    const FREED: &str = "use after free of";
    const LOST: &str = "and never ran";
    const REFERENCES: &str = "references of p";
    const TORN: &str = "which no start asked for";
    const NO_ORDER: &str = "Causality violation";
    const HANGS: &str = "exceeded maximum number of branches";
    const TOO_LONG: &str = "exceeded max_steps bound";
    const UNUSABLE: &str = "the lock is usable afterwards";
    let state_timer = ("cmpxchg-state", CellKind::Timer);
    let queue_timer = ("cmd-queue", CellKind::Timer);
    let mpmc_timer = ("mpmc-cell", CellKind::Timer);
    let latch_timer = ("seq-latch", CellKind::Timer);
    let task_work = ("task-work", CellKind::TaskWork);
    match bug {
        Bug::HeldEntryLeft => Hunt::lock(bug, 1, "left behind"),
        Bug::PendingLeft => Hunt::lock(bug, 1, "the lock is usable afterwards"),
        Bug::SuccessorNotTold => Hunt::lock(bug, 3, HANGS),
        Bug::LoneHeadWaits => Hunt::on(bug, "rqspin", Scene::OppositeOrder, HANGS),
        Bug::TasEntryTwice => {
            Hunt::on(bug, "rqspin-tas", Scene::TwoTwice, "nobody deadlocks: EDEADLK")
        }
        Bug::FreedAtOnce => {
            let threads: [&[Op]; 2] = [&[Schedule(0)], &[Schedule(1), Free]];
            Hunt::case(bug, task_work, Fresh, &threads, FREED)
        }
        Bug::StartWithoutReference => {
            Hunt::case(bug, state_timer, Ready, &[&[Start], &[Free]], FREED)
        }
        Bug::ReadyOverFreed => {
            Hunt::case(bug, state_timer, Ready, &[&[Set(1)], &[Free]], REFERENCES)
        }
        Bug::OldProgramKept => {
            Hunt::case(bug, state_timer, Ready, &[&[Set(1)], &[Start]], REFERENCES)
        }
        Bug::OldProgramPutTwice => {
            Hunt::case(bug, state_timer, Ready, &[&[Set(1)], &[Start]], REFERENCES)
        }
        Bug::LoserKeepsBlock => Hunt::case(bug, state_timer, Fresh, &[&[Init], &[Init]], "leak"),
        Bug::UsercntBeforePublish => {
            let symptom = "the map was abandoned, and its cell has a block";
            Hunt::case(bug, state_timer, Fresh, &[&[Init], &[PutUser]], symptom)
        }
        Bug::NoSecondCancel => {
            Hunt::case(bug, ("spin-queued", CellKind::Wq), Ready, &[&[Start], &[Free, Fire]], FREED)
        }
        Bug::RelaxedPublish => Hunt::case(bug, state_timer, Fresh, &[&[Init], &[Set(1)]], NO_ORDER),
        Bug::CallbackStored => {
            let symptom = "the callback is another program's";
            let repaired = ("cmd-queue-xchg", CellKind::Timer);
            Hunt::case(bug, repaired, Ready, &[&[Set(1)], &[Set(0)]], symptom)
        }
        Bug::CommandsNotReversed => Hunt {
            tool: "loom",
            scene: "timer/cmd-queue, commands from one section with interrupts off".to_owned(),
            symptom: "cancelled, and ran",
            run: Box::new(move || {
                let (id, kind) = queue_timer;
                visit_cell(id, kind, orders::Commands { bug: Some(bug) }).expect("registered");
            }),
        },
        Bug::CommandNotClaimed => {
            let symptom = "more often than started";
            Hunt::case(bug, mpmc_timer, Ready, &[&[CancelAsync], &[Start, Fire]], symptom)
        }
        Bug::RelaxedCommit => {
            Hunt::case(bug, mpmc_timer, Ready, &[&[StartAt], &[Start, Start]], TORN)
        }
        Bug::SlotNotReread => {
            let threads: [&[Op]; 2] = [&[StartAt, Fire], &[IrqsOff, Start, Start]];
            Hunt::bounded(bug, mpmc_timer, Ready, &threads, TORN)
        }
        Bug::LatchSlotsSwapped => {
            let threads: [&[Op]; 2] = [&[StartAt, Fire], &[IrqsOff, Start, Start]];
            Hunt::bounded(bug, latch_timer, Ready, &threads, TORN)
        }
        Bug::FreedWithoutSecondCancel => {
            Hunt::case(bug, queue_timer, Ready, &[&[Start], &[Free]], FREED)
        }
        Bug::CallbackMissesScheduling => {
            Hunt::case(bug, task_work, Fresh, &[&[Schedule(0)], &[Fire]], LOST)
        }
        Bug::TaskUsercntUnordered => {
            let symptom = "the map was abandoned, and its cell has a block";
            Hunt::case(bug, task_work, Fresh, &[&[Schedule(0)], &[PutUser]], symptom)
        }
        Bug::FreedByTwo => {
            let cell = ("task-work-no-cancel", CellKind::TaskWork);
            Hunt::case(bug, cell, Armed, &[&[Fire], &[Free]], "double free")
        }
        Bug::QueueResultIgnored => {
            Hunt::case(bug, mpmc_timer, Ready, &[&[IrqsOff, Start, Start], &[Start]], REFERENCES)
        }
        Bug::FreeLost => {
            Hunt::case(bug, mpmc_timer, Ready, &[&[IrqsOff, Start, Free], &[Start]], REFERENCES)
        }
        Bug::FreedUnderCallback => {
            Hunt::case(bug, ("cmd-queue", CellKind::Wq), Armed, &[&[Fire], &[Free]], NO_ORDER)
        }
        Bug::LateIrqStepCancels => {
            let symptom = "task_work_cancel() on a null task";
            Hunt::case(bug, task_work, Fresh, &[&[Schedule(0)], &[Fire, Free]], symptom)
        }
        Bug::LateIrqStep => Hunt {
            tool: "loom",
            scene: "task_work/task-work, the irq step of a round that has ended".to_owned(),
            symptom: "the cell must be ready",
            run: Box::new(move || {
                let (id, kind) = task_work;
                visit_cell::<Loom, _>(id, kind, LateIrqStep(bug)).expect("registered");
            }),
        },
        Bug::PairFreedAtOnce => {
            Hunt::case(bug, ("rcu-pair", CellKind::Timer), Armed, &[&[Set(1)], &[Fire]], FREED)
        }
        Bug::PairPublishedRelaxed => {
            Hunt::case(bug, ("rcu-pair", CellKind::Timer), Armed, &[&[Set(1)], &[Fire]], NO_ORDER)
        }
        Bug::PairReadOutside => {
            Hunt::case(bug, ("rcu-pair", CellKind::Wq), Armed, &[&[Set(1)], &[Fire]], FREED)
        }
        Bug::WideInHalves => {
            let symptom = "the callback is another program's";
            let cell = ("cas16-pair", CellKind::Timer);
            Hunt::case(bug, cell, Ready, &[&[Set(1)], &[Set(0)]], symptom)
        }
        Bug::WideFailureIgnored | Bug::WideFirstSeenPut => {
            let cell = ("cas16-pair", CellKind::Timer);
            Hunt::case(bug, cell, Ready, &[&[Set(1)], &[Set(1)]], REFERENCES)
        }
        Bug::SequenceStaysEven | Bug::SequenceUnordered | Bug::WritersMeet => {
            let cell = ("seqlock-pair", CellKind::Timer);
            match bug {
                Bug::WritersMeet => {
                    Hunt::case(bug, cell, Ready, &[&[Set(1)], &[Set(1)]], REFERENCES)
                }
                _ => Hunt::case(bug, cell, Armed, &[&[Set(1)], &[Fire]], "of two updates"),
            }
        }
        Bug::SecondCancelTooEarly => {
            Hunt::case(bug, ("rcu-alone", CellKind::Timer), Ready, &[&[Start], &[Free]], FREED)
        }
        Bug::ArmedOutsideSection | Bug::FreedInSection => {
            Hunt::case(bug, ("rcu-alone", CellKind::Timer), Ready, &[&[Start], &[Free]], NO_ORDER)
        }
        Bug::HazardUnconfirmed | Bug::HazardUnordered | Bug::HazardNotLookedFor => {
            Hunt::case(bug, ("hazard-ref", CellKind::Timer), Ready, &[&[Start], &[Free]], NO_ORDER)
        }
        Bug::SummedAtOnce => {
            // The sum lacks a reference, which is put later: the count passes 0 and comes back.
            Hunt::case(bug, ("percpu-ref", CellKind::Timer), Ready, &[&[Start], &[Free]], "leak")
        }
        Bug::PutOnDeadCounter | Bug::BiasKept => {
            Hunt::case(bug, ("percpu-ref", CellKind::Timer), Ready, &[&[Start], &[Free]], "leak")
        }
        Bug::TtasTakenByStore | Bug::TtasTakenRelaxed | Bug::TtasReleasedRelaxed => {
            Hunt::on(bug, "ttas", Scene::TwoTwice, NO_ORDER)
        }
        Bug::TicketDrawnTwice => Hunt::on(bug, "ticket", Scene::TwoTwice, NO_ORDER),
        Bug::TicketSkipped => Hunt::on(bug, "ticket", Scene::TwoTwice, HANGS),
        Bug::TicketShownRelaxed => Hunt::on(bug, "ticket", Scene::TwoTwice, NO_ORDER),
        Bug::FarWaiterNotTold => Hunt::on(bug, "twa", Scene::Three, HANGS),
        Bug::PlaceReadAfterNumber => Hunt::on(bug, "twa", Scene::Three, HANGS),
        Bug::QueueClosedUnseen => Hunt::on(bug, "mcs", Scene::TwoTwice, HANGS),
        Bug::LateNewcomerForgotten => Hunt::on(bug, "mcs", Scene::TwoTwice, HANGS),
        Bug::TurnGivenRelaxed => Hunt::on(bug, "mcs", Scene::TwoTwice, NO_ORDER),
        Bug::ReleasedNodeReused => Hunt::on(bug, "clh", Scene::TwoTwice, HANGS),
        Bug::GrantNotAnswered => Hunt::on(bug, "hemlock", Scene::TwoTwice, HANGS),
        Bug::GrantReusedUnanswered => Hunt::on(bug, "hemlock", Scene::Six, TOO_LONG),
        Bug::NumberDrawnTwice => Hunt::on(bug, "hapax", Scene::TwoTwice, NO_ORDER),
        Bug::ToldBeforeDeparture => Hunt::on(bug, "hapax", Scene::TwoTwice, HANGS),
        Bug::BottomNotSeen => Hunt::on(bug, "reciprocating", Scene::TwoTwice, HANGS),
        Bug::ArrivalsOverwritten => Hunt::on(bug, "reciprocating", Scene::TwoTwice, HANGS),
        Bug::LotLeavesNoMark => Hunt::on(bug, "reciprocating", Scene::Three, "somebody came"),
        Bug::LastWaiterMoved => Hunt::on(bug, "cna", Scene::Six, TOO_LONG),
        Bug::SecondQueueForgotten => Hunt::on(bug, "cna", Scene::Six, TOO_LONG),
        Bug::SecondQueueDropped => Hunt::on(bug, "cna", Scene::Six, TOO_LONG),
        Bug::NodeLeavesLast => Hunt::on(bug, "hmcs", Scene::Six, TOO_LONG),
        Bug::NodeLeftNotSaid => Hunt::on(bug, "hmcs", Scene::Three, HANGS),
        Bug::LocalTurnRelaxed => Hunt::on(bug, "hmcs", Scene::TwoTwice, NO_ORDER),
        Bug::NextHeadNotTold => Hunt::on(bug, "shfllock", Scene::Three, HANGS),
        Bug::LastWaiterShuffled => Hunt::on(bug, "shfllock", Scene::Six, TOO_LONG),
        Bug::QueueDroppedUnseen => Hunt::on(bug, "shfllock", Scene::Six, TOO_LONG),
        Bug::LinkNotTaken => Hunt::on(bug, "mcs-abortable", Scene::Timeout(1), UNUSABLE),
        Bug::LeavingTogether => Hunt::on(bug, "mcs-abortable", Scene::HeldForEver(2), HANGS),
        Bug::NewcomerLost => Hunt::on(bug, "mcs-abortable", Scene::HeldForEver(2), HANGS),
        Bug::LockLookedAtOnly => Hunt::on(bug, "guard-try", Scene::TwoTwice, NO_ORDER),
        Bug::GuardLeftTaken => Hunt::on(bug, "guard-try", Scene::HeldForEver(2), UNUSABLE),
        Bug::GuardReleasedRelaxed => Hunt::on(bug, "guard-try", Scene::TwoTwice, NO_ORDER),
        Bug::SleeperNotWoken => Hunt::on(bug, "futex-mutex", Scene::TwoTwice, HANGS),
        Bug::WokenTakesUnmarked => Hunt::on(bug, "futex-mutex", Scene::Three, HANGS),
        Bug::SleepsWithoutLook => Hunt::on(bug, "futex-mutex", Scene::TwoTwice, HANGS),
        Bug::PosterNeverCombines => Hunt::on(bug, "flat-combining", Scene::Delegate, HANGS),
        Bug::ToldBeforeRun => {
            Hunt::on(bug, "flat-combining", Scene::Delegate, "the section has not run")
        }
        Bug::CombinesAfterRelease => Hunt::on(bug, "flat-combining", Scene::Delegate, HANGS),
        Bug::ServedMadeFront => Hunt::on(bug, "ccsynch", Scene::Delegate, "a job runs once"),
        Bug::FrontNotPassed => Hunt::on(bug, "ccsynch", Scene::Delegate, HANGS),
        Bug::FrontPassedRelaxed => Hunt::on(bug, "ccsynch", Scene::Delegate, NO_ORDER),
        _ => panic!("{}: the list has it hunted here, and nobody says where", bug.name()),
    }
}

/// Hunts a bug, or a published fault, and ends this process, where the environment names one.
pub(crate) fn hunt_if_asked() {
    let Ok(name) = std::env::var(HUNT) else { return };
    if std::env::var_os(STRENGTH).is_some() {
        set_strength(Strength::Kernel);
    }
    let planted = hunted().map(|bug| (bug.name().to_owned(), hunt(bug)));
    let mut all = planted.chain(published::hunts());
    let found = all.find(|(of, _)| *of == name).map(|(_, hunt)| hunt);
    (found.unwrap_or_else(|| panic!("{HUNT}={name}: no such bug")).run)();
    std::process::exit(0);
}

/// Hunts in a process of its own.
fn hunter(name: &str, strength: Strength) -> std::io::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(HUNT, name).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    if strength == Strength::Kernel {
        command.env(STRENGTH, "kernel");
    }
    command.output()
}

/// Hunts what must not be found under the kernel's memory model.
pub(crate) fn escape(name: &str) -> Result<(), Failed> {
    let hunter = hunter(name, Strength::Kernel)?;
    if hunter.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&hunter.stderr);
    Err(format!("{name}: found under the kernel's memory model:\n{said}").into())
}

/// Hunts a bug, and fails if it is not found.
pub(crate) fn catch(group: &str, name: &str, hunt: Hunt, strength: Strength) -> Result<(), Failed> {
    let Hunt { tool, scene, symptom, .. } = hunt;
    let began = Instant::now();
    let hunter = hunter(name, strength)?;
    let seconds = began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&hunter.stderr);
    if hunter.status.success() {
        return Err(format!("{name} escaped: {scene}").into());
    }
    if !said.contains(symptom) {
        return Err(format!("{name}: no word of `{symptom}` in:\n{said}").into());
    }
    let executions = said
        .lines()
        .find_map(|line| line.strip_prefix(FAILED_EXECUTION)?.trim().parse().ok())
        .ok_or("the failed execution does not say its number")?;
    let property = format!("{scene}: \"{symptom}\"");
    let key = RowKey { tool, subject: format!("{group}/{name}"), property };
    report::add(key, Explored { executions, seconds, cut_short: false });
    Ok(())
}

/// Returns a test for each bug.
pub(crate) fn trials() -> Vec<Trial> {
    hunted()
        .map(|bug| {
            let run = move || catch("planted", bug.name(), hunt(bug), Strength::C11);
            Trial::test(format!("planted/{}", bug.name()), run)
        })
        .collect()
}
