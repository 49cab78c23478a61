//! Reading a run, whole or not: what is damaged is named and left out, the rest is used.
//!
//! Rounds are streamed; a reader needs memory for one line, whatever the size of the file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Damage, Latency, ReadError, Round, Run, SchemaVersion, Summary};

/// Longest line that is taken for a round. A round on 4096 CPUs is below 1 MiB.
const LINE_LIMIT_BYTES: u64 = 16 << 20;

/// A run on disk.
#[derive(Debug)]
pub struct RunReader {
    dir: PathBuf,
    run: Run,
    damage: Vec<Damage>,
}

impl RunReader {
    /// Opens the run in directory `path`, or the run whose `run.json` is `path`.
    ///
    /// A missing or damaged `run.json` is named in [`Self::damage`], and its whole fields are used.
    ///
    /// # Errors
    /// [`ReadError::NotARun`] if neither `run.json` nor `rounds.jsonl` is there,
    /// [`ReadError::NewerSchema`] for a newer major version, [`ReadError::Io`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let dir = match path.file_name() {
            Some(name) if name == "run.json" => path.parent().unwrap_or(Path::new(".")),
            _ => path,
        };
        let run_path = dir.join("run.json");
        let mut damage = Vec::new();
        let mut damaged = |what: String| {
            damage.push(Damage { path: run_path.clone(), line: None, what });
        };
        let run = match fs::read(&run_path) {
            Ok(bytes) => match serde_json::from_slice::<Value>(&bytes) {
                Ok(Value::Object(fields)) => {
                    check_version(&run_path, &fields, &mut damaged)?;
                    salvage(fields, &mut damaged)
                }
                Ok(_) => {
                    damaged("not a JSON object; host and settings are unknown".into());
                    Run::default()
                }
                Err(e) => {
                    damaged(format!("{e}; host and settings are unknown"));
                    Run::default()
                }
            },
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                if !dir.join("rounds.jsonl").exists() {
                    return Err(ReadError::NotARun { path: path.to_owned() });
                }
                damaged("missing; host and settings are unknown".into());
                Run::default()
            }
            Err(e) => return Err(ReadError::io(&run_path, e)),
        };
        Ok(Self { dir: dir.to_owned(), run, damage })
    }

    /// Returns the directory of the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns what is known of the run.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Returns what of `run.json` could not be used.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Returns the rounds, one after the other; lines that cannot be used come as [`Damage`].
    /// A run killed before its first round has none.
    ///
    /// # Errors
    /// [`ReadError::Io`] if the file is there but cannot be opened.
    pub fn rounds(&self) -> Result<Rounds, ReadError> {
        let path = self.dir.join("rounds.jsonl");
        let file = match File::open(&path) {
            Ok(file) => Some(BufReader::with_capacity(1 << 16, file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(ReadError::io(&path, e)),
        };
        Ok(Rounds { path, file, line_number: 0, line: Vec::new() })
    }

    /// Reads `summary.json`, which must be whole: it can be made again from the rounds.
    ///
    /// # Errors
    /// [`ReadError::Io`], [`ReadError::NewerSchema`], [`ReadError::Damaged`].
    pub fn summary(&self) -> Result<Summary, ReadError> {
        let path = self.dir.join("summary.json");
        let bytes = fs::read(&path).map_err(|e| ReadError::io(&path, e))?;
        let damaged = |e: serde_json::Error| ReadError::Damaged {
            damage: Damage { path: path.clone(), line: Some(e.line() as u64), what: e.to_string() },
        };
        let fields: Map<String, Value> = serde_json::from_slice(&bytes).map_err(damaged)?;
        check_version(&path, &fields, |_| ())?;
        drop(fields);
        serde_json::from_slice(&bytes).map_err(damaged)
    }
}

/// The rounds of a run, streamed. See [`RunReader::rounds`].
#[derive(Debug)]
pub struct Rounds {
    path: PathBuf,
    file: Option<BufReader<File>>,
    line_number: u64,
    line: Vec<u8>,
}

impl Rounds {
    /// Reads the next line into `self.line`. False at the end of the file.
    fn read_line(&mut self) -> Result<bool, String> {
        let Some(file) = &mut self.file else { return Ok(false) };
        self.line.clear();
        self.line_number += 1;
        let read = (&mut *file).take(LINE_LIMIT_BYTES).read_until(b'\n', &mut self.line).and_then(
            |read| {
                if read as u64 == LINE_LIMIT_BYTES && !self.line.ends_with(b"\n") {
                    self.line.clear();
                    file.skip_until(b'\n')?;
                    return Err(io::Error::other("line longer than any round; skipped"));
                }
                Ok(read)
            },
        );
        read.map(|read| read > 0).map_err(|e| {
            if e.kind() != io::ErrorKind::Other {
                self.file = None; // a read that failed once fails for ever
            }
            e.to_string()
        })
    }
}

impl Iterator for Rounds {
    type Item = Result<Round, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let parsed = match self.read_line() {
                Ok(false) => return None,
                Ok(true) if self.line.trim_ascii().is_empty() => continue,
                Ok(true) => parse_round(&self.line),
                Err(what) => Err(what),
            };
            return Some(parsed.map_err(|what| Damage {
                path: self.path.clone(),
                line: Some(self.line_number),
                what,
            }));
        }
    }
}

fn parse_round(line: &[u8]) -> Result<Round, String> {
    let whole = line.ends_with(b"\n");
    let round: Round = serde_json::from_slice(line).map_err(|e| {
        let cut = e.is_eof() || !whole;
        let what = if cut { "cut short" } else { "not a round" };
        // Without serde_json's " at line 1 column N": the line is named by the caller.
        let reason = e.to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default();
        format!("{what}: {reason}")
    })?;
    implausible(&round).map_or(Ok(round), Err)
}

/// Attempts of one round beyond which a number is no count: a day at 100 million a second. Far
/// enough below 2^64 that a million rounds can be summed.
const MOST_ATTEMPTS: u64 = 10_000_000_000_000;

/// Longest window and latency: a year.
const LONGEST_S: f64 = 366.0 * 86_400.0;

/// Returns what no measurement can have written, so that whoever computes with a round may rely on
/// it.
fn implausible(round: &Round) -> Option<String> {
    let duration_s = round.duration_s;
    if !(duration_s == 0.0 || (1e-9..=LONGEST_S).contains(&duration_s)) {
        return Some(format!("implausible: duration_s is {duration_s}"));
    }
    if round.series.threads == 0 {
        return Some("implausible: threads is 0".into());
    }
    let contexts = round.contexts.values().flat_map(|outcomes| outcomes.values());
    let threads = round.per_thread.iter().flat_map(|thread| [&thread.attempts, &thread.ok]);
    let samples = round.latency.values().map(|latency| &latency.samples);
    let counts = contexts.chain(threads).chain(round.line_transfers.values()).chain(samples);
    if let Some(count) = counts.chain([&round.attempts()]).find(|count| **count > MOST_ATTEMPTS) {
        return Some(format!("implausible: {count} counted in one round"));
    }
    let longest_ns = (LONGEST_S * 1e9) as u64;
    let slowest = round.latency.values().map(|latency| {
        let Latency { p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns, .. } = *latency;
        [p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns].into_iter().fold(0, u64::max)
    });
    let slowest = slowest.fold(0, u64::max);
    (slowest > longest_ns).then(|| format!("implausible: a latency of {slowest} ns"))
}

fn check_version(
    path: &Path,
    fields: &Map<String, Value>,
    damaged: impl FnOnce(String),
) -> Result<(), ReadError> {
    match fields.get("schema").map(SchemaVersion::deserialize) {
        Some(Ok(found)) if !found.is_readable() => {
            Err(ReadError::NewerSchema { path: path.to_owned(), found })
        }
        Some(Ok(_)) => Ok(()),
        Some(Err(e)) => {
            damaged(e.to_string());
            Ok(())
        }
        None => {
            damaged("no field \"schema\"; perhaps not written by cellbench".into());
            Ok(())
        }
    }
}

/// Returns the run from those fields that are whole, each looked at alone if all together do not
/// fit.
fn salvage(fields: Map<String, Value>, damaged: &mut impl FnMut(String)) -> Run {
    if let Ok(run) = serde_json::from_value(Value::Object(fields.clone())) {
        return run;
    }
    let whole: Map<String, Value> = fields
        .into_iter()
        .filter(|(name, value)| {
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            match serde_json::from_value::<Run>(Value::Object(alone)) {
                Ok(_) => true,
                Err(e) => {
                    damaged(format!("field {name:?} left out: {e}"));
                    false
                }
            }
        })
        .collect();
    // Fields are independent, so what holds for each holds for all.
    serde_json::from_value(Value::Object(whole)).unwrap_or_default()
}
