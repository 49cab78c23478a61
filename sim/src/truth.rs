//! The simulator held against measurements by others (`ground-truth/`, each file with its source).
//!
//! | step | where |
//! |---|---|
//! | Which measurements are in a folder, and which machine predicts them? | `read` |
//! | What does the model say? | `predict` |
//! | How far is that from what was measured? | `agreement` |
//!
//! The rows are split in two halves by a hash of their names ([`Half::of`]): figures of machines and
//! mechanisms are chosen by the one half only; the other is reported apart.

mod agreement;
mod predict;
mod read;

pub use agreement::{Agreement, Prediction, Row};
pub use predict::{DRAWS, SEEDS};
pub use read::{TruthError, read};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::MachineModel;
use crate::primitive::Primitive;

/// Part of every text that is hashed to split the rows. Chosen once, before any row was looked at in
/// the halves that it makes. (Earlier halves, by another hash, chose `addition_share` of graviton2.)
const SALT: &str = "2026-11-29";

/// Name of the machines that are made of matrices.
const MATRIX: &str = "matrix";

/// The half of the data that a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Half {
    /// Figures and mechanisms may be chosen by it.
    Tuned,
    /// Only reported.
    HeldOut,
}

impl Half {
    /// Returns the half that a row belongs to: the highest bit of the hash of its text.
    #[must_use]
    pub fn of(row: &str) -> Self {
        if Self::hash(row) >> 63 == 0 { Self::Tuned } else { Self::HeldOut }
    }

    /// Returns the 64-bit FNV-1a hash of the salt and a row's text, times 2^64 over the golden ratio.
    fn hash(row: &str) -> u64 {
        let bytes = SALT.bytes().chain([b'/']).chain(row.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tuned => "tuned",
            Self::HeldOut => "held out",
        })
    }
}

/// Measurements of one kind on one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSet {
    /// Name of its file and, where the file has several sets, of the part.
    pub name: String,
    /// The measured thing, the machine, and the unit, in words.
    pub title: String,
    /// The machine that predicts.
    pub machine: MachineModel,
    /// Measured configurations, each a question to the model.
    pub questions: Vec<Question>,
}

/// One measurement, and what is to be simulated to predict it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Name of the measurement in the data.
    pub name: String,
    /// Number of threads.
    pub threads: usize,
    /// Measured figure, in the unit of the data set.
    pub measured: f64,
    /// Rows that are put in an order with this one have the same group; none if there is no such row.
    pub group: Option<String>,
    pub(crate) ask: Ask,
}

/// The simulation that predicts a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Time for a step of all threads together.
    Step(Primitive),
    /// Throughput relative to that of so many threads.
    Relative(Primitive, usize),
    /// One way of a compare-and-exchange ping-pong between two hardware threads.
    PingPong([usize; 2]),
}

impl DataSet {
    /// Returns whether it is a matrix of latencies, of which its own machine is made.
    #[must_use]
    pub fn is_matrix(&self) -> bool {
        self.machine.name == MATRIX
    }

    /// Returns the half that a question belongs to.
    #[must_use]
    pub fn half(&self, question: &Question) -> Half {
        Half::of(&format!("{}/{}/{}", self.name, question.name, question.threads))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_fixed_and_even() {
        let tuned = (0..1_000).filter(|row| Half::of(&format!("row/{row}")) == Half::Tuned).count();
        assert!((450..550).contains(&tuned), "{tuned} of 1000");
        // These must never change: a row that was held out would be tuned on.
        let halves = [2, 3, 7, 8].map(|threads| {
            Half::of(&format!("graviton2-shared-counter/g2-16/atomic add/{threads}"))
        });
        assert_eq!(halves, [Half::Tuned, Half::HeldOut, Half::Tuned, Half::Tuned]);
    }
}
