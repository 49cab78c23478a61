//! Kernels in virtual machines as a source of rounds: one, or two whose rounds are interleaved.
//!
//! Both machines are up from the first round to the last and take turns within each round, in shuffled
//! order, so that a kernel before a patch and after it are judged like two cells of one run. A guest
//! that panics or hangs costs the row that it measured: it is left out, named with the last lines of
//! the guest's console, and the machine is booted again for the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::doctor::examine;
use cellbench_host::{Roots, Topology, describe};
use cellbench_impls::heap::HeapStats;
use cellbench_kernel::vm::protocol::{Answer, Hello, Request};
use cellbench_kernel::vm::{Engine, Guest, VmError};
use cellbench_record::{Finding, Host, Run, Series, Severity};

use super::revisions::{distinct, protocol::unpack};
use cellbench_measure::backend::{Backend, BackendError, Configuration, Measured, Pace};
use cellbench_measure::session::plan::{Block, Plan};

/// Time for which the host is watched for other tasks.
const WATCH: Duration = Duration::from_millis(500);
/// Estimate, before anything was measured, of what a round takes beside its window.
const OVERHEAD: Duration = Duration::from_millis(500);
/// Boots of one kernel, the first not counted, before the run ends: its rows are not the trouble then.
const REBOOTS: u32 = 16;

/// A source of answers to requests for rows: a guest, or a stand-in of a test.
pub trait Measures {
    /// Measures a row once.
    ///
    /// # Errors
    /// As [`Guest::measure`].
    fn measure(&mut self, request: &Request) -> Result<Answer, VmError>;
}

impl Measures for Guest {
    fn measure(&mut self, request: &Request) -> Result<Answer, VmError> {
        Guest::measure(self, request)
    }
}

/// Boots a kernel.
pub type Boot<'a> = Box<dyn FnMut() -> Result<(Box<dyn Measures>, Hello), VmError> + 'a>;

/// A row of one kernel.
#[derive(Clone, Debug)]
pub struct Spec {
    series: Series,
    cpus: Vec<CpuId>,
    side: usize,
    /// Index among the rows of the side's guest.
    row: u32,
    /// Name of the row.
    name: String,
}

impl Configuration for Spec {
    fn series(&self) -> &Series {
        &self.series
    }

    fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }
}

/// A kernel and the machine that runs it, while it does.
struct Side<'a> {
    label: String,
    hello: Hello,
    boot: Boot<'a>,
    guest: Option<Box<dyn Measures>>,
    reboots: u32,
}

/// Virtual machines as a source of rounds.
pub struct Machines<'a> {
    sides: Vec<Side<'a>>,
    engine: Engine,
    topology: &'a Topology,
    /// The host's CPUs that the machines' are pinned to.
    cpus: CpuSet,
    host: Host,
    findings: Vec<Finding>,
    /// Guests that ended, a sentence each.
    ends: Vec<String>,
    /// Time that rounds took beside their windows, and their number.
    overhead: (Duration, u32),
}

impl<'a> Machines<'a> {
    /// Boots one kernel, or two to be compared, the first of them the one before the change, and plans
    /// the rows `wanted` of what they, or both of them, have.
    ///
    /// # Errors
    /// [`VmError`] if a kernel does not come up, or two have no row in common.
    pub fn boot(
        boots: Vec<Boot<'a>>,
        engine: Engine,
        topology: &'a Topology,
        cpus: &[CpuId],
        wanted: &dyn Fn(&Series) -> bool,
    ) -> Result<(Self, Plan<Spec>), VmError> {
        let mut sides = Vec::new();
        for mut boot in boots {
            let (guest, hello) = boot()?;
            let label = hello.release.clone();
            sides.push(Side { label, hello, boot, guest: Some(guest), reboots: 0 });
        }
        if let [old, new] = sides.as_mut_slice() {
            [old.label, new.label] = distinct([old.label.clone(), new.label.clone()]);
        }
        let plan = plan(&sides, engine, cpus, wanted)?;
        let cpus: CpuSet = cpus.iter().copied().collect();
        let host = describe::describe(&Roots::live(), topology, &cpus);
        let (findings, ends) = (Vec::new(), Vec::new());
        let overhead = (OVERHEAD, 1);
        Ok((Self { sides, engine, topology, cpus, host, findings, ends, overhead }, plan))
    }

    /// Returns the labels of the kernels, as the table has them.
    #[must_use]
    pub fn labels(&self) -> Vec<&str> {
        self.sides.iter().map(|side| side.label.as_str()).collect()
    }

    /// Asks a side's guest, which is booted again if it is gone.
    fn ask(&mut self, spec: &Spec, request: &Request) -> Result<Answer, BackendError> {
        let side = &mut self.sides[spec.side];
        let mut guest = match side.guest.take() {
            Some(guest) => guest,
            None => {
                let (guest, hello) = (side.boot)().map_err(BackendError::failed)?;
                if hello.rows != side.hello.rows {
                    let what = format!("has other rows than before ({})", side.label);
                    return Err(BackendError::failed(VmError::Refused { what }));
                }
                guest
            }
        };
        match guest.measure(request) {
            Ok(answer) => {
                side.guest = Some(guest);
                Ok(answer)
            }
            Err(error) => {
                side.reboots += 1;
                if side.reboots > REBOOTS {
                    return Err(BackendError::failed(error));
                }
                self.ends.push(format!("{} ({}): {error}", spec.name, side.label));
                let for_good = !matches!(error, VmError::Gone { by_itself: false, .. });
                let what = format!("{} ({})", spec.name, side.label);
                Err(BackendError::LeftOut { what, reason: error.to_string(), for_good })
            }
        }
    }

    fn measure_one(
        &mut self,
        spec: &Spec,
        window: Duration,
        seed: u64,
    ) -> Result<Measured, BackendError> {
        let began = Instant::now();
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let answer = self.ask(spec, &Request { row: spec.row, window_ns, seed })?;
        self.overhead.0 += began.elapsed().saturating_sub(window);
        self.overhead.1 += 1;
        let left_out = |reason, for_good| BackendError::LeftOut {
            what: format!("{} ({})", spec.name, self.sides[spec.side].label),
            reason,
            for_good,
        };
        match answer {
            Answer::Measured(mut round, packed) => {
                let latencies = unpack(packed).map_err(|what| left_out(what, true))?;
                round.series = spec.series.clone();
                // The guest's processors are pinned to these.
                round.cpus = spec.cpus.iter().map(|cpu| cpu.0).collect();
                for (thread, cpu) in round.per_thread.iter_mut().zip(&spec.cpus) {
                    thread.cpu = cpu.0;
                }
                let objects = HeapStats { allocated: 0, freed: 0 };
                Ok(Measured { round: *round, latencies, objects })
            }
            Answer::LeftOut { reason, for_good } => Err(left_out(reason, for_good)),
        }
    }
}

/// Plans what one kernel has, or what both have.
fn plan(
    sides: &[Side<'_>],
    engine: Engine,
    cpus: &[CpuId],
    wanted: &dyn Fn(&Series) -> bool,
) -> Result<Plan<Spec>, VmError> {
    let mut plan = Plan { blocks: Vec::new(), skipped: Vec::new() };
    // What is compared: rows of one name, layout and number of threads, whatever the cell is called.
    let mut blocks: BTreeMap<(usize, Series), Vec<Spec>> = BTreeMap::new();
    for (side, of) in sides.iter().enumerate() {
        for (row, info) in (0..).zip(&of.hello.rows) {
            if !wanted(&info.series) {
                continue;
            }
            let mut series = info.series.clone();
            series.machine = Some(engine.name().to_owned());
            if sides.len() > 1 {
                // The same lock is called the same; the same cell need not be.
                series.workload = format!("{}/{}", info.name, series.workload);
                series.cell.clone_from(&of.label);
            }
            let key = series.with_cell("");
            let first = sides[0].hello.rows.iter().position(|other| other.name == info.name);
            let place = (first.unwrap_or(usize::MAX), key);
            let cpus = cpus.iter().copied().take(info.cpus.len()).collect();
            let spec = Spec { series, cpus, side, row, name: info.name.clone() };
            blocks.entry(place).or_default().push(spec);
        }
        let skipped = of.hello.skipped.iter();
        plan.skipped.extend(skipped.map(|(row, why)| format!("{row} ({}): {why}", of.label)));
    }
    for specs in blocks.into_values() {
        if sides.len() > 1 && specs.len() != sides.len() {
            let has = &sides[specs[0].side].label;
            plan.skipped.push(format!("{}: only {has} has it", specs[0].series.workload));
            continue;
        }
        plan.blocks.push(Block { specs, surveyed: false });
    }
    plan.skipped.sort();
    plan.skipped.dedup();
    if plan.is_empty() {
        let what = plan.skipped.first().map_or("no row that was asked for", String::as_str);
        return Err(VmError::Refused { what: format!("nothing to measure: {what}") });
    }
    Ok(plan)
}

impl Backend for Machines<'_> {
    type Spec = Spec;

    fn pace(&self) -> Pace {
        Pace::Interleaved
    }

    fn prepare(&mut self, _: Option<Duration>) -> Result<(), BackendError> {
        self.findings = match self.engine {
            Engine::Kvm => examine(self.topology, &self.cpus, WATCH),
            Engine::Instructions => vec![instructions()],
        };
        Ok(())
    }

    fn describe(&self, run: &mut Run) {
        run.host = self.host.clone();
        run.findings.clone_from(&self.findings);
        for side in &self.sides {
            let evidence = side.hello.evidence.join(", ");
            let label = &side.label;
            run.notes.push(format!("{label}: Linux {} in QEMU: {evidence}", side.hello.release));
            if side.hello.jit == Some(false) {
                run.notes.push(format!("{label}: BPF programs are interpreted"));
            }
        }
        run.notes.extend(self.ends.iter().cloned());
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

/// Finds that instructions stand in the place of time.
fn instructions() -> Finding {
    Finding {
        id: "instructions".to_owned(),
        severity: Severity::Info,
        text: "the machines are emulated: a nanosecond of their clock is an instruction".to_owned(),
        effect: "rates and ratios are of instructions executed, not of time".to_owned(),
        fix: "a host with KVM, without --instructions".to_owned(),
    }
}

#[cfg(test)]
mod tests;
