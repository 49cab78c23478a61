//! Request of the host to the guest: a line each, in the file `FILE`.
//!
//! ```text
//! serve          measure as the host asks for, and trace nothing
//! row NAME       this row, which is traced, or may be asked for
//! hold NAME HEX  this row, while a second processor is stopped at that address in its operation
//! threads N      measure with so many threads
//! fault FAULT    commit this fault
//! ```

use std::fmt;
use std::str::FromStr;

/// The file in the guest.
pub(crate) const FILE: &str = "/request";

/// End of a row's name where a second processor is stopped in the middle of the same operation.
pub(crate) const CONTENDED: &str = "-contended";

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

/// Lines of a request.
#[cfg_attr(not(any(test, feature = "bpf")), allow(dead_code, reason = "read in the guest"))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Whether to serve.
    pub(crate) serve: bool,
    /// Numbers of threads.
    pub(crate) threads: Vec<u32>,
    /// Rows by name.
    pub(crate) rows: Vec<String>,
    /// Rows with a second processor, by name, and where it is stopped.
    pub(crate) holds: Vec<(String, u64)>,
    /// Faults that the guest is to commit.
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
                Some(("hold", hold)) => {
                    lines.holds.extend(hold.split_once(' ').and_then(|(row, at)| {
                        Some((row.to_owned(), u64::from_str_radix(at, 16).ok()?))
                    }))
                }
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
        let lines = Lines::parse("serve\nthreads 2\nhold timer-start ffffffff81000010\nhold x y\n");
        assert!(lines.serve && lines.threads == [2]);
        assert_eq!(lines.holds, [("timer-start".to_owned(), 0xffff_ffff_8100_0010)]);
        assert!("panic".parse::<Fault>().unwrap_err().contains("panic:ROW"));
    }
}
