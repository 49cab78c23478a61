//! Primitives: one operation on shared lines, with no lock or cell around it. They are what published
//! measurements of many cores repeat, and what a simulator must predict before anything else.

use std::sync::Arc;

use cellbench_impls::platform::{IntWord, Ordering, Word};
use cellbench_impls::{Cpu, Errno, Machine, Platform};
use crossbeam_utils::CachePadded;

use crate::ensure;
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{Trial, Violation, Workload};
use crate::worker::Worker;

/// A primitive, for lists and reports.
#[derive(Clone, Copy, Debug)]
pub struct Primitive {
    /// Name in reports.
    pub id: &'static str,
    /// Description of a step, in a line.
    pub about: &'static str,
    operation: Operation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    FetchAdd,
    Exchange,
    CompareExchange,
    LoadUnderWriters,
    NeighbouringWords,
    TwoLines,
}

const fn primitive(id: &'static str, operation: Operation, about: &'static str) -> Primitive {
    Primitive { id, about, operation }
}

/// Every primitive.
pub const PRIMITIVES: &[Primitive] = &[
    primitive("fetch-add", Operation::FetchAdd, "addition to one word"),
    primitive("exchange", Operation::Exchange, "exchange of one word"),
    primitive(
        "cas-loop",
        Operation::CompareExchange,
        "load, then compare-and-exchange until that succeeds",
    ),
    primitive(
        "load-under-writers",
        Operation::LoadUnderWriters,
        "load of a word that every eighth worker, the first among them, adds to",
    ),
    primitive(
        "neighbouring-words",
        Operation::NeighbouringWords,
        "addition to one of eight words of a line, each worker to its own",
    ),
    primitive("two-lines", Operation::TwoLines, "additions to two words on two lines, in turn"),
];

/// Words of a line.
const WORDS: usize = 8;
/// One worker of so many writes where the others load.
const WRITER_OF: u32 = 8;

/// A workload on primitives: all workers, with so many nanoseconds of work after each step.
pub(crate) struct Shared<const OUTSIDE_NS: u32>;

macro_rules! shared {
    ($ns:literal, $id:literal, $about:literal) => {
        impl Workload for Shared<$ns> {
            const ID: &'static str = $id;
            const ABOUT: &'static str = $about;
        }
    };
}

shared!(0, "shared", "all workers on the same lines, nothing else");
shared!(100, "shared-100ns", "all workers on the same lines, 100 ns of work after each step");

impl<const OUTSIDE_NS: u32> Shared<OUTSIDE_NS> {
    /// Builds a trial of the primitive of that name; `None` if there is none.
    pub(crate) fn trial<P: Platform>(id: &str, params: &Params) -> Option<Arc<dyn Trial<P>>> {
        let primitive = PRIMITIVES.iter().find(|primitive| primitive.id == id)?;
        Some(Arc::new(SharedLines::<P> {
            operation: primitive.operation,
            words: CachePadded::new(core::array::from_fn(|_| Word::new("word", 0))),
            other: CachePadded::new(Word::new("other", 0)),
            outside_turns: (u64::from(OUTSIDE_NS) * u64::from(params.turns_per_us) / 1000) as u32,
            machine: params.machine(),
        }))
    }
}

struct SharedLines<P: Platform> {
    operation: Operation,
    words: CachePadded<[P::U64; WORDS]>,
    other: CachePadded<P::U64>,
    outside_turns: u32,
    machine: Machine<P>,
}

impl<P: Platform> SharedLines<P> {
    #[inline(always)]
    fn repeat(&self, worker: &mut Worker, steps: u32, mut step: impl FnMut()) {
        let outside = self.outside_turns;
        worker.tally.repeat(Op::Step, steps, || {
            step();
            P::charge(outside);
            Ok::<_, Errno>(())
        });
    }
}

impl<P: Platform> Trial<P> for SharedLines<P> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, _: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        // Relaxed, all: nothing is published by these words.
        let word = &self.words[0];
        let index = worker.index;
        match self.operation {
            Operation::FetchAdd => self.repeat(worker, steps, || {
                word.fetch_add(1, Ordering::Relaxed);
            }),
            Operation::Exchange => self.repeat(worker, steps, || {
                word.swap(u64::from(index), Ordering::Relaxed);
            }),
            Operation::CompareExchange => self.repeat(worker, steps, || {
                let mut seen = word.load(Ordering::Relaxed);
                while let Err(found) =
                    word.cas(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed)
                {
                    seen = found;
                }
            }),
            Operation::LoadUnderWriters if index.is_multiple_of(WRITER_OF) => {
                self.repeat(worker, steps, || {
                    word.fetch_add(1, Ordering::Relaxed);
                });
            }
            Operation::LoadUnderWriters => self.repeat(worker, steps, || {
                word.load(Ordering::Relaxed);
            }),
            Operation::NeighbouringWords => {
                let own = &self.words[index as usize % WORDS];
                self.repeat(worker, steps, || {
                    own.fetch_add(1, Ordering::Relaxed);
                });
            }
            Operation::TwoLines => self.repeat(worker, steps, || {
                word.fetch_add(1, Ordering::Relaxed);
                self.other.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let steps = total.ok(Op::Step);
        let sum: u64 = self.words.iter().map(|word| word.load(Ordering::Relaxed)).sum();
        let other = self.other.load(Ordering::Relaxed);
        match self.operation {
            Operation::FetchAdd | Operation::CompareExchange | Operation::NeighbouringWords => {
                ensure!(sum == steps, "{steps} steps, and the words say {sum}");
            }
            Operation::TwoLines => {
                ensure!(
                    sum == steps && other == steps,
                    "{steps} steps, and the words say {sum} and {other}"
                );
            }
            Operation::Exchange | Operation::LoadUnderWriters => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cellbench_impls::CpuId;
    use cellbench_impls::platform::Native;

    use super::*;

    /// Runs a primitive with two workers in turn; returns the trial and what they counted.
    fn run<const OUTSIDE_NS: u32>(id: &str) -> (Arc<dyn Trial<Native>>, Tally) {
        let trial = Shared::<OUTSIDE_NS>::trial::<Native>(id, &Params::new(2, 1));
        let trial = trial.expect("every primitive runs under every workload of primitives");
        let mut total = Tally::default();
        for index in 0..2 {
            let mut worker = Worker::new(index, 1);
            let cpu = trial.machine().cpu(CpuId(index));
            trial.enter(&cpu, &mut worker);
            trial.batch(&cpu, &mut worker, 10);
            total.add(&worker.tally);
        }
        (trial, total)
    }

    fn check<const OUTSIDE_NS: u32>(primitive: &Primitive) {
        let (trial, mut total) = run::<OUTSIDE_NS>(primitive.id);
        assert_eq!(total.ok(Op::Step), 20, "{}", primitive.id);
        let cpu = trial.machine().cpu(CpuId(0));
        assert_eq!(trial.check(&cpu, &total), Ok(()), "{}", primitive.id);
        // A step that did not take place is missed, where the words tell.
        total.count_ok(Op::Step, 1);
        let tells = !matches!(primitive.id, "exchange" | "load-under-writers");
        assert_eq!(trial.check(&cpu, &total).is_err(), tells, "{}", primitive.id);
    }

    #[test]
    fn every_step_is_counted_and_found_again_in_the_words() {
        for primitive in PRIMITIVES {
            check::<0>(primitive);
            check::<100>(primitive);
        }
        assert!(Shared::<0>::trial::<Native>("no-such", &Params::new(1, 1)).is_none());
    }
}
