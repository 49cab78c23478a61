//! The simulated machine as a value: topology, protocol and latencies, read from a TOML file.
//!
//! Everything the model knows about a machine stands in such a file, each figure with its source
//! (`[[source]]`); nothing about a machine is in code. The files of `machines/` are built in as
//! presets; any other file is read by [`MachineModel::load`]; a measured host becomes a model by
//! [`MachineModel::from_host`].
//!
//! What the model leaves out: cache capacity and associativity (a line once fetched stays until
//! it is invalidated), memory and link bandwidth, what a hardware prefetcher fetches, frequency
//! changes, and distance within one LLC (every pair of cores in it is equally far apart unless a
//! measured matrix says otherwise).

mod check;
mod error;
mod host;
pub(crate) mod matrix;
mod topology;
mod uncertainty;

pub use error::MachineError;
pub use host::HostMeasurements;
pub use topology::{Distance, Place, Topology};

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::protocol::Protocol;

/// The version of the file format that this crate reads and writes.
pub const MACHINE_SCHEMA: u32 = 1;

/// The built-in machine files: name and text, by name.
const PRESETS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/machines.rs"));
/// The built-in matrices: file name and text.
const MATRICES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/matrices.rs"));

/// A machine to simulate.
///
/// Hardware threads are numbered from 0: first one thread of every core, socket by socket and LLC
/// by LLC, then the second threads in the same order (as Linux numbers them on x86);
/// [`MachineModel::places`] says where each one is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineModel {
    /// Version of the file format, [`MACHINE_SCHEMA`].
    pub schema: u32,
    /// Short name, as given on a command line.
    pub name: String,
    /// The machine, in words.
    pub title: String,
    /// Coherence protocol.
    pub protocol: Protocol,
    /// Sockets, LLCs, cores and hardware threads.
    pub topology: Topology,
    /// Costs of an access that hits in the core's own cache.
    pub hit: HitCosts,
    /// Costs of a line transfer between two cores' caches.
    pub transfer: TransferCosts,
    /// Costs of a line that no core's cache supplies.
    pub fill: FillCosts,
    /// Serialisation of requests for one line.
    pub directory: DirectoryCosts,
    /// The store buffer of each hardware thread.
    pub store_buffer: StoreBuffer,
    /// Costs of a core outside its memory accesses.
    pub core: CoreCosts,
    /// Where the figures come from.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
}

/// Costs of an access that hits in the core's own cache, in nanoseconds of the issuing core's time
/// (that is: what one more such operation in a loop adds, not the latency to use of its result).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitCosts {
    /// A plain load.
    pub load_ns: f64,
    /// A plain store.
    pub store_ns: f64,
    /// A read-modify-write (`lock`-prefixed instruction, LSE atomic).
    pub atomic_ns: f64,
    /// The time for which a store of a part of a word keeps the core's next read-modify-write of
    /// the whole
    /// word waiting: it cannot be forwarded, and has to leave the store buffer.
    pub partial_store_ns: f64,
    /// A full fence, beyond waiting for the store buffer.
    pub fence_ns: f64,
}

/// Costs of a line transfer between two cores' caches: the stall of a load or RMW that misses a
/// line held modified by a core at that distance, in nanoseconds. Half of it is the request's way
/// until the holder loses the line, half is the data's way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferCosts {
    /// Between cores that share the last-level cache.
    pub same_llc_ns: f64,
    /// Between cores of one socket in different LLCs.
    pub cross_llc_ns: f64,
    /// Between cores of different sockets.
    pub cross_socket_ns: f64,
    /// Measured, between hardware threads `[from][to]`; where given it replaces the three figures
    /// above. Entries between threads of one core are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_ns: Option<Vec<Vec<f64>>>,
    /// A file with the matrix, measured, beside the machine's own file: comma-separated values in
    /// nanoseconds, of which the lower triangle is enough; lines that begin with `#` say where they
    /// come from. The model that was read holds the figures themselves, as `matrix_ns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_file: Option<String>,
    /// Divisor of the figures of `matrix_file`: the time of a compare-and-exchange ping-pong, one way, as a
    /// share of the transfer (half of it, and the ownership share). 1 where the file holds transfers.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub matrix_share: f64,
    /// Whether each request for a line goes through the socket whose memory holds the line (its
    /// *home*): then a transfer within another socket crosses the link between the sockets, too.
    /// Where it does not, the snoop filter of a socket finds the line in this socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub through_home: bool,
}

fn one() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_one(value: &f64) -> bool {
    value.to_bits() == 1.0_f64.to_bits()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(value: &f64) -> bool {
    value.to_bits() == 0
}

fn yes() -> bool {
    true
}

/// Costs of a line that no core's cache supplies, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FillCosts {
    /// From the last-level cache of the requester.
    pub llc_ns: f64,
    /// From the memory of the requester's socket.
    pub memory_ns: f64,
    /// From the memory of another socket.
    pub remote_memory_ns: f64,
}

/// Serialisation of requests for one line, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryCosts {
    /// Time for which one read request occupies its line at the directory; requests for the same
    /// line queue for it. Many readers of one line are served at this pace.
    pub service_ns: f64,
    /// Time between two invalidations that the directory sends out for one request.
    pub snoop_issue_ns: f64,
    /// The time for which a core keeps a line it took for writing before it answers the next
    /// snoop, at
    /// least (it always completes the operation it took the line for). While it holds the line
    /// its further operations hit.
    pub ownership_window_ns: f64,
    /// The same as a share of the transfer to the next requester, for the part of the window that
    /// comes from the way of the acknowledgement and the next snoop (0 to 1). The longer of the
    /// two holds.
    pub ownership_share: f64,
    /// The same share for a line that was taken for an addition, if it is another one: on the
    /// result of
    /// an addition nothing hangs, so further additions of a loop are under way when the snoop
    /// comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addition_share: Option<f64>,
    /// Part of the window (0 to 1) that is left of it for a line that came for a store in the buffer, which
    /// an atomic of its core waits for: the store has to leave the buffer first, and the atomic begins
    /// after that.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub drained_window: f64,
    /// The variation of that part of the window from one taking of a line to the next: it is
    /// multiplied by a factor drawn evenly from `1 - spread` to `1 + spread` (0 to 1).
    pub ownership_spread: f64,
    /// Whether a line that was twice read and then written by the next core moves to its next
    /// reader for writing at once (A. L. Cox, R. J. Fowler, "Adaptive cache coherency for
    /// detecting migratory shared data", ISCA 1993), until a reader does not write it.
    pub migratory: bool,
}

/// The store buffer of each hardware thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreBuffer {
    /// Stores that may wait for their line before the core stalls.
    pub entries: u32,
    /// Whether every read-modify-write waits until the buffer is empty, as on x86. Where it does
    /// not,
    /// one that releases waits all the same.
    pub drained_by_atomics: bool,
}

/// Costs of a core outside its memory accesses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreCosts {
    /// The spin-loop hint, in nanoseconds.
    pub pause_ns: f64,
    /// The time a core loses when a line arrives that another core has changed, in nanoseconds: the
    /// accesses behind the one that waited are replayed, and the branch on the value, which is
    /// another than the last time, goes the other way. Additions, on whose result nothing hangs
    /// at once, do not lose it.
    pub restart_ns: f64,
    /// The time a core loses, beyond the transfer, when another core takes a line that it had read
    /// ahead: what it executed since is thrown away when the load retires (a *machine clear* for
    /// memory ordering), later than a mispredicted branch is found. `restart_ns` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_ns: Option<f64>,
    /// Accesses that a core looks ahead while it waits for a line: it asks for the lines of those
    /// that it made after this one the last time (0: it asks for one line after the other).
    pub run_ahead: u32,
    /// Whether a core that waits with an atomic asks ahead for what comes after it, and one that runs has
    /// atomics in flight that it asks again for. Where an atomic is a barrier, nothing behind one begins
    /// before it ends; behind a load, the lines of atomics are asked for all the same.
    #[serde(default = "yes")]
    pub atomics_run_ahead: bool,
    /// Part of an atomic's time (0 to 1), up to its end, for which the core has locked the line: who asks
    /// for it then waits for the end, and so takes it between this atomic and what comes after. A request
    /// that is served earlier takes the line before the atomic is executed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub atomic_locked: f64,
    /// The time that a core that does not wait loses, beyond the transfer, when another core reads
    /// a line that it owns and has an atomic on in flight, in nanoseconds. Atomics on different lines
    /// are executed ahead of each other; that work is lost. (Atomics on one line wait for each other:
    /// there is none.)
    pub disturbed_ns: f64,
    /// Reading the clock, in nanoseconds.
    pub clock_ns: f64,
    /// Code between two operations, in nanoseconds, where accesses that hit do not hide it: after an
    /// operation that had to wait for a line, but for additions, on whose result nothing hangs. The
    /// simulator does not know what an operation is; who drives it charges this
    /// ([`crate::advance_after_stall`]).
    pub operation_ns: f64,
    /// Factor on every cost of a hardware thread while another thread of its core is busy (1: no
    /// loss; 2: the two get the throughput of one).
    pub smt_slowdown: f64,
    /// Entry to and return from an interrupt or NMI, in nanoseconds.
    pub interrupt_ns: f64,
    /// One context switch, in nanoseconds.
    pub context_switch_ns: f64,
    /// Random variation of transfers, fills and computation, as a fraction: each is multiplied
    /// by a factor drawn evenly from `1 - jitter` to `1 + jitter`.
    pub jitter: f64,
}

/// Where a figure comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The fields it speaks of, for example `transfer.same_llc_ns`.
    pub fields: Vec<String>,
    /// The way the figure was obtained.
    pub kind: SourceKind,
    /// Document, table or measurement, with an address where there is one, and how the figure was
    /// derived from it.
    pub text: String,
}

/// The way a figure was obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Measured, by us or in a published measurement.
    Measured,
    /// Stated by the vendor.
    Vendor,
    /// Nobody publishes it; the text says why this value.
    Estimate,
}

impl MachineModel {
    /// Returns names of the built-in machines, sorted.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// Returns a built-in machine.
    ///
    /// # Errors
    /// [`MachineError::UnknownPreset`], which lists the known names.
    pub fn preset(name: &str) -> Result<Self, MachineError> {
        let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            return Err(MachineError::UnknownPreset {
                name: name.to_owned(),
                known: Self::preset_names().collect::<Vec<_>>().join(", "),
            });
        };
        let file = format!("machines/{name}.toml");
        Self::read(&file, text, |matrix| {
            let found = MATRICES.iter().find(|(known, _)| *known == matrix);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| MachineError::Read {
                file: format!("machines/{matrix}"),
                source: std::io::ErrorKind::NotFound.into(),
            })
        })
    }

    /// Finds a machine as a command line names it: a built-in one by its name, any other by the
    /// path of
    /// its file (with a `/` or the ending `.toml`).
    ///
    /// # Errors
    /// As for [`MachineModel::preset`] and [`MachineModel::load`].
    pub fn find(name_or_path: &str) -> Result<Self, MachineError> {
        if name_or_path.contains('/') || name_or_path.ends_with(".toml") {
            Self::load(Path::new(name_or_path))
        } else {
            Self::preset(name_or_path)
        }
    }

    /// Reads a machine from a file.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML of this schema, or a field has an impossible value;
    /// the message names file, line or field, and what to do.
    pub fn load(path: &Path) -> Result<Self, MachineError> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| MachineError::Read { file: file.clone(), source })?;
        Self::parse(&file, &text)
    }

    /// Reads a machine from the text of a file; `file` is used in messages, and a matrix is looked
    /// for in
    /// its folder.
    ///
    /// # Errors
    /// As for [`MachineModel::load`].
    pub fn parse(file: &str, text: &str) -> Result<Self, MachineError> {
        Self::read(file, text, |matrix| {
            let path = Path::new(file).with_file_name(matrix);
            fs::read_to_string(&path)
                .map_err(|source| MachineError::Read { file: path.display().to_string(), source })
        })
    }

    fn read(
        file: &str,
        text: &str,
        read_matrix: impl FnOnce(&str) -> Result<String, MachineError>,
    ) -> Result<Self, MachineError> {
        let mut model: Self =
            toml::from_str(text).map_err(|error| MachineError::parse(file, text, &error))?;
        if let Some(matrix) = model.transfer.matrix_file.take() {
            let text = read_matrix(&matrix)?;
            let share = std::mem::replace(&mut model.transfer.matrix_share, 1.0);
            model.transfer.matrix_ns = Some(matrix::parse(file, &text, share)?);
        }
        model.check(file)?;
        Ok(model)
    }

    /// Returns the machine as the text of a file that [`MachineModel::parse`] reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a machine holds only what TOML can express")
    }

    /// Returns where each hardware thread is, by its number.
    pub fn places(&self) -> Vec<Place> {
        self.topology.places()
    }
}

#[cfg(test)]
mod tests;
