//! All runs of a fleet as one: complete, of one version, and no host counted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_plots::merge;
use cellbench_record::{RunReader, write_atomically};

use crate::stage::{Source, stage};
use crate::store::Complete;
use crate::{FleetError, Store, Task, Tool, Work, join};

/// Runs that were collected, and remarks on them.
#[derive(Debug)]
pub struct Collected {
    /// The merged runs: that of hosts and simulated machines, then those of kernels, where the
    /// plan asks
    /// for them, one for each cell or kernel that others are compared with.
    pub merged: Vec<PathBuf>,
    /// Simulated runs, each joined from its parts.
    pub joined: Vec<PathBuf>,
    /// Remarks that a reader must know: repeated rows, missing tasks.
    pub notes: Vec<String>,
}

/// Joins, labels and merges the complete tasks of a fleet. With `partial` what is missing is left
/// out
/// and named, instead of refused.
///
/// # Errors
/// [`FleetError::Refused`] naming what is missing, of another version, or not as it was written.
pub fn collect(store: &Store, partial: bool) -> Result<Collected, FleetError> {
    let _lock = Store::lock(&store.dir)?;
    let mut complete = BTreeMap::new();
    let mut missing = Vec::new();
    for task in &store.fleet.tasks {
        match store.complete(task.number)? {
            Some(found) => {
                complete.insert(task.number, found);
            }
            None => missing.push(task.number),
        }
    }
    if complete.is_empty() || !missing.is_empty() && !partial {
        let numbers = few(&missing);
        let (missing, all) = (missing.len(), store.fleet.tasks.len());
        return Err(FleetError::Refused(format!(
            "{missing} of {all} tasks are not complete: {numbers}; see `cellbench fleet status`, then resume, or take --partial"
        )));
    }
    same_versions(store, &complete)?;
    for (number, (dir, marker)) in &complete {
        as_written(*number, dir, marker)?;
    }

    let mut notes = Vec::new();
    if !missing.is_empty() {
        notes.push(format!("not complete, and left out: task {}", few(&missing)));
    }
    let hosts_dir = fresh(&store.dir.join("hosts"))?;
    let joined_dir = fresh(&store.dir.join("joined"))?;
    let mut inputs = Vec::new();
    let is_host = |task: &Task| matches!(task.work, Work::Measure { .. });
    for (label, sources) in hosts(store, &complete, is_host) {
        let (dir, repeated) = stage(&label, &sources, &hosts_dir.join(&label))?;
        inputs.push(dir);
        notes.extend(repeated);
    }
    let (machines, joined) = machines(store, &complete, &joined_dir, &mut notes)?;
    for (label, sources) in machines {
        let (dir, repeated) = stage(&label, &sources, &hosts_dir.join(&label))?;
        inputs.push(dir);
        notes.extend(repeated);
    }
    let of_kernels = kernels(store, &complete, &hosts_dir, &mut notes)?;
    if inputs.is_empty() && of_kernels.is_empty() {
        let what = "no simulated run has all its parts, and no host is measured; resume";
        return Err(FleetError::Refused(what.to_owned()));
    }
    let mut all = Vec::new();
    let of_kernels = by_baseline(&of_kernels)?.into_iter().map(|inputs| (inputs, "kernels"));
    for (inputs, name) in std::iter::once((inputs, "merged")).chain(of_kernels) {
        if inputs.is_empty() {
            continue;
        }
        let merged = merge(&inputs, &store.dir.join(name))?;
        if let Some(damage) = merged.damage.first.first() {
            return Err(FleetError::Refused(damage.to_string()));
        }
        add_notes(&merged.dir, &notes)?;
        all.push(merged.dir);
    }
    Ok(Collected { merged: all, joined, notes })
}

/// Runs that compare with one cell, or one kernel, together: a merged run has one baseline.
fn by_baseline(runs: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>, FleetError> {
    let mut groups: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for run in runs {
        let baseline = RunReader::open(run)?.run().baseline.clone();
        groups.entry(baseline).or_default().push(run.clone());
    }
    Ok(groups.into_values().collect())
}

/// Runs of kernels: those of each host as one, and those that were booted in turns as they are.
fn kernels(
    store: &Store,
    complete: &Completed,
    hosts_dir: &Path,
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>, FleetError> {
    let mut inputs = Vec::new();
    let is_own = |task: &Task| {
        matches!(task.work, Work::Kernel { .. })
            && !task.args.iter().any(|arg| arg.starts_with("--vm="))
    };
    for (label, sources) in hosts(store, complete, is_own) {
        let (dir, repeated) = stage(&label, &sources, &hosts_dir.join(format!("{label}-kernel")))?;
        inputs.push(dir);
        notes.extend(repeated);
    }
    for (number, (dir, marker)) in complete {
        let task = &store.fleet.tasks[*number as usize];
        if matches!(task.work, Work::Kernel { .. } | Work::Kernels { .. }) && !is_own(task) {
            inputs.push(dir.join(&marker.run));
        }
    }
    Ok(inputs)
}

/// Writes task numbers, at most ten of them.
fn few(numbers: &[u32]) -> String {
    let mut text: Vec<String> = numbers.iter().take(10).map(u32::to_string).collect();
    if numbers.len() > 10 {
        text.push("...".to_owned());
    }
    text.join(", ")
}

type Completed = BTreeMap<u32, (PathBuf, Complete)>;

/// Refuses runs of different versions: their numbers do not belong together.
fn same_versions(store: &Store, complete: &Completed) -> Result<(), FleetError> {
    // By architecture, as builds are compared within one.
    let mut known: BTreeMap<&str, &Tool> = BTreeMap::new();
    known.insert(&store.fleet.tool.architecture, &store.fleet.tool);
    for (number, (dir, marker)) in complete {
        let tool = &marker.tool;
        let of_architecture = *known.entry(&tool.architecture).or_insert(tool);
        if !tool.agrees_with(&store.fleet.tool) || !tool.agrees_with(of_architecture) {
            let theirs =
                if tool.agrees_with(of_architecture) { &store.fleet.tool } else { of_architecture };
            return Err(FleetError::Refused(format!(
                "task {number} on {} was run with {tool}, others with {theirs}; remove {} and resume",
                marker.node,
                dir.display()
            )));
        }
    }
    Ok(())
}

/// Refuses a run whose rounds are not of the length that its marker has.
fn as_written(number: u32, dir: &Path, marker: &Complete) -> Result<(), FleetError> {
    let path = dir.join(&marker.run).join("rounds.jsonl");
    let found = fs::metadata(&path).map(|metadata| metadata.len());
    let found = found.map_err(|e| FleetError::io(&path, "read it", e))?;
    let written = marker.rounds_bytes;
    if found == written {
        return Ok(());
    }
    let dir = dir.display();
    Err(FleetError::Refused(format!(
        "task {number}: rounds.jsonl has {found} bytes, {written} were written; remove {dir} and resume"
    )))
}

/// Runs by host, each host under the names of the entries that measured it, and of its node where
/// that alone tells it from another.
fn hosts(
    store: &Store,
    complete: &Completed,
    is_wanted: impl Fn(&Task) -> bool,
) -> Vec<(String, Vec<Source>)> {
    let mut by_node: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (number, (_, marker)) in complete {
        if is_wanted(&store.fleet.tasks[*number as usize]) {
            by_node.entry(&marker.node).or_default().push(*number);
        }
    }
    let entries = |numbers: &[u32]| {
        let mut names: Vec<&str> = Vec::new();
        for number in numbers {
            let entry = store.fleet.tasks[*number as usize].entry.as_str();
            if !names.contains(&entry) {
                names.push(entry);
            }
        }
        names.join("+")
    };
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for numbers in by_node.values() {
        *uses.entry(entries(numbers)).or_default() += 1;
    }
    let mut hosts: Vec<(u32, String, Vec<Source>)> = Vec::new();
    for (node, numbers) in &by_node {
        let name = entries(numbers);
        let label = if uses[&name] == 1 { name } else { format!("{name}@{node}") };
        let sources = numbers.iter().map(|number| {
            let (dir, marker) = &complete[number];
            let name = format!("task {number}");
            Source { dir: dir.join(&marker.run), name, group: 0 }
        });
        hosts.push((numbers[0], label, sources.collect()));
    }
    // In the order of the plan, not of the nodes' names.
    hosts.sort_by_key(|(first, ..)| *first);
    hosts.into_iter().map(|(_, label, sources)| (label, sources)).collect()
}

type Machines = Vec<(String, Vec<Source>)>;

/// Joins each simulated run whose parts are all there; returns the runs by machine, and all of
/// them.
fn machines(
    store: &Store,
    complete: &Completed,
    joined_dir: &Path,
    notes: &mut Vec<String>,
) -> Result<(Machines, Vec<PathBuf>), FleetError> {
    // Tasks stand in the order of their parts.
    let mut runs: BTreeMap<(&str, &str, u64), (u32, Vec<u32>)> = BTreeMap::new();
    for task in &store.fleet.tasks {
        if let Work::Simulate { machine, seed, of, .. } = &task.work {
            let run = runs.entry((&task.entry, machine, *seed)).or_insert((*of, Vec::new()));
            if complete.contains_key(&task.number) {
                run.1.push(task.number);
            }
        }
    }
    let mut labels = Labels::default();
    let mut machines: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    let mut joined = Vec::new();
    for ((entry, machine, seed), (of, numbers)) in runs {
        let label = labels.of(machine);
        let name = format!("{entry}-{label}-seed{seed}");
        if numbers.len() < of as usize {
            notes.push(format!("{name}: {} of {of} parts, left out", numbers.len()));
            continue;
        }
        let parts: Vec<PathBuf> = numbers
            .iter()
            .map(|number| {
                let (dir, marker) = &complete[number];
                dir.join(&marker.run)
            })
            .collect();
        let dir = join::join(&parts, &joined_dir.join(&name))?;
        joined.push(dir.clone());
        let of_machine = machines.entry(format!("simulated-{label}")).or_default();
        of_machine.push(Source { dir, name, group: seed });
    }
    Ok((machines.into_iter().collect(), joined))
}

/// Names of machines for directories: presets as they are, files by their stem, numbered where two
/// have one.
#[derive(Default)]
struct Labels {
    given: BTreeMap<String, String>,
    taken: BTreeSet<String>,
}

impl Labels {
    fn of(&mut self, machine: &str) -> String {
        if let Some(label) = self.given.get(machine) {
            return label.clone();
        }
        let stem = Path::new(machine).file_stem().unwrap_or_default().to_string_lossy();
        let mut label = stem.clone().into_owned();
        let mut number = 1;
        while !self.taken.insert(label.clone()) {
            number += 1;
            label = format!("{stem}-{number}");
        }
        self.given.insert(machine.to_owned(), label.clone());
        label
    }
}

/// Returns an empty directory in the place of one that an earlier collect made.
fn fresh(dir: &Path) -> Result<PathBuf, FleetError> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|e| FleetError::io(dir, "remove the old one", e))?;
    }
    fs::create_dir_all(dir).map_err(|e| FleetError::io(dir, "create the directory", e))?;
    Ok(dir.to_owned())
}

/// Has the merged run say what a reader of its report must know.
fn add_notes(dir: &Path, notes: &[String]) -> Result<(), FleetError> {
    if notes.is_empty() {
        return Ok(());
    }
    let mut run = RunReader::open(dir)?.run().clone();
    run.notes.extend(notes.iter().cloned());
    let path = dir.join("run.json");
    let bytes = serde_json::to_vec_pretty(&run)
        .map_err(|e| FleetError::Refused(format!("{}: {e}", path.display())))?;
    Ok(write_atomically(&path, &bytes)?)
}
