//! The access that a core makes, while it waits.

use crate::access::Access;
use crate::costs::Ps;

/// The access that a core makes, while it waits: for its turn, for a store that must leave the buffer,
/// for its line. All of it is read in the parts it was written in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    /// Whether one waits.
    pub(crate) waits: bool,
    pub(crate) phase: Phase,
    /// How the last one that waited took effect, or what its fiber has to do before it goes on.
    pub(crate) step: Step,
    pub(crate) index: u32,
    pub(crate) address: usize,
    pub(crate) access: *const Access,
    /// When it missed, if it did.
    pub(crate) issued_at: Ps,
    /// The value that it takes effect on, if the store buffer knows that.
    pub(crate) forwarded: u64,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            waits: false,
            phase: Phase::New,
            step: Step::Perform,
            index: 0,
            address: 0,
            access: std::ptr::null(),
            issued_at: 0,
            forwarded: 0,
        }
    }
}

/// The progress of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Counted, and found not to be a certain hit.
    New,
    /// It waited to be issued.
    Issue,
    /// An atomic whose line was here when it began; its time is over. If the line was granted to
    /// another one meanwhile, who had asked for it before, it begins again.
    Executed,
    /// It missed; the core was stalled since then and goes on when the line is here.
    Arrived,
}

/// The next thing to do for an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Perform the operation: it is done.
    Perform,
    /// Perform it on the forwarded value instead, which the store buffer knows.
    Forward,
    /// Nothing: the store is in the store buffer.
    Buffered,
    /// Another core was chosen: go on when this one goes on.
    Switch,
    /// Run what is due on top of this core, then go on.
    Attend,
}
