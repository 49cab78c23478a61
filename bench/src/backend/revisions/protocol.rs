//! Lines that the session and a program which serves rounds exchange: one JSON value a line, requests
//! on the program's standard input, answers on its standard output.
//!
//! The program begins with [`Rows`]. Each [`Request`] then has one [`Answer`]. The end of its input
//! ends the program.

use std::io::{BufRead, Write};

use cellbench_record::{Calibration, Charges, Finding, Host, Round, Series};
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use cellbench_measure::backend::cores::calibrate::Lengths;

/// Version of the protocol; programs of another version are refused.
pub const VERSION: u32 = 3;

/// Rows that a program can measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rows {
    /// [`VERSION`] of the program.
    pub protocol: u32,
    /// The rows; requests name them by their index.
    pub rows: Vec<Row>,
    /// Rows that were left out, a sentence each with the reason.
    pub skipped: Vec<String>,
}

/// A row that a program can measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The row.
    pub series: Series,
    /// CPUs, one for each worker.
    pub cpus: Vec<u32>,
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Calibrate; the time is that of the whole session, if it is limited.
    Prepare {
        /// Time budget, seconds.
        time_budget_s: Option<f64>,
    },
    /// Measure again how long computing takes.
    Calibrate,
    /// Use these figures of an earlier calibration, in place of one of its own.
    Adopt(Lengths),
    /// Measure a row once.
    Measure {
        /// Index of the row.
        row: u32,
        /// Length of the window, nanoseconds.
        window_ns: u64,
        /// Seed of every random choice.
        seed: u64,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Prepare`].
    Ready(Box<Ready>),
    /// To [`Request::Calibrate`].
    Calibrated(Lengths),
    /// To [`Request::Adopt`].
    Adopted,
    /// To [`Request::Measure`]: the round, and whole distributions by operation, each as
    /// [`cellbench_record::pack_histogram`] writes it.
    Measured(Box<Round>, Vec<(String, String)>),
    /// The request failed.
    Failed(String),
}

/// Host and instruments, as a run records them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The host.
    pub host: Host,
    /// Findings about its fitness.
    pub findings: Vec<Finding>,
    /// Costs of the instruments.
    pub calibration: Calibration,
    /// Charge for masking interrupts, nanoseconds.
    pub irq_save_cost_ns: f64,
    /// The other charges.
    pub charges: Charges,
}

/// Writes one line and flushes.
///
/// # Errors
/// Those of the writer; a value that cannot be encoded is invalid data.
pub fn write_line(to: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads one line; `None` at the end.
///
/// # Errors
/// Those of the reader; a line that is not such a value is invalid data.
pub fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Unpacks distributions.
///
/// # Errors
/// A sentence that names the operation.
pub fn unpack(packed: Vec<(String, String)>) -> Result<Vec<(String, Histogram<u64>)>, String> {
    let unpack = |(op, text): (String, String)| match cellbench_record::unpack_histogram(&text) {
        Ok(histogram) => Ok((op, histogram)),
        Err(what) => Err(format!("latency of {op}: {what}")),
    };
    packed.into_iter().map(unpack).collect()
}
