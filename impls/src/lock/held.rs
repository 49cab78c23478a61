//! The table of locks that a CPU holds or waits for, read by other CPUs to find a deadlock.
//!
//! An entry is made before the lock is taken, or waited for: whoever looks must not miss the edge
//! that closes a cycle. Entries leave in the reverse order of their making, so the newest entry of
//! a CPU that waits is the lock it waits for. A table that is full makes no further entries: the
//! lock then relies on its timeout.

use core::ptr;

use crate::machine::{Cpu, CpuId, planted};
use crate::platform::{Ordering, Platform, Word};

/// Entries of a table.
pub const CAPACITY: usize = 31;

/// One CPU's table.
#[repr(C)]
pub struct HeldTable<P: Platform> {
    /// Number of entries wanted; beyond [`CAPACITY`] they are counted, not stored.
    count: P::U32,
    locks: [P::Ptr<()>; CAPACITY],
}

/// The count is on the line of the first entries, as in `struct rqspinlock_held`.
const _: () = {
    use crate::platform::Native;
    assert!(core::mem::offset_of!(HeldTable<Native>, count) == 0);
    assert!(core::mem::offset_of!(HeldTable<Native>, locks) == 8);
};

impl<P: Platform> HeldTable<P> {
    pub(crate) fn new() -> Self {
        Self {
            count: P::U32::new("held.count", 0),
            locks: core::array::from_fn(|_| P::Ptr::new("held.lock", ptr::null_mut())),
        }
    }

    /// Notes that this CPU takes or waits for `lock`.
    #[inline(always)]
    pub(crate) fn enter(&self, lock: *mut ()) {
        // Relaxed: changed by this CPU alone. An interrupt in between finds and leaves the table
        // as it was.
        let count = self.count.load(Ordering::Relaxed);
        // The count first: an NMI that arrives between the two makes its entry above this one.
        self.count.store(count + 1, Ordering::Relaxed);
        if let Some(entry) = self.locks.get(count as usize) {
            // Release pairs with the acquire in `newest`.
            entry.store(lock, Ordering::Release);
        }
    }

    /// Removes the newest entry.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        let count = self.count.load(Ordering::Relaxed) - 1;
        if let Some(entry) = self.locks.get(count as usize) {
            entry.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Relaxed);
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// Whether the CPU holds and waits for nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored entries, oldest first.
    fn entries(&self) -> impl DoubleEndedIterator<Item = *mut ()> {
        let stored = self.len().min(CAPACITY);
        // Acquire pairs with the release in `enter`.
        self.locks[..stored].iter().map(|entry| entry.load(Ordering::Acquire))
    }
}

/// AA: whether `cpu` waits for a lock that it holds itself. Its newest entry is the one it waits
/// for, so the lock must be among the others.
pub(crate) fn is_held_here<P: Platform>(cpu: &Cpu<'_, P>, lock: *mut ()) -> bool {
    let held = cpu.this.held.entries();
    let newest_is_ours = usize::from(cpu.this.held.len() <= CAPACITY);
    held.rev().skip(newest_is_ours).any(|entry| entry == lock)
}

/// ABBA: whether some other CPU holds `lock`, for which this CPU waits, and waits itself for a
/// lock that this CPU holds. `released` is asked in between: a lock that became free ends the
/// search.
pub(crate) fn is_cycle<P: Platform>(
    cpu: &Cpu<'_, P>,
    lock: *mut (),
    mut released: impl FnMut() -> bool,
) -> bool {
    let machine = cpu.machine();
    for other in (0..machine.cpus()).map(CpuId).filter(|other| *other != cpu.id()) {
        if released() {
            return false;
        }
        let table = &machine.per_cpu(other).held;
        let mut entries = table.entries().rev();
        let Some(wanted) = entries.next() else { continue };
        if wanted == lock || !entries.any(|entry| entry == lock) {
            // It waits for the same lock or does not hold it.
            continue;
        }
        if is_held_here(cpu, wanted) {
            return true;
        }
    }
    false
}

/// Removes the newest entry after a failed acquire.
pub(crate) fn leave_failed<P: Platform>(cpu: &Cpu<'_, P>) {
    if planted!(cpu, HeldEntryLeft) {
        return;
    }
    cpu.this.held.leave();
}
