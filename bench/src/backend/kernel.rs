//! Rounds on the running kernel's own cells and locks, through BPF.

use std::time::{Duration, Instant};

use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::doctor::examine;
use cellbench_host::{Placement, Roots, Topology, describe};
use cellbench_impls::heap::HeapStats;
use cellbench_kernel::{Configuration as Measurable, Error, KernelInfo, Layout, Row, Sampler};
use cellbench_record::{Finding, Host, Run, Series, Severity};

use cellbench_measure::backend::{Backend, BackendError, Configuration, Measured, Pace};
use cellbench_measure::session::plan::{Block, Plan};

/// Time for which the host is watched for other tasks.
const WATCH: Duration = Duration::from_millis(500);
/// Estimate, before anything was measured, of loading a row and checking it.
const OVERHEAD: Duration = Duration::from_millis(20);

/// A row of the kernel in a layout on some CPUs.
#[derive(Clone, Debug)]
pub struct Spec {
    series: Series,
    cpus: Vec<CpuId>,
    configuration: Measurable,
}

impl Configuration for Spec {
    fn series(&self) -> &Series {
        &self.series
    }

    fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }
}

/// Plans `rows` with these numbers of threads; what is compared makes a block.
///
/// # Errors
/// [`Error::Plan`] if a number of threads cannot be.
pub fn plan(
    rows: Vec<Row>,
    threads: Vec<u32>,
    cpus: &[CpuId],
    placement: Placement,
) -> Result<Plan<Spec>, Error> {
    let plan = cellbench_kernel::Plan {
        rows,
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads,
        cpus: cpus.iter().map(|cpu| cpu.0).collect(),
    };
    let (configurations, skipped) = plan.configurations()?;
    let mut blocks: Vec<Block<Spec>> = Vec::new();
    for configuration in configurations {
        let series = configuration.series(placement.name());
        let cpus = configuration.cpus.iter().copied().map(CpuId).collect();
        let spec = Spec { series, cpus, configuration };
        let same = |block: &&mut Block<Spec>| {
            block.specs[0].series.with_cell("") == spec.series.with_cell("")
        };
        match blocks.iter_mut().find(same) {
            Some(block) => block.specs.push(spec),
            None => blocks.push(Block { specs: vec![spec], surveyed: false }),
        }
    }
    let skipped = skipped.into_iter().map(|(row, reason)| format!("{row}: {reason}")).collect();
    Ok(Plan { blocks, skipped })
}

/// The running kernel as a source of rounds.
pub struct RunningKernel<'a> {
    info: &'a KernelInfo,
    topology: &'a Topology,
    cpus: CpuSet,
    placement: Placement,
    host: Host,
    findings: Vec<Finding>,
    sampler: Sampler,
    /// Time that measurements took beside their windows, and their number.
    overhead: (Duration, u32),
}

impl<'a> RunningKernel<'a> {
    /// Prepares measurements on `cpus`.
    #[must_use]
    pub fn new(
        info: &'a KernelInfo,
        topology: &'a Topology,
        cpus: &[CpuId],
        placement: Placement,
        seed: u64,
    ) -> Self {
        let cpus: CpuSet = cpus.iter().copied().collect();
        Self {
            info,
            topology,
            host: describe::describe(&Roots::live(), topology, &cpus),
            cpus,
            placement,
            findings: Vec::new(),
            sampler: Sampler::new(true, seed),
            overhead: (OVERHEAD, 1),
        }
    }

    fn measure_one(
        &mut self,
        spec: &Spec,
        window: Duration,
        seed: u64,
    ) -> Result<Measured, BackendError> {
        let began = Instant::now();
        let result = self.sampler.measure(&spec.configuration, window, seed);
        self.overhead.0 += began.elapsed().saturating_sub(window);
        self.overhead.1 += 1;
        let result = result.map_err(|error| left_out(spec, &error))?;
        let latencies = result
            .latency
            .iter()
            .map(|(op, histogram)| ((*op).to_owned(), histogram.to_hdr()))
            .collect();
        let round = result.to_round(self.placement.name());
        Ok(Measured { round, latencies, objects: HeapStats { allocated: 0, freed: 0 } })
    }
}

/// Returns an error belongs to one row, which is left out; the others go on.
fn left_out(spec: &Spec, error: &Error) -> BackendError {
    // Memory may be back in the next round.
    let for_good = !matches!(error, Error::Prepare { .. });
    let reason = match error {
        Error::Unsupported { reason, .. } => reason.clone(),
        error => error.to_string(),
    };
    BackendError::LeftOut { what: spec.configuration.row.name(), reason, for_good }
}

impl Backend for RunningKernel<'_> {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn prepare(&mut self, _: Option<Duration>) -> Result<(), BackendError> {
        self.findings = examine(self.topology, &self.cpus, WATCH);
        if self.info.jit == Some(false) {
            self.findings.insert(0, interpreted());
        }
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        run.host = self.host.clone();
        run.findings.clone_from(&self.findings);
        let evidence = self.info.cells.evidence.iter();
        run.notes.extend(evidence.map(|member| format!("the kernel's cells: {member}")));
    }

    fn cost(&self, _: &Spec, window: Duration) -> Duration {
        window + self.overhead.0 / self.overhead.1
    }

    fn measure(
        &mut self,
        batch: &[&Spec],
        window: Duration,
        seed: u64,
    ) -> Result<Vec<Measured>, BackendError> {
        batch.iter().map(|spec| self.measure_one(spec, window, seed)).collect()
    }
}

/// Finds that the JIT is off.
fn interpreted() -> Finding {
    Finding {
        id: "bpf-jit".to_owned(),
        severity: Severity::Unfit,
        text: "BPF programs are interpreted".to_owned(),
        effect: "the loops measure the interpreter, not the kernel's cells".to_owned(),
        fix: "as root: sysctl net.core.bpf_jit_enable=1".to_owned(),
    }
}
