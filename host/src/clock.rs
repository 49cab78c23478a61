//! Time by the CPU's own invariant counter: `rdtsc` on x86-64, `cntvct_el0` on AArch64.
//!
//! The counter is read through `quanta`, which also tells whether the CPU has an invariant one and
//! falls back to `CLOCK_MONOTONIC` where it has not. What `quanta` leaves to its user is done
//! here:
//! - **Order.** A bare counter read is not ordered with its neighbours and may drift into or out
//!   of a short operation. [`Clock::start`] and [`Clock::stop`] are fenced on both sides (Intel SDM
//!   vol. 2, RDTSC: LFENCE before, so that all earlier instructions have executed, and after, so
//!   that no later one has begun; Linux makes LFENCE dispatch-serialising on AMD too; on ARM, ISB).
//! - **Scale.** The tick length is measured against `CLOCK_MONOTONIC` with each endpoint taken in
//!   the tightest of many brackets, which a preemption cannot bias, and compared with `quanta`'s.
//! - **Cost.** What a timestamp costs is measured and reported, never subtracted.

use std::time::Duration;

/// Span over which the tick length is measured. An endpoint is good to about 50 ns, hence the
/// tick to about 5 ppm.
const CALIBRATION_SPAN: Duration = Duration::from_millis(20);
/// Attempts to take counter and reference together; the tightest counts.
const BRACKETS: usize = 200;

/// A reading of the counter, in ticks of the [`Clock`] that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

/// Source of the clock's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The CPU's invariant counter.
    InvariantCounter,
    /// `CLOCK_MONOTONIC`: the CPU has no invariant counter. One tick is a nanosecond.
    Monotonic,
}

/// The clock every latency is taken with. Cheap to clone; clones agree.
#[derive(Clone, Debug)]
pub struct Clock {
    counter: quanta::Clock,
    source: Source,
    ns_per_tick: f64,
}

/// Cost of reading the clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimestampCost {
    /// Median length of an interval with nothing in it: contained in every latency sample.
    pub empty_interval_ns: f64,
    /// Throughput lost to a start and a stop together, as nanoseconds for each pair.
    pub pair_ns: f64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Detects and calibrates: about 20 ms, the first time up to 200 ms more for `quanta`.
    #[must_use]
    pub fn new() -> Self {
        let counter = quanta::Clock::new();
        // `quanta` does not say what it reads; only the fallback shows the system clock's value.
        let before = monotonic_ns();
        let reading = counter.raw();
        let source = if (before..=monotonic_ns()).contains(&reading) {
            Source::Monotonic
        } else {
            Source::InvariantCounter
        };
        let ns_per_tick = match source {
            Source::Monotonic => 1.0,
            Source::InvariantCounter => measure_tick_ns(&counter),
        };
        Self { counter, source, ns_per_tick }
    }

    /// Returns what this clock reads.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns the length of a tick.
    #[must_use]
    pub fn ns_per_tick(&self) -> f64 {
        self.ns_per_tick
    }

    /// Returns by how much `quanta`'s own calibration differs from this one, in parts per million: a
    /// cross-check of two methods on one counter. Beyond some hundred, suspect the host's clocks.
    #[must_use]
    pub fn calibration_difference_ppm(&self) -> f64 {
        let span_ticks = 1_u64 << 40;
        let theirs = self.counter.delta_as_nanos(0, span_ticks) as f64 / span_ticks as f64;
        (theirs / self.ns_per_tick - 1.0).abs() * 1e6
    }

    /// Returns the time without any ordering: for stopping loops and windows, not for short
    /// operations.
    #[inline(always)]
    #[must_use]
    pub fn now(&self) -> Ticks {
        Ticks(self.counter.raw())
    }

    /// Returns the time before an operation: everything earlier has executed, the operation has
    /// not begun.
    #[inline(always)]
    #[must_use]
    pub fn start(&self) -> Ticks {
        self.serialised()
    }

    /// Returns the time after an operation: it has executed, nothing later has begun.
    ///
    /// A plain store may still wait in the store buffer, as it would for its own core; an atomic
    /// read-modify-write on x86 may not.
    #[inline(always)]
    #[must_use]
    pub fn stop(&self) -> Ticks {
        self.serialised()
    }

    #[inline(always)]
    fn serialised(&self) -> Ticks {
        fence();
        let ticks = self.counter.raw();
        fence();
        Ticks(ticks)
    }

    /// Returns the time from `start` to `stop` in nanoseconds; 0 if the counter went backwards
    /// between CPUs.
    #[inline]
    #[must_use]
    pub fn elapsed_ns(&self, start: Ticks, stop: Ticks) -> f64 {
        stop.0.saturating_sub(start.0) as f64 * self.ns_per_tick
    }

    /// Returns the number of ticks that last `duration`, rounded down.
    #[must_use]
    pub fn ticks(&self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.ns_per_tick) as u64
    }

    /// Measures what timestamps cost on the CPU this thread runs on; takes about a millisecond.
    #[must_use]
    pub fn timestamp_cost(&self) -> TimestampCost {
        const SAMPLES: usize = 10_000;
        let mut intervals = vec![0.0; SAMPLES];
        let begin = self.start();
        for interval in &mut intervals {
            let start = self.start();
            let stop = self.stop();
            *interval = self.elapsed_ns(start, stop);
        }
        let pair_ns = self.elapsed_ns(begin, self.stop()) / SAMPLES as f64;
        TimestampCost { empty_interval_ns: median(&mut intervals), pair_ns }
    }
}

/// Keeps instructions on their side of a counter read.
#[inline(always)]
fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: LFENCE is part of SSE2, which every x86-64 CPU has; it only orders.
    unsafe {
        std::arch::x86_64::_mm_lfence();
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: ISB touches neither registers nor memory. The compiler must take it for a memory
    // access, or it would move the operation across, so it is not marked `nomem`.
    unsafe {
        std::arch::asm!("isb", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Returns the median of a non-empty slice, which is reordered; of an even number the upper of the
/// middle two.
pub fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Reads counter and system clock at the same moment, within half the width of the tightest bracket.
fn together(counter: &quanta::Clock) -> (u64, f64) {
    let bracket = |_| {
        let before = monotonic_ns();
        let ticks = counter.raw();
        let after = monotonic_ns();
        (after - before, ticks, before)
    };
    let (width_ns, ticks, before) = (0..BRACKETS).map(bracket).min().expect("BRACKETS is not zero");
    (ticks, before as f64 + width_ns as f64 / 2.0)
}

fn measure_tick_ns(counter: &quanta::Clock) -> f64 {
    let (start_ticks, start_ns) = together(counter);
    let span_ns = CALIBRATION_SPAN.as_nanos() as u64;
    let end_ns = monotonic_ns() + span_ns;
    while monotonic_ns() < end_ns {
        std::hint::spin_loop();
    }
    let (stop_ticks, stop_ns) = together(counter);
    (stop_ns - start_ns) / (stop_ticks - start_ticks) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_is_that_of_the_system_clock() {
        let clock = Clock::new();
        let before_ns = monotonic_ns();
        let start = clock.start();
        let inner_before_ns = monotonic_ns();
        while monotonic_ns() < inner_before_ns + 2_000_000 {
            std::hint::spin_loop();
        }
        let inner_after_ns = monotonic_ns();
        let stop = clock.stop();
        let after_ns = monotonic_ns();
        let elapsed_ns = clock.elapsed_ns(start, stop);
        // Bounded from both sides by the system clock, however long a preemption lasts; 0.1 % and
        // a microsecond for the calibration.
        let (least, most) =
            ((inner_after_ns - inner_before_ns) as f64, (after_ns - before_ns) as f64);
        assert!(elapsed_ns >= least * 0.999 - 1e3, "{elapsed_ns} of at least {least}");
        assert!(elapsed_ns <= most * 1.001 + 1e3, "{elapsed_ns} of at most {most}");
        assert_eq!(clock.elapsed_ns(stop, start), 0.0);
    }

    #[test]
    fn ticks_and_nanoseconds_convert_both_ways() {
        let clock = Clock::new();
        let ticks = clock.ticks(Duration::from_millis(1));
        let ns = clock.elapsed_ns(Ticks(0), Ticks(ticks));
        assert!((ns - 1e6).abs() <= clock.ns_per_tick(), "{ns}");
    }

    #[test]
    fn a_timestamp_costs_something_and_intervals_contain_part_of_it() {
        let cost = Clock::new().timestamp_cost();
        assert!(cost.pair_ns > 0.0);
        assert!(cost.empty_interval_ns >= 0.0);
    }

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(median(&mut [5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 3.0);
        assert_eq!(median(&mut [7.0]), 7.0);
    }
}
