//! A reference count that cannot be taken up again from 0, as the kernel's `refcount_t` with
//! `refcount_inc_not_zero()`: the map holds one reference to a control block, every start in
//! progress and every pending command another.

use cellbench_mutations::mutated;

use crate::platform::{IntWord, Memory, Ordering, Word};

/// See the module.
pub struct Refs<P: Memory>(P::U32);

impl<P: Memory> Refs<P> {
    /// Returns one reference: the map's own.
    pub(crate) fn one() -> Self {
        Self(P::U32::new("block.refs", 1))
    }

    /// Takes a reference unless the count is 0: the object is being freed.
    #[inline(always)]
    pub(crate) fn try_get(&self) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen != 0 || mutated!(TakenFromZero) {
            // Acquire: what is done under the reference comes after it was taken.
            let order = if mutated!(GetRelaxed) { Ordering::Relaxed } else { Ordering::Acquire };
            match self.0.cas(seen, seen + 1, order, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
        false
    }

    /// Returns a reference; whether it was the last.
    #[inline(always)]
    #[must_use]
    pub(crate) fn put(&self) -> bool {
        // AcqRel: what was done under any reference comes before what the last put leads to.
        let order = if mutated!(PutRelaxed) { Ordering::Relaxed } else { Ordering::AcqRel };
        self.0.fetch_sub(1, order) == 1
    }
}
