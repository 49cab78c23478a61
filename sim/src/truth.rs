//! The simulator held against measurements by others (`ground-truth/`, each file with its source).
//!
//! The rows of a data set are split in two halves by a hash of their names ([`Row::half`]): figures of
//! machines and mechanisms are chosen by the one half only; the other is reported apart.

use std::fmt;

use crate::primitive::{self, Primitive};
use crate::{MachineModel, SimError};

const COUNTERS: &str = include_str!("../ground-truth/graviton2-shared-counter.csv");
const LOCKS: &str = include_str!("../ground-truth/rqspinlock-cover.csv");

/// A data set.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    /// What was measured, on which machine.
    pub title: &'static str,
    /// Name of the machine's preset.
    pub machine: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Time for a step of all threads, by primitive.
    Counters,
    /// Throughput of a contended queued lock relative to one full socket of so many cores.
    SecondSocket { arch: &'static str, cores: usize },
}

/// All data sets with absolute or relative times.
pub const SETS: [Set; 3] = [
    Set {
        title: "Graviton2, one shared counter, 2 to 16 cores: ns a step",
        machine: "graviton2",
        kind: Kind::Counters,
    },
    Set {
        title: "2 x Xeon 8468, will-it-scale lock1 on qspinlock: throughput over one full socket",
        machine: "xeon-8468-2s",
        kind: Kind::SecondSocket { arch: "x86_64", cores: 48 },
    },
    Set {
        title: "2 x Altra Max, will-it-scale lock1 on qspinlock: throughput over one full socket",
        machine: "altra-max-2s",
        kind: Kind::SecondSocket { arch: "arm64", cores: 128 },
    },
];

/// The names in the Graviton2 data, and the primitives that they are.
const COUNTER_NAMES: [(&str, Primitive); 5] = [
    ("atomic add", Primitive::FetchAdd),
    ("cas add", Primitive::CompareExchange),
    ("pure spin", Primitive::TestAndSet),
    // The hint there is `yield`, which takes no time on this machine (see the preset's sources).
    ("pause spin", Primitive::TestAndSet),
    ("ticket spin", Primitive::Ticket),
];

/// The half of the data that a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Figures may be chosen by it.
    Tuned,
    /// Only reported.
    HeldOut,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tuned => "tuned",
            Self::HeldOut => "held out",
        })
    }
}

/// One measurement and its prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the measurement in the data.
    pub name: String,
    /// Threads.
    pub threads: usize,
    /// Measured figure, in the unit of the data set.
    pub measured: f64,
    /// Predicted figure: the median over seeds.
    pub predicted: f64,
    /// Least and greatest prediction over the seeds.
    pub range: (f64, f64),
}

impl Row {
    /// Returns the relative error of the prediction.
    pub fn error(&self) -> f64 {
        self.predicted / self.measured - 1.0
    }

    /// Returns the half of the data that the row belongs to: the highest bit of the FNV-1a hash of its
    /// name and number of threads, of 64 bits, times 2^64 over the golden ratio.
    pub fn half(&self) -> Half {
        let text = format!("{}/{}", self.name, self.threads);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        if hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0 {
            Half::Tuned
        } else {
            Half::HeldOut
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  {:12} {:4} measured {:8.2} predicted {:8.2} ({:.2} to {:.2}) {:+6.1} % {}",
            self.name,
            self.threads,
            self.measured,
            self.predicted,
            self.range.0,
            self.range.1,
            100.0 * self.error(),
            self.half()
        )
    }
}

/// Median and worst error of some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Rows.
    pub rows: usize,
    /// Median of the errors' absolute values.
    pub median: f64,
    /// Greatest of them.
    pub worst: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, median, worst } = self;
        write!(f, "{rows} rows, median error {:.1} %, worst {:.1} %", 100.0 * median, 100.0 * worst)
    }
}

/// Returns the errors of some rows, or `None` if there is no row.
pub fn summary<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Summary> {
    let mut errors: Vec<f64> = rows.map(|row| row.error().abs()).collect();
    errors.sort_by(f64::total_cmp);
    let worst = *errors.last()?;
    Some(Summary { rows: errors.len(), median: errors[errors.len() / 2], worst })
}

/// Seeds that each row is predicted with.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Predicts each row of a data set on its preset, which `adjust` may change first.
///
/// # Errors
/// As [`primitive::run`].
pub fn compare(
    set: &Set,
    adjust: &dyn Fn(MachineModel) -> MachineModel,
) -> Result<Vec<Row>, SimError> {
    let machine = adjust(MachineModel::preset(set.machine)?);
    let predict = |primitive: Primitive, threads: usize, window_ns: f64| {
        let cores: Vec<usize> = (0..threads).collect();
        let mut steps = SEEDS
            .into_iter()
            .map(|seed| Ok(primitive::run(&machine, primitive, &cores, window_ns, seed)?.step_ns))
            .collect::<Result<Vec<f64>, SimError>>()?;
        steps.sort_by(f64::total_cmp);
        Ok::<_, SimError>((steps[SEEDS.len() / 2], (steps[0], steps[SEEDS.len() - 1])))
    };
    let mut rows = Vec::new();
    match set.kind {
        Kind::Counters => {
            for record in records(COUNTERS) {
                let [host, name, threads, median_ns, ..] = record[..] else { continue };
                let known = COUNTER_NAMES.iter().find(|(known, _)| *known == name);
                let (Some(&(_, primitive)), "g2-16") = (known, host) else { continue };
                let Some(threads) =
                    threads.parse().ok().filter(|threads| (2..=16).contains(threads))
                else {
                    continue;
                };
                let thread_ns: f64 = median_ns.parse().unwrap_or(f64::NAN);
                let (predicted, range) = predict(primitive, threads, 60_000.0)?;
                let measured = thread_ns / threads as f64;
                rows.push(Row { name: name.to_owned(), threads, measured, predicted, range });
            }
        }
        Kind::SecondSocket { arch, cores } => {
            let measured: Vec<(usize, f64)> = records(LOCKS)
                .filter_map(|record| match record[..] {
                    [of, "lock1_threads", threads, rate, ..] if of == arch => {
                        Some((threads.parse().ok()?, rate.parse().ok()?))
                    }
                    _ => None,
                })
                .collect();
            let whole = measured.iter().find(|(threads, _)| *threads == cores).map(|row| row.1);
            let window_ns = 100_000.0;
            let (socket_ns, _) = predict(Primitive::Queued, cores, window_ns)?;
            for &(threads, rate) in measured.iter().filter(|(threads, _)| *threads > cores) {
                let (step_ns, range) = predict(Primitive::Queued, threads, window_ns)?;
                rows.push(Row {
                    name: "lock1".to_owned(),
                    threads,
                    measured: rate / whole.unwrap_or(f64::NAN),
                    predicted: socket_ns / step_ns,
                    range: (socket_ns / range.1, socket_ns / range.0),
                });
            }
        }
    }
    Ok(rows)
}

/// Returns the records of a file of comma-separated values, without its comments and its header.
fn records(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.skip(1).map(|line| line.split(',').collect())
}
