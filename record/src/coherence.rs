//! Which cache lines moved in a simulated window, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Coherence traffic of a simulated window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coherence {
    /// Accesses and their cost by the label of the field.
    pub fields: BTreeMap<String, FieldTraffic>,
    /// The lines that were waited for longest, longest first.
    pub lines: Vec<LineTraffic>,
    /// Pairs of fields that different cores used on one line.
    pub false_sharing: Vec<FalseSharing>,
}

/// Accesses to one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldTraffic {
    /// Number of loads.
    pub loads: u64,
    /// Number of stores.
    pub stores: u64,
    /// Atomic read-modify-writes.
    pub rmws: u64,
    /// Accesses that found the line in the core's own cache.
    pub hits: u64,
    /// Lines that came from a core with the same last-level cache.
    pub transfers_same_llc: u64,
    /// Lines that came from a core with another last-level cache of the socket.
    pub transfers_cross_llc: u64,
    /// Lines that came from another socket.
    pub transfers_cross_socket: u64,
    /// Reads for ownership.
    pub rfos: u64,
    /// Accesses that found the line modified in another core's cache.
    pub hitms: u64,
    /// Copies that were invalidated.
    pub invalidations: u64,
    /// Requests that were due to another field of the line.
    pub false_sharing: u64,
    /// Time that accesses waited, in simulated nanoseconds, all cores together.
    pub wait_ns: f64,
    /// Time that cores spun on the field.
    pub spin_ns: f64,
}

/// A field and its place in its line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldPlace {
    /// Label of the field.
    pub label: String,
    /// Offset in the line, in bytes.
    pub offset: u8,
}

/// Traffic of the lines that hold the same fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LineTraffic {
    /// Fields of the line.
    pub fields: Vec<FieldPlace>,
    /// Number of such lines.
    pub lines: u64,
    /// Transfers between cores.
    pub transfers: u64,
    /// Copies that were invalidated.
    pub invalidations: u64,
    /// Requests that were due to false sharing.
    pub false_sharing: u64,
    /// Time that accesses waited for these lines.
    pub wait_ns: f64,
    /// Most cores that waited at once.
    pub longest_queue: u64,
}

/// Two fields of one line that different cores used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FalseSharing {
    /// One of them.
    pub first: FieldPlace,
    /// The other.
    pub second: FieldPlace,
    /// Number of lines with this pair.
    pub lines: u64,
    /// Requests that would not have been made if each had a line of its own.
    pub requests: u64,
}
