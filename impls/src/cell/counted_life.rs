//! The merged design's answer to what keeps a block: a count of references, as in [`super::counted`].
//! The counter-proposals on how program and callback stay together have it, so that they differ from
//! the merged design in one thing.

use core::ptr::NonNull;

use super::counted;
use super::direct::{DirectBlock, DirectSlot, Found, Lives, Variant};
use super::refs::Refs;
use super::{Errno, Kind, Outcome, Start};
use crate::machine::Cpu;
use crate::platform::Platform;
use crate::rcu::Reclaim;

impl<P: Platform> Lives<P> for Refs<P> {
    /// An RCU section.
    type Held<'a> = <P::Reclaim as Reclaim<P>>::Guard<'a>;

    fn new(_: &Cpu<'_, P>) -> Option<Self> {
        Some(Self::one())
    }

    #[inline(always)]
    fn find<'a, K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &'a Cpu<'_, P>,
        slot: &DirectSlot<P, K, V>,
    ) -> Found<Self::Held<'a>, P, K, V> {
        let rcu = cpu.rcu_read();
        Ok((rcu, slot.get()?))
    }

    #[inline(always)]
    unsafe fn start<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        _rcu: Self::Held<'_>,
        block: NonNull<DirectBlock<P, K, V>>,
        start: Start,
    ) -> Outcome {
        // SAFETY: kept by the RCU section.
        let this = unsafe { block.as_ref() };
        if !this.own.lives.try_get() {
            return Err(Errno::ENOENT);
        }
        // SAFETY: the last put cancels before it frees, and this reference comes before it.
        unsafe { K::start(cpu, &this.node, start) };
        // SAFETY: taken above.
        unsafe { counted::put(cpu, block) };
        Ok(())
    }

    unsafe fn retire<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
    ) {
        // SAFETY: the map's own reference, given away once by whoever detached the block.
        unsafe { counted::put(cpu, block) };
    }
}
