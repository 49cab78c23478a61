//! How fast simulations are: what was simulated, and in how much processor time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cellbench_record::SimulationSpeed;
use cellbench_sim::Report;
use rustix::time::{ClockId, clock_gettime};

/// Counts simulations of any number of threads.
#[derive(Debug, Default)]
pub struct Meter {
    accesses: AtomicU64,
    spin_loads: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Meter {
    /// Runs a simulation and counts it, if it has a report.
    pub fn measure<E>(&self, simulation: impl FnOnce() -> Result<Report, E>) -> Result<Report, E> {
        let before = thread_time();
        let result = simulation();
        let took = thread_time().saturating_sub(before);
        // Relaxed: read when all simulations have been joined.
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if let Ok(report) = &result {
            self.accesses.fetch_add(report.totals.accesses(), Ordering::Relaxed);
            self.spin_loads.fetch_add(report.totals.spin_loads, Ordering::Relaxed);
        }
        result
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn speed(&self) -> SimulationSpeed {
        // Relaxed: as above.
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SimulationSpeed {
            accesses: count(&self.accesses),
            spin_loads: count(&self.spin_loads),
            processor_s: count(&self.nanoseconds) as f64 / 1e9,
        }
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // A processor time is not negative.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Says how fast simulations were, for whoever waited for them.
#[must_use]
pub fn describe(speed: &SimulationSpeed) -> String {
    let SimulationSpeed { accesses, spin_loads, processor_s } = *speed;
    let millions = |count: u64| count as f64 / 1e6;
    let rate = |count: u64| millions(count) / processor_s.max(1e-9);
    format!(
        "{:.1} M accesses simulated in {processor_s:.1} s of processor time: {:.1} M/s; with \
         {:.0} M loads of spinning cores {:.1} M/s",
        millions(accesses),
        rate(accesses),
        millions(spin_loads),
        rate(accesses + spin_loads),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_said_with_and_without_spinning() {
        let speed =
            SimulationSpeed { accesses: 30_000_000, spin_loads: 270_000_000, processor_s: 3.0 };
        assert_eq!(
            describe(&speed),
            "30.0 M accesses simulated in 3.0 s of processor time: 10.0 M/s; with 270 M loads of \
             spinning cores 100.0 M/s"
        );
    }

    #[test]
    fn all_that_is_measured_counts_and_what_fails_takes_time_only() {
        let meter = Meter::default();
        let machine = cellbench_sim::MachineModel::preset("desktop").expect("built in");
        for _ in 0..2 {
            let word = cellbench_sim::SimU64::new("word", 0);
            let code = move || {
                for _ in 0..100 {
                    word.fetch_add(1, Ordering::Relaxed);
                }
            };
            let mut simulation = cellbench_sim::Simulation::new(&machine, 1);
            simulation.spawn(0, code).expect("core 0 exists");
            meter.measure(|| simulation.run()).expect("it runs");
        }
        assert!(meter.measure(|| Err::<Report, ()>(())).is_err());
        let speed = meter.speed();
        assert_eq!((speed.accesses, speed.spin_loads), (200, 0));
        assert!(speed.processor_s > 0.0);
    }
}
