//! The map whose values hold the cells, as far as a cell can tell: the number of its user-space
//! references. When the last one goes, every cell is freed, and no cell may be initialised after
//! that: a timer must not outlive the last one who could stop it.

use crate::cell::AsyncCell;
use crate::machine::Cpu;
use crate::platform::{IntWord, Ordering, Platform, Word};

/// A map.
pub struct Map<P: Platform> {
    usercnt: P::U64,
}

impl<P: Platform> Map<P> {
    /// Returns a map with one user-space reference.
    pub fn new() -> Self {
        Self { usercnt: P::U64::new("map.usercnt", 1) }
    }

    /// Returns whether user space holds no reference any more.
    #[inline(always)]
    pub fn is_abandoned(&self) -> bool {
        // Relaxed: where order matters, the caller puts a full barrier before this.
        self.usercnt.load(Ordering::Relaxed) == 0
    }

    /// Drops a reference of user space; with the last one, `cells` are freed: all cells of the map.
    pub fn put_user<'a, C: AsyncCell<P> + 'a>(
        &self,
        cpu: &Cpu<'_, P>,
        cells: impl IntoIterator<Item = &'a C>,
    ) {
        // A full barrier, as `atomic64_dec_and_test` is.
        if self.usercnt.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        // Drop usercnt, then read the cells. Pairs with publish the block, then read usercnt, in
        // `AsyncCell::init`: one of the two sees the other.
        P::fence_after_rmw();
        for cell in cells {
            cell.cancel_and_free(cpu);
        }
    }
}

impl<P: Platform> Default for Map<P> {
    fn default() -> Self {
        Self::new()
    }
}
