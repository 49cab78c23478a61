//! Runs of several hosts as one, with the host as a dimension of every row.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{Run, RunReader, RunWriter, WriteError};

use crate::report::ReportError;
use crate::run::DamageList;

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
/// that is itself merged keeps its labels, numbered likewise.
///
/// # Errors
/// [`ReportError`] if an input cannot be read or the run not be written, or with no inputs.
pub fn merge(inputs: &[PathBuf], out: &Path) -> Result<Merged, ReportError> {
    let readers: Vec<RunReader> =
        inputs.iter().map(|path| RunReader::open(path)).collect::<Result<_, _>>()?;
    let Some(first) = readers.first().map(RunReader::run) else {
        return Err(ReportError::Request("merge: name at least one run".into()));
    };
    let mut taken = BTreeSet::new();
    let mut labels = Vec::new();
    let mut parts = Vec::new();
    let mut damage = DamageList::default();
    for reader in &readers {
        for found in reader.damage() {
            damage.push(found.clone());
        }
        let relabelled = relabel(reader.run(), &mut taken);
        labels
            .push(relabelled.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>().join(", "));
        parts.push(relabelled);
    }
    let merged_from = readers
        .iter()
        .zip(&parts)
        .flat_map(|(reader, relabelled)| labelled_runs(reader.run(), relabelled))
        .collect();
    let run = Run {
        seed: first.seed,
        baseline: first.baseline.clone(),
        tool_version: first.tool_version.clone(),
        git_revision: first.git_revision.clone(),
        settings: first.settings.clone(),
        command_line: format!(
            "cellbench merge {}",
            readers.iter().map(|r| r.run().run_id.as_str()).collect::<Vec<_>>().join(" ")
        ),
        merged_from,
        ..Run::new(first.tool_version.clone(), first.seed)
    };
    let mut writer = RunWriter::create(out, run)?;
    for (reader, relabelled) in readers.iter().zip(&parts) {
        for round in reader.rounds()? {
            match round {
                Ok(mut round) => {
                    let label = relabelled
                        .iter()
                        .find(|(old, _)| *old == round.series.host)
                        .or(relabelled.first())
                        .map(|(_, label)| label.clone());
                    round.series.host = label;
                    for latency in round.latency.values_mut() {
                        if let Some(hlog) = &mut latency.hlog {
                            *hlog = copy_log(reader.dir(), hlog, writer.dir(), relabelled)?;
                        }
                    }
                    writer.append(&round)?;
                }
                Err(found) => damage.push(found),
            }
        }
    }
    writer.point_latest()?;
    Ok(Merged { dir: writer.dir().to_owned(), labels, damage })
}

/// Old label of each host in `run` and the label it gets.
fn relabel(run: &Run, taken: &mut BTreeSet<String>) -> Vec<(Option<String>, String)> {
    let mut give = |wanted: &str| {
        let mut label = wanted.to_owned();
        let mut number = 1;
        while !taken.insert(label.clone()) {
            number += 1;
            label = format!("{wanted} #{number}");
        }
        label
    };
    if run.merged_from.is_empty() {
        let host = &run.host;
        let named = host.name.as_deref().or(host.cpu_model.as_deref()).unwrap_or(&run.run_id);
        return vec![(None, give(named))];
    }
    run.merged_from
        .iter()
        .map(|part| {
            let old = part.host_label.clone();
            let label = give(old.as_deref().unwrap_or(&part.run_id));
            (old, label)
        })
        .collect()
}

fn labelled_runs(run: &Run, relabelled: &[(Option<String>, String)]) -> Vec<Run> {
    let label = |index: usize| relabelled.get(index).map(|(_, label)| label.clone());
    if run.merged_from.is_empty() {
        return vec![Run { host_label: label(0), ..run.clone() }];
    }
    let parts = run.merged_from.iter().enumerate();
    parts.map(|(index, part)| Run { host_label: label(index), ..part.clone() }).collect()
}

/// Copies a latency log once and returns its path in the merged run. Logs of different inputs keep
/// apart by the first label of their input.
fn copy_log(
    from: &Path,
    hlog: &str,
    to: &Path,
    relabelled: &[(Option<String>, String)],
) -> Result<String, WriteError> {
    let label: String = relabelled
        .first()
        .map(|(_, label)| label.as_str())
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    // The file name alone: a path in a record must not lead out of the run.
    let name = Path::new(hlog).file_name().unwrap_or_default().to_string_lossy();
    let copied = format!("latency/{label}_{name}");
    let target = to.join(&copied);
    let source = from.join("latency").join(&*name);
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
