//! What the host asks of the guest: a line each, in the file `FILE`.
//!
//! ```text
//! serve          measure as the host asks for, and trace nothing
//! row NAME       this row, which is traced, or may be asked for
//! threads N      measure with so many threads
//! fault FAULT    commit this fault
//! ```

use std::fmt;
use std::str::FromStr;

/// The file in the guest.
pub(crate) const FILE: &str = "/request";

/// A fault that a guest commits on purpose, so that a test sees what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel panics where this row begins.
    Panic(String),
    /// The guest is silent for ever from where this row begins.
    Hang(String),
    /// The kernel does not describe its types.
    NoBtf,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(row) => write!(f, "panic:{row}"),
            Self::Hang(row) => write!(f, "hang:{row}"),
            Self::NoBtf => f.write_str("no-btf"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("panic", row)) => Ok(Self::Panic(row.to_owned())),
            Some(("hang", row)) => Ok(Self::Hang(row.to_owned())),
            None if text == "no-btf" => Ok(Self::NoBtf),
            _ => Err(format!("`{text}` is neither panic:ROW, hang:ROW nor no-btf")),
        }
    }
}

/// What is asked.
#[cfg_attr(not(any(test, feature = "bpf")), allow(dead_code, reason = "read in the guest"))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Whether to serve.
    pub(crate) serve: bool,
    /// Numbers of threads.
    pub(crate) threads: Vec<u32>,
    /// Rows by name.
    pub(crate) rows: Vec<String>,
    /// Faults.
    pub(crate) faults: Vec<Fault>,
}

#[cfg_attr(not(any(test, feature = "bpf")), allow(dead_code, reason = "read in the guest"))]
impl Lines {
    /// Reads a request; other lines are passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = Self::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("row", row)) => lines.rows.push(row.to_owned()),
                Some(("threads", threads)) => lines.threads.extend(threads.parse::<u32>()),
                None if line == "serve" => lines.serve = true,
                Some(("fault", fault)) => lines.faults.extend(fault.parse::<Fault>()),
                _ => {}
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_written() {
        let faults =
            [Fault::Panic("timer-start".into()), Fault::Hang("wq-start".into()), Fault::NoBtf];
        let text: String = faults.iter().map(|fault| format!("fault {fault}\n")).collect();
        let lines = Lines::parse(&format!("row timer-start\nrow wq-start\n{text}"));
        assert_eq!(lines.rows, ["timer-start", "wq-start"]);
        assert_eq!(lines.faults, faults);
        assert!(!lines.serve);
        let lines = Lines::parse("serve\nthreads 2\n");
        assert!(lines.serve && lines.threads == [2]);
        assert!("panic".parse::<Fault>().unwrap_err().contains("panic:ROW"));
    }
}
