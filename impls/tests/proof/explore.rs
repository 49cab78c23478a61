//! Runs a test in every interleaving that the memory model allows, within a bound on preemptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::arena::ThreadBody;
use crate::history;
use crate::report::Explored;

/// How much of a case to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Preemptions per execution; `None`: all there can be.
    pub(crate) preemptions: Option<usize>,
    /// Executions after which to stop; 0: never.
    pub(crate) executions: u64,
}

impl Bound {
    /// Makes a bound of `preemptions`, or of what the environment asks for: `CELLBENCH_PREEMPTIONS=3`, or
    /// `all`.
    pub(crate) fn new(preemptions: usize) -> Self {
        match std::env::var("CELLBENCH_PREEMPTIONS").as_deref() {
            Ok("all") => Self { preemptions: None, executions: 0 },
            Ok(number) => {
                let number = number.parse().unwrap_or_else(|_| {
                    panic!("CELLBENCH_PREEMPTIONS={number}: give a number, or `all`")
                });
                Self { preemptions: Some(number), executions: 0 }
            }
            Err(_) => Self { preemptions: Some(preemptions), executions: 0 },
        }
    }

    /// Returns the same bound, stopping after so many executions unless the environment asks for more.
    pub(crate) fn at_most(self, executions: u64) -> Self {
        let asked = std::env::var_os("CELLBENCH_PREEMPTIONS").is_some();
        Self { executions: if asked { 0 } else { executions }, ..self }
    }
}

/// Runs `execution` in every interleaving within the bound.
pub(crate) fn explore(bound: Bound, execution: impl Fn() + Send + Sync + 'static) -> Explored {
    let count = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound.preemptions;
    builder.max_branches = 20_000;
    if bound.executions > 0 {
        // Loom looks at its limit in such steps.
        builder.checkpoint_interval = 100;
        builder.max_permutations = usize::try_from(bound.executions).ok();
    }
    let began = Instant::now();
    let counted = Arc::clone(&count);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        history::begin_execution();
        execution();
    });
    let executions = count.load(Ordering::Relaxed);
    Explored {
        executions,
        seconds: began.elapsed().as_secs_f64(),
        // Loom stops before the execution of that number.
        cut_short: bound.executions > 0 && executions + 1 >= bound.executions,
    }
}

/// Runs the bodies at the same time, the last one on the calling thread.
pub(crate) fn run_threads(mut bodies: Vec<ThreadBody>) {
    let last = bodies.pop().expect("at least one thread");
    let threads: Vec<_> = bodies.into_iter().map(loom::thread::spawn).collect();
    last();
    for thread in threads {
        thread.join().expect("loom ends the execution at a panic");
    }
}
