//! `percpu-ref`: the reference count is one for each CPU, as the kernel's `percpu_ref` (K. Overstreet, 215e262f2aeb,
//! Linux 3.11), in place of one word.
//!
//! While the block is in its cell a reference is an addition to a counter of the CPU's own, without a
//! lock prefix. Who frees declares the block dead; after a grace period everybody has seen that, the
//! counters are added up into one atomic count, and whoever brings that to 0 frees. A start holds its
//! reference beyond its RCU section, so that also callers that sleep could have one.
//!
//! A start writes a line of its own CPU. The price is a counter on every CPU for each block, taken by an
//! allocator that may wait, so that initialising in NMI is refused, and one more grace period to free.
//!
//! Here the addition is a load and a store with interrupts off, uncharged: one instruction there.
//!
//! Invariants: nobody takes a reference after the block is dead; the sum is taken after a grace period, so that
//! whoever saw the block alive has added; the map's own reference is in the count until then.

use core::ptr::NonNull;

use super::block::Block;
use super::counted;
use super::direct::{DirectBlock, DirectSlot, Found, Lives, Variant};
use super::exchanged::Exchanged;
use super::{Errno, Kind, Outcome, Start};
use crate::machine::{Context, Cpu, planted};
use crate::percpu::Counter;
use crate::platform::{IntWord, Ordering, Platform, Word};
use crate::rcu::{RcuHead, Reclaim};

/// Variant `percpu-ref`.
pub struct PercpuRef;

impl<P: Platform> Variant<P> for PercpuRef {
    const ID: &'static str = "percpu-ref";
    type Keeps = Exchanged;
    type Lives = PercpuCount<P>;
}

/// References are counted per CPU.
const ALIVE: u32 = 0;
/// The map's reference is to be put, and nobody takes another.
const DEAD: u32 = 1;
/// Keeps the count away from 0 as long as some are counted per CPU.
const BIAS: u64 = 1 << 63;

/// The count of references.
#[repr(C)]
pub struct PercpuCount<P: Platform> {
    counter: Counter<P>,
    /// Puts of a dead block, the map's own reference, and [`BIAS`].
    count: P::U64,
    mode: P::U32,
}

impl<P: Platform> PercpuCount<P> {
    #[inline(always)]
    fn is_alive(&self) -> bool {
        // Relaxed: the grace period orders it.
        self.mode.load(Ordering::Relaxed) == ALIVE
    }

    /// Adds to this CPU's counter, wrapping.
    #[inline(always)]
    fn add(&self, cpu: &Cpu<'_, P>, value: u64) {
        let _irq_off = cpu.irq_off();
        let own = self.counter.of(cpu.id());
        // Relaxed, both: this CPU's alone until the grace period has ended.
        own.store(own.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    /// Takes a reference if the block is alive; inside an RCU section.
    #[inline(always)]
    fn try_get(&self, cpu: &Cpu<'_, P>) -> bool {
        if !self.is_alive() {
            return false;
        }
        self.add(cpu, 1);
        true
    }

    /// Returns a reference, inside an RCU section, and whether it was the last.
    #[inline(always)]
    fn put(&self, cpu: &Cpu<'_, P>) -> bool {
        if self.is_alive() || planted!(cpu, PutOnDeadCounter) {
            // Against another CPU's counter, maybe: the sum is what counts.
            self.add(cpu, u64::MAX);
            return false;
        }
        self.put_dead()
    }

    fn put_dead(&self) -> bool {
        // AcqRel: what was done under any reference comes before what the last put leads to.
        self.count.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl<P: Platform> Lives<P> for PercpuCount<P> {
    const INIT_IN_NMI: bool = false;
    /// An RCU section.
    type Held<'a> = <P::Reclaim as Reclaim<P>>::Guard<'a>;

    fn new(cpu: &Cpu<'_, P>) -> Option<Self> {
        if cpu.context() >= Context::Hardirq {
            return None;
        }
        Some(Self {
            counter: cpu.machine().percpu().alloc(),
            count: P::U64::new("block.count", BIAS + 1),
            mode: P::U32::new("block.mode", ALIVE),
        })
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
        rcu: Self::Held<'_>,
        block: NonNull<DirectBlock<P, K, V>>,
        start: Start,
    ) -> Outcome {
        // SAFETY: kept by the RCU section, and then by the reference.
        let this = unsafe { block.as_ref() };
        if !this.own.lives.try_get(cpu) {
            return Err(Errno::ENOENT);
        }
        // The reference goes on where the section ends.
        drop(rcu);
        // SAFETY: the last put cancels before it frees, and this reference comes before it.
        unsafe { K::start(cpu, &this.node, start) };
        let last = {
            let _rcu = cpu.rcu_read();
            this.own.lives.put(cpu)
        };
        if last {
            // SAFETY: the last reference.
            unsafe { counted::free_after_grace_period(cpu, block) };
        }
        Ok(())
    }

    unsafe fn retire<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
    ) {
        // SAFETY: the map's reference keeps it.
        let lives = unsafe { &block.as_ref().own.lives };
        // Relaxed: who sees it late is in a section that the grace period waits for.
        lives.mode.store(DEAD, Ordering::Relaxed);
        if planted!(cpu, SummedAtOnce) {
            // SAFETY: none, this is the bug.
            unsafe { sum_up::<P, K, V>(cpu, block) };
            return;
        }
        // SAFETY: the map's reference keeps it until the sum is taken.
        unsafe { Block::defer(cpu, block, all_saw_it_dead::<P, K, V>) };
    }
}

/// Sums up: a grace period has ended since the block was declared dead.
unsafe fn all_saw_it_dead<P: Platform, K: Kind, V: Variant<P, Lives = PercpuCount<P>>>(
    head: *mut RcuHead<P>,
    cpu: &Cpu<'_, P>,
) {
    // SAFETY: the map's reference keeps it.
    unsafe { sum_up::<P, K, V>(cpu, DirectBlock::<P, K, V>::of_head(head)) };
}

/// Adds the counters of all CPUs up and puts the map's reference.
///
/// # Safety
/// Done once, by whoever has the map's reference.
unsafe fn sum_up<P: Platform, K: Kind, V: Variant<P, Lives = PercpuCount<P>>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<DirectBlock<P, K, V>>,
) {
    // SAFETY: the map's reference keeps it.
    let lives = unsafe { &block.as_ref().own.lives };
    let sum = lives.counter.sum();
    if planted!(cpu, BiasKept) {
        lives.count.fetch_add(sum, Ordering::AcqRel);
    } else {
        // Relaxed: the put that follows orders it.
        lives.count.fetch_add(sum.wrapping_sub(BIAS), Ordering::Relaxed);
    }
    if lives.put_dead() {
        // SAFETY: the last reference.
        unsafe { counted::free_after_grace_period(cpu, block) };
    }
}
