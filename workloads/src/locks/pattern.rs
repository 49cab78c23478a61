//! Locks as programs use them: with work between two sections, with more data in the section than a
//! line, from CPUs that are not alike, in bursts, and one for each CPU. And a sweep over the first two, which
//! shows where which design wins.

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

/// Pause of a worker between two sections, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// The same after each.
    Always(u32),
    /// Nothing on worker 0, so much on the others.
    OneHot(u32),
    /// Nothing, but so much after so many steps.
    Bursts { of: u32, pause_ns: u32 },
}

/// Who takes which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locks {
    /// All take one.
    One,
    /// Each worker takes its own.
    Own,
}

/// How long a section is, how many lines of data it changes, and what comes between two.
#[derive(Clone, Copy, Debug)]
struct Shape {
    section_ns: u32,
    lines: usize,
    outside: Outside,
    locks: Locks,
}

impl Shape {
    /// Returns the shape of one lock, and so much between two sections.
    const fn one(section_ns: u32, lines: usize, outside: Outside) -> Self {
        Self { section_ns, lines, outside, locks: Locks::One }
    }
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
        => Shape::one(50, 1, Outside::Always(500));
    1 "lock-outside-5us" "one lock, section of 50 ns, 5 us between two" Needs::NOTHING
        => Shape::one(50, 1, Outside::Always(5_000));
    2 "lock-8-lines" "one lock, the section changes 8 lines" Needs::NOTHING
        => Shape::one(0, 8, Outside::Always(0));
    3 "lock-8-lines-outside" "one lock, the section changes 8 lines, 500 ns between two" Needs::NOTHING
        => Shape::one(0, 8, Outside::Always(500));
    4 "lock-one-hot" "one lock, section of 50 ns: one CPU comes at once again, the others after 5 us" TWO
        => Shape::one(50, 1, Outside::OneHot(5_000));
    5 "lock-bursts" "one lock, section of 50 ns: 32 at once, then 20 us without" Needs::NOTHING
        => Shape::one(50, 1, Outside::Bursts { of: 32, pause_ns: 20_000 });
    6 "lock1" "a lock for each CPU, as will-it-scale's lock1: a file's lock taken and given back, its own file" Needs::NOTHING
        => Shape { locks: Locks::Own, ..FILE_LOCK };
    7 "lock2" "one lock, as will-it-scale's lock2: a file's lock taken and given back, all the same file" Needs::NOTHING
        => FILE_LOCK;
}

/// Work of `fcntl(F_SETLKW)` under the lock of a file's list of locks, in will-it-scale's lock1 and lock2 (A.
/// Blanchard): finds the caller's entry at the head and replaces it, two lines. Between two such come the
/// system call, a lookup and the allocation of an entry.
const FILE_LOCK: Shape = Shape::one(20, 2, Outside::Always(250));

/// A point of the sweep: section and time between two in nanoseconds, lines of data. Named
/// `sweep-<section>-<outside>-<lines>`, which the chart reads.
pub(crate) struct Sweep<const SECTION_NS: u32, const OUTSIDE_NS: u32, const LINES: usize>;

macro_rules! sweep {
    ($($section:literal $outside:literal $lines:literal;)*) => {
        $(impl Workload for Sweep<$section, $outside, $lines> {
            const ID: &'static str =
                concat!("sweep-", stringify!($section), "-", stringify!($outside), "-", stringify!($lines));
            const ABOUT: &'static str = concat!(
                "one lock, section of ", stringify!($section), " ns, ", stringify!($outside),
                " ns between two, ", stringify!($lines), " lines of data",
            );
        })*
    };
}

sweep! {
    0 0 1; 0 500 1; 0 5000 1; 200 0 1; 200 500 1; 200 5000 1; 2000 0 1; 2000 500 1; 2000 5000 1;
    0 0 8; 0 500 8; 0 5000 8; 200 0 8; 200 500 8; 200 5000 8; 2000 0 8; 2000 500 8; 2000 5000 8;
}

impl<const SECTION_NS: u32, const OUTSIDE_NS: u32, const LINES: usize> LockWorkload
    for Sweep<SECTION_NS, OUTSIDE_NS, LINES>
where
    Self: Workload,
{
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let shape = Shape::one(SECTION_NS, LINES, Outside::Always(OUTSIDE_NS));
        Arc::new(PatternTrial::<P, L>::new(params, shape))
    }
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
    /// One, or one for each worker.
    guarded: Box<[CachePadded<Guarded<P, L>>]>,
    outside: Outside,
    turns_per_us: u32,
    section_turns: u32,
    machine: Machine<P>,
}

impl<P: Platform, L: Lock<P>> PatternTrial<P, L> {
    /// Builds the locks and their data. Never inlined: each of the workloads would hold a copy for each
    /// lock and platform, a tenth of what is compiled.
    #[inline(never)]
    fn new(params: &Params, shape: Shape) -> Self {
        let guarded = |_| {
            CachePadded::new(Guarded {
                lock: CachePadded::new(L::new()),
                data: (0..shape.lines).map(|_| CachePadded::new(Word::new("data", 0))).collect(),
                entered: Word::new("entered", 0),
            })
        };
        let locks = if shape.locks == Locks::One { 1 } else { params.threads };
        Self {
            guarded: (0..locks).map(guarded).collect(),
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
        let guarded = &*self.guarded[worker.index as usize % self.guarded.len()];
        let turns = self.section_turns;
        for _ in 0..steps {
            let outcome = guarded.lock.run(cpu, move |_| guarded.enter(turns));
            worker.tally.count(Op::Lock, &outcome);
            let outside = self.outside_turns(worker);
            P::charge(outside);
        }
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let counted = total.ok(Op::Lock);
        let entered = |guarded: &Guarded<P, L>| guarded.entered.load(Ordering::Relaxed);
        let all: u64 = self.guarded.iter().map(|guarded| entered(guarded)).sum();
        ensure!(all == counted, "mutual exclusion: {counted} sections ran, their count says {all}");
        for guarded in &self.guarded {
            let entered = entered(guarded);
            for line in &guarded.data {
                let changed = line.load(Ordering::Relaxed);
                ensure!(
                    changed == entered,
                    "a line was changed {changed} times in {entered} sections"
                );
            }
        }
        check_clean(&self.machine)
    }
}
