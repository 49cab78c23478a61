//! The measuring loops: what a worker does between the barrier and the end of its window.
//!
//! Closed loop: as fast as it goes, in batches. Between batches stand a quiescent state and one
//! look at the clock; there is no flag that all workers read, and nothing shared is written. One
//! step of each batch, at a random place so that it cannot fall into step with a workload that
//! alternates, is timed on its own.
//!
//! Open loop: steps are due at random times (a Poisson process of a given rate), whether or not the
//! one before has ended, and latency counts from when a step was due: a stall is seen by every
//! step that it delayed, not by one (no coordinated omission).
//!
//! A batch counts if it ends within the window. What began before the window and ended in it
//! stands for what began in it and ended too late.

use std::ops::Range;

use cellbench_impls::{Cpu, Platform};
use cellbench_workloads::{Tally, Trial, Worker};

use super::time::TimeSource;
use crate::backend::latency::{Attribution, Latencies};
use crate::rng::Rng;

/// Most steps in a batch: an empty step takes about a nanosecond.
const MOST_STEPS: u32 = 1 << 16;

/// Most steps left over by an open loop whose times are drawn: some milliseconds.
const DRAWN: f64 = 262_144.0;
/// Parts of the time left in which more of them come together: as fine as a histogram's three digits.
const PARTS: u32 = 1000;

/// When a worker does what, in ticks of its clock.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The worker has warmed up and found its batch size: counters are switched on.
    pub ready: u64,
    /// The window begins.
    pub start: u64,
    /// The window ends.
    pub end: u64,
    /// How long a batch is to take.
    pub batch: u64,
    /// Whether a step of each batch is timed. Off only to measure what timing costs.
    pub sampled: bool,
}

/// Counts and latencies of a worker in its window.
#[derive(Clone, Debug)]
pub struct Span {
    /// Counts when the window began.
    pub before: Tally,
    /// Counts of all that ended within the window, and of what was before.
    pub after: Tally,
    /// Latencies of the timed steps.
    pub latencies: Latencies,
    /// One step of so many was timed, on average.
    pub sampled_every: u32,
    /// Open loop: steps that were due in the window and had not begun when it ended. They are
    /// among the latencies with the time that they had waited.
    pub unserved: u64,
}

/// Runs batches until the window begins and calls `ready` on the way, with whether it comes to that
/// only when the window has begun; returns the batch size that it came to, and the counts before
/// the
/// first batch that ended in the window.
fn warm_up<P: Platform>(
    trial: &dyn Trial<P>,
    cpu: &Cpu<'_, P>,
    worker: &mut Worker,
    time: &impl TimeSource,
    schedule: &Schedule,
    ready: impl FnOnce(bool),
) -> (u32, Tally) {
    let mut steps = 1;
    let mut before = worker.tally.clone();
    let mut ready = Some(ready);
    let mut begin = time.now();
    loop {
        before.clone_from(&worker.tally);
        trial.batch(cpu, worker, steps);
        cpu.quiescent();
        let end = time.now();
        if end >= schedule.ready
            && let Some(ready) = ready.take()
        {
            ready(end >= schedule.start);
            begin = time.now();
            continue;
        }
        if end >= schedule.start {
            return (steps, before);
        }
        steps = resized(steps, end - begin, schedule.batch);
        begin = end;
    }
}

/// Returns the size of the next batch after one of `steps` steps that took `took` ticks: towards
/// `target`,
/// by a factor of two, and only when well off it. One batch that was interrupted shrinks the next,
/// which grows back.
#[inline(always)]
fn resized(steps: u32, took: u64, target: u64) -> u32 {
    if took < target / 2 {
        (steps * 2).min(MOST_STEPS)
    } else if took > target * 4 {
        (steps / 2).max(1)
    } else {
        steps
    }
}

/// Returns the closed loop.
pub fn closed<P: Platform>(
    trial: &dyn Trial<P>,
    cpu: &Cpu<'_, P>,
    worker: &mut Worker,
    time: &impl TimeSource,
    schedule: &Schedule,
    mut rng: Rng,
    ready: impl FnOnce(bool),
) -> Span {
    let (mut steps, before) = warm_up(trial, cpu, worker, time, schedule, ready);
    let mut latencies = Latencies::for_ops_of(&worker.tally);
    let mut attribution = Attribution::of(&worker.tally);
    // The batch that ended the warm-up ended in the window, unless it outlasted that as well.
    let mut begin = time.now();
    let mut after = if begin < schedule.end { worker.tally.clone() } else { before.clone() };
    let (mut taken, mut batches) = (0_u64, 0_u64);
    while begin < schedule.end {
        if schedule.sampled {
            let ahead = rng.below(steps);
            trial.batch(cpu, worker, ahead);
            attribution.before(&worker.tally);
            let start = time.start();
            trial.batch(cpu, worker, 1);
            let stop = time.stop();
            latencies.record(attribution.after(&worker.tally), time.elapsed_ns(start, stop));
            trial.batch(cpu, worker, steps - 1 - ahead);
        } else {
            trial.batch(cpu, worker, steps);
        }
        cpu.quiescent();
        let end = time.now();
        if end >= schedule.end {
            break;
        }
        after.clone_from(&worker.tally);
        taken += u64::from(steps);
        batches += 1;
        steps = resized(steps, end - begin, schedule.batch);
        begin = end;
    }
    let sampled_every = taken.checked_div(batches).map_or(steps, |mean| mean as u32);
    Span { before, after, latencies, sampled_every, unserved: 0 }
}

/// Returns the open loop: `mean_ticks` between steps on average.
#[expect(clippy::too_many_arguments, reason = "the closed loop's, and the rate")]
pub fn open<P: Platform>(
    trial: &dyn Trial<P>,
    cpu: &Cpu<'_, P>,
    worker: &mut Worker,
    time: &impl TimeSource,
    schedule: &Schedule,
    mut rng: Rng,
    mean_ticks: f64,
    ready: impl FnOnce(bool),
) -> Span {
    warm_up(trial, cpu, worker, time, schedule, ready);
    let mut latencies = Latencies::for_ops_of(&worker.tally);
    let mut attribution = Attribution::of(&worker.tally);
    // The batch that ended the warm-up was not due at any time: it does not count.
    let before = worker.tally.clone();
    let mut after = before.clone();
    let mut unserved = 0;
    // Fractions of a tick add up: kept as a number with a fraction.
    let mut due = schedule.start as f64 + rng.exponential(mean_ticks);
    while due < schedule.end as f64 {
        let mut now = time.now();
        while now < due as u64 {
            cpu.quiescent();
            std::hint::spin_loop();
            now = time.now();
        }
        if now >= schedule.end {
            let op = attribution.after(&worker.tally);
            let waited = |due: f64| time.elapsed_ns(due as u64, schedule.end);
            unserved = leave(due..schedule.end as f64, mean_ticks, &mut rng, |due, count| {
                latencies.record_n(op, waited(due), count);
            });
            break;
        }
        attribution.before(&worker.tally);
        trial.batch(cpu, worker, 1);
        let stop = time.stop();
        latencies.record(attribution.after(&worker.tally), time.elapsed_ns(due as u64, stop));
        cpu.quiescent();
        if stop < schedule.end {
            after.clone_from(&worker.tally);
        }
        due += rng.exponential(mean_ticks);
    }
    Span { before, after, latencies, sampled_every: 1, unserved }
}

/// Records the steps that had not begun when time was up, the first of them due at the begin of `left`: each
/// has waited at least until its end. Returns how many. At a rate that cannot be reached drawing all of them
/// would take longer than the window: beyond [`DRAWN`] the expected number comes evenly.
fn leave(
    left: Range<f64>,
    mean_ticks: f64,
    rng: &mut Rng,
    mut record: impl FnMut(f64, u64),
) -> u64 {
    let expected = (left.end - left.start) / mean_ticks;
    if expected > DRAWN {
        let until = |part: u32| (expected * f64::from(part) / f64::from(PARTS)) as u64;
        for part in 0..PARTS {
            let middle = (f64::from(part) + 0.5) / f64::from(PARTS);
            let due = left.start + (left.end - left.start) * middle;
            record(due, until(part + 1) - until(part));
        }
        return until(PARTS);
    }
    let (mut due, mut count) = (left.start, 0);
    while due < left.end {
        record(due, 1);
        count += 1;
        due += rng.exponential(mean_ticks);
    }
    count
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use cellbench_impls::machine::MachineConfig;
    use cellbench_impls::platform::Native;
    use cellbench_impls::{CpuId, Machine};
    use cellbench_workloads::{Op, Violation};

    use super::*;

    /// A clock that only the trial below moves; one tick is a nanosecond.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Hand {
        fn advance(&self, ticks: u64) {
            self.0.fetch_add(ticks, Ordering::Relaxed);
        }
    }

    impl TimeSource for Hand {
        /// Returns the time and takes a tick, so that waiting comes to an end.
        fn now(&self) -> u64 {
            self.0.fetch_add(1, Ordering::Relaxed)
        }
        fn start(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn stop(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn elapsed_ns(&self, from: u64, to: u64) -> u64 {
            to.saturating_sub(from)
        }
    }

    /// Steps of 100 ns, but for one that stalls.
    struct Stalling<'a> {
        machine: Machine<Native>,
        hand: &'a Hand,
        stall_at: u64,
        stall_ns: u64,
    }

    const STEP_NS: u64 = 100;

    impl<'a> Stalling<'a> {
        fn new(hand: &'a Hand, stall_at: u64, stall_ns: u64) -> Self {
            Self { machine: Machine::new(MachineConfig::new(1)), hand, stall_at, stall_ns }
        }
    }

    impl Trial<Native> for Stalling<'_> {
        fn machine(&self) -> &Machine<Native> {
            &self.machine
        }

        fn batch(&self, _: &Cpu<'_, Native>, worker: &mut Worker, steps: u32) {
            for _ in 0..steps {
                let begin = self.hand.0.load(Ordering::Relaxed);
                let stalls = (begin..begin + STEP_NS).contains(&self.stall_at);
                self.hand.advance(STEP_NS + if stalls { self.stall_ns } else { 0 });
                worker.tally.count_ok(Op::Lock, 1);
            }
        }

        fn check(&self, _: &Cpu<'_, Native>, _: &Tally) -> Result<(), Violation> {
            Ok(())
        }
    }

    const SCHEDULE: Schedule = Schedule {
        ready: 900_000,
        start: 1_000_000,
        end: 11_000_000,
        batch: 20_000,
        sampled: true,
    };

    fn spans(stall_at: u64, stall_ns: u64, mean_ticks: f64) -> (Span, Span) {
        spans_and_ready(stall_at, stall_ns, mean_ticks, |_| ())
    }

    fn spans_and_ready(
        stall_at: u64,
        stall_ns: u64,
        mean_ticks: f64,
        ready: impl Fn(bool),
    ) -> (Span, Span) {
        let run = |open_loop: bool| {
            let hand = Hand::default();
            let trial = Stalling::new(&hand, stall_at, stall_ns);
            let cpu = trial.machine.cpu(CpuId(0));
            let mut worker = Worker::new(0, 1);
            let rng = Rng::new(7);
            if open_loop {
                open(&trial, &cpu, &mut worker, &hand, &SCHEDULE, rng, mean_ticks, &ready)
            } else {
                closed(&trial, &cpu, &mut worker, &hand, &SCHEDULE, rng, &ready)
            }
        };
        (run(false), run(true))
    }

    fn counted(span: &Span) -> u64 {
        span.after.ok(Op::Lock) - span.before.ok(Op::Lock)
    }

    #[test]
    fn what_ends_in_the_window_is_counted_and_no_more() {
        let (closed, _) = spans(u64::MAX, 0, 1000.0);
        // 10 ms of 100 ns, less a tick for each look at the clock; whole batches.
        let expected = (SCHEDULE.end - SCHEDULE.start) / STEP_NS;
        let batch = u64::from(closed.sampled_every);
        assert!((expected - 2 * batch..=expected).contains(&counted(&closed)), "{closed:?}");
        // 20 us of 100 ns, within what leaves the size alone.
        assert!((100..=800).contains(&closed.sampled_every), "{}", closed.sampled_every);
        let (_, values) = closed.latencies.iter().next().unwrap();
        assert_eq!((values.min(), values.max()), (STEP_NS, STEP_NS));
    }

    #[test]
    fn a_stall_of_the_whole_window_counts_nothing() {
        let (closed, open) = spans(500_000, 20_000_000, 1000.0);
        assert_eq!((counted(&closed), counted(&open)), (0, 0));
        assert!(open.unserved > 0);
    }

    /// Whoever was stalled before its accounts were read for the window, and into the window, has
    /// lost
    /// a part of it that these accounts do not show.
    #[test]
    fn a_worker_that_is_ready_too_late_says_so() {
        for (stall_at, stall_ns, late) in
            [(u64::MAX, 0, false), (500_000, 100_000, false), (500_000, 2_000_000, true)]
        {
            spans_and_ready(stall_at, stall_ns, 1000.0, |said| assert_eq!(said, late));
        }
    }

    /// Coordinated omission: during a stall of 2 ms a closed loop issues nothing, so at most one of
    /// its samples is long. In the open loop a step was due every microsecond, and each waited.
    #[test]
    fn a_stall_is_seen_by_every_step_that_it_delayed() {
        let (closed, open) = spans(5_000_000, 2_000_000, 1000.0);
        let delayed = |span: &Span| -> u64 {
            span.latencies.iter().map(|(_, values)| values.count_between(100_000, u64::MAX)).sum()
        };
        assert!(delayed(&closed) <= 1, "{}", delayed(&closed));
        let seen = delayed(&open);
        // 2000 were due within the stall; all but those of its last 100 us waited that long, and
        // about 200 more before the backlog was worked off. Twenty standard deviations of slack.
        assert!((1500..3000).contains(&seen), "{seen}");
        assert_eq!(open.unserved, 0);
    }

    #[test]
    fn the_open_loop_offers_what_it_was_asked_for() {
        let (_, open) = spans(u64::MAX, 0, 1000.0);
        let done = counted(&open);
        // Poisson with mean 10 000: five standard deviations.
        assert!((9_500..10_500).contains(&done), "{done}");
    }

    #[test]
    fn an_overloaded_open_loop_says_how_much_it_left() {
        let (_, open) = spans(u64::MAX, 0, 50.0);
        let (done, left) = (counted(&open), open.unserved);
        assert!((190_000..210_000).contains(&(done + left)), "{done} and {left}");
        assert!(left > 90_000, "{left}");
        let (_, values) = open.latencies.iter().next().unwrap();
        assert_eq!(values.len(), done + left + 1, "the step that was under way when time was up");
    }

    /// Drawing each of the 10^15 steps would take months.
    #[test]
    fn an_open_loop_at_a_rate_that_cannot_be_reached_ends_with_its_window() {
        let (closed, open) = spans(u64::MAX, 0, 1e-8);
        let (most, done) = (counted(&closed), counted(&open));
        assert!(done > most / 2 && done <= most + most / 10, "{done} of {most}");
        assert!((0.99e15..1.01e15).contains(&(open.unserved as f64)), "{}", open.unserved);
        let (_, values) = open.latencies.iter().next().unwrap();
        assert_eq!(values.len(), done + open.unserved + 1);
        // They came evenly, and waited from when they were due.
        let median_ns = values.value_at_quantile(0.5);
        assert!((4_900_000..5_100_000).contains(&median_ns), "{median_ns}");
    }
}
