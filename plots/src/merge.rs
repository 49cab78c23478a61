//! Runs of several hosts as one, with the host as a dimension of every row.
//!
//! Two passes over the inputs, one input at a time: the first reads who they are, the second copies
//! their rounds line by line. Memory holds the hosts without their large parts, which go to
//! `hosts.jsonl` (see [`details`]); rounds are never gathered. No step takes more than n log n.

pub mod details;
mod input;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{Run, RunWriter, WriteError, latency_log};

use crate::report::ReportError;
use crate::run::DamageList;
use details::{Details, DetailsWriter};
use input::{Input, Part};

/// A merged run.
#[derive(Debug)]
pub struct Merged {
    /// Its directory; [`write_all`](crate::write_all) makes its reports.
    pub dir: PathBuf,
    /// Label given to the host of each input, in the order of the inputs.
    pub labels: Vec<String>,
    /// Parts of the inputs that could not be used.
    pub damage: DamageList,
}

/// Writes a run below `out` that holds the rounds of all `inputs`, each under its host's label: the
/// host's name if the run tells it, else its CPU model, numbered where that is not unique. An input
/// is the directory of a run or a file that [`pack`](crate::pack()) wrote. One that is itself merged
/// keeps its labels, numbered likewise.
///
/// # Errors
/// [`ReportError`] if an input cannot be read or the run not be written, or with no inputs.
pub fn merge(inputs: &[PathBuf], out: &Path) -> Result<Merged, ReportError> {
    let mut labels = Labels::default();
    let mut relabelled = Vec::with_capacity(inputs.len());
    let mut run_ids = Vec::with_capacity(inputs.len());
    let mut damage = DamageList::default();
    let mut merged: Option<Run> = None;
    for path in inputs {
        let input = Input::open(path, out, Part::Head)?;
        for found in input.reader.damage() {
            damage.push(input.named(found.clone()));
        }
        let run = input.reader.run();
        run_ids.push(run.run_id.clone());
        let of_input = Relabelled::of(run, &mut labels);
        let merged = merged.get_or_insert_with(|| like(run));
        merged.merged_from.extend(parts(run, &of_input).map(|(part, _)| part));
        relabelled.push(of_input);
    }
    let Some(mut run) = merged else {
        return Err(ReportError::Request("merge: name at least one run".into()));
    };
    run.command_line = format!("cellbench merge {}", run_ids.join(" "));
    let mut writer = RunWriter::create(out, run)?;
    let mut details = DetailsWriter::create(writer.dir())?;
    for (path, of_input) in inputs.iter().zip(&relabelled) {
        let input = Input::open(path, out, Part::Whole)?;
        copy(&input, of_input, &mut writer, &mut details, &mut damage)?;
    }
    details.finish()?;
    writer.point_latest()?;
    let labels = relabelled.iter().map(Relabelled::joined).collect();
    Ok(Merged { dir: writer.dir().to_owned(), labels, damage })
}

/// Copies rounds, their latency logs and the large parts of the hosts.
fn copy(
    input: &Input,
    relabelled: &Relabelled,
    writer: &mut RunWriter,
    details: &mut DetailsWriter,
    damage: &mut DamageList,
) -> Result<(), ReportError> {
    let run = input.reader.run();
    for (_, found) in parts(run, relabelled) {
        if let Some(found) = found {
            details.append(&found)?;
        }
    }
    for found in details::read(input.reader.dir())? {
        match found {
            Ok(found) => {
                let host = relabelled.label(Some(&found.host)).to_owned();
                details.append(&Details { host, ..found })?;
            }
            Err(found) => damage.push(input.named(found)),
        }
    }
    let mut copied = HashMap::new();
    for round in input.reader.rounds()? {
        match round {
            Ok(mut round) => {
                let label = relabelled.label(round.series.host.as_deref());
                round.series.host = Some(label.to_owned());
                for latency in round.latency.values_mut() {
                    let Some(hlog) = latency.hlog.take() else { continue };
                    let log = match copied.get(&hlog) {
                        Some(log) => String::clone(log),
                        None => {
                            let from = input.reader.dir();
                            let log = copy_log(from, &hlog, writer.dir(), relabelled.first())?;
                            copied.insert(hlog, log.clone());
                            log
                        }
                    };
                    latency.hlog = Some(log);
                }
                writer.append(&round)?;
            }
            Err(found) => damage.push(input.named(found)),
        }
    }
    Ok(())
}

/// Returns the merged run, as far as it is that of its first input.
fn like(first: &Run) -> Run {
    Run {
        baseline: first.baseline.clone(),
        git_revision: first.git_revision.clone(),
        settings: first.settings.clone(),
        ..Run::new(first.tool_version.clone(), first.seed)
    }
}

/// Labels that no two hosts have.
#[derive(Debug, Default)]
struct Labels {
    taken: BTreeSet<String>,
    /// Number that was given to the last of those that want the same label.
    last: HashMap<String, usize>,
}

impl Labels {
    fn give(&mut self, wanted: &str) -> String {
        let number = self.last.entry(wanted.to_owned()).or_default();
        loop {
            *number += 1;
            let label =
                if *number == 1 { wanted.to_owned() } else { format!("{wanted} #{number}") };
            if self.taken.insert(label.clone()) {
                return label;
            }
        }
    }
}

/// The hosts of an input with their labels in the merged run.
#[derive(Debug)]
struct Relabelled {
    /// In the order of the input.
    labels: Vec<String>,
    /// Place of each by its label in the input.
    places: HashMap<Option<String>, usize>,
}

impl Relabelled {
    fn of(run: &Run, labels: &mut Labels) -> Self {
        if run.merged_from.is_empty() {
            let host = &run.host;
            let named = host.name.as_deref().or(host.cpu_model.as_deref()).unwrap_or(&run.run_id);
            return Self { labels: vec![labels.give(named)], places: HashMap::from([(None, 0)]) };
        }
        let hosts = run.merged_from.iter().enumerate();
        let given = hosts.map(|(place, part)| {
            let old = part.host_label.clone();
            let label = labels.give(old.as_deref().unwrap_or(&part.run_id));
            (label, (old, place))
        });
        let (labels, places) = given.unzip();
        Self { labels, places }
    }

    /// Returns the new label of a host; that of the first for one that the input's `run.json` does
    /// not name.
    fn label(&self, old: Option<&str>) -> &str {
        let place = self.places.get(&old.map(str::to_owned)).copied().unwrap_or(0);
        &self.labels[place]
    }

    fn first(&self) -> &str {
        &self.labels[0]
    }

    fn joined(&self) -> String {
        self.labels.join(", ")
    }
}

/// Returns the runs of an input as the merged run holds them, each with what is left out of it
/// there.
fn parts<'a>(
    run: &'a Run,
    relabelled: &'a Relabelled,
) -> impl Iterator<Item = (Run, Option<Details>)> + 'a {
    let own = run.merged_from.is_empty().then_some(run);
    own.into_iter().chain(&run.merged_from).zip(&relabelled.labels).map(|(part, label)| {
        let mut part = Run { host_label: Some(label.clone()), ..part.clone() };
        for pooled in &mut part.pooled_latency {
            pooled.series.host = Some(label.clone());
        }
        let details = Details::take(label, &mut part);
        (part, details)
    })
}

/// Copies a latency log and returns its path in the merged run. Logs of different inputs keep apart
/// by the first label of their input.
fn copy_log(from: &Path, hlog: &str, to: &Path, label: &str) -> Result<String, WriteError> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = label.chars().map(plain).collect();
    let source = latency_log(from, hlog);
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let copied = format!("latency/{label}_{name}");
    let target = to.join(&copied);
    if !target.exists() && source.is_file() {
        let io = |action| {
            let path = target.clone();
            move |source| WriteError::Io { path, action, source }
        };
        fs::create_dir_all(to.join("latency")).map_err(io("create its directory"))?;
        fs::copy(&source, &target).map_err(io("copy a log to it"))?;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_numbered_where_they_are_not_unique() {
        let mut labels = Labels::default();
        let wanted = ["a", "a #2", "a", "b", "a"];
        assert_eq!(wanted.map(|label| labels.give(label)), ["a", "a #2", "a #3", "b", "a #4"]);
    }
}
