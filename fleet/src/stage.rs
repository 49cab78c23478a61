//! One run for each host, and one for each simulated machine, of all that their tasks left: what the
//! merge takes. No row of a host is in it twice, whatever tasks measured it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_record::{Round, Run, RunReader, RunWriter, Series};

use crate::FleetError;

/// A run of some host or simulated machine.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Name of the source in messages.
    pub(crate) name: String,
    /// Runs of one group have rounds of their own: seeds of a simulated machine. Those of one host
    /// have one group.
    pub(crate) group: u64,
}

/// Writes a run below `out` that is labelled `label` and holds the rounds of `sources`. Groups
/// follow
/// one another, by number: their rounds are counted on. A row that two sources of a group have
/// is taken from the first. Returns the run's directory and a line for each source that repeated
/// rows.
///
/// # Errors
/// [`FleetError`] if a source is damaged, or the run cannot be written.
pub(crate) fn stage(
    label: &str,
    sources: &[Source],
    out: &Path,
) -> Result<(PathBuf, Vec<String>), FleetError> {
    let readers: Vec<RunReader> = sources
        .iter()
        .map(|source| Ok(RunReader::open(&source.dir)?))
        .collect::<Result<_, FleetError>>()?;
    let runs: Vec<&Run> = readers.iter().map(RunReader::run).collect();
    let mut writer = RunWriter::create(out, described(label, &runs))?;
    let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, source) in sources.iter().enumerate() {
        groups.entry(source.group).or_default().push(index);
    }
    let mut notes = Vec::new();
    let mut first_round = 0;
    for (group, members) in groups {
        let mut taken: HashMap<Series, usize> = HashMap::new();
        let mut most = 0;
        for index in members {
            let mut repeated: HashMap<usize, HashSet<Series>> = HashMap::new();
            for round in readers[index].rounds()? {
                let damaged = |damage: cellbench_record::Damage| {
                    FleetError::Refused(format!("{damage}; remove the attempt and resume"))
                };
                let mut round = round.map_err(damaged)?;
                let by = *taken.entry(round.series.clone()).or_insert(index);
                if by != index {
                    repeated.entry(by).or_default().insert(round.series);
                    continue;
                }
                most = most.max(round.round + 1);
                round.round += first_round;
                link_logs(&mut round, &sources[index].dir, writer.dir(), group)?;
                writer.append(&round)?;
            }
            let mut repeated: Vec<_> = repeated.into_iter().collect();
            repeated.sort_by_key(|(by, _)| *by);
            for (by, rows) in repeated {
                notes.push(format!(
                    "{label}: {} repeats {} rows of {}, which are counted once",
                    sources[index].name,
                    rows.len(),
                    sources[by].name
                ));
            }
        }
        first_round += most;
    }
    let dir = writer.dir().to_owned();
    writer.update_run(|run| run.notes.extend(notes.iter().cloned()))?;
    writer.point_latest()?;
    Ok((dir, notes))
}

/// Returns the first run, labelled, with what the others found and left out.
fn described(label: &str, runs: &[&Run]) -> Run {
    let mut all = runs.first().map(|run| (*run).clone()).unwrap_or_default();
    all.host.name = Some(label.to_owned());
    all.finished_unix_s = runs.iter().filter_map(|run| run.finished_unix_s).max();
    for run in &runs[1..] {
        for finding in &run.findings {
            if !all.findings.iter().any(|known| known.id == finding.id) {
                all.findings.push(finding.clone());
            }
        }
        for note in &run.notes {
            if !all.notes.contains(note) {
                all.notes.push(note.clone());
            }
        }
        all.command_line += &format!("; {}", run.command_line);
    }
    all
}

/// Gives a round's latency logs a place in the staged run, and the round their new names.
fn link_logs(round: &mut Round, from: &Path, to: &Path, group: u64) -> Result<(), FleetError> {
    for latency in round.latency.values_mut() {
        let Some(hlog) = &mut latency.hlog else { continue };
        // The file name alone: a path in a record must not lead out of the run.
        let name = Path::new(&*hlog).file_name().unwrap_or_default().to_string_lossy();
        let staged = format!("latency/{group}_{name}");
        let (source, target) = (from.join("latency").join(&*name), to.join(&staged));
        if source.is_file() && !target.exists() {
            let latency = to.join("latency");
            fs::create_dir_all(&latency)
                .map_err(|e| FleetError::io(&latency, "create the directory", e))?;
            // A link takes no room; not every file system has it.
            fs::hard_link(&source, &target)
                .or_else(|_| fs::copy(&source, &target).map(|_| ()))
                .map_err(|e| FleetError::io(&target, "copy a log to it", e))?;
        }
        *hlog = staged;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cellbench_record::Kind;

    use super::*;

    /// Writes a run of two rounds of some cells.
    fn source(home: &Path, group: u64, cells: &[&str]) -> Source {
        let mut writer = RunWriter::create(home, Run::new("1", group)).unwrap();
        for number in 0..2 {
            for cell in cells {
                let source = cellbench_record::Source::Model;
                let series = Series::new(*cell, Kind::Timer, "w", 1, "compact", source);
                let mut round = Round::new(series, number, 0.1);
                round.count("op", "ok", group);
                writer.append(&round).unwrap();
            }
        }
        Source { dir: writer.dir().to_owned(), name: format!("task {}", cells.concat()), group }
    }

    fn rounds(dir: &Path) -> Vec<(String, u32, u64)> {
        let reader = RunReader::open(dir).unwrap();
        let rounds = reader.rounds().unwrap().map(Result::unwrap);
        rounds.map(|round| (round.series.cell.clone(), round.round, round.ok())).collect()
    }

    #[test]
    fn a_row_of_a_host_is_counted_once() {
        let home = tempfile::tempdir().unwrap();
        let sources = [source(home.path(), 0, &["a", "b"]), source(home.path(), 0, &["b", "c"])];
        let (dir, notes) = stage("host", &sources, &home.path().join("hosts")).unwrap();
        let cells: Vec<String> = rounds(&dir).into_iter().map(|(cell, ..)| cell).collect();
        assert_eq!(cells, ["a", "b", "a", "b", "c", "c"]);
        assert_eq!(notes, ["host: task bc repeats 1 rows of task ab, which are counted once"]);
        let run = RunReader::open(&dir).unwrap().run().clone();
        assert_eq!((run.host.name.as_deref(), run.notes), (Some("host"), notes));
    }

    #[test]
    fn rounds_of_seeds_follow_one_another() {
        let home = tempfile::tempdir().unwrap();
        let sources = [source(home.path(), 5, &["a"]), source(home.path(), 2, &["a"])];
        let (dir, notes) = stage("sim", &sources, &home.path().join("hosts")).unwrap();
        assert!(notes.is_empty());
        let a = || "a".to_owned();
        assert_eq!(rounds(&dir), [(a(), 0, 2), (a(), 1, 2), (a(), 2, 5), (a(), 3, 5)]);
    }

    #[test]
    fn a_damaged_line_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let source = source(home.path(), 0, &["a"]);
        let file = source.dir.join("rounds.jsonl");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.len() - 9]).unwrap();
        let error = stage("host", &[source], &home.path().join("hosts")).unwrap_err().to_string();
        assert!(error.contains("rounds.jsonl:2: cut short"), "{error}");
    }
}
