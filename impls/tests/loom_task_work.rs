//! The task-work state machine in every interleaving, with the irq step, the task and the freer on
//! different CPUs: what no test over the plain trait reaches, as a CPU schedules for its own task.
//!
//! `cargo test -p cellbench-impls --features loom,planted --test loom_task_work`

#![cfg(feature = "loom")]

use std::sync::Arc;

use cellbench_impls::cell::Start;
use cellbench_impls::cell::task_work::locked::LockedWork;
use cellbench_impls::cell::task_work::lockless::{
    CancelIrq, CancelNow, Lockless, Merged, NoCancel,
};
use cellbench_impls::cell::task_work::{Design, TaskWork};
use cellbench_impls::lock::resilient::Resilient;
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::Loom;
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine, Outcome};

/// Preemptions in an execution of two threads, and of three.
const PREEMPTIONS: usize = 3;
const PREEMPTIONS_OF_THREE: usize = 2;

/// A cell, its map and its program on a machine with a CPU for each thread.
struct Scene<D: Design<Loom>> {
    cell: TaskWork<Loom, D>,
    map: Map<Loom>,
    program: Box<Program<Loom>>,
    machine: Machine<Loom>,
}

impl<D: Design<Loom>> Scene<D> {
    fn on(machine: Machine<Loom>) -> Arc<Self> {
        Arc::new(Self {
            // SAFETY: used with this machine only, which is dropped last; `finish` settles it.
            cell: unsafe { TaskWork::new() },
            map: Map::new(),
            program: Program::new([(count_only as _, 0)]),
            machine,
        })
    }

    fn cpu(&self, number: u32) -> Cpu<'_, Loom> {
        self.machine.cpu(CpuId(number))
    }

    /// Schedules for the task of CPU `task`.
    fn schedule(&self, cpu: &Cpu<'_, Loom>, task: u32) -> Outcome {
        let task = self.machine.task(CpuId(task));
        self.cell.schedule_on(
            cpu,
            task,
            &self.map,
            &self.program,
            self.program.callback(0),
            Start::default(),
        )
    }

    /// Returns how often the callback ran.
    fn runs(&self) -> u64 {
        self.program.callback(0).runs()
    }

    /// Brings all to rest; everything that was taken must have been given back once.
    fn finish(&self) {
        let cpu = self.cpu(0);
        self.machine.settle(&cpu);
        self.cell.cancel_and_free(&cpu);
        self.machine.settle(&cpu);
        assert_eq!(self.program.refs(), 1, "program references");
        for task in (0..self.machine.cpus()).map(|task| self.machine.rest(CpuId(task))) {
            assert!(task.is_clean(), "{task:?}");
        }
        let heap = self.machine.heap().stats();
        assert_eq!(heap.live(), 0, "blocks leaked: {heap:?}");
    }
}

fn sound(cpus: u32) -> Machine<Loom> {
    Machine::new(MachineConfig::new(cpus))
}

fn explore(preemptions: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(story);
}

/// Explores a schedule for a task whose CPU runs its works at the same time: the callback may begin before
/// the irq step wrote SCHEDULED, and end before the irq step looks again.
fn callback_meets_irq_step<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS, move || {
        let scene = Scene::<D>::on(machine(2));
        let other = Arc::clone(&scene);
        let task = loom::thread::spawn(move || other.cpu(1).return_to_user());
        assert_eq!(scene.schedule(&scene.cpu(0), 1), Ok(()));
        task.join().unwrap();
        scene.machine.settle(&scene.cpu(0));
        assert_eq!(scene.runs(), 1, "a scheduled work runs once");
        assert_eq!(scene.schedule(&scene.cpu(0), 0), Ok(()), "and the cell is ready again");
        scene.finish();
    });
}

/// Explores a schedule that meets a free; the task's CPU is the scheduler's own.
fn schedule_meets_free<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS, move || {
        let scene = Scene::<D>::on(machine(2));
        let other = Arc::clone(&scene);
        let freer = loom::thread::spawn(move || other.cell.cancel_and_free(&other.cpu(1)));
        {
            let cpu = scene.cpu(0);
            // EBUSY: found the block on its way out.
            assert!(matches!(scene.schedule(&cpu, 0), Ok(()) | Err(Errno::EBUSY)));
            cpu.return_to_user();
        }
        freer.join().unwrap();
        scene.finish();
    });
}

/// Explores a work that its task has, or is running, and that meets the free.
fn callback_meets_free<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS, move || {
        let scene = Scene::<D>::on(machine(2));
        assert_eq!(scene.schedule(&scene.cpu(0), 1), Ok(()));
        let other = Arc::clone(&scene);
        let task = loom::thread::spawn(move || other.cpu(1).return_to_user());
        scene.cell.cancel_and_free(&scene.cpu(0));
        task.join().unwrap();
        scene.finish();
        assert!(scene.runs() <= 1);
    });
}

/// Explores all three parties: the irq step on one CPU, the task on another, the freer on a third.
fn irq_step_callback_and_free<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS_OF_THREE, move || {
        let scene = Scene::<D>::on(machine(3));
        let (tasks, frees) = (Arc::clone(&scene), Arc::clone(&scene));
        let task = loom::thread::spawn(move || tasks.cpu(1).return_to_user());
        let freer = loom::thread::spawn(move || frees.cell.cancel_and_free(&frees.cpu(2)));
        assert!(matches!(scene.schedule(&scene.cpu(0), 1), Ok(()) | Err(Errno::EBUSY)));
        task.join().unwrap();
        freer.join().unwrap();
        scene.finish();
    });
}

/// Explores two CPUs that schedule at once: whoever succeeds has its callback run, and the loser of the
/// allocation goes on with the winner's block.
fn schedule_meets_schedule<D: Design<Loom>>() {
    explore(PREEMPTIONS, || {
        let scene = Scene::<D>::on(sound(2));
        let other = Arc::clone(&scene);
        let attempt = |scene: &Scene<D>, number| {
            let cpu = scene.cpu(number);
            let outcome = scene.schedule(&cpu, number);
            cpu.return_to_user();
            assert!(matches!(outcome, Ok(()) | Err(Errno::EBUSY)), "{outcome:?}");
            u64::from(outcome.is_ok())
        };
        let second = loom::thread::spawn(move || attempt(&other, 1));
        let succeeded = attempt(&scene, 0) + second.join().unwrap();
        assert!(succeeded >= 1, "one of two finds the cell in STANDBY");
        assert_eq!(scene.runs(), succeeded, "each success runs once");
        scene.finish();
    });
}

/// Explores the last user of the map, who goes while a CPU schedules: either the schedule is refused, or the
/// one who goes finds the block.
fn schedule_meets_last_user<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS, move || {
        let scene = Scene::<D>::on(machine(2));
        let other = Arc::clone(&scene);
        let user = loom::thread::spawn(move || other.map.put_user(&other.cpu(1), [&other.cell]));
        let outcome = scene.schedule(&scene.cpu(0), 0);
        assert!(matches!(outcome, Ok(()) | Err(Errno::EBADF | Errno::EBUSY)), "{outcome:?}");
        user.join().unwrap();
        scene.machine.settle(&scene.cpu(0));
        assert!(!scene.cell.inspect().initialised, "a block outlived the map's last user");
        scene.finish();
    });
}

/// Explores a round for a task that takes no work, beside the late irq step of the round before: the cell is
/// ready afterwards.
fn late_irq_step<D: Design<Loom>>(machine: fn(u32) -> Machine<Loom>) {
    explore(PREEMPTIONS, move || {
        let scene = Scene::<D>::on(machine(3));
        // A task that has exited, but is still referred to: it takes no works.
        assert!(scene.machine.task(CpuId(2)).get());
        scene.cpu(2).exit_task();
        let other = Arc::clone(&scene);
        let second = loom::thread::spawn(move || {
            let cpu = other.cpu(1);
            cpu.return_to_user();
            let _ = other.schedule(&cpu, 2);
        });
        assert!(matches!(scene.schedule(&scene.cpu(0), 1), Ok(()) | Err(Errno::EBUSY)));
        second.join().unwrap();
        scene.machine.settle(&scene.cpu(0));
        assert_eq!(scene.schedule(&scene.cpu(0), 0), Ok(()), "the cell must be ready");
        scene.machine.task(CpuId(2)).put();
        scene.finish();
    });
}

macro_rules! stories {
    ($($module:ident: $design:ty $(, $third:ident)?;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn callback_meets_irq_step() {
                super::callback_meets_irq_step::<$design>(sound);
            }
            #[test]
            fn schedule_meets_free() {
                super::schedule_meets_free::<$design>(sound);
            }
            #[test]
            fn callback_meets_free() {
                super::callback_meets_free::<$design>(sound);
            }
            #[test]
            fn schedule_meets_schedule() {
                super::schedule_meets_schedule::<$design>();
            }
            #[test]
            fn schedule_meets_last_user() {
                super::schedule_meets_last_user::<$design>(sound);
            }
            #[test]
            fn late_irq_step() {
                super::late_irq_step::<$design>(sound);
            }
            $(
                #[test]
                fn $third() {
                    super::$third::<$design>(sound);
                }
            )?
        }
    )*};
}

// A lock's waiters multiply the schedules of three threads beyond reach.
stories! {
    merged: Lockless<Loom, Merged>, irq_step_callback_and_free;
    cancel_now: Lockless<Loom, CancelNow>, irq_step_callback_and_free;
    cancel_irq: Lockless<Loom, CancelIrq>, irq_step_callback_and_free;
    no_cancel: Lockless<Loom, NoCancel>, irq_step_callback_and_free;
    resilient: LockedWork<Loom, Resilient<Loom>>;
}

#[cfg(feature = "planted")]
mod planted {
    use super::*;
    use cellbench_impls::planted::Bug;

    /// The story must fail on machines with the bug.
    macro_rules! found {
        ($($test:ident: $bug:ident in $story:ident::<$variant:ident>;)*) => {$(
            #[test]
            #[should_panic]
            fn $test() {
                $story::<Lockless<Loom, $variant>>(|cpus| {
                    Machine::with_bug(MachineConfig::new(cpus), Bug::$bug)
                });
            }
        )*};
    }

    found! {
        missed_scheduling: CallbackMissesScheduling in callback_meets_irq_step::<Merged>;
        missed_scheduling_by_state: CallbackMissesScheduling in callback_meets_irq_step::<NoCancel>;
        unordered_usercnt: TaskUsercntUnordered in schedule_meets_last_user::<Merged>;
        unordered_usercnt_by_state: TaskUsercntUnordered in schedule_meets_last_user::<CancelNow>;
        freed_by_two: FreedByTwo in callback_meets_free::<NoCancel>;
        freed_by_two_after_cancel: FreedByTwo in callback_meets_free::<CancelNow>;
        late_irq_step_by_state: LateIrqStep in late_irq_step::<NoCancel>;
        late_irq_step_counted: LateIrqStep in late_irq_step::<Merged>;
    }
}
