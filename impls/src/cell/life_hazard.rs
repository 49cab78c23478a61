//! `hazard-ref`: hazard pointers (M. Michael, "Hazard pointers: safe memory reclamation for lock-free
//! objects", TPDS 2004; proposed for the kernel as `hazptr` by B. Feng and by M. Desnoyers, 2024) in place
//! of the reference count, and of RCU around the cell's own words.
//!
//! Who uses a block writes its address into a word of his own CPU, one for each context, and looks at the cell
//! again: is the block still there, then whoever detaches it later will see the word. Who frees looks at the
//! words of all CPUs after detaching. If none names the block, no start is in progress, and the block is
//! cancelled and freed at once; else it is looked for again after a grace period.
//!
//! A start writes a line that nobody else writes, where the count moves the block's line from CPU to CPU; but it
//! needs a full barrier, and freeing reads a line of every CPU.
//!
//! Invariants: a block is freed only when no word named it after it was detached; a word is written
//! before the cell is looked at again, with a full barrier between.

use core::ptr::{self, NonNull};

use super::block::Block;
use super::direct::{DirectBlock, DirectSlot, Found, Lives, Variant};
use super::exchanged::Exchanged;
use super::{Kind, Outcome, Start};
use crate::engine::Cancelled;
use crate::machine::{Context, Cpu, planted};
use crate::platform::{Ordering, Platform, Word};
use crate::rcu::RcuHead;

/// Variant `hazard-ref`.
pub struct HazardRef;

impl<P: Platform> Variant<P> for HazardRef {
    const ID: &'static str = "hazard-ref";
    type Keeps = Exchanged;
    type Lives = Hazard;
}

/// Objects that a CPU uses now, one word for each context: operations do not nest within one.
pub(crate) struct Hazards<P: Platform>([P::Ptr<()>; Context::Nmi as usize + 1]);

impl<P: Platform> Hazards<P> {
    /// Returns words that name nothing.
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| P::Ptr::new("cpu.hazard", ptr::null_mut())))
    }

    fn names(&self, object: *mut ()) -> bool {
        // Acquire pairs with the release in `Named::drop`: what was done with the object before.
        self.0.iter().any(|word| word.load(Ordering::Acquire) == object)
    }
}

/// A block that a CPU's word names, until this is dropped.
pub struct Named<'a, P: Platform>(&'a P::Ptr<()>);

impl<P: Platform> Drop for Named<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release pairs with the acquire in `Hazards::names`.
        self.0.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Nothing in the block.
pub struct Hazard;

impl<P: Platform> Lives<P> for Hazard {
    /// The CPU's word.
    type Held<'a> = Named<'a, P>;

    fn new(_: &Cpu<'_, P>) -> Option<Self> {
        Some(Self)
    }

    #[inline(always)]
    fn find<'a, K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &'a Cpu<'_, P>,
        slot: &DirectSlot<P, K, V>,
    ) -> Found<Named<'a, P>, P, K, V> {
        let mut block = slot.get()?;
        let word = &cpu.this.hazards.0[cpu.context() as usize];
        loop {
            // Relaxed: the barrier orders it.
            word.store(block.as_ptr().cast(), Ordering::Relaxed);
            let named = Named(word);
            if planted!(cpu, HazardUnconfirmed) {
                return Ok((named, block));
            }
            if !planted!(cpu, HazardUnordered) {
                // Name the block, then look whether it is there. Pairs with take it out, then look at
                // the names, in `retire`: one of the two sees the other.
                P::fence();
            }
            let found = slot.get()?;
            if found == block {
                return Ok((named, block));
            }
            // Another one: `named` clears the word on its way out, the next turn writes it.
            block = found;
        }
    }

    #[inline(always)]
    unsafe fn start<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        _named: Named<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
        start: Start,
    ) -> Outcome {
        // SAFETY: named, so that it is neither freed nor cancelled for the last time before this ends.
        unsafe { K::start(cpu, &block.as_ref().node, start) };
        Ok(())
    }

    unsafe fn retire<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
    ) {
        // Pairs with the barrier in `find`; the exchange that detached the block is one where
        // read-modify-writes are.
        P::fence_after_rmw();
        // SAFETY: by contract.
        unsafe { free_unless_named(cpu, block) };
    }
}

/// Frees a detached block, or looks again after a grace period: if somebody names it or its callback runs.
///
/// # Safety
/// Detached; not freed yet, and not waiting for a grace period.
unsafe fn free_unless_named<P: Platform, K: Kind, V: Variant<P, Lives = Hazard>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<DirectBlock<P, K, V>>,
) {
    let address = block.as_ptr().cast();
    let named = || cpu.machine().hazards().any(|hazards| hazards.names(address));
    // SAFETY: freed below, or later.
    let this = unsafe { block.as_ref() };
    // In this order: a start that nobody is in any more has armed what the cancel finds.
    if !planted!(cpu, HazardNotLookedFor) && named()
        || K::try_cancel(cpu, &this.node) == Cancelled::Running
    {
        // SAFETY: not deferred now.
        unsafe { Block::defer(cpu, block, look_again::<P, K, V>) };
        return;
    }
    this.put_last(cpu);
    // SAFETY: nobody names it, nobody can find it, and its node is at rest.
    unsafe { Block::free(cpu, block) };
}

/// Looks again: a grace period has ended, so some time has passed.
unsafe fn look_again<P: Platform, K: Kind, V: Variant<P, Lives = Hazard>>(
    head: *mut RcuHead<P>,
    cpu: &Cpu<'_, P>,
) {
    // SAFETY: deferred once, above.
    unsafe { free_unless_named(cpu, DirectBlock::<P, K, V>::of_head(head)) };
}
