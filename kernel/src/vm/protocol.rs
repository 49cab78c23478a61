//! Protocol of the host and a guest that measures, over a serial line: a JSON value a line.
//!
//! The guest begins with [`Opening`]. Each [`Request`] then has one [`Answer`].

use cellbench_record::{Round, Series};
use serde::{Deserialize, Serialize};

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// The first line of a guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// It can measure.
    Ready(Hello),
    /// It cannot, and why.
    Failed(String),
}

/// Description of a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the guest.
    pub protocol: u32,
    /// Release of its kernel.
    pub release: String,
    /// Facts that tell the generation of the guest's cells.
    pub evidence: Vec<String>,
    /// Whether its BPF programs are compiled.
    pub jit: Option<bool>,
    /// Rows that the guest can measure; requests name rows by their index.
    pub rows: Vec<RowInfo>,
    /// Rows that the guest cannot measure, each with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Something that a guest can measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowInfo {
    /// Name of the row.
    pub name: String,
    /// The row of the table.
    pub series: Series,
    /// The guest's CPUs, one for each thread.
    pub cpus: Vec<u32>,
}

/// A request to measure a row once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Index of the row.
    pub row: u32,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// Seed of every random choice.
    pub seed: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The round, and whole distributions by operation, each as
    /// [`cellbench_record::pack_histogram`] writes it.
    Measured(Box<Round>, Vec<(String, String)>),
    /// This row cannot be measured; the others can.
    LeftOut {
        /// Reason in one line.
        reason: String,
        /// Whether it can be in no later round either.
        for_good: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_sent() {
        let sent = Answer::LeftOut { reason: "no such event".to_owned(), for_good: true };
        let line = serde_json::to_string(&sent).unwrap();
        assert!(!line.contains('\n'));
        match serde_json::from_str(&line).unwrap() {
            Answer::LeftOut { reason, for_good } => {
                assert!(for_good && reason == "no such event");
            }
            Answer::Measured(..) => panic!("{line}"),
        }
    }
}
