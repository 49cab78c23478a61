//! One cell under one workload, once: fresh memory, pinned workers, one window, then the check.

mod outcome;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cellbench_impls::machine::Charges;
use cellbench_impls::platform::{Native, NativeAudit, NativeEpoch, NativeLive};
use cellbench_record::Series;
use cellbench_workloads::{EngineNeed, Params, Trial};

use super::live::Drive;
use crate::backend::Measured;
use crate::session::plan::Spec;
use crate::session::subject::Reclaim;
use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::pin::PinError;
use cellbench_host::threads::NoThread;
use cellbench_host::topology::{Cpu, Topology};
use cellbench_host::{Clock, counters};

pub use outcome::counted;
use worker::Runner;

/// Between the last worker's arrival at the gate and the first step.
pub const LEAD: Duration = Duration::from_micros(20);
/// Stalls in the window of a workload that suspends a worker.
const STALLS_PER_WINDOW: u32 = 4;
/// A round that takes longer than its window by this much makes no progress any more.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Time before the window.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
    /// Whether latencies are sampled in the closed loop.
    pub sampled: bool,
    /// Turns of `Memory::spend` in a microsecond.
    pub turns_per_us: u32,
    /// Charges for what user space cannot do, in turns.
    pub charges: Charges,
    /// Interruptions of each worker and context a second; 0: as fast as they are handled, sent by
    /// another thread; none: what the workload says.
    pub interrupt_rate_hz: Option<u32>,
}

impl Conditions {
    /// Returns the window of `spec`: one that stalls needs several stalls' time.
    #[must_use]
    pub fn window_of(&self, spec: &Spec) -> Duration {
        if spec.needs.stalls {
            self.window.max(Duration::from_nanos(Params::new(1, 0).stall_ns) * STALLS_PER_WINDOW)
        } else {
            self.window
        }
    }
}

/// A round could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// A worker could not be placed.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The system has no thread left.
    #[error("{0}; or use fewer threads")]
    Spawn(NoThread),
    /// Workers could not be interrupted.
    #[error(
        "cannot set a timer that interrupts a worker: {0}; raise the limit of pending signals (ulimit -i) or leave out the workloads that interrupt"
    )]
    Interruptions(std::io::Error),
    /// Counters that were open could not be started or stopped.
    #[error("performance counters: {0}")]
    Counters(std::io::Error),
    /// The subject has no such workload.
    #[error("{cell} ({kind}) does not run under workload {workload}")]
    NoTrial {
        /// Cell or lock.
        cell: String,
        /// Its kind.
        kind: String,
        /// Workload by name.
        workload: &'static str,
    },
    /// Neither the end of the window nor an error ended the workers.
    #[error("{series}: no progress {} s after its window ended; the workers cannot be stopped", STUCK_AFTER.as_secs())]
    Stuck {
        /// Row that did not end.
        series: Box<Series>,
    },
}

/// Ends the process when workers do not come back: threads that spin for ever cannot be ended.
pub type OnStuck = Box<dyn Fn(RoundError) + Send + Sync>;

/// State that the rounds of a run share.
pub struct Bench {
    clock: Clock,
    on_stuck: OnStuck,
    /// Events to count on each CPU that is used.
    counters: BTreeMap<CpuId, counters::Plan>,
    /// The NUMA node of each CPU, for locks that prefer theirs; those that are not known are on node 0.
    nodes: BTreeMap<CpuId, u16>,
}

impl Bench {
    /// Prepares rounds on `cpus`. `on_stuck` is called when workers do not come back.
    #[must_use]
    pub fn new(clock: Clock, cpus: &CpuSet, on_stuck: OnStuck) -> Self {
        let roots = cellbench_host::Roots::live();
        let counters = cpus.iter().map(|cpu| (cpu, counters::Plan::full(&roots, cpu))).collect();
        Self { clock, on_stuck, counters, nodes: BTreeMap::new() }
    }

    /// Returns the same with the NUMA nodes of a host, as far as it says them.
    #[must_use]
    pub fn on_nodes_of(self, topology: &Topology) -> Self {
        let node = |cpu: &Cpu| Some((cpu.id, u16::try_from(cpu.numa_node?).ok()?));
        Self { nodes: topology.cpus.iter().filter_map(node).collect(), ..self }
    }

    /// Returns the NUMA node of each of these CPUs.
    fn nodes_of(&self, cpus: &[CpuId]) -> Vec<u16> {
        cpus.iter().map(|cpu| self.nodes.get(cpu).copied().unwrap_or_default()).collect()
    }

    /// Returns the clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Measures `spec` once. `seed` decides every random choice of the workload.
    ///
    /// A broken invariant or a panic is not an error but a result: the round says so.
    ///
    /// # Errors
    /// [`RoundError`] if the round did not take place.
    pub fn measure(
        &self,
        spec: &Spec,
        conditions: &Conditions,
        seed: u64,
    ) -> Result<Measured, RoundError> {
        let runner = Runner { bench: self, spec, conditions, seed };
        match (spec.engine, spec.subject.reclaim) {
            (EngineNeed::Live, _) => runner.run::<NativeLive>(),
            (EngineNeed::Count, Reclaim::Qsbr) => runner.run::<Native>(),
            (EngineNeed::Count, Reclaim::Epoch) => runner.run::<NativeEpoch>(),
        }
    }

    /// Measures as [`measure`](Self::measure) does, a trial that the caller built, whose freed memory is
    /// poisoned: what it shows is whether the cell is right, not how fast it is.
    ///
    /// # Errors
    /// [`RoundError`] if the round did not take place.
    pub fn audit(
        &self,
        spec: &Spec,
        conditions: &Conditions,
        seed: u64,
        trial: Arc<dyn Trial<NativeAudit>>,
    ) -> Result<Measured, RoundError> {
        Runner { bench: self, spec, conditions, seed }.run_trial(trial)
    }

    /// Returns how many CPUs of the machine a trial for [`audit`](Self::audit) needs beyond those of its `workers`.
    #[must_use]
    pub fn audit_extra_cpus(workers: u32) -> u32 {
        <NativeAudit as Drive>::extra_cpus(workers)
    }
}

/// Returns what a panic said.
pub fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::Bench;
    use cellbench_host::Clock;
    use cellbench_host::cpus::{CpuId, CpuSet};
    use cellbench_host::topology::Topology;

    #[test]
    fn workers_know_the_numa_nodes_that_the_host_says() {
        let mut topology = Topology::read().expect("a host that tests run on");
        let known = topology.cpus[0].id;
        topology.cpus[0].numa_node = Some(3);
        let bench = Bench::new(Clock::new(), &CpuSet::default(), Box::new(|_| ()));
        assert_eq!(bench.nodes_of(&[known]), [0], "not asked yet");
        let bench = bench.on_nodes_of(&topology);
        assert_eq!(bench.nodes_of(&[CpuId(u32::MAX), known]), [0, 3]);
    }
}
