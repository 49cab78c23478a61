//! The limits of the ruler: the least that things can cost on this host, measured with the clock
//! the results are measured with.
//!
//! A cell's number is read against these: nothing takes less than an empty turn of the loop, no
//! atomic less than an uncontended one, and no contended operation that must own a line less than
//! the transfer of that line.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::c2c::{self, C2cError, Effort, Matrix, Method};
use super::clock::{Clock, TimestampCost, median};
use super::cpus::CpuId;
use super::pin::{PinError, pin};
use super::threads::together;

/// Repetitions of each measurement, of which the median counts.
const SAMPLES: usize = 101;
/// Operations in a repetition: at a nanosecond each still 500 times the cost of a timestamp.
const OPS: u64 = 10_000;

/// Least costs of things on a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Reading the clock.
    pub timestamp: TimestampCost,
    /// One turn of a loop around nothing that the compiler may not remove.
    pub empty_op_ns: f64,
    /// One atomic read-modify-write (fetch-add) on a line the core owns, each after the last.
    pub uncontended_rmw_ns: f64,
    /// One fetch-add while a second core does nothing but the same, per operation of the pair:
    /// the reciprocal of their combined throughput. `None` on one CPU.
    pub contended_rmw_ns: Option<f64>,
    /// Core-to-core latency by compare-exchange; its median is the price of a line transfer.
    pub transfers: Matrix,
}

impl Limits {
    /// Returns one transfer of a modified line, one way, median over the pairs; `None` on one CPU.
    #[must_use]
    pub fn line_transfer_ns(&self) -> Option<f64> {
        self.transfers.median_ns()
    }

    /// Returns the limits for a record, with the matrix. A timestamp is half of a start and a stop.
    #[must_use]
    pub fn to_record(&self) -> cellbench_record::Calibration {
        cellbench_record::Calibration {
            timestamp_ns: Some(self.timestamp.pair_ns / 2.0),
            empty_op_ns: Some(self.empty_op_ns),
            uncontended_atomic_ns: Some(self.uncontended_rmw_ns),
            line_transfer_ns: self.line_transfer_ns(),
            core_to_core: vec![self.transfers.to_record()],
            ..cellbench_record::Calibration::default()
        }
    }
}

/// Measures on `cpus`, the ones a run will use; the contended pair is the first two. Pairs of CPUs whose
/// turn had not come after `pairs_time` are without a figure. The calling thread's affinity is left alone.
///
/// # Errors
/// [`C2cError`] if a CPU repeats or cannot be pinned to.
///
/// # Panics
/// If `cpus` is empty.
pub fn measure(
    cpus: &[CpuId],
    effort: Effort,
    clock: &Clock,
    pairs_time: Duration,
) -> Result<Limits, C2cError> {
    let &first = cpus.first().expect("limits are measured on at least one CPU");
    let alone = together(1, |_| {
        pin(first)?;
        let counter = AtomicU64::new(0);
        Ok::<_, PinError>((
            clock.timestamp_cost(),
            per_op_ns(clock, || {
                black_box(());
            }),
            // Relaxed: only the cost of the instruction matters, nothing is published.
            per_op_ns(clock, || {
                black_box(counter.fetch_add(1, Ordering::Relaxed));
            }),
        ))
    });
    let (timestamp, empty_op_ns, uncontended_rmw_ns) = alone.map_err(PinError::from)?.remove(0)?;
    let contended_rmw_ns = match *cpus {
        [a, b, ..] if a != b => Some(contended(a, b, clock)?),
        _ => None,
    };
    let began = Instant::now();
    let method = Method::CompareExchange;
    let in_time = &mut |_, _| began.elapsed() < pairs_time;
    let transfers = c2c::measure_while(cpus, method, effort, clock, in_time)?;
    Ok(Limits { timestamp, empty_op_ns, uncontended_rmw_ns, contended_rmw_ns, transfers })
}

fn per_op_ns(clock: &Clock, op: impl Fn()) -> f64 {
    let mut samples = [0.0; SAMPLES];
    for sample in &mut samples {
        let start = clock.start();
        for _ in 0..OPS {
            op();
        }
        *sample = clock.elapsed_ns(start, clock.stop()) / OPS as f64;
    }
    median(&mut samples)
}

/// Lets two cores add to one word: `a` times its batches while `b` adds all along, and what `b` did in
/// the same batch is counted with it.
fn contended(a: CpuId, b: CpuId, clock: &Clock) -> Result<f64, C2cError> {
    #[derive(Default)]
    #[repr(align(128))]
    struct Alone<T>(T);
    let word = Alone(AtomicU64::new(0));
    let stop = Alone(AtomicBool::new(false));
    let meeting = Barrier::new(2);
    let rival = || {
        let pinned = pin(b);
        meeting.wait();
        // Relaxed: `stop` only ends the loop; the join orders everything after it.
        while pinned.is_ok() && !stop.0.load(Ordering::Relaxed) {
            for _ in 0..64 {
                word.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        pinned.map(|()| 0.0)
    };
    let timer = || {
        let pinned = pin(a);
        meeting.wait();
        let mut samples = [0.0; SAMPLES];
        if pinned.is_ok() {
            for sample in &mut samples {
                let (start, before) = (clock.start(), word.0.load(Ordering::Relaxed));
                for _ in 0..OPS {
                    word.0.fetch_add(1, Ordering::Relaxed);
                }
                let (after, end) = (word.0.load(Ordering::Relaxed), clock.stop());
                *sample = clock.elapsed_ns(start, end) / (after - before) as f64;
            }
        }
        stop.0.store(true, Ordering::Relaxed);
        pinned.map(|()| median(&mut samples))
    };
    let sides = together(2, |side| if side == 0 { timer() } else { rival() });
    let sides: Result<Vec<f64>, PinError> = sides.map_err(PinError::from)?.into_iter().collect();
    Ok(sides?[0])
}
