//! Plan of what to measure: from names to blocks of comparable configurations.
//!
//! A block is what is compared with each other: the same workload on the same CPUs, every cell of
//! the kind. Cells of a block run one after the other in each round, in shuffled order.

mod selection;
mod shard;

use std::collections::BTreeSet;

use cellbench_impls::registry::CELLS;
use cellbench_record::{Kind, Series, Source};
use cellbench_workloads::EngineNeed;
use cellbench_workloads::registry::{Entry, WORKLOADS};

use cellbench_workloads::trial::Needs;

use super::subject::{self, Reclaim, Subject};
use crate::backend::Configuration;
use cellbench_host::cpus::CpuId;
use cellbench_host::placement::Placement;
use cellbench_host::topology::Topology;

use selection::most_threads;
pub use selection::{Matrix, PlanError, Selection, known_cells, known_workloads};
pub use shard::Shard;

/// Workloads that tell the generations apart: those of the headline matrix.
pub const HEADLINE: &[&str] = &[
    "solo-set",
    "solo-start",
    "same-cell-retry",
    "start-mostly-99",
    "churn",
    "map-zipf",
    "task-work",
    "lock-0ns",
];
/// Those of the quick matrix.
const QUICK: &[&str] = &["solo-set", "same-cell-retry", "start-mostly-99", "churn"];
/// Locks of the headline matrix: those of the kernel that a cell can have.
const HEADLINE_LOCKS: &[&str] = &["spin-tas", "spin-queued", "rqspin"];

/// A cell or lock under a workload on some CPUs.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The row of the table.
    pub series: Series,
    /// Cell or lock.
    pub subject: Subject,
    /// Workload, by name.
    pub workload: &'static str,
    /// Engine that the workload needs.
    pub engine: EngineNeed,
    /// Other needs of the workload.
    pub needs: Needs,
    /// CPUs, one for each worker.
    pub cpus: Vec<CpuId>,
}

impl Configuration for Spec {
    fn series(&self) -> &Series {
        &self.series
    }

    fn cpus(&self) -> &[CpuId] {
        &self.cpus
    }
}

/// Configurations that are compared with each other, and so measured together.
#[derive(Clone, Debug)]
pub struct Block<S = Spec> {
    /// One for each cell.
    pub specs: Vec<S>,
    /// Of lesser interest, so that less time is spent on it.
    pub surveyed: bool,
}

impl<S: Configuration> Block<S> {
    /// Returns the number of worker threads.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.specs.first().map_or(0, |spec| spec.series().threads)
    }
}

/// Everything to measure.
#[derive(Clone, Debug)]
pub struct Plan<S = Spec> {
    /// Blocks of comparable configurations.
    pub blocks: Vec<Block<S>>,
    /// Rows that were left out, a sentence each with the reason.
    pub skipped: Vec<String>,
}

impl<S: Configuration> Plan<S> {
    /// Returns the number of configurations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.specs.len()).sum()
    }

    /// Returns whether there is nothing to measure.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns all configurations.
    pub fn specs(&self) -> impl Iterator<Item = &S> {
        self.blocks.iter().flat_map(|block| &block.specs)
    }

    /// Returns the configurations that `shard` holds, each as the index of its block and its index
    /// in
    /// that block.
    #[must_use]
    pub fn held(&self, shard: Shard) -> BTreeSet<(usize, usize)> {
        let specs =
            |(block, of): (usize, &Block<S>)| (0..of.specs.len()).map(move |spec| (block, spec));
        let all = self.blocks.iter().enumerate().flat_map(specs);
        all.enumerate().filter(|(index, _)| shard.holds(*index)).map(|(_, place)| place).collect()
    }

    /// Returns the CPUs that some configuration uses, in the order of the largest one.
    #[must_use]
    pub fn cpus(&self) -> Vec<CpuId> {
        let mut cpus: Vec<CpuId> = Vec::new();
        let mut specs: Vec<&S> = self.specs().collect();
        specs.sort_by_key(|spec| std::cmp::Reverse(spec.cpus().len()));
        for cpu in specs.iter().flat_map(|spec| spec.cpus()) {
            if !cpus.contains(cpu) {
                cpus.push(*cpu);
            }
        }
        cpus
    }
}

impl Plan {
    /// Works out what a selection means on a host.
    ///
    /// # Errors
    /// [`PlanError`] for names and numbers that are not there.
    pub fn new(selection: &Selection, topology: &Topology) -> Result<Self, PlanError> {
        let mut plan = Self { blocks: Vec::new(), skipped: Vec::new() };
        let subjects = plan.subjects(selection)?;
        let workloads = plan.workloads(selection)?;
        for workload in workloads {
            for (placement, threads) in plan.places(selection, topology, workload)? {
                let cpus = topology
                    .place(placement, threads as usize)
                    .map_err(|source| PlanError::Threads { threads, source })?;
                let cpus = cpus.repeat(workload.needs.workers_per_cpu.max(1) as usize);
                if cpus.len() < workload.needs.least_workers as usize {
                    plan.skipped.push(format!(
                        "{} on {} CPU(s): needs at least {} threads",
                        workload.id,
                        cpus.len(),
                        workload.needs.least_workers
                    ));
                    continue;
                }
                let surveyed = selection.is_survey(workload.id, threads, topology);
                plan.add(selection, &subjects, workload, placement, &cpus, surveyed);
            }
        }
        plan.skipped.sort();
        plan.skipped.dedup();
        if plan.blocks.is_empty() {
            return Err(PlanError::Nothing { reasons: plan.nothing_because(selection) });
        }
        Ok(plan)
    }

    /// Adds the blocks of one workload at one place, one for each kind.
    fn add(
        &mut self,
        selection: &Selection,
        subjects: &[Subject],
        workload: &'static Entry,
        placement: Placement,
        cpus: &[CpuId],
        surveyed: bool,
    ) {
        let mut kinds: Vec<&Kind> = Vec::new();
        for subject in subjects {
            if !kinds.contains(&&subject.kind) {
                kinds.push(&subject.kind);
            }
        }
        for kind in kinds {
            let spec = |subject: &Subject| Spec {
                series: Series {
                    engine: engine(workload, kind).to_owned(),
                    ..Series::new(
                        &subject.name,
                        kind.clone(),
                        workload.id,
                        cpus.len() as u32,
                        placement.name(),
                        Source::Model,
                    )
                },
                subject: subject.clone(),
                workload: workload.id,
                engine: workload.engine,
                needs: workload.needs,
                cpus: cpus.to_vec(),
            };
            let specs: Vec<Spec> = subjects
                .iter()
                .filter(|subject| subject.kind == *kind && self.can_run(subject, workload))
                .map(spec)
                .collect();
            self.push(specs, surveyed, &selection.rates_ops_s);
        }
    }

    /// Keeps the configurations whose name, as `timer/same-cell/cmpxchg-state`, `wanted` says yes
    /// to.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        for block in &mut self.blocks {
            block.specs.retain(|Spec { series, .. }| {
                wanted(&format!("{}/{}/{}", series.kind, series.workload, series.cell))
            });
        }
        self.blocks.retain(|block| !block.specs.is_empty());
    }

    fn subjects(&self, selection: &Selection) -> Result<Vec<Subject>, PlanError> {
        let known_kinds: BTreeSet<String> =
            subject::all().iter().map(|subject| subject.kind.to_string()).collect();
        if let Some(name) = selection.kinds.iter().find(|kind| !known_kinds.contains(*kind)) {
            let known = known_kinds.into_iter().collect::<Vec<_>>().join(", ");
            return Err(PlanError::Unknown { what: "kind", name: name.clone(), known });
        }
        let mut subjects = Vec::new();
        for name in &selection.cells {
            let found = subject::named(name);
            if found.is_empty() {
                return Err(PlanError::Unknown {
                    what: "cell",
                    name: name.clone(),
                    known: known_cells(),
                });
            }
            subjects.extend(found);
        }
        if selection.cells.is_empty() {
            subjects = subject::all();
        }
        let mut names = BTreeSet::new();
        subjects.retain(|subject| names.insert((subject.name.clone(), subject.kind.clone())));
        subjects.retain(|subject| {
            selection.kinds.is_empty() || selection.kinds.contains(&subject.kind.to_string())
        });
        if selection.takes_few_cells() {
            subjects.retain(is_headline);
        }
        Ok(subjects)
    }

    fn workloads(&mut self, selection: &Selection) -> Result<Vec<&'static Entry>, PlanError> {
        let find = |name: &str| WORKLOADS.iter().find(|workload| workload.id == name);
        let mut chosen = Vec::new();
        for name in &selection.workloads {
            chosen.push(find(name).ok_or_else(|| PlanError::Unknown {
                what: "workload",
                name: name.clone(),
                known: known_workloads(),
            })?);
        }
        if selection.workloads.is_empty() {
            let wanted = |workload: &&Entry| match selection.matrix {
                Matrix::Quick => QUICK.contains(&workload.id),
                Matrix::Headline => HEADLINE.contains(&workload.id),
                Matrix::Full => true,
            };
            chosen.extend(WORKLOADS.iter().filter(wanted));
        }
        if selection.retry {
            chosen = chosen
                .into_iter()
                .filter_map(|workload| {
                    let retry = find(&format!("{}-retry", workload.id));
                    if retry.is_none() && !workload.id.ends_with("-retry") {
                        self.skipped.push(format!(
                            "{}: --retry, and there is no form of it that repeats until it succeeds",
                            workload.id
                        ));
                    }
                    retry.or_else(|| Some(workload).filter(|own| own.id.ends_with("-retry")))
                })
                .collect();
        }
        let mut seen = BTreeSet::new();
        chosen.retain(|workload| seen.insert(workload.id));
        Ok(chosen)
    }

    /// Returns placements and numbers of threads.
    fn places(
        &mut self,
        selection: &Selection,
        topology: &Topology,
        workload: &Entry,
    ) -> Result<Vec<(Placement, u32)>, PlanError> {
        let full = selection.matrix == Matrix::Full;
        let placements = match &selection.placements[..] {
            [] if full => Placement::ALL.to_vec(),
            [] => vec![Placement::Compact],
            chosen => chosen.to_vec(),
        };
        let quick = selection.matrix == Matrix::Quick;
        let alone = !full && selection.workloads.is_empty() && workload.id.starts_with("solo-");
        let threads = match &selection.threads[..] {
            [] if alone => vec![1],
            [] => default_threads(topology, quick, &mut self.skipped),
            chosen => chosen.to_vec(),
        };
        let mut places: Vec<(Placement, u32)> = Vec::new();
        let mut taken = BTreeSet::new();
        for placement in placements {
            for &threads in &threads {
                match topology.place(placement, threads as usize) {
                    // What nobody asked for by name is not measured twice on the same CPUs.
                    Ok(cpus) if selection.placements.is_empty() && !taken.insert(cpus.clone()) => {}
                    Ok(_) => places.push((placement, threads)),
                    Err(error)
                        if selection.placements.is_empty() && selection.threads.is_empty() =>
                    {
                        self.skipped.push(format!("placement {placement}: {error}"));
                    }
                    Err(source) => return Err(PlanError::Threads { threads, source }),
                }
            }
        }
        Ok(places)
    }

    /// Returns whether `subject` runs under `workload`; notes why not where that is not plain from
    /// the list.
    fn can_run(&mut self, subject: &Subject, workload: &Entry) -> bool {
        let under = subject.under();
        if !workload.serves(under) {
            return false;
        }
        if !workload.suits(subject.id, under) {
            self.skipped
                .push(format!("{} under {}: it would hang for ever", subject.name, workload.id));
            return false;
        }
        if subject.reclaim == Reclaim::Epoch && !workload.with_epochs {
            self.skipped.push(format!(
                "{} under {}: offered with RCU by quiescent states only",
                subject.name, workload.id
            ));
            return false;
        }
        true
    }

    fn push(&mut self, specs: Vec<Spec>, surveyed: bool, rates_ops_s: &[u64]) {
        if specs.is_empty() {
            return;
        }
        if rates_ops_s.is_empty() {
            self.blocks.push(Block { specs, surveyed });
            return;
        }
        for rate in rates_ops_s {
            let specs = specs.iter().cloned().map(|mut spec| {
                spec.series.offered_ops_s = Some(*rate);
                spec
            });
            self.blocks.push(Block { specs: specs.collect(), surveyed });
        }
    }

    fn nothing_because(&self, selection: &Selection) -> String {
        if self.skipped.is_empty() {
            let workloads = match selection.workloads.join(", ") {
                none if none.is_empty() => "the workloads chosen".to_owned(),
                names => names,
            };
            format!(
                "none of the cells and kinds chosen runs under {workloads}; see `cellbench list`"
            )
        } else {
            self.skipped.join("; ")
        }
    }
}

/// Returns the name of the engine in records: locks have none.
fn engine(workload: &Entry, kind: &Kind) -> &'static str {
    match (kind, workload.engine) {
        (Kind::Lock | Kind::Primitive, _) => "",
        (_, EngineNeed::Count) => "count",
        (_, EngineNeed::Live) => "live",
    }
}

/// Returns whether a subject belongs to the headline matrix: a published generation of a timer's or
/// task work's cell, or a lock of the kernel that a cell can have. Work queues have the same cells.
fn is_headline(subject: &Subject) -> bool {
    match subject.kind {
        Kind::Lock => HEADLINE_LOCKS.contains(&subject.id),
        Kind::Timer => !subject.id.ends_with("-nmi") && !is_proposal(subject.id),
        Kind::TaskWork => true,
        _ => false,
    }
}

/// Returns whether a cell is one that nobody has published.
fn is_proposal(id: &str) -> bool {
    CELLS.iter().any(|cell| cell.id == id && cell.group.is_proposal())
}

/// Returns 1, 2, 4 ... and all, of the CPUs that can be used at once; only all if `quick`.
fn default_threads(topology: &Topology, quick: bool, skipped: &mut Vec<String>) -> Vec<u32> {
    let all = most_threads(topology);
    if let Some(quota) = topology.quota.as_ref().filter(|_| all < topology.usable.len() as u32) {
        skipped.push(format!(
            "more than {all} threads: the cgroup allows {:.1} CPUs of {}; --threads overrides",
            quota.cpus(),
            topology.usable.len()
        ));
    }
    let doubled = std::iter::successors(Some(1), |threads: &u32| threads.checked_mul(2));
    let mut threads: Vec<u32> = doubled.take_while(|threads| *threads < all).collect();
    if quick {
        threads.clear();
    }
    threads.push(all);
    threads
}

#[cfg(test)]
mod tests;
