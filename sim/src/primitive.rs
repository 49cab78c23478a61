//! Primitives on shared lines, at any number of threads: what published measurements of machines
//! with many cores repeat, as code for virtual cores.
//!
//! A primitive is one loop without other work. Its result is the time for a step of all threads
//! together: the reciprocal of their combined rate.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::{LineAligned, MachineModel, Report, SimError, SimU64, Simulation, now_ns, wait_until};

/// A primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Primitive {
    /// Adds to one word.
    FetchAdd,
    /// Exchanges one word.
    Exchange,
    /// Loads one word, then compares and exchanges until that succeeds.
    CompareExchange,
    /// Loads a word which every eighth thread, the first among them, adds to.
    LoadUnderWriters,
    /// Adds to one of eight neighbouring words of a line, each thread to its own.
    NeighbouringWords,
    /// Adds to two words of two lines, in turn.
    TwoLines,
    /// Adds to a counter under a ticket lock whose two words share a line.
    Ticket,
    /// Adds to a counter under a test-and-set lock, without a hint in its waiting loop.
    TestAndSet,
    /// Adds to a counter under a test-and-set lock, with the spin-loop hint.
    TestAndSetPause,
    /// Adds to a counter under a queued lock (MCS), each thread with a node of its own.
    Queued,
}

impl Primitive {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::FetchAdd,
        Self::Exchange,
        Self::CompareExchange,
        Self::LoadUnderWriters,
        Self::NeighbouringWords,
        Self::TwoLines,
        Self::Ticket,
        Self::TestAndSet,
        Self::TestAndSetPause,
        Self::Queued,
    ];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::FetchAdd => "fetch-add",
            Self::Exchange => "exchange",
            Self::CompareExchange => "compare-exchange",
            Self::LoadUnderWriters => "load-under-writers",
            Self::NeighbouringWords => "neighbouring-words",
            Self::TwoLines => "two-lines",
            Self::Ticket => "ticket",
            Self::TestAndSet => "test-and-set",
            Self::TestAndSetPause => "test-and-set-pause",
            Self::Queued => "queued",
        }
    }

    /// Returns whether its waiting loops execute the spin-loop hint.
    fn pauses(self) -> bool {
        !matches!(self, Self::Ticket | Self::TestAndSet)
    }
}

impl fmt::Display for Primitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The outcome of a primitive on a simulated machine.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Time for each step, all threads together, in nanoseconds.
    pub step_ns: f64,
    /// Steps that each thread took.
    pub steps: Vec<u64>,
    /// The simulation's report.
    pub report: Report,
}

/// The lines that the primitives use.
struct Lines {
    words: LineAligned<[SimU64; 8]>,
    other: LineAligned<SimU64>,
    /// The last node of the queue, by its number from 1, or 0.
    tail: LineAligned<SimU64>,
    nodes: Vec<LineAligned<Node>>,
}

/// A waiter's node in the queue of the queued lock.
struct Node {
    /// The node behind, by its number from 1, or 0.
    next: SimU64,
    locked: SimU64,
}

/// Runs a primitive on some hardware threads of a machine, for a simulated time.
///
/// # Errors
/// As [`Simulation::spawn`] and [`Simulation::run`].
pub fn run(
    machine: &MachineModel,
    primitive: Primitive,
    cores: &[usize],
    window_ns: f64,
    seed: u64,
) -> Result<Outcome, SimError> {
    let mut machine = machine.clone();
    if !primitive.pauses() {
        machine.core.pause_ns = 0.0;
    }
    let lines = Rc::new(Lines {
        words: LineAligned(std::array::from_fn(|_| SimU64::new("word", 0))),
        other: LineAligned(SimU64::new("counter", 0)),
        tail: LineAligned(SimU64::new("tail", 0)),
        nodes: (0..cores.len())
            .map(|_| {
                LineAligned(Node {
                    next: SimU64::new("node.next", 0),
                    locked: SimU64::new("node.locked", 0),
                })
            })
            .collect(),
    });
    let mut simulation = Simulation::new(&machine, seed);
    let steps: Vec<Rc<Cell<u64>>> = cores.iter().map(|_| Rc::default()).collect();
    for (thread, &core) in cores.iter().enumerate() {
        let (lines, steps) = (Rc::clone(&lines), Rc::clone(&steps[thread]));
        simulation.spawn(core, move || {
            while now_ns() < window_ns {
                step(primitive, &lines, thread);
                steps.set(steps.get() + 1);
            }
        })?;
    }
    let report = simulation.run()?;
    let steps: Vec<u64> = steps.iter().map(|steps| steps.get()).collect();
    let step_ns = report.duration_ns / steps.iter().sum::<u64>() as f64;
    Ok(Outcome { step_ns, steps, report })
}

fn step(primitive: Primitive, lines: &Lines, thread: usize) {
    let word = &lines.words[0];
    match primitive {
        Primitive::FetchAdd => {
            word.fetch_add(1, Relaxed);
        }
        Primitive::Exchange => {
            word.swap(thread as u64, Relaxed);
        }
        Primitive::CompareExchange => {
            let mut seen = word.load(Relaxed);
            while let Err(found) = word.compare_exchange(seen, seen + 1, AcqRel, Relaxed) {
                seen = found;
            }
        }
        Primitive::LoadUnderWriters if thread.is_multiple_of(8) => {
            word.fetch_add(1, Relaxed);
        }
        Primitive::LoadUnderWriters => {
            word.load(Relaxed);
        }
        Primitive::NeighbouringWords => {
            lines.words[thread % 8].fetch_add(1, Relaxed);
        }
        Primitive::TwoLines => {
            word.fetch_add(1, Relaxed);
            lines.other.fetch_add(1, Relaxed);
        }
        Primitive::Ticket => {
            let (next, serving) = (word, &lines.words[1]);
            let mine = next.fetch_add(1, Relaxed);
            // Acquire pairs with the release of the holder before.
            wait_until(|| (serving.load(Acquire) == mine).then_some(()));
            count(lines);
            serving.store(serving.load(Relaxed) + 1, Release);
        }
        Primitive::TestAndSet | Primitive::TestAndSetPause => {
            // Acquire pairs with the release of the holder before.
            wait_until(|| (word.load(Relaxed) == 0 && word.swap(1, Acquire) == 0).then_some(()));
            count(lines);
            word.store(0, Release);
        }
        Primitive::Queued => queued(lines, thread),
    }
}

/// Adds to the counter under a lock, on a line of its own, with plain accesses.
fn count(lines: &Lines) {
    let value = lines.other.load(Relaxed);
    lines.other.store(value + 1, Relaxed);
}

/// Takes the queued lock, counts, and hands the lock on: J. M. Mellor-Crummey and M. L. Scott,
/// "Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS 9(1), 1991.
fn queued(lines: &Lines, thread: usize) {
    let node = &lines.nodes[thread];
    let me = thread as u64 + 1;
    node.next.store(0, Relaxed);
    node.locked.store(1, Relaxed);
    // AcqRel: publishes this node to the next waiter, sees the previous one's.
    let before = lines.tail.swap(me, AcqRel);
    if before != 0 {
        // Release pairs with the acquire load of `next` when the lock is handed on.
        lines.nodes[before as usize - 1].next.store(me, Release);
        // Acquire pairs with the release of the holder before.
        wait_until(|| (node.locked.load(Acquire) == 0).then_some(()));
    }
    count(lines);
    let mut next = node.next.load(Acquire);
    if next == 0 {
        // Release: what the section wrote is seen by who takes the lock next.
        if lines.tail.compare_exchange(me, 0, Release, Relaxed).is_ok() {
            return;
        }
        next = wait_until(|| Some(node.next.load(Acquire)).filter(|&next| next != 0));
    }
    // Release pairs with the acquire of the waiter.
    lines.nodes[next as usize - 1].locked.store(0, Release);
}
