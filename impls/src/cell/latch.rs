//! `seq-latch`, v4 to v8: a flag admits one writer, and a latch sequence counter (the kernel's
//! `seqcount_latch`) covers two copies of the newest command. The writer makes the counter odd and
//! writes slot 0, makes it even and writes slot 1. A reader copies slot 1 while the counter is odd
//! and slot 0 while it is even, never the one that is being written, and looks at the counter
//! again: so it gets a whole command even in an interrupt on top of the writer.

use super::command::{Command, CommandSlot};
use super::newest::{Buffer, Newest};
use super::{Errno, Outcome};
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// The cell.
pub type SeqLatch<P, K> = Newest<P, K, Latch<P>>;

/// See the module.
pub struct Latch<P: Platform> {
    /// 1 while a writer is at work.
    writer: P::U32,
    /// Twice the number of the newest command; one more while slot 0 is written.
    sequence: P::U64,
    slots: [CommandSlot<P>; 2],
}

impl<P: Platform> Buffer<P> for Latch<P> {
    const ID: &'static str = "seq-latch";

    fn new() -> Self {
        Self {
            writer: P::U32::new("block.writer", 0),
            sequence: P::U64::new("block.sequence", 0),
            slots: [CommandSlot::new(), CommandSlot::new()],
        }
    }

    #[inline(always)]
    fn write(&self, cpu: &Cpu<'_, P>, command: Command, before: impl FnOnce(u64)) -> Outcome {
        // Acquire pairs with the release at the end: what the last writer wrote comes before.
        if self.writer.cas(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(Errno::EBUSY);
        }
        let [mut under_odd, mut under_even] = self.slots.each_ref();
        if planted!(cpu, LatchSlotsSwapped) {
            core::mem::swap(&mut under_odd, &mut under_even);
        }
        let publish =
            if planted!(cpu, RelaxedCommit) { Ordering::Relaxed } else { Ordering::Release };
        // Relaxed: only writers change it, and this is the only one.
        let sequence = self.sequence.load(Ordering::Relaxed);
        before(sequence / 2 + 1);
        // Release, twice, pairs with the acquire in `read`: the slot that readers turn to.
        self.sequence.store(sequence + 1, publish);
        under_odd.store(command);
        self.sequence.store(sequence + 2, publish);
        under_even.store(command);
        self.writer.store(0, Ordering::Release);
        Ok(())
    }

    #[inline(always)]
    fn read(&self, _: &Cpu<'_, P>) -> Result<(u64, Command), Errno> {
        // Acquire pairs with the release in `write`.
        let sequence = self.sequence.load(Ordering::Acquire);
        let command = self.slots[(sequence & 1) as usize].load();
        // Relaxed: the slot's loads are acquires, so this comes after them.
        if self.sequence.load(Ordering::Relaxed) == sequence {
            Ok((sequence / 2, command))
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn is_occupied(&self) -> bool {
        // Relaxed: a look.
        self.writer.load(Ordering::Relaxed) != 0
    }
}
