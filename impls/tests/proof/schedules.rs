//! Runs a test under chosen schedules, all sequentially consistent: every schedule within a bound
//! on preemptions, or many random ones.
//!
//! Loom leaves out interleavings that it takes for equal to others. It remembers one last access
//! to a word, so where a thread reads a word and then writes it, what another thread read before
//! is forgotten, and the order "write first" may not be tried. The bounded search here leaves out
//! nothing within its bound (Musuvathi and Qadeer, "Iterative context bounding for systematic
//! testing of multithreaded programs"); loom adds what weak memory does.

use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, Runner};

use crate::arena::ThreadBody;
use crate::history;
use crate::report::Explored;

/// Which schedules to run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Schedules {
    /// All with at most so many preemptions. A thread that yields is switched from for nothing,
    /// to the next one that can run.
    Bounded(usize),
    /// So many, each step by a random thread.
    Random {
        /// Where the random numbers begin.
        seed: u64,
        /// How many.
        count: usize,
    },
    /// So many, by random priorities that change at three points (Burckhardt and others, "A
    /// randomized scheduler with probabilistic guarantees of finding bugs").
    Pct {
        /// Where the random numbers begin.
        seed: u64,
        /// How many.
        count: usize,
    },
}

/// A choice that was made, and those that are left.
struct Level {
    choices: Vec<TaskId>,
    chosen: usize,
}

/// All schedules within a bound on preemptions, depth first.
struct BoundedScheduler {
    bound: usize,
    levels: Vec<Level>,
    depth: usize,
    preemptions: usize,
    started: bool,
}

impl BoundedScheduler {
    fn new(bound: usize) -> Self {
        Self { bound, levels: Vec::new(), depth: 0, preemptions: 0, started: false }
    }

    /// Returns the tasks that may run next, the cheapest first.
    fn choices(
        &self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Vec<TaskId> {
        let ids: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let Some(at) = ids.iter().position(|id| Some(*id) == current) else { return ids };
        let mut from_current = ids;
        from_current.rotate_left(at);
        if is_yielding {
            let next = usize::from(from_current.len() > 1);
            return vec![from_current[next]];
        }
        if self.preemptions >= self.bound {
            from_current.truncate(1);
        }
        from_current
    }
}

impl Scheduler for BoundedScheduler {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.started {
            while self.levels.pop_if(|level| level.chosen + 1 == level.choices.len()).is_some() {}
            self.levels.last_mut()?.chosen += 1;
        }
        self.started = true;
        self.depth = 0;
        self.preemptions = 0;
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        if self.depth == self.levels.len() {
            let choices = self.choices(runnable, current, is_yielding);
            self.levels.push(Level { choices, chosen: 0 });
        }
        let level = &self.levels[self.depth];
        let next = level.choices[level.chosen];
        let could_go_on = !is_yielding && runnable.iter().any(|task| Some(task.id()) == current);
        self.preemptions += usize::from(could_go_on && Some(next) != current);
        self.depth += 1;
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        unreachable!("the tests take no random numbers from the checker")
    }
}

/// Runs `execution` under the given schedules.
pub(crate) fn run(schedules: Schedules, execution: impl Fn() + Send + Sync + 'static) -> Explored {
    let scheduler: Box<dyn Scheduler + Send> = match schedules {
        Schedules::Bounded(bound) => Box::new(BoundedScheduler::new(bound)),
        Schedules::Random { seed, count } => Box::new(RandomScheduler::new_from_seed(seed, count)),
        Schedules::Pct { seed, count } => Box::new(PctScheduler::new_from_seed(seed, 3, count)),
    };
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.stack_size = 1 << 18;
    // That it checks sequentially consistent executions alone is said above.
    config.silence_warnings = true;
    let began = Instant::now();
    let executions = Runner::new(scheduler, config).run(move || {
        history::begin_execution();
        execution();
    });
    Explored {
        executions: executions as u64,
        seconds: began.elapsed().as_secs_f64(),
        cut_short: false,
    }
}

/// Runs the bodies at the same time.
pub(crate) fn run_threads(bodies: Vec<ThreadBody>) {
    let threads: Vec<_> = bodies.into_iter().map(shuttle::thread::spawn).collect();
    for thread in threads {
        thread.join().expect("a panic ends the execution");
    }
}
