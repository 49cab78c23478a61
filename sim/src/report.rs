//! Report of a simulation, to be written to a file or drawn.
//!
//! All times are simulated nanoseconds. Rows and lines come in a fixed order, so that equal runs
//! give equal bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::timeline::TimelineEvent;

/// The version of this structure.
pub const REPORT_SCHEMA: u32 = 1;

/// Report of a simulation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this structure, [`REPORT_SCHEMA`].
    pub schema: u32,
    /// Name of the simulated machine.
    pub machine: String,
    /// The seed of the run.
    pub seed: u64,
    /// How it ended.
    pub end: End,
    /// When the last core's code ended, or the run was ended, in nanoseconds.
    pub duration_ns: f64,
    /// Sums over all rows.
    pub totals: Counters,
    /// Counters by label and operation, sorted by these.
    pub rows: Vec<AccessRow>,
    /// Contended lines, those waited for longest first. Lines with the same labels at the same
    /// offsets are one entry. Lines that never moved are left out.
    pub lines: Vec<LineReport>,
    /// False sharing found, most useless transfers first.
    pub false_sharing: Vec<FalseSharing>,
    /// The cores that were given code, by number.
    pub cores: Vec<CoreReport>,
    /// The recorded line, if a recording was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineReport>,
}

/// How a simulation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The code of every core returned, but for cores that were stopped for ever.
    Completed,
    /// A core waits for something that nobody will change, and nothing else is left to happen.
    Deadlock,
    /// The time limit came first.
    TimeLimit,
}

/// Counters of accesses. A *transfer* is a line's data coming from another core's cache (or
/// another LLC); invalidating copies without needing the data is an *upgrade*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Loads (without those of waiting in a loop, see `spin_loads`).
    pub loads: u64,
    /// Number of plain stores.
    pub stores: u64,
    /// Number of read-modify-writes.
    pub rmws: u64,
    /// Accesses that hit in the core's own cache or store buffer.
    pub hits: u64,
    /// Transfers from a core that shares the last-level cache.
    pub transfers_same_llc: u64,
    /// Transfers from another LLC of the same socket.
    pub transfers_cross_llc: u64,
    /// Transfers from another socket.
    pub transfers_cross_socket: u64,
    /// Lines supplied by the requester's last-level cache.
    pub llc_fills: u64,
    /// Lines supplied by memory.
    pub memory_fills: u64,
    /// Requests for ownership, upgrades among them.
    pub rfos: u64,
    /// Requests for ownership of a line that was here, but shared.
    pub upgrades: u64,
    /// Requests that found the line modified in another cache.
    pub hitms: u64,
    /// Copies in other caches that were invalidated.
    pub invalidations: u64,
    /// Modified lines written back because they were read.
    pub writebacks: u64,
    /// Requests for a line in which, since it last changed its owner, only other words had been
    /// written: without false sharing they would have hit.
    pub false_sharing: u64,
    /// Time for which cores were stalled for a line, in nanoseconds.
    pub wait_ns: f64,
    /// Time for which cores waited in a loop for a value to change, in nanoseconds.
    pub spin_ns: f64,
    /// Loads that the loops made meanwhile, all hits.
    pub spin_loads: u64,
}

/// Counters of the words with one label under one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessRow {
    /// Label of the words.
    pub label: String,
    /// Operation set by `set_operation`; empty if none was.
    pub operation: String,
    /// Counters of the row.
    #[serde(flatten)]
    pub counters: Counters,
}

/// A labelled word in a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Field {
    /// Label of the word.
    pub label: String,
    /// Bytes from the start of the line.
    pub offset: u8,
}

/// Lines with the same fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineReport {
    /// The words in the line, by offset.
    pub fields: Vec<Field>,
    /// How many such lines there were that moved.
    pub lines: u64,
    /// Transfers of the line's data between caches.
    pub transfers: u64,
    /// Copies invalidated.
    pub invalidations: u64,
    /// Requests that are due to false sharing, as in [`Counters::false_sharing`].
    pub false_sharing: u64,
    /// Time for which cores were stalled or spun for the line, in nanoseconds.
    pub wait_ns: f64,
    /// Most requests that queued for one line at one time.
    pub longest_queue: u64,
}

/// Two words in one line that different cores write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FalseSharing {
    /// One word.
    pub first: Field,
    /// The other.
    pub second: Field,
    /// Lines of this layout.
    pub lines: u64,
    /// Requests for the line that found only other words written, as in
    /// [`Counters::false_sharing`]; of the whole line, if more than two words share it.
    pub requests: u64,
}

/// One virtual core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreReport {
    /// Hardware thread.
    pub core: usize,
    /// When its code returned, in nanoseconds; absent if it did not.
    pub finished_ns: Option<f64>,
    /// Label of the word it waited for when the run ended; absent if it did not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// Time stalled for lines, in nanoseconds.
    pub wait_ns: f64,
    /// Time spent waiting in loops, in nanoseconds.
    pub spin_ns: f64,
    /// Time stalled from outside or preempted, in nanoseconds.
    pub off_ns: f64,
    /// Interrupts and NMIs served.
    pub interrupts: u64,
}

/// The recorded life of one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineReport {
    /// Label by which the line was chosen.
    pub label: String,
    /// Events by time.
    pub events: Vec<TimelineEntry>,
    /// Later events that did not fit.
    pub lost: u64,
}

/// Something that happened to the recorded line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When, in nanoseconds.
    pub at_ns: f64,
    /// Hardware thread.
    pub core: usize,
    /// The kind of event.
    #[serde(rename = "what")]
    pub event: TimelineEvent,
    /// Label of the word accessed.
    pub label: String,
    /// Operation of the core.
    pub operation: String,
}

/// Prints the counters that are not zero, one to a line.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("loads", self.loads),
            ("stores", self.stores),
            ("read-modify-writes", self.rmws),
            ("hits", self.hits),
            ("transfers within an LLC", self.transfers_same_llc),
            ("transfers between LLCs", self.transfers_cross_llc),
            ("transfers between sockets", self.transfers_cross_socket),
            ("fills from the LLC", self.llc_fills),
            ("fills from memory", self.memory_fills),
            ("requests for ownership", self.rfos),
            ("upgrades", self.upgrades),
            ("requests that found the line modified", self.hitms),
            ("invalidations", self.invalidations),
            ("writebacks", self.writebacks),
            ("requests due to false sharing", self.false_sharing),
            ("loads of waiting loops", self.spin_loads),
        ];
        for (name, count) in counts.into_iter().filter(|&(_, count)| count > 0) {
            writeln!(f, "{name:38} {count:12}")?;
        }
        let times = [("stalled for lines", self.wait_ns), ("waiting in loops", self.spin_ns)];
        for (name, time_ns) in times.into_iter().filter(|&(_, time_ns)| time_ns > 0.0) {
            writeln!(f, "{name:38} {time_ns:12.0} ns")?;
        }
        Ok(())
    }
}

impl Counters {
    /// Returns all transfers between caches.
    pub fn transfers(&self) -> u64 {
        self.transfers_same_llc + self.transfers_cross_llc + self.transfers_cross_socket
    }

    /// Returns all accesses, without those of waiting in a loop.
    pub fn accesses(&self) -> u64 {
        self.loads + self.stores + self.rmws
    }
}
