//! A request for a line, from the core that makes it to the line's directory.

use crate::costs::Ps;

/// The right that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// A readable copy.
    Read,
    /// The only copy, to write (read for ownership, or an upgrade of a shared copy).
    Own,
}

/// On whose behalf a line is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requester {
    /// An access that waits for it.
    Access,
    /// A store in the store buffer: the core does not wait.
    StoreBuffer,
    /// A core that waits for another line, and will want this one next.
    RunAhead,
    /// The same, which will add to it first of all.
    RunAheadToAdd,
}

/// A line to be requested.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) line: u32,
    pub(crate) want: Want,
    /// Whether the line is to be added to.
    pub(crate) adds: bool,
    /// The four-byte words of the line that the access touches, one bit each.
    pub(crate) words: u16,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
}

/// A request that waits at a line's directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) arrives_at: Ps,
    /// This request's random factor on latencies, in 1/65536.
    pub(crate) factor: u32,
    /// Row of the statistics it counts in.
    pub(crate) row: u32,
    pub(crate) core: u16,
    /// The core's cache.
    pub(crate) cache: u16,
    /// The four-byte words of the line that the access touches, one bit each.
    pub(crate) words: u16,
    pub(crate) want: Want,
    pub(crate) adds: bool,
    pub(crate) by: Requester,
}
