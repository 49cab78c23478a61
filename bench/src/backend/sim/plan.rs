//! Which configurations can be simulated, and on which hardware threads of the machine.
//!
//! Names, numbers of threads and placements mean what they mean on a real host: a simulated machine
//! has a topology like any other.

use cellbench_record::Source;
use cellbench_sim::MachineModel;
use cellbench_workloads::EngineNeed;
use cellbench_workloads::registry::WORKLOADS;

use cellbench_host::cpus::{CpuId, CpuSet};
use cellbench_host::topology::{CoreKind, Cpu, Topology};
use cellbench_measure::session::plan::Spec;
use cellbench_measure::session::plan::{Matrix, Plan, PlanError, Selection};
use cellbench_measure::session::subject::Reclaim;

/// Most threads in workloads whose deadlocks end by timeouts, milliseconds of looking at the clock.
const MOST_IN_DEADLOCK: u32 = 8;
/// Workloads of the quick matrix: with one row a design under contention and one without, ten rounds
/// decide all comparisons, in seconds.
const QUICK: &[&str] = &["same-cell-retry", "solo-set"];

/// Returns the hardware threads of a machine, all usable.
#[must_use]
pub fn topology(machine: &MachineModel) -> Topology {
    let places = machine.places();
    let cpus: Vec<Cpu> = places
        .iter()
        .enumerate()
        .map(|(number, place)| Cpu {
            id: CpuId(number as u32),
            package: Some(place.socket),
            die: Some(place.socket),
            llc: Some(place.llc),
            core: place.core,
            smt_index: places[..number].iter().filter(|other| other.core == place.core).count()
                as u32,
            numa_node: Some(place.socket),
            kind: CoreKind::Performance,
        })
        .collect();
    let usable: CpuSet = cpus.iter().map(|cpu| cpu.id).collect();
    Topology { cpus, offline: CpuSet::new(), usable, quota: None }
}

/// Works out what a selection means on a simulated machine. What cannot be simulated is left out,
/// and noted.
///
/// # Errors
/// [`PlanError`] for names and numbers that are not there, or if nothing is left.
pub fn plan(selection: &Selection, machine: &MachineModel) -> Result<Plan, PlanError> {
    let mut plan = Plan::new(selection, &topology(machine))?;
    if selection.matrix == Matrix::Quick && selection.workloads.is_empty() {
        plan.blocks.retain(|block| QUICK.contains(&block.specs[0].workload));
    }
    let mut notes = Vec::new();
    for block in &mut plan.blocks {
        block.specs.retain(|spec| match obstacle(spec) {
            None => true,
            Some(why) => {
                notes.push(why);
                false
            }
        });
        for spec in &mut block.specs {
            spec.series.source = Source::Sim;
            spec.series.machine = Some(machine.name.clone());
        }
    }
    plan.blocks.retain(|block| !block.specs.is_empty());
    plan.skipped.extend(notes);
    plan.skipped.sort();
    plan.skipped.dedup();
    if plan.is_empty() {
        return Err(PlanError::Nothing { reasons: plan.skipped.join("; ") });
    }
    Ok(plan)
}

/// Returns why a configuration is not simulated; none if it is.
fn obstacle(spec: &Spec) -> Option<String> {
    let (cell, workload, needs) = (&spec.subject.name, spec.workload, spec.needs);
    if workload == "empty" {
        return Some("empty: the simulated harness takes no time".to_owned());
    }
    let ends_by_timeout = WORKLOADS.iter().any(|entry| entry.id == workload && entry.fallible_only);
    if ends_by_timeout && spec.series.threads > MOST_IN_DEADLOCK {
        return Some(format!(
            "{workload} with more than {MOST_IN_DEADLOCK} threads: simulating its timeouts takes minutes"
        ));
    }
    if spec.subject.is_peer() {
        return Some(format!("{cell}: code of others, which runs on real cores only"));
    }
    if spec.subject.reclaim == Reclaim::Epoch {
        return Some(format!("{cell}: crossbeam-epoch runs on real cores only"));
    }
    if spec.series.offered_ops_s.is_some() {
        return Some(format!("{workload} at a rate: simulated workers are a closed loop"));
    }
    if spec.engine == EngineNeed::Live {
        return Some(format!("{workload}: its callbacks run, which is not simulated"));
    }
    if !needs.interrupts.is_empty() || needs.stalls {
        return Some(format!("{workload}: its interruptions are measured on real cores only"));
    }
    (needs.workers_per_cpu > 1)
        .then(|| format!("{workload}: workers that share a CPU are measured on real cores only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellbench_measure::session::budget;

    fn xeon() -> MachineModel {
        MachineModel::preset("xeon-spr-2s").expect("built in")
    }

    #[test]
    fn a_simulated_machine_has_a_topology_like_any_other() {
        let topology = topology(&xeon());
        assert_eq!(
            (topology.packages(), topology.cores(), topology.cpus.len()),
            (Some(2), 112, 224)
        );
        assert_eq!(topology.cpus[112].core, 0);
        assert_eq!(topology.cpus[112].smt_index, 1);
    }

    #[test]
    fn the_quick_matrix_is_decided_by_the_least_rounds_there_are() {
        let plan = plan(&Selection::of(Matrix::Quick), &xeon()).unwrap();
        let workloads: Vec<_> = plan.blocks.iter().map(|block| block.specs[0].workload).collect();
        assert!(QUICK.iter().all(|quick| workloads.contains(quick)), "{workloads:?}");
        assert_eq!(budget::least_to_decide(&plan), 10);
    }

    #[test]
    fn what_is_left_runs_on_virtual_cores_and_the_rest_is_named() {
        let plan = plan(&Selection::of(Matrix::Full), &xeon()).expect("something is left");
        assert!(plan.specs().all(|spec| spec.series.source == Source::Sim
            && spec.series.machine.as_deref() == Some("xeon-spr-2s")
            && spec.engine == EngineNeed::Count));
        for left_out in ["churn-live", "nmi", "parking-lot"] {
            assert!(plan.skipped.iter().any(|note| note.contains(left_out)), "{left_out}");
        }
        assert_eq!(plan.specs().map(|spec| spec.series.threads).max(), Some(224));
    }
}
