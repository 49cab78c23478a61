//! `cmpxchg-state`, RFC v1: no lock in the cell. A state word in the block serialises updates
//! (READY, BUSY, FREED), a reference count orders starting before freeing, RCU keeps the block
//! for whoever still looks at it.
//!
//! An update that meets another returns EBUSY. Freeing never waits: it sets FREED, which is
//! terminal, and an update in progress finds it at its end and takes back what it wrote.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::block::{Block, Cancelling, Own};
use super::{AsyncCell, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Start};
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{IntWord, Memory, Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// No update in progress.
const READY: u32 = 0;
/// An update is in progress.
const BUSY: u32 = 1;
/// Detached; no state follows.
const FREED: u32 = 2;

/// A cell that is a pointer and nothing else. It keeps the 16 bytes that the map value reserves.
#[repr(C)]
pub struct State<P: Platform, K: Kind> {
    block: P::Ptr<StateBlock<P, K>>,
    reserved: u64,
    kind: PhantomData<K>,
}

/// What the design adds to the block.
pub struct Words<P: Memory> {
    state: P::U32,
    /// The map's own reference and one for each start in progress.
    refs: P::U32,
}

impl<P: Memory> Own for Words<P> {
    const STARTS_ARE_ORDERED: bool = true;
}

type StateBlock<P, K> = Block<P, K, Words<P>>;

impl<P: Platform, K: Kind> State<P, K> {
    /// The block, kept by an RCU section that the caller has open.
    #[inline(always)]
    fn block(&self) -> Result<NonNull<StateBlock<P, K>>, Errno> {
        // Acquire pairs with the release in `init`.
        NonNull::new(self.block.load(Ordering::Acquire)).ok_or(Errno::EINVAL)
    }
}

impl<P: Platform, K: Kind> StateBlock<P, K> {
    /// Takes a reference unless the count is 0: the block is being freed.
    #[inline(always)]
    fn try_get(&self) -> bool {
        let refs = &self.own.refs;
        let mut seen = refs.load(Ordering::Relaxed);
        while seen != 0 {
            // Acquire: what is done under the reference comes after it was taken.
            match refs.cas(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
        false
    }

    /// Returns a reference; the last one cancels and frees.
    ///
    /// # Safety
    /// The caller holds the reference and does not use the block after this, but for an RCU
    /// section that it has open.
    #[inline(always)]
    unsafe fn put(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: the reference keeps it.
        let refs = unsafe { &block.as_ref().own.refs };
        // AcqRel: every start under a reference comes before the cancel of the last put.
        if refs.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: detached, as the map's reference is gone; no reference can be taken.
            unsafe { Self::delete(cpu, block) };
        }
    }

    /// Sets or clears program and callback, one update at a time.
    #[inline(always)]
    fn update_state(&self, cpu: &Cpu<'_, P>, new: Option<(&Program<P>, &Callback<P>)>) -> Outcome {
        let state = &self.own.state;
        // AcqRel: sees what the last update wrote, and is seen by `cancel_and_free`.
        let result = match state.cas(READY, BUSY, Ordering::AcqRel, Ordering::Acquire) {
            Err(BUSY) => return Err(Errno::EBUSY),
            Err(_) => return self.drop_freed(cpu),
            Ok(_) => self.update(cpu, new),
        };
        if planted!(cpu, ReadyOverFreed) {
            state.store(READY, Ordering::Release);
            return result;
        }
        // AcqRel: publishes the update. If it finds FREED, the exchange that set it comes first:
        // whoever freed may have cleared before this wrote.
        match state.cas(BUSY, READY, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => result,
            Err(_) => self.drop_freed(cpu),
        }
    }

    /// The block was freed: takes back what may have been written since.
    #[cold]
    fn drop_freed(&self, cpu: &Cpu<'_, P>) -> Outcome {
        self.update(cpu, None)?;
        Err(Errno::EPERM)
    }
}

impl<P: Platform, K: Kind> AsyncCell<P> for State<P, K> {
    const ID: &'static str = "cmpxchg-state";
    const KIND: &'static str = K::NAME;
    const CANCELS: bool = K::CANCELS;
    const NMI_SAFE: bool = false;

    unsafe fn new() -> Self {
        Self { block: P::Ptr::new("cell.block", ptr::null_mut()), reserved: 0, kind: PhantomData }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_init(flags)?;
        let _ = self.reserved;
        if !self.block.load(Ordering::Relaxed).is_null() {
            return Err(Errno::EBUSY);
        }
        let abandoned_before = planted!(cpu, UsercntBeforePublish) && map.is_abandoned();
        let value = ptr::from_ref(self).cast();
        let block = StateBlock::<P, K>::alloc(cpu, map, value, || Words {
            state: P::U32::new("block.state", READY),
            refs: P::U32::new("block.refs", 1),
        })
        .ok_or(Errno::ENOMEM)?;
        let publish =
            if planted!(cpu, RelaxedPublish) { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire in `block`.
        if self.block.cas(ptr::null_mut(), block.as_ptr(), publish, Ordering::Relaxed).is_err() {
            if !planted!(cpu, LoserKeepsBlock) {
                // SAFETY: never published.
                unsafe { StateBlock::free(cpu, block) };
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
            self.cancel_and_free(cpu);
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    #[inline(always)]
    fn set_callback(
        &self,
        cpu: &Cpu<'_, P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.block()?.as_ref() };
        block.update_state(cpu, Some((program, callback)))
    }

    #[inline(always)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_start(start)?;
        let _rcu = cpu.rcu_read();
        let block = self.block()?;
        // SAFETY: kept by the RCU section.
        let this = unsafe { block.as_ref() };
        if K::START_NEEDS_PROGRAM && this.program.load(Ordering::Relaxed).is_null() {
            return Err(Errno::EINVAL);
        }
        if planted!(cpu, StartWithoutReference) {
            // SAFETY: none, this is the bug.
            unsafe { K::start(cpu, &this.node, start) };
            return Ok(());
        }
        // The reference orders this start before the final cancel: without it the timer could be
        // armed after that, and fire on freed memory.
        if !this.try_get() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the last put cancels before it frees, and this reference comes before it.
        unsafe { K::start(cpu, &this.node, start) };
        // SAFETY: taken above.
        unsafe { StateBlock::put(cpu, block) };
        Ok(())
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.block()?.as_ref() };
        let _cancelling = Cancelling::begin(cpu, block)?;
        // An update in the way is not waited for: its callback may stay set, as in RFC v1.
        let _ = block.update_state(cpu, None);
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        // AcqRel: sees the block that `init` published; a later `init` comes after.
        let Some(block) = NonNull::new(self.block.swap(ptr::null_mut(), Ordering::AcqRel)) else {
            return;
        };
        {
            let _rcu = cpu.rcu_read();
            // SAFETY: the map's reference keeps it.
            let this = unsafe { block.as_ref() };
            // AcqRel: an update in progress finds it at its end; one that has ended is seen.
            this.own.state.swap(FREED, Ordering::AcqRel);
            // Always "freed": clears what is there now.
            let _ = this.update_state(cpu, None);
        }
        // SAFETY: the map's own reference, returned once by whoever detached the block.
        unsafe { StateBlock::put(cpu, block) };
    }

    fn inspect(&self) -> Inspection<P> {
        // SAFETY: at rest nobody frees it.
        unsafe { self.block.load(Ordering::Acquire).as_ref() }
            .map_or_else(Inspection::uninitialised, Block::inspect)
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<StateBlock<P, K>>() }
    }
}
