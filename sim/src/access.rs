//! The kinds of access to a word, as far as they differ in cost.

use crate::costs::Ps;
use crate::slot::Slot;

/// Kinds of access, as far as they differ in cost. A narrow access says by `mask` which bits of
/// the word it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load {
        mask: u64,
    },
    /// A store that may wait in the store buffer.
    Store {
        mask: u64,
        new: u64,
    },
    /// A store that is visible before the core goes on (`xchg` on x86).
    FencedStore {
        mask: u64,
        new: u64,
    },
    /// If it `releases`, what the core stored before it is visible when it takes effect.
    Rmw {
        releases: bool,
    },
    /// A read-modify-write that adds. (The other ones with arithmetic are loops of
    /// compare-and-exchange on x86 where their result is used.)
    Add {
        releases: bool,
    },
}

impl Access {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::Load { .. })
    }

    /// Returns whether it takes effect at its end, having kept the core busy until then.
    pub(crate) fn is_atomic(&self) -> bool {
        matches!(self, Self::Rmw { .. } | Self::Add { .. } | Self::FencedStore { .. })
    }

    /// Returns whether the stores before it must be visible when it takes effect, on every machine.
    pub(crate) fn releases(&self) -> bool {
        match *self {
            Self::FencedStore { .. } => true,
            Self::Rmw { releases } | Self::Add { releases } => releases,
            Self::Load { .. } | Self::Store { .. } => false,
        }
    }
}

/// Returns when a core's atomic on a word can begin: not while a store of a part of it is on its way.
pub(crate) fn atomic_start(now: Ps, slot: &Slot, core: u16) -> Ps {
    if slot.last_writer == core { now.max(slot.partial_until) } else { now }
}

/// Returns until when a store at a time keeps the atomics behind it waiting.
pub(crate) fn partial_until(mask: u64, at: Ps, partial_store: Ps) -> Ps {
    if mask == u64::MAX { 0 } else { at + partial_store }
}

/// Returns the four-byte words of its line that a word at an address occupies. (Words of eight bytes are
/// taken by their first half: their other half belongs to nobody else.)
pub(crate) fn words_at(address: usize) -> u16 {
    1 << (address >> 2 & 15)
}
