//! The map value of the designs without a lock in the cell: a pointer to the control block, set
//! by a compare-exchange and taken out by an exchange.

use core::ptr::{self, NonNull};

use super::block::{Block, Own};
use super::{Errno, Inspection, Kind, Outcome};
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Ordering, Platform, Word};

/// A pointer and nothing else. It keeps the 16 bytes that the map value reserves.
#[repr(C)]
pub struct Slot<P: Platform, K: Kind, X: Own<P>> {
    block: P::Ptr<Block<P, K, X>>,
    _reserved: u64,
}

impl<P: Platform, K: Kind, X: Own<P>> Slot<P, K, X> {
    /// Returns a slot without a block.
    pub(crate) fn new() -> Self {
        Self { block: P::Ptr::new("cell.block", ptr::null_mut()), _reserved: 0 }
    }

    /// Returns the block, kept by an RCU section that the caller has open.
    ///
    /// # Errors
    /// EINVAL: not initialised.
    #[inline(always)]
    pub(crate) fn get(&self) -> Result<NonNull<Block<P, K, X>>, Errno> {
        // Acquire pairs with the exchange in `init`. The kernel's `READ_ONCE` heads an address
        // dependency, which C11 has no form for.
        NonNull::new(self.block.load(Ordering::Acquire)).ok_or(Errno::EINVAL)
    }

    /// Allocates a block and publishes it; `own` makes the design's words for the block at the
    /// given address, `free` is the design's `cancel_and_free`.
    ///
    /// # Errors
    /// EBUSY: there is a block, or another CPU was first. ENOMEM. EPERM: the map was abandoned.
    pub(crate) fn init(
        &self,
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        own: impl FnOnce(*mut Block<P, K, X>) -> (X, X::Tail),
        free: impl FnOnce(),
    ) -> Outcome {
        // Relaxed: only compared.
        if !self.block.load(Ordering::Relaxed).is_null() {
            return Err(Errno::EBUSY);
        }
        let abandoned_before = planted!(cpu, UsercntBeforePublish) && map.is_abandoned();
        let value = ptr::from_ref(self).cast();
        let block = Block::alloc(cpu, map, value, own).ok_or(Errno::ENOMEM)?;
        let publish =
            if planted!(cpu, RelaxedPublish) { Ordering::Relaxed } else { Ordering::SeqCst };
        // A full barrier, as `cmpxchg` is. Pairs with the acquire in `get`.
        if self.block.cas(ptr::null_mut(), block.as_ptr(), publish, Ordering::Relaxed).is_err() {
            if !planted!(cpu, LoserKeepsBlock) {
                // SAFETY: never published.
                unsafe { Block::free(cpu, block) };
            }
            return Err(Errno::EBUSY);
        }
        // Publish the block, then read usercnt. Pairs with drop usercnt, then read the cell, in
        // `Map::put_user`: one of the two sees the other.
        P::fence();
        let abandoned =
            if planted!(cpu, UsercntBeforePublish) { abandoned_before } else { map.is_abandoned() };
        if abandoned {
            // Not a plain free: another CPU may already have used the block.
            free();
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Returns whether there is no block, at the cost of a load.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a hint; `detach` decides.
        self.block.load(Ordering::Relaxed).is_null()
    }

    /// Takes the block out; `None` if there is none, or another CPU was first. The caller has the
    /// map's reference to it.
    #[inline(always)]
    pub(crate) fn detach(&self) -> Option<NonNull<Block<P, K, X>>> {
        // A full barrier, as `xchg` is: sees the block that `init` published; a later `init` comes
        // after.
        NonNull::new(self.block.swap(ptr::null_mut(), Ordering::SeqCst))
    }

    /// Returns what the cell refers to. Exact at rest.
    pub(crate) fn inspect(&self) -> Inspection<P> {
        // SAFETY: at rest nobody frees it.
        unsafe { self.block.load(Ordering::Acquire).as_ref() }
            .map_or_else(Inspection::uninitialised, Block::inspect)
    }
}
