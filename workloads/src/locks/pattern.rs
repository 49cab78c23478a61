//! One lock as programs use it: with work between two sections, with more data in the section than a
//! line, from CPUs that are not alike, and in bursts.

use std::sync::Arc;

use cellbench_impls::platform::{Ordering, Word};
use cellbench_impls::{Cpu, Lock, Machine, Platform};
use crossbeam_utils::CachePadded;

use crate::ensure;
use crate::field::check_clean;
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{LockWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// What a worker does between two sections, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// The same after each.
    Always(u32),
    /// Nothing on worker 0, so much on the others.
    OneHot(u32),
    /// Nothing, but so much after so many steps.
    Bursts { of: u32, pause_ns: u32 },
}

/// How long a section is, how many lines of data it changes, and what comes between two.
#[derive(Clone, Copy, Debug)]
struct Shape {
    section_ns: u32,
    lines: usize,
    outside: Outside,
}

/// A workload of one shape, known by a number.
pub(crate) struct Pattern<const NUMBER: usize>;

macro_rules! patterns {
    ($($number:literal $id:literal $about:literal $needs:expr => $shape:expr;)*) => {
        $(impl Workload for Pattern<$number> {
            const ID: &'static str = $id;
            const ABOUT: &'static str = $about;
            const NEEDS: Needs = $needs;
        }

        impl LockWorkload for Pattern<$number> {
            fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
                Arc::new(PatternTrial::<P, L>::new(params, $shape))
            }
        })*
    };
}

const TWO: Needs = Needs { least_workers: 2, ..Needs::NOTHING };

patterns! {
    0 "lock-outside-500ns" "one lock, section of 50 ns, 500 ns between two" Needs::NOTHING
        => Shape { section_ns: 50, lines: 1, outside: Outside::Always(500) };
    1 "lock-outside-5us" "one lock, section of 50 ns, 5 us between two" Needs::NOTHING
        => Shape { section_ns: 50, lines: 1, outside: Outside::Always(5_000) };
    2 "lock-8-lines" "one lock, the section changes 8 lines" Needs::NOTHING
        => Shape { section_ns: 0, lines: 8, outside: Outside::Always(0) };
    3 "lock-8-lines-outside" "one lock, the section changes 8 lines, 500 ns between two" Needs::NOTHING
        => Shape { section_ns: 0, lines: 8, outside: Outside::Always(500) };
    4 "lock-one-hot" "one lock, section of 50 ns: one CPU comes at once again, the others after 5 us" TWO
        => Shape { section_ns: 50, lines: 1, outside: Outside::OneHot(5_000) };
    5 "lock-bursts" "one lock, section of 50 ns: 32 at once, then 20 us without" Needs::NOTHING
        => Shape { section_ns: 50, lines: 1, outside: Outside::Bursts { of: 32, pause_ns: 20_000 } };
}

/// The lock and what it guards.
struct Guarded<P: Platform, L> {
    lock: CachePadded<L>,
    /// Each on a line of its own.
    data: Box<[CachePadded<P::U64>]>,
    /// Loaded and stored: a lock that lets two in loses some.
    entered: P::U64,
}

impl<P: Platform, L> Guarded<P, L> {
    /// Changes the data, with the lock held.
    #[inline(always)]
    fn enter(&self, turns: u32) {
        // Relaxed, all: under the lock, so a load and a store.
        self.entered.store(self.entered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        for line in &self.data {
            line.store(line.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        P::charge(turns);
    }
}

struct PatternTrial<P: Platform, L> {
    guarded: Guarded<P, L>,
    outside: Outside,
    turns_per_us: u32,
    section_turns: u32,
    machine: Machine<P>,
}

impl<P: Platform, L: Lock<P>> PatternTrial<P, L> {
    fn new(params: &Params, shape: Shape) -> Self {
        Self {
            guarded: Guarded {
                lock: CachePadded::new(L::new()),
                data: (0..shape.lines).map(|_| CachePadded::new(Word::new("data", 0))).collect(),
                entered: Word::new("entered", 0),
            },
            outside: shape.outside,
            turns_per_us: params.turns_per_us,
            section_turns: turns(shape.section_ns, params.turns_per_us),
            machine: params.machine(),
        }
    }

    /// Returns the turns to spend after a worker's step.
    #[inline(always)]
    fn outside_turns(&self, worker: &Worker) -> u32 {
        let ns = match self.outside {
            Outside::Always(ns) => ns,
            Outside::OneHot(ns) => {
                if worker.index == 0 {
                    0
                } else {
                    ns
                }
            }
            Outside::Bursts { of, pause_ns } => {
                if worker.tally.ok(Op::Lock).is_multiple_of(u64::from(of)) { pause_ns } else { 0 }
            }
        };
        turns(ns, self.turns_per_us)
    }
}

fn turns(ns: u32, turns_per_us: u32) -> u32 {
    (u64::from(ns) * u64::from(turns_per_us) / 1000) as u32
}

impl<P: Platform, L: Lock<P>> Trial<P> for PatternTrial<P, L> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let (guarded, turns) = (&self.guarded, self.section_turns);
        for _ in 0..steps {
            let outcome = guarded.lock.run(cpu, move |_| guarded.enter(turns));
            worker.tally.count(Op::Lock, &outcome);
            let outside = self.outside_turns(worker);
            P::charge(outside);
        }
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let entered = self.guarded.entered.load(Ordering::Relaxed);
        let counted = total.ok(Op::Lock);
        ensure!(
            entered == counted,
            "mutual exclusion: {counted} sections ran, their count says {entered}"
        );
        for line in &self.guarded.data {
            let changed = line.load(Ordering::Relaxed);
            ensure!(changed == counted, "a line was changed {changed} times in {counted} sections");
        }
        check_clean(&self.machine)
    }
}
