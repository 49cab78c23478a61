//! The parts of a simulated run as one: the bytes that one process would have written.
//!
//! Part K of N holds every N-th configuration of the plan, and each part writes its lines of a round
//! in the plan's order. The first round has all configurations: its lines, taken from the parts in
//! turns, are those of the whole, and say each configuration's place in the plan. Later rounds may
//! have fewer, since surveyed ones take fewer rounds; their lines are put in the order of those places.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cellbench_record::{Run, RunReader, RunWriter, Series};
use serde::Deserialize;

use crate::FleetError;

/// One part, read round by round. The file is open only while a round is read: a run may have more
/// parts than a process may have files.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    offset: u64,
    /// Lines of its first round; none: a whole run, which does not say.
    configurations: Option<usize>,
}

/// Line of a record, as far as its place must be known.
#[derive(Deserialize)]
struct Head {
    round: u32,
    #[serde(flatten)]
    series: Series,
}

/// One round of a part: each line with its row.
type Lines = Vec<(Series, Vec<u8>)>;

/// Joins the runs in directories `parts`, which are the parts of one run in order, to a run below
/// `out`. Returns its directory.
///
/// # Errors
/// [`FleetError::Refused`] naming the part that is not of the same run, or not whole.
pub fn join(parts: &[PathBuf], out: &Path) -> Result<PathBuf, FleetError> {
    let runs: Vec<Run> = parts
        .iter()
        .map(|dir| Ok(RunReader::open(dir)?.run().clone()))
        .collect::<Result<_, FleetError>>()?;
    let Some(first) = runs.first() else {
        return Err(FleetError::Refused("join: no parts".to_owned()));
    };
    let mut readers = Vec::with_capacity(parts.len());
    for (index, (run, dir)) in runs.iter().zip(parts).enumerate() {
        let wrong = |what: &str| FleetError::Refused(format!("{}: {what}", dir.display()));
        if common(run) != common(first) {
            return Err(wrong("not of the same run as its other parts; remove it and resume"));
        }
        let configurations = match run.shard {
            Some(shard) => {
                let expected = (index as u32, parts.len() as u32);
                if (shard.index, shard.of) != expected
                    || shard.configurations < shard.of
                    || Some(shard.configurations) != first.shard.map(|first| first.configurations)
                {
                    return Err(wrong("another part than its place says"));
                }
                Some((shard.configurations - shard.index).div_ceil(shard.of) as usize)
            }
            None if parts.len() == 1 => None,
            None => return Err(wrong("not a part of a run")),
        };
        readers.push(Part { path: dir.join("rounds.jsonl"), offset: 0, configurations });
    }
    let writer = RunWriter::create(out, whole(&runs))?;
    let path = writer.dir().join("rounds.jsonl");
    let file = OpenOptions::new().append(true).open(&path);
    let mut rounds = BufWriter::new(file.map_err(|e| FleetError::io(&path, "open it", e))?);
    interleave(&mut readers, &path, &mut rounds)?;
    rounds.flush().map_err(|e| FleetError::io(&path, "write it", e))?;
    for dir in parts {
        copy_logs(dir, writer.dir())?;
    }
    writer.point_latest()?;
    Ok(writer.dir().to_owned())
}

/// Writes the rounds of all parts in the order of the whole.
fn interleave(parts: &mut [Part], path: &Path, to: &mut impl Write) -> Result<(), FleetError> {
    let count = parts.len();
    let mut places: HashMap<Series, usize> = HashMap::new();
    // What was compared in the round before, and so must be compared as a whole or not at all.
    let mut before: BTreeSet<Series> = BTreeSet::new();
    for number in 0_u32.. {
        let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut now: BTreeSet<Series> = BTreeSet::new();
        for (index, part) in parts.iter_mut().enumerate() {
            let of = part.path.clone();
            let wrong = |what: &str| {
                let path = of.display();
                FleetError::Refused(format!("{path}: {what} in round {number}"))
            };
            let found = part.round(number)?;
            if let (0, Some(expected)) = (number, part.configurations)
                && found.len() != expected
            {
                return Err(wrong(&format!("{} of {expected} lines", found.len())));
            }
            for (row, (series, line)) in found.into_iter().enumerate() {
                let place = match number {
                    0 => *places.entry(series.clone()).or_insert(row * count + index),
                    _ => *places.get(&series).ok_or_else(|| wrong("a row that is new"))?,
                };
                if place % count != index || !now.insert(series) {
                    return Err(wrong("a row twice"));
                }
                lines.push((place, line));
            }
        }
        if number > 0 {
            whole_blocks(parts, number, &places, &before, &now)?;
        }
        if lines.is_empty() {
            break;
        }
        lines.sort_unstable_by_key(|(place, _)| *place);
        for (_, line) in lines {
            to.write_all(&line).map_err(|e| FleetError::io(path, "write it", e))?;
        }
        before = now;
    }
    Ok(())
}

/// Checks that rows which are compared with each other ended in the same round: a part that lost
/// its
/// end lacks rows that others still have.
fn whole_blocks(
    parts: &[Part],
    number: u32,
    places: &HashMap<Series, usize>,
    before: &BTreeSet<Series>,
    now: &BTreeSet<Series>,
) -> Result<(), FleetError> {
    let block = |series: &Series| series.with_cell("");
    let blocks: BTreeSet<Series> = now.iter().map(block).collect();
    match before.difference(now).find(|series| blocks.contains(&block(series))) {
        None => Ok(()),
        Some(series) => {
            let part = parts[places[series] % parts.len()].path.display();
            Err(FleetError::Refused(format!(
                "{part}: ends before a row of round {number} that other rows of its block have; \
                 remove the attempt and resume"
            )))
        }
    }
}

impl Part {
    /// Returns the lines of round `number`; none at the end of the file.
    fn round(&mut self, number: u32) -> Result<Lines, FleetError> {
        let io = |e| FleetError::io(&self.path, "read it", e);
        let mut file = BufReader::new(File::open(&self.path).map_err(io)?);
        file.seek(SeekFrom::Start(self.offset)).map_err(io)?;
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if file.read_until(b'\n', &mut line).map_err(io)? == 0 {
                return Ok(lines);
            }
            match serde_json::from_slice::<Head>(&line).ok().filter(|_| line.ends_with(b"\n")) {
                Some(head) if head.round == number => {
                    self.offset += line.len() as u64;
                    lines.push((head.series, line));
                }
                Some(head) if head.round == number + 1 && !lines.is_empty() => return Ok(lines),
                _ => {
                    let (path, place) = (self.path.display(), self.offset);
                    return Err(FleetError::Refused(format!(
                        "{path}: at byte {place} no line of round {number}; remove the attempt and \
                         resume"
                    )));
                }
            }
        }
    }
}

/// Returns what the parts of one run have in common.
fn common(run: &Run) -> impl PartialEq {
    (
        (run.seed, run.baseline.clone(), run.tool_version.clone(), run.git_revision.clone()),
        run.simulated_machine.clone(),
        run.settings.clone(),
    )
}

/// Returns the record of the whole run.
fn whole(parts: &[Run]) -> Run {
    let mut run = parts[0].clone();
    run.shard = None;
    run.simulated = None;
    run.started_unix_s = parts.iter().map(|part| part.started_unix_s).min().unwrap_or(0);
    run.finished_unix_s = parts.iter().filter_map(|part| part.finished_unix_s).max();
    run.command_line = without_flags(&run.command_line, &["--shard", "--out"]);
    if parts.len() > 1 {
        run.notes.push(format!("joined from {} parts", parts.len()));
    }
    run
}

/// Returns a command line without some flags and their values.
fn without_flags(line: &str, flags: &[&str]) -> String {
    let mut words = line.split(' ');
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if flags.contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Copies the latency logs of a part. A series is in one part, so that no two logs have one name.
fn copy_logs(from: &Path, to: &Path) -> Result<(), FleetError> {
    let source = from.join("latency");
    if !source.is_dir() {
        return Ok(());
    }
    let target = to.join("latency");
    fs::create_dir_all(&target).map_err(|e| FleetError::io(&target, "create the directory", e))?;
    let entries = fs::read_dir(&source).map_err(|e| FleetError::io(&source, "read it", e))?;
    for entry in entries {
        let entry = entry.map_err(|e| FleetError::io(&source, "read it", e))?;
        let copy = target.join(entry.file_name());
        fs::copy(entry.path(), &copy).map_err(|e| FleetError::io(&copy, "copy a log to it", e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Round, Series, ShardOf, Source};

    use super::*;

    const CONFIGURATIONS: usize = 7;

    /// Writes a run, or a part of it, of three rounds.
    fn write(out: &Path, part: Option<(usize, usize)>) -> PathBuf {
        let mut run = Run::new("1", 9);
        run.command_line = "cellbench sim --shard 1/3 --seed 9 --out x".into();
        run.finished_unix_s = Some(1);
        let (index, of) = part.unwrap_or((0, 1));
        if part.is_some() {
            let (index, of) = (index as u32, of as u32);
            run.shard = Some(ShardOf { index, of, configurations: CONFIGURATIONS as u32 });
        }
        let mut writer = RunWriter::create(out, run).unwrap();
        for number in 0..3 {
            for configuration in (0..CONFIGURATIONS).filter(|place| place % of == index) {
                let cell = format!("cell{configuration}");
                let is_surveyed = (2..4).contains(&configuration);
                if is_surveyed && number > 0 {
                    continue;
                }
                let workload = if is_surveyed { "surveyed" } else { "w" };
                let series = Series::new(cell, Kind::Timer, workload, 1, "compact", Source::Sim);
                let mut round = Round::new(series, number, 0.1 * (number + 1) as f64);
                round.count("op", "ok", configuration as u64);
                writer.append(&round).unwrap();
            }
        }
        writer.dir().to_owned()
    }

    fn bytes(run: &Path) -> Vec<u8> {
        fs::read(run.join("rounds.jsonl")).unwrap()
    }

    #[test]
    fn parts_joined_are_the_bytes_of_the_whole() {
        let home = tempfile::tempdir().unwrap();
        let whole = bytes(&write(home.path(), None));
        for of in 1..=CONFIGURATIONS {
            let parts: Vec<PathBuf> =
                (0..of).map(|index| write(home.path(), Some((index, of)))).collect();
            let joined = join(&parts, &home.path().join("joined")).unwrap();
            assert_eq!(bytes(&joined), whole, "{of} parts");
            let run = RunReader::open(&joined).unwrap().run().clone();
            assert_eq!(run.command_line, "cellbench sim --seed 9");
            assert_eq!(run.shard, None);
        }
        // A run that was not divided is its only part.
        let joined = join(&[write(home.path(), None)], &home.path().join("joined")).unwrap();
        assert_eq!(bytes(&joined), whole);
    }

    #[test]
    fn a_part_that_is_foreign_short_or_twice_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let part = |index| write(home.path(), Some((index, 2)));
        let refused =
            |parts: &[PathBuf]| join(parts, &home.path().join("joined")).unwrap_err().to_string();
        let (one, two) = (part(0), part(1));
        assert!(refused(&[one.clone(), one.clone()]).contains("another part"));
        assert!(refused(std::slice::from_ref(&one)).contains("another part"));
        assert!(refused(&[write(home.path(), None), two.clone()]).contains("not a part"));
        let whole = bytes(&two);
        let file = two.join("rounds.jsonl");
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let cases = [
            (whole[..whole.len() - 5].to_vec(), "no line of round 2"),
            (lines[..lines.len() - 1].concat(), "ends before a row of round 2"),
            (lines[..5].concat(), "ends before a row of round 2"),
            ([lines[1..].concat(), lines[0].to_vec()].concat(), "2 of 3 lines in round 0"),
            ([lines[0], lines[0], lines[2]].concat(), "a row twice in round 0"),
        ];
        for (content, expected) in cases {
            fs::write(&file, content).unwrap();
            let line = refused(&[one.clone(), two.clone()]);
            assert!(line.contains(expected) && line.lines().count() == 1, "{line}");
        }
    }
}
