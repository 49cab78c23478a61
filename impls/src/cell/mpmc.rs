//! `mpmc-cell`, v3: two slots and one sequence word. Bit 0 says that a writer is at work, the rest
//! counts commands; the lowest bit of the count names the slot that is read. A writer fills the
//! other slot and then adds 1: that clears its bit and carries into the count, so that slot and
//! bit flip at once. A reader copies its slot and looks at the count again.

use super::command::{Command, CommandSlot};
use super::newest::{Buffer, Newest};
use super::{Errno, Outcome};
use crate::machine::{Cpu, planted};
use crate::platform::{IntWord, Ordering, Platform, Word};

/// The cell.
pub type MpmcCell<P, K> = Newest<P, K, TwoSlots<P>>;

/// A writer is at work.
const WRITER: u64 = 1;

/// See the module.
pub struct TwoSlots<P: Platform> {
    /// Number of the newest command, shifted left by one, and [`WRITER`].
    sequence: P::U64,
    slots: [CommandSlot<P>; 2],
}

impl<P: Platform> TwoSlots<P> {
    fn slot(&self, number: u64) -> &CommandSlot<P> {
        &self.slots[(number & 1) as usize]
    }
}

impl<P: Platform> Buffer<P> for TwoSlots<P> {
    const ID: &'static str = "mpmc-cell";
    const DIRECT: bool = false;
    const RAW: bool = false;

    fn new() -> Self {
        Self {
            sequence: P::U64::new("block.sequence", 0),
            slots: [CommandSlot::new(), CommandSlot::new()],
        }
    }

    #[inline(always)]
    fn write(&self, cpu: &Cpu<'_, P>, command: Command) -> Outcome {
        // Acquire pairs with the release of the commit before: who reads what is written to the
        // slot now also sees that the slot had ceased to be the newest.
        let sequence = self.sequence.fetch_or(WRITER, Ordering::Acquire);
        if sequence & WRITER != 0 {
            return Err(Errno::EBUSY);
        }
        let number = (sequence >> 1) + 1;
        // Not as published: v3 relies on the exchange alone, whose store C11 does not order with those
        // behind it.
        P::fence_writes();
        self.slot(number).store(command);
        let commit =
            if planted!(cpu, RelaxedCommit) { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire in `read`: the slot.
        self.sequence.fetch_add(WRITER, commit);
        Ok(())
    }

    #[inline(always)]
    fn read(&self, cpu: &Cpu<'_, P>, last: u64) -> Result<Option<(u64, Command)>, Errno> {
        // Acquire pairs with the release in `write`.
        let number = self.sequence.load(Ordering::Acquire) >> 1;
        if number == last {
            return Ok(None);
        }
        let command = self.slot(number).load();
        P::fence_reads();
        // Acquire, as published; the barrier orders it.
        let unchanged = self.sequence.load(Ordering::Acquire) >> 1 == number;
        if unchanged || planted!(cpu, SlotNotReread) {
            Ok(Some((number, command)))
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn is_occupied(&self) -> bool {
        // Relaxed: a look.
        self.sequence.load(Ordering::Relaxed) & WRITER != 0
    }
}
