//! Commands: what start and cancel become where the timer's queue must not be touched, because
//! its lock may be held by what was interrupted. An `irq_work` executes them.

use super::{Kind, Start};
use crate::engine::Cancelled;
use crate::machine::Cpu;
use crate::platform::{Ordering, Platform, Word};

/// What a command does.
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
/// the sequence counter beside it did not change meanwhile.
#[repr(C)]
pub(crate) struct CommandSlot<P: Platform> {
    ns: P::U64,
    /// 0 for a cancel, else the flags of a start above [`STARTS`].
    op: P::U32,
}

/// The command is a start.
const STARTS: u32 = 1;

impl<P: Platform> CommandSlot<P> {
    /// Without a command that anybody may use.
    pub(crate) fn new() -> Self {
        Self { ns: P::U64::new("command.ns", 0), op: P::U32::new("command.op", 0) }
    }

    /// Writes the command, one word after the other.
    #[inline(always)]
    pub(crate) fn store(&self, command: Command) {
        let (ns, op) = match command {
            // Flags were checked: they take two bits.
            Command::Start(start) => (start.ns, (start.flags as u32) << 1 | STARTS),
            Command::Cancel => (0, 0),
        };
        // Release pairs with the acquires in `load`: who reads one of these words sees that the
        // sequence had changed before (Boehm, "Can seqlocks get along with programming language
        // memory models?").
        self.ns.store(ns, Ordering::Release);
        self.op.store(op, Ordering::Release);
    }

    /// Reads the words.
    #[inline(always)]
    pub(crate) fn load(&self) -> Command {
        // Acquire pairs with the releases in `store`.
        let ns = self.ns.load(Ordering::Acquire);
        let op = self.op.load(Ordering::Acquire);
        if op & STARTS == 0 {
            Command::Cancel
        } else {
            Command::Start(Start { ns, flags: u64::from(op >> 1) })
        }
    }
}
