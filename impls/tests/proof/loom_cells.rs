//! Every interleaving of a case that the memory model allows, within a bound on preemptions.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cellbench_impls::platform::Loom;
use cellbench_impls::{AsyncCell, CpuId};

use crate::arena::{Arena, Body, Setup};
use crate::cases::Case;
use crate::history::{Call, Log};
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
    /// `preemptions`, or what the environment asks for: `CELLBENCH_PREEMPTIONS=3`, or `all`.
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
}

thread_local! {
    /// The log of the execution in progress, for the report of a panic.
    static LOG: RefCell<Option<Arc<Log>>> = const { RefCell::new(None) };
}

/// The history of this thread's execution so far, if it has one.
pub(crate) fn history_in_progress() -> Option<Vec<Call>> {
    LOG.with_borrow(|log| log.as_ref().map(|log| log.history()))
}

/// Notes whose history is the one in progress.
pub(crate) fn set_in_progress(log: &Arc<Log>) {
    LOG.set(Some(Arc::clone(log)));
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
        execution();
    });
    let executions = count.load(Ordering::Relaxed);
    Explored {
        executions,
        seconds: began.elapsed().as_secs_f64(),
        cut_short: bound.executions > 0 && executions >= bound.executions,
    }
}

/// A thread's part of an execution.
pub(crate) type ThreadBody = Box<dyn FnOnce() + Send>;

/// Runs the bodies at the same time, the last one on the calling thread.
pub(crate) fn run_threads(mut bodies: Vec<ThreadBody>) {
    let last = bodies.pop().expect("at least one thread");
    let threads: Vec<_> = bodies.into_iter().map(loom::thread::spawn).collect();
    last();
    for thread in threads {
        thread.join().expect("loom ends the execution at a panic");
    }
}

/// Explores a case on a cell of type `C`; `check` sees the history of each execution.
pub(crate) fn check_case<C: AsyncCell<Loom>>(
    case: &Case,
    setup: Setup,
    bound: Bound,
    check: fn(&[Call]),
) -> Explored {
    let case = case.clone();
    explore(bound, move || {
        let arena = Arena::<Loom, C>::new(Setup { body: Body::Nothing, ..setup });
        set_in_progress(&arena.log);
        arena.prepare(case.state.preparation(C::KIND));
        let bodies = case.threads.iter().enumerate().map(|(number, ops)| -> ThreadBody {
            let (arena, ops) = (Arc::clone(&arena), ops.clone());
            Box::new(move || {
                let cpu = arena.machine.cpu(CpuId(number as u32));
                for op in ops {
                    let _ = arena.perform(&cpu, op);
                }
            })
        });
        run_threads(bodies.collect());
        check(&arena.check_rest());
    })
}
