//! Commands: what start and cancel become where the timer's queue must not be touched, because
//! its lock may be held by what was interrupted. An `irq_work` executes them.

use super::{Kind, Start};
use crate::engine::Cancelled;
use crate::machine::Cpu;
use crate::platform::Platform;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
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
