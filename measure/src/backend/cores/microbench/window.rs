//! Steps of pinned CPUs in a window: what the microbenchmarks of a host are measured with.

use std::sync::Barrier;
use std::time::Duration;

use cellbench_host::cpus::CpuId;
use cellbench_host::pin::{PinError, pin};
use cellbench_host::threads::together;
use cellbench_host::{Clock, ThreadProbe};

/// Windows that are tried until one is undisturbed.
const TRIES: usize = 8;
/// Steps between two looks at the clock.
const CHUNK: u32 = 512;

/// The result of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// Nanoseconds for each step, all CPUs together: the reciprocal of their combined rate.
    pub(super) step_ns: f64,
    /// Whether a worker lost its CPU in it.
    pub(super) disturbed: bool,
}

/// Measures the steps of `batch` on all CPUs of `cpus` at once. A window in which a worker lost its
/// CPU is tried again, a few times. Each worker counts what it does in a window of its own, after a
/// quarter of it to warm up.
///
/// # Errors
/// [`PinError`] if a CPU cannot be used.
pub(super) fn measure(
    cpus: &[CpuId],
    clock: &Clock,
    window: Duration,
    batch: &(dyn Fn(usize, u32) + Sync),
) -> Result<Window, PinError> {
    let mut found = measure_once(cpus, clock, window, batch)?;
    for _ in 1..TRIES {
        if !found.disturbed {
            break;
        }
        found = measure_once(cpus, clock, window, batch)?;
    }
    Ok(found)
}

fn measure_once(
    cpus: &[CpuId],
    clock: &Clock,
    window: Duration,
    batch: &(dyn Fn(usize, u32) + Sync),
) -> Result<Window, PinError> {
    let meeting = Barrier::new(cpus.len());
    let window_ns = window.as_nanos() as f64;
    let warm_up_ns = window_ns / 4.0;
    let worker = |index: usize| {
        let pinned = pin(cpus[index]);
        meeting.wait();
        pinned?;
        let probe = ThreadProbe::start();
        let begin = clock.start();
        while clock.elapsed_ns(begin, clock.stop()) < warm_up_ns {
            batch(index, CHUNK);
        }
        let (start, mut steps) = (clock.start(), 0_u64);
        loop {
            batch(index, CHUNK);
            steps += u64::from(CHUNK);
            let elapsed_ns = clock.elapsed_ns(start, clock.stop());
            if elapsed_ns >= window_ns {
                // The others are to be counted with this one at work.
                while clock.elapsed_ns(start, clock.stop()) < window_ns + warm_up_ns {
                    batch(index, CHUNK);
                }
                return Ok((steps as f64 / elapsed_ns, probe.stop().lost_its_cpu(window)));
            }
        }
    };
    let found: Result<Vec<(f64, bool)>, PinError> =
        together(cpus.len(), worker)?.into_iter().collect();
    let found = found?;
    Ok(Window {
        step_ns: 1.0 / found.iter().map(|(rate, _)| rate).sum::<f64>(),
        disturbed: found.iter().any(|(_, disturbed)| *disturbed),
    })
}
