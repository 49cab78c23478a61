//! Finds the measurements in a folder, and the machine that predicts each.
//!
//! A file is known by its header, not by its name: another file of the same form is read as well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Ask, DataSet, Half, MATRIX, Question};
use crate::calibrate::{PingPong, ping_pong_ns};
use crate::machine::{MachineError, Place, Topology, matrix};
use crate::primitive::Primitive;
use crate::{MachineModel, SimError};

/// The names in data of shared counters, and the primitives that they are.
const COUNTERS: [(&str, Primitive); 6] = [
    ("atomic add", Primitive::FetchAdd),
    ("cas add", Primitive::CompareExchange),
    ("pure spin", Primitive::TestAndSet),
    // The hint there is `yield`, which takes no time on this machine (see the preset's sources).
    ("pause spin", Primitive::TestAndSet),
    ("ticket spin", Primitive::Ticket),
    ("AtomicInt64", Primitive::FetchAdd),
];

/// The names of hosts in the data, and the presets that they are.
const HOSTS: [(&str, &str, Host); 4] = [
    ("g2-16", "graviton2", Host { socket: 64, cores: 16 }),
    ("c6g.metal", "graviton2", Host { socket: 64, cores: 64 }),
    ("x86_64", "xeon-8468-2s", Host { socket: 48, cores: 192 }),
    ("arm64", "altra-max-2s", Host { socket: 128, cores: 256 }),
];

/// Pairs of hardware threads of a matrix that are predicted: the first by their hash.
const PAIRS: usize = 60;

/// The size of a measured host.
#[derive(Debug, Clone, Copy)]
struct Host {
    /// Threads of one socket without SMT siblings.
    socket: usize,
    /// Threads without two on one CPU.
    cores: usize,
}

/// Measurements could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// A file or folder.
    #[error("{}: {source}: check the path and its permissions", .path.display())]
    Read {
        /// File or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file of measurements whose form is not known.
    #[error("{}: line {line}: {problem}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The fault, and the remedy.
        problem: String,
    },
    /// The machine of a matrix.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Fitting a machine to a matrix.
    #[error(transparent)]
    Simulation(#[from] SimError),
}

/// A file of comma-separated values.
struct File {
    path: PathBuf,
    text: String,
}

/// Reads all measurements in a folder and in its folder `matrices`. Returns the data sets, and a line for
/// each measurement that nothing predicts.
///
/// # Errors
/// [`TruthError`], which names the file.
pub fn read(folder: &Path) -> Result<(Vec<DataSet>, Vec<String>), TruthError> {
    let mut sets = Vec::new();
    let mut skipped = Vec::new();
    for path in csv_files(folder)? {
        let text = fs::read_to_string(&path)
            .map_err(|source| TruthError::Read { path: path.clone(), source })?;
        let file = File { path, text };
        match file.header() {
            "host,implementation,threads,median_ns_per_op,min_ns_per_op,max_ns_per_op,total_mops" =>
            {
                file.counters(&mut sets, &mut skipped)?;
            }
            "primitive,threads,ns_per_op" => file.additions(&mut sets, &mut skipped)?,
            "arch,benchmark,threads,qspinlock,rqspinlock" => file.locks(&mut sets, &mut skipped)?,
            header if header.split(',').all(|cell| cell.is_empty() || is_number(cell)) => {
                sets.push(file.matrix()?);
            }
            header => {
                let problem = format!(
                    "`{}` is no header of measurements that this program knows (truth::read lists them)",
                    header.chars().take(80).collect::<String>()
                );
                return Err(file.wrong(file.header_line(), problem));
            }
        }
    }
    Ok((sets, skipped))
}

fn is_number(cell: &str) -> bool {
    cell.trim().parse::<f64>().is_ok()
}

/// Returns the files in a folder and in its folder `matrices`, sorted; a folder without the latter is
/// as good.
fn csv_files(folder: &Path) -> Result<Vec<PathBuf>, TruthError> {
    let mut files = Vec::new();
    for (folder, needed) in [(folder.to_owned(), true), (folder.join("matrices"), false)] {
        let failed = |source| TruthError::Read { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Err(error) if !needed && error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == "csv") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

impl File {
    /// Returns the lines without comments, with their numbers from 1; the header is the first.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
    }

    fn header(&self) -> &str {
        self.lines().next().map_or("", |(_, line)| line)
    }

    fn header_line(&self) -> usize {
        self.lines().next().map_or(1, |(line, _)| line)
    }

    fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Returns what a comment says of a word such as `host`.
    fn comment(&self, word: &str) -> &str {
        let start = format!("# {word}: ");
        self.text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or("")
    }

    fn wrong(&self, line: usize, problem: String) -> TruthError {
        TruthError::Format { path: self.path.clone(), line, problem }
    }

    fn number<T: std::str::FromStr>(&self, line: usize, cell: &str) -> Result<T, TruthError> {
        let wrong = || self.wrong(line, format!("`{cell}` is no number: give one"));
        cell.trim().parse().map_err(|_| wrong())
    }

    /// Reads times of a shared counter, by host and implementation.
    fn counters(
        &self,
        sets: &mut Vec<DataSet>,
        skipped: &mut Vec<String>,
    ) -> Result<(), TruthError> {
        let mut by_host: BTreeMap<&str, Vec<Question>> = BTreeMap::new();
        let mut unknown: BTreeMap<String, usize> = BTreeMap::new();
        for (line, text) in self.lines().skip(1) {
            let cells: Vec<&str> = text.split(',').collect();
            let [host, name, threads, median_ns, ..] = cells[..] else {
                return Err(self.wrong(line, "has fewer than four cells".to_owned()));
            };
            let (threads, thread_ns): (usize, f64) =
                (self.number(line, threads)?, self.number(line, median_ns)?);
            let known = HOSTS.iter().find(|(known, ..)| *known == host);
            let Some((_, _, Host { cores, .. })) = known else {
                *unknown
                    .entry(format!("host {host}, of which there is no machine"))
                    .or_default() += 1;
                continue;
            };
            let Some(&(_, primitive)) = COUNTERS.iter().find(|(known, _)| *known == name) else {
                *unknown.entry(format!("`{name}`, which is no primitive here")).or_default() += 1;
                continue;
            };
            // One thread alone is a cost of hits, which the preset is made of.
            if (2..=*cores).contains(&threads) {
                by_host.entry(host).or_default().push(Question {
                    name: name.to_owned(),
                    threads,
                    measured: thread_ns / threads as f64,
                    group: Some(threads.to_string()),
                    ask: Ask::Step(primitive),
                });
            }
        }
        let name = self.name();
        skipped.extend(
            unknown.into_iter().map(|(what, rows)| format!("{name}: {rows} rows of {what}")),
        );
        for (host, questions) in by_host {
            sets.push(self.set(host, "one shared counter, ns a step", questions)?);
        }
        Ok(())
    }

    /// Reads times of additions to one word on the host that the comments name.
    fn additions(
        &self,
        sets: &mut Vec<DataSet>,
        skipped: &mut Vec<String>,
    ) -> Result<(), TruthError> {
        let host = HOSTS.iter().find(|(known, ..)| self.comment("host").contains(known));
        let Some(&(host, ..)) = host else {
            skipped.push(format!("{}: no machine for {}", self.name(), self.comment("host")));
            return Ok(());
        };
        let mut questions = Vec::new();
        for (line, text) in self.lines().skip(1) {
            let cells: Vec<&str> = text.split(',').collect();
            let [name, threads, step_ns] = cells[..] else {
                return Err(self.wrong(line, "has not three cells".to_owned()));
            };
            let threads: usize = self.number(line, threads)?;
            let measured = self.number(line, step_ns)?;
            let known = COUNTERS.iter().find(|(known, _)| *known == name);
            let (Some(&(_, primitive)), true) = (known, threads > 1) else { continue };
            let name = name.to_owned();
            let ask = Ask::Step(primitive);
            questions.push(Question { name, threads, measured, group: None, ask });
        }
        if !questions.is_empty() {
            sets.push(self.set(host, "additions to one word, ns each", questions)?);
        }
        Ok(())
    }

    /// Reads throughput of kernel locks: of `lock1`, relative to one full socket.
    fn locks(&self, sets: &mut Vec<DataSet>, skipped: &mut Vec<String>) -> Result<(), TruthError> {
        let mut by_host: BTreeMap<&str, Vec<(usize, f64)>> = BTreeMap::new();
        for (line, text) in self.lines().skip(1) {
            let cells: Vec<&str> = text.split(',').collect();
            let [host, benchmark, threads, queued, _] = cells[..] else {
                return Err(self.wrong(line, "has not five cells".to_owned()));
            };
            let row = (self.number(line, threads)?, self.number(line, queued)?);
            if benchmark == "lock1_threads" {
                by_host.entry(host).or_default().push(row);
            }
        }
        for (host, rows) in by_host {
            let known = HOSTS.iter().find(|(known, ..)| *known == host);
            let Some((.., Host { socket, cores })) = known else {
                skipped.push(format!("{}: no machine for {host}", self.name()));
                continue;
            };
            let Some(&(_, whole)) = rows.iter().find(|(threads, _)| threads == socket) else {
                skipped.push(format!("{}: {host} has no row of {socket} threads", self.name()));
                continue;
            };
            let beyond = rows.iter().filter(|(threads, _)| (socket + 1..=*cores).contains(threads));
            let questions = beyond.map(|&(threads, rate)| Question {
                name: "lock1".to_owned(),
                threads,
                measured: rate / whole,
                group: None,
                ask: Ask::Relative(Primitive::Queued, *socket),
            });
            let title = "will-it-scale lock1 on qspinlock, throughput over one full socket";
            sets.push(self.set(host, title, questions.collect())?);
        }
        Ok(())
    }

    fn set(
        &self,
        host: &str,
        title: &str,
        questions: Vec<Question>,
    ) -> Result<DataSet, TruthError> {
        let known = HOSTS.iter().find(|(known, ..)| *known == host);
        let preset = known.map_or(host, |(_, preset, _)| preset);
        let machine = MachineModel::preset(preset)?;
        let name = format!("{}/{host}", self.name());
        let title = format!("{}: {title}", machine.title);
        Ok(DataSet { name, title, machine, questions })
    }

    /// Reads a matrix of ping-pongs, and makes the machine of it: one factor, found at one pair of the
    /// tuned half, makes transfers of all ping-pongs.
    fn matrix(&self) -> Result<DataSet, TruthError> {
        let name = self.name();
        let rows = matrix::parse(&self.path.display().to_string(), &self.text, 1.0)?;
        let measured = |[a, b]: [usize; 2]| rows[b][a];
        let text = |[a, b]: [usize; 2]| format!("CPUs {a} and {b}");
        let all = (0..rows.len()).flat_map(|b| (0..b).map(move |a| [a, b]));
        let mut pairs: Vec<(u64, [usize; 2])> =
            all.map(|pair| (Half::hash(&text(pair)), pair)).collect();
        pairs.sort_unstable();
        let pairs: Vec<[usize; 2]> = pairs.into_iter().take(PAIRS).map(|(_, pair)| pair).collect();
        let mut set = DataSet {
            title: format!(
                "{}: ping-pong by compare-and-exchange, ns one way",
                self.comment("host")
            ),
            machine: base(self.comment("host"), &rows)?,
            questions: pairs
                .iter()
                .map(|&pair| Question {
                    name: text(pair),
                    threads: 2,
                    measured: measured(pair),
                    group: None,
                    ask: Ask::PingPong(pair),
                })
                .collect(),
            name,
        };
        let tuned = set.questions.iter().filter(|question| set.half(question) == Half::Tuned);
        let mut by_time: Vec<(f64, [usize; 2])> = tuned
            .filter_map(|question| match question.ask {
                Ask::PingPong(pair) => Some((question.measured, pair)),
                _ => None,
            })
            .collect();
        by_time.sort_by(|one, other| one.0.total_cmp(&other.0));
        if let Some(&(wanted_ns, pair)) = by_time.get(by_time.len() / 2) {
            // A few steps: the ping-pong is nearly in proportion to the transfer.
            for _ in 0..6 {
                let found_ns = ping_pong_ns(&set.machine, pair, PingPong::CompareExchange)?;
                let factor = wanted_ns / found_ns;
                let cells = set.machine.transfer.matrix_ns.iter_mut().flatten().flatten();
                cells.for_each(|ns| *ns *= factor);
            }
        }
        Ok(set)
    }
}

/// Returns a machine of the vendor that `host` names, with transfers as measured between its hardware
/// threads, each taken for a core of its own.
fn base(host: &str, rows: &[Vec<f64>]) -> Result<MachineModel, MachineError> {
    let preset = if host.contains("AMD") {
        "epyc-genoa-2s"
    } else if host.contains("Intel") {
        "xeon-8468-2s"
    } else {
        "graviton2"
    };
    let mut machine = MachineModel::preset(preset)?;
    let place = |core| Place { core, llc: 0, socket: 0 };
    machine.topology = Topology::Listed { threads: (0..rows.len() as u32).map(place).collect() };
    machine.transfer.matrix_ns = Some(rows.to_vec());
    machine.name = MATRIX.to_owned();
    machine.title = host.to_owned();
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, text: &str) -> String {
        let folder =
            std::env::temp_dir().join(format!("cellbench-truth-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("data.csv"), text).expect("a file");
        let error = read(&folder).expect_err("not measurements").to_string();
        fs::remove_dir_all(&folder).expect("it was there");
        error
    }

    #[test]
    fn what_is_no_measurement_is_named_by_file_and_line() {
        let line = refused("header", "# a comment\nfruit,price\napple,1\n");
        assert!(line.contains("data.csv: line 2") && line.contains("fruit,price"), "{line}");
        let text = "# host: c6g.metal\nprimitive,threads,ns_per_op\nAtomicInt64,two,12.6\n";
        let line = refused("number", text);
        assert!(line.contains("data.csv: line 3") && line.contains("`two`"), "{line}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = read(Path::new("/no/such/folder")).expect_err("no folder").to_string();
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
