//! The atomics of `loom`, which runs a test in every interleaving that the C11 memory model
//! allows (exhaustively, or within a bound on preemptions). See [`super::checked`].

use loom::cell::UnsafeCell;

use super::checked::Life;

/// A cell that loom tracks beside each word: made by writing it, used by reading it, dropped by
/// writing it. Loom reports accesses to it that nothing orders, and adds no step for them.
pub struct Tracked(UnsafeCell<()>);

// SAFETY: the cell holds nothing.
unsafe impl Sync for Tracked {}
// SAFETY: as above.
unsafe impl Send for Tracked {}

impl Life for Tracked {
    fn begin() -> Self {
        let cell = UnsafeCell::new(());
        // Loom dates the making itself back to the thread's step before.
        cell.with_mut(|_| ());
        Self(cell)
    }
    fn touch(&self) {
        self.0.with(|_| ());
    }
    fn end(&self) {
        self.0.with_mut(|_| ());
    }
}

super::checked::checked_memory!("loom", loom, Tracked);
