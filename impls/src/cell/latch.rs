//! `seq-latch-v4` (v4, v5), `seq-latch-v6` (v6 to v8) and `seq-latch`, their repair: a flag admits one writer, and a latch sequence counter (the kernel's
//! `seqcount_latch`) covers two copies of the newest command. The writer makes the counter odd and
//! writes slot 0, makes it even and writes slot 1. A reader copies slot 1 while the counter is odd
//! and slot 0 while it is even, never the one that is being written, and looks at the counter
//! again: so it gets a whole command even in an interrupt on top of the writer.

use core::marker::PhantomData;

use super::command::{Command, CommandSlot};
use super::newest::{Buffer, Newest};
use super::{Errno, Outcome};
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// v4: always through the `irq_work`; the writer's flag is given back without release.
pub type SeqLatchV4<P, K> = Newest<P, K, Latch<P, V4>>;
/// v6: executed at once unless in NMI; the flag is given back with release.
pub type SeqLatchV6<P, K> = Newest<P, K, Latch<P, V6>>;
/// v6 with both values that the counter takes for one command as one number: a command runs once.
pub type SeqLatch<P, K> = Newest<P, K, Latch<P, Halved>>;

/// In what the revisions differ.
pub trait Revision: Send + Sync + 'static {
    /// Name in reports.
    const ID: &'static str;
    /// See [`Buffer::DIRECT`].
    const DIRECT: bool;
    /// See [`Buffer::RAW`].
    const RAW: bool;
    /// Gives the writer's flag back.
    const FLAG: Ordering;
}

macro_rules! revisions {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $direct:literal, $raw:literal, $flag:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Revision for $name {
            const ID: &'static str = $id;
            const DIRECT: bool = $direct;
            const RAW: bool = $raw;
            const FLAG: Ordering = Ordering::$flag;
        }
    )*};
}

revisions! {
    /// v4 and v5.
    V4 = "seq-latch-v4", false, true, Relaxed;
    /// v6 to v8.
    V6 = "seq-latch-v6", true, true, Release;
    /// This project's repair of the two.
    Halved = "seq-latch", true, false, Release;
}

/// See the module.
#[repr(C)]
pub struct Latch<P: Platform, R> {
    revision: PhantomData<fn() -> R>,
    /// 1 while a writer is at work.
    writer: P::U32,
    /// Twice the number of the newest command; one more while slot 0 is written.
    sequence: P::U64,
    slots: [CommandSlot<P>; 2],
}

impl<P: Platform, R: Revision> Buffer<P> for Latch<P, R> {
    const ID: &'static str = R::ID;
    const DIRECT: bool = R::DIRECT;
    const RAW: bool = R::RAW;

    fn new() -> Self {
        Self {
            revision: PhantomData,
            writer: P::U32::new("block.writer", 0),
            sequence: P::U64::new("block.sequence", 0),
            slots: [CommandSlot::new(), CommandSlot::new()],
        }
    }

    #[inline(always)]
    fn write(&self, cpu: &Cpu<'_, P>, command: Command) -> Outcome {
        // Acquire pairs with the release at the end, where the revision has one: what the last writer
        // wrote comes before.
        if self.writer.cas(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(Errno::EBUSY);
        }
        let [mut under_odd, mut under_even] = self.slots.each_ref();
        if planted!(cpu, LatchSlotsSwapped) {
            core::mem::swap(&mut under_odd, &mut under_even);
        }
        for slot in [under_odd, under_even] {
            if !planted!(cpu, RelaxedCommit) {
                // Before: the slot that readers turn to. Pairs with the acquire in `read`.
                P::fence_writes();
            }
            // Relaxed, both: only writers change it, and this is the only one.
            let sequence = self.sequence.load(Ordering::Relaxed);
            self.sequence.store(sequence + 1, Ordering::Relaxed);
            // Behind: who reads what is written now sees that the sequence has changed. Pairs with the
            // read barrier in `read`.
            P::fence_writes();
            slot.store(command);
        }
        self.writer.store(0, R::FLAG);
        Ok(())
    }

    #[inline(always)]
    fn read(&self, _: &Cpu<'_, P>, last: u64) -> Result<Option<(u64, Command)>, Errno> {
        // Acquire pairs with the barrier before the store in `write`. The kernel's `READ_ONCE` heads an
        // address dependency, which C11 has no form for.
        let sequence = self.sequence.load(Ordering::Acquire);
        let number = if R::RAW { sequence } else { sequence / 2 };
        if number == last {
            return Ok(None);
        }
        let command = self.slots[(sequence & 1) as usize].load();
        P::fence_reads();
        // Relaxed: ordered by the barrier.
        if self.sequence.load(Ordering::Relaxed) == sequence {
            Ok(Some((number, command)))
        } else {
            Err(Errno::EAGAIN)
        }
    }

    fn is_occupied(&self) -> bool {
        // Relaxed: a look.
        self.writer.load(Ordering::Relaxed) != 0
    }
}
