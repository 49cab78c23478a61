//! One cache line, and the requests for it.

use cellbench_mutations::mutated;

use crate::costs::{Costs, NEVER, Ps, scale};
use crate::queue::RequestQueue;
use crate::stats::{LineTotals, Member};

/// A line that moved from one reader and writer to the next so often is taken to go on so.
pub(crate) const MIGRATES: u8 = 2;
/// No cache.
pub(crate) const NO_CACHE: u16 = u16::MAX;

/// The supplier of a line's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The cache that owns it.
    Owner,
    /// The cache that is its home.
    Home,
    /// The last-level cache shared with the requester.
    Llc,
    Memory,
    /// Nobody: the requester has a copy and needs only the others gone.
    Own,
}

/// One cache line.
#[derive(Debug)]
pub(crate) struct Line {
    /// The cache that supplies the line (M, E, O or F), or [`NO_CACHE`].
    pub(crate) owner: u16,
    /// The cache whose LLC holds the line's data when no cache supplies it, or [`NO_CACHE`]: the
    /// line is only in memory.
    pub(crate) home: u16,
    /// The cache that touched the line first: the line is in the memory of its socket.
    pub(crate) first_toucher: u16,
    /// The owner's is the only copy: it may write.
    pub(crate) exclusive: bool,
    pub(crate) dirty: bool,
    /// The owner keeps it for its ownership window: its core waited for it, or adds to it.
    pub(crate) kept: bool,
    /// This owner's variation of the window, in 1/65536.
    pub(crate) kept_factor: u64,
    /// The cache that changed a word of it last, or [`NO_CACHE`]. (Who exchanges a word for the same,
    /// or fails to exchange it, writes the line and changes nothing.)
    pub(crate) changed_by: u16,
    /// Accesses must take the slow path: somebody sleeps on the line, or it is traced.
    pub(crate) watched: bool,
    pub(crate) traced: bool,
    /// Caches with a copy. Out of date where the owner's is the only copy.
    pub(crate) copies: u32,
    /// Cores asleep on this line.
    pub(crate) sleepers: u32,
    /// Grows with every write, so that a sleeper can tell whether what it read is still there.
    pub(crate) version: u32,
    /// When the owner's copy arrives or arrived.
    pub(crate) owner_ready_at: Ps,
    /// When the first request in the queue is served, or [`NEVER`].
    pub(crate) grant_at: Ps,
    /// Who supplies it and at what cost, if that cannot change until then.
    pub(crate) grant_source: Option<Source>,
    pub(crate) grant_cost: Ps,
    /// Until when its owner executes an atomic on it, which had begun before anybody's request was
    /// due: such a request waits for the end.
    pub(crate) locked_until: Ps,
    /// No request is served before.
    pub(crate) free_at: Ps,
    pub(crate) queue: RequestQueue,
    /// A store in a buffer of its owner may have it, and wait for an older store or its own event.
    pub(crate) stores_wait: bool,
    /// Words written since the line last changed its owner.
    pub(crate) written: u16,
    /// How often in a row the line was read and then written by the next core, up to
    /// [`MIGRATES`].
    pub(crate) migrations: u8,
    /// Simulated words in this line that live.
    pub(crate) live_words: u32,
    pub(crate) members: Vec<Member>,
    pub(crate) totals: LineTotals,
    pub(crate) key: usize,
}

impl Line {
    /// Returns whether a cache holds the line and nobody else does, so that it may write.
    #[inline]
    pub(crate) fn may_write(&self, cache: u16) -> bool {
        self.exclusive && self.owner == cache
    }

    /// Notes that its owner writes some of its words.
    #[inline]
    pub(crate) fn note_written(&mut self, words: u16) {
        self.version = self.version.wrapping_add(1);
        self.dirty = true;
        self.written |= words;
    }

    /// Returns whether its owner supplies it at a time: a forwarder (MESIF) whose own copy is on the way
    /// cannot; the home can. Once it can, that changes with the next grant only.
    #[inline]
    pub(crate) fn forwards(&self, at: Ps) -> bool {
        self.exclusive || self.dirty || self.owner_ready_at <= at
    }

    /// Returns when the first request that waits for the line is granted, which arrives at a time and
    /// whose supply takes so long; notes that time.
    #[inline]
    pub(crate) fn schedule_grant(&mut self, costs: &Costs, arrives_at: Ps, cost: Ps) -> Ps {
        let mut at = (arrives_at + cost / 4).max(self.free_at);
        if self.exclusive && self.kept && !mutated!(WindowIgnored) {
            let window = scale(scale(cost, costs.ownership_share), self.kept_factor);
            at = at.max(self.owner_ready_at + window);
        }
        self.grant_at = at;
        at
    }

    /// Returns whether the next reader of the line takes it for writing. A line whose last reader did
    /// so, and then did not write, does not migrate any more.
    pub(crate) fn migrates(&mut self) -> bool {
        if self.migrations < MIGRATES || !self.exclusive || !self.dirty {
            return false;
        }
        if self.written == 0 {
            self.migrations = 0;
        }
        self.migrations == MIGRATES
    }

    pub(crate) fn new(key: usize) -> Self {
        Self {
            owner: NO_CACHE,
            home: NO_CACHE,
            first_toucher: NO_CACHE,
            exclusive: false,
            dirty: false,
            kept: true,
            kept_factor: 1 << 16,
            changed_by: NO_CACHE,
            watched: false,
            traced: false,
            copies: 0,
            sleepers: 0,
            version: 0,
            owner_ready_at: 0,
            grant_at: NEVER,
            grant_source: None,
            grant_cost: 0,
            locked_until: 0,
            free_at: 0,
            queue: RequestQueue::default(),
            stores_wait: false,
            written: 0,
            migrations: 0,
            live_words: 0,
            members: Vec::new(),
            totals: LineTotals::default(),
            key,
        }
    }
}
