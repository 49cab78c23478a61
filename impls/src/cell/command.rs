//! Commands: what start and cancel become where the timer's queue must not be touched, because
//! its lock may be held by what was interrupted. An `irq_work` executes them.

use super::{Kind, Start};
use crate::engine::Cancelled;
use crate::machine::Cpu;
use crate::platform::{Ordering, Platform, Word};

/// Action of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Arm or queue.
    Start(Start),
    /// Take it out of the queue, without waiting.
    Cancel,
}

impl Command {
    /// Executes the command; what a cancel found, [`Cancelled::Idle`] for a start.
    ///
    /// # Safety
    /// As [`Kind::start`].
    #[inline(always)]
    pub(crate) unsafe fn run<P: Platform, K: Kind>(
        self,
        cpu: &Cpu<'_, P>,
        node: &K::Node<P>,
    ) -> Cancelled {
        match self {
            Self::Start(start) => {
                // SAFETY: the same contract.
                unsafe { K::start(cpu, node, start) };
                Cancelled::Idle
            }
            Self::Cancel => K::try_cancel(cpu, node),
        }
    }
}

/// A command in words that may be written while somebody reads them: what is read is used only if
/// the sequence counter beside it did not change meanwhile. The fields of `struct bpf_async_cmd`; plain
/// ones there, relaxed here.
#[repr(C)]
pub(crate) struct CommandSlot<P: Platform> {
    ns: P::U64,
    mode: P::U32,
    op: P::U32,
}

/// [`CommandSlot::op`]: take it out of the queue.
const CANCEL: u32 = 0;
/// [`CommandSlot::op`]: arm or queue, as `mode` says.
const START: u32 = 1;

impl<P: Platform> CommandSlot<P> {
    /// Returns a slot without a command that anybody may use.
    pub(crate) fn new() -> Self {
        Self {
            ns: P::U64::new("command.ns", 0),
            mode: P::U32::new("command.mode", 0),
            op: P::U32::new("command.op", CANCEL),
        }
    }

    /// Writes the command, one word after the other. The caller orders them: with what came before
    /// by a write barrier (`Memory::fence_writes`).
    #[inline(always)]
    pub(crate) fn store(&self, command: Command) {
        let (ns, mode, op) = match command {
            // Flags were checked: they take two bits.
            Command::Start(start) => (start.ns, start.flags as u32, START),
            Command::Cancel => (0, 0, CANCEL),
        };
        // Relaxed: whoever reads one of these words and then passes a read barrier sees that the
        // sequence had changed before (Boehm, "Can seqlocks get along with programming language
        // memory models?").
        self.ns.store(ns, Ordering::Relaxed);
        self.mode.store(mode, Ordering::Relaxed);
        self.op.store(op, Ordering::Relaxed);
    }

    /// Reads the words. The caller passes a read barrier (`Memory::fence_reads`) before it looks at
    /// the sequence again.
    #[inline(always)]
    pub(crate) fn load(&self) -> Command {
        // Relaxed: as in `store`.
        let ns = self.ns.load(Ordering::Relaxed);
        let mode = self.mode.load(Ordering::Relaxed);
        if self.op.load(Ordering::Relaxed) == CANCEL {
            Command::Cancel
        } else {
            Command::Start(Start { ns, flags: u64::from(mode) })
        }
    }
}
