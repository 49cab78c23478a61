//! The coherence protocols, and in which messages they differ.
//!
//! All are invalidation protocols with a directory: a write needs every other copy gone, a read
//! needs one current copy found. They agree on writes and on the first read of an unshared line;
//! they differ in who supplies a line to later readers, and whether a dirty line is written back
//! when it is first shared:
//!
//! | | first read of a modified line | later reads are supplied by |
//! |---|---|---|
//! | MESI | supplied by the owner, written back, all copies S | the last-level cache that holds the written-back line |
//! | MESIF | supplied by the owner, written back; the reader becomes F | the newest reader (F), while its own copy has arrived; else as MESI |
//! | MOESI | supplied by the owner, which keeps the dirty line as O | the owner (O), every time |
//!
//! Sources: M. S. Papamarcos and J. H. Patel, "A low-overhead coherence solution for
//! multiprocessors with private cache memories", ISCA 1984 (MESI); J. R. Goodman and
//! H. H. J. Hum, "MESIF: A Two-Hop Cache Coherency Protocol for Point-to-Point Interconnects",
//! 2009; AMD64 Architecture Programmer's Manual, volume 2, chapter 7 (MOESI).

use serde::{Deserialize, Serialize};

/// A coherence protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Modified, exclusive, shared, invalid.
    Mesi,
    /// MESI with a forwarder among the sharers (Intel).
    Mesif,
    /// MESI with an owner of a shared dirty line (AMD, and Arm's `SharedDirty`).
    Moesi,
}

/// The outcome for a line that one cache owned when another reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadOutcome {
    /// The supplier of the next reader.
    pub(crate) next_supplier: Supplier,
    /// Whether a dirty line is written back.
    pub(crate) writes_back: bool,
}

/// The supplier of the next reader of a shared line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supplier {
    Llc,
    Reader,
    Owner,
}

impl Protocol {
    /// Returns what a read leaves behind, by the table above.
    pub(crate) fn after_read(self, dirty: bool) -> ReadOutcome {
        match (self, dirty) {
            (Self::Mesi, _) => ReadOutcome { next_supplier: Supplier::Llc, writes_back: dirty },
            (Self::Mesif, _) => ReadOutcome { next_supplier: Supplier::Reader, writes_back: dirty },
            (Self::Moesi, true) => {
                ReadOutcome { next_supplier: Supplier::Owner, writes_back: false }
            }
            (Self::Moesi, false) => {
                ReadOutcome { next_supplier: Supplier::Llc, writes_back: false }
            }
        }
    }
}
