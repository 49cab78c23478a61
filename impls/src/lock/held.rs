//! The table of locks that a CPU holds or waits for, read by other CPUs to find a deadlock.
//!
//! An entry is made before the lock is taken, or waited for: whoever looks must not miss the edge
//! that closes a cycle. Entries leave in the reverse order of their making, so the newest entry of
//! a CPU that waits is the lock it waits for. A table that is full makes no further entries: the
//! lock then relies on its timeout.

use core::ptr;

use cellbench_mutations::mutated;

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

    /// Notes that this CPU takes or waits for `lock` (`grab_held_lock_entry`).
    #[inline(always)]
    pub(crate) fn enter(&self, lock: *mut ()) {
        // Relaxed: changed by this CPU alone. An interrupt in between finds and leaves the table
        // as it was.
        let count = self.count.load(Ordering::Relaxed);
        if mutated!(HeldEntryFirst)
            && let Some(entry) = self.locks.get(count as usize)
        {
            entry.store(lock, Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Relaxed);
            return;
        }
        // The count first: an NMI that arrives between the two makes its entry above this one.
        self.count.store(count + 1, Ordering::Relaxed);
        if let Some(entry) = self.locks.get(count as usize) {
            // Relaxed: others compare the address and nothing else.
            entry.store(lock, Ordering::Relaxed);
        }
    }

    /// Takes the lock out of the newest entry, which stays until [`leave`](Self::leave).
    #[inline(always)]
    pub(crate) fn clear_newest(&self) {
        let count = self.count.load(Ordering::Relaxed) - 1;
        if let Some(entry) = self.locks.get(count as usize) {
            entry.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Removes the newest entry, which was cleared.
    #[inline(always)]
    pub(crate) fn leave(&self) {
        self.count.store(self.count.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// Returns whether the CPU holds and waits for nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether `lock` is among the entries but for the newest of `count`, which is the one
    /// waited for.
    fn holds(&self, lock: *mut (), count: usize) -> bool {
        // Relaxed: only compared.
        self.locks[..count.saturating_sub(1)]
            .iter()
            .any(|held| held.load(Ordering::Relaxed) == lock)
    }
}

/// Returns, for AA, whether `cpu` waits for a lock that it holds itself (`check_deadlock_AA`).
pub(crate) fn is_held_here<P: Platform>(cpu: &Cpu<'_, P>, lock: *mut ()) -> bool {
    let held = &cpu.this.held;
    let capacity = if planted!(cpu, HeldTableShort) { CAPACITY - 1 } else { CAPACITY };
    held.holds(lock, held.len().min(capacity))
}

/// Returns, for ABBA, whether some other CPU holds `lock`, for which this CPU waits, and waits itself for a
/// lock that this CPU holds (`check_deadlock_ABBA`). `released` is asked in between: a lock that
/// became
/// free ends the search, and so does the first CPU that holds it.
pub(crate) fn is_cycle<P: Platform>(
    cpu: &Cpu<'_, P>,
    lock: *mut (),
    mut released: impl FnMut() -> bool,
) -> bool {
    let machine = cpu.machine();
    for other in (0..machine.cpus()).map(CpuId) {
        let table = &machine.per_cpu(other).held;
        let count = table.len();
        if released() {
            return false;
        }
        // A CPU in a cycle holds a lock and waits for one. Where the table was too small, what it waits
        // for is not in it.
        let most = if planted!(cpu, CycleTableShort) { CAPACITY - 1 } else { CAPACITY };
        if other == cpu.id() || !(2..=most).contains(&count) {
            continue;
        }
        // Relaxed: only compared.
        let wanted = table.locks[count - 1].load(Ordering::Relaxed);
        if wanted.is_null() || !table.holds(lock, count) {
            continue;
        }
        return is_held_here(cpu, wanted);
    }
    false
}

/// Removes the newest entry after a failed acquire (`release_held_lock_entry`).
pub(crate) fn leave_failed<P: Platform>(cpu: &Cpu<'_, P>) {
    if planted!(cpu, HeldEntryLeft) {
        return;
    }
    cpu.this.held.clear_newest();
    // Before the next entry: whoever holds the lock that this CPU failed to take must not find it
    // wanted here beside a lock that is taken later.
    if !planted!(cpu, FailedEntryUnfenced) {
        P::fence_writes();
    }
    cpu.this.held.leave();
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, is_cycle, is_held_here};
    use crate::machine::MachineConfig;
    use crate::platform::Stepped;
    use crate::{CpuId, Machine};

    fn lock(number: usize) -> *mut () {
        core::ptr::without_provenance_mut(0x1000 + 64 * number)
    }

    /// Tables of every size, and beyond what they hold.
    #[test]
    fn every_entry_is_found_but_the_newest() {
        for entries in 1..=CAPACITY + 2 {
            let machine = Machine::<Stepped>::new(MachineConfig::new(1));
            let cpu = machine.cpu(CpuId(0));
            let held = &cpu.this.held;
            (0..entries).for_each(|number| held.enter(lock(number)));
            let stored = entries.min(CAPACITY);
            for number in 0..entries {
                let found = is_held_here(&cpu, lock(number));
                assert_eq!(found, number + 1 < stored, "entry {number} of {entries}");
            }
            assert!(!is_held_here(&cpu, lock(CAPACITY + 9)));
            for _ in 0..entries {
                held.clear_newest();
                held.leave();
            }
            assert!(held.is_empty());
            assert!(!is_held_here(&cpu, lock(0)));
        }
    }

    /// Two CPUs wait for each other, and the other one holds more and more besides.
    #[test]
    fn a_cycle_is_found_in_tables_of_every_size() {
        for entries in 2..=CAPACITY + 1 {
            let machine = Machine::<Stepped>::new(MachineConfig::new(2));
            let [cpu, other] = [0, 1].map(|number| machine.cpu(CpuId(number)));
            let [mine, theirs] = [100, 101].map(lock);
            cpu.this.held.enter(mine);
            cpu.this.held.enter(theirs);
            (2..entries).for_each(|number| other.this.held.enter(lock(number)));
            other.this.held.enter(theirs);
            other.this.held.enter(mine);
            let found = is_cycle(&cpu, theirs, || false);
            assert_eq!(found, entries <= CAPACITY, "{entries} entries");
            assert!(!is_cycle(&cpu, theirs, || true), "it became free");
            assert!(!is_cycle(&cpu, lock(200), || false), "nobody holds it");
        }
    }
}
