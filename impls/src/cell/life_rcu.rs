//! `rcu-alone`: no count of references. Every start is inside an RCU section from finding the block
//! until it has armed the timer; so when a grace period has ended after the block was detached, no start
//! is in progress and none can come, and the second cancel finds whatever was armed after the first.
//!
//! A start writes no line but the timer's own. The price is that nothing may keep a block beyond a section:
//! a command that waits for an `irq_work` could not, and sleepable callers make every free
//! wait for their kind of grace period.
//!
//! Invariants: who arms a timer is in a section that began before the block was detached; the
//! second cancel comes after that section.

use core::ptr::NonNull;

use super::counted;
use super::direct::{DirectBlock, DirectSlot, Found, Lives, Variant};
use super::exchanged::Exchanged;
use super::{Kind, Outcome, Start};
use crate::machine::{Cpu, planted};
use crate::platform::Platform;
use crate::rcu::Reclaim;

/// Variant `rcu-alone`.
pub struct RcuAlone;

impl<P: Platform> Variant<P> for RcuAlone {
    const ID: &'static str = "rcu-alone";
    type Keeps = Exchanged;
    type Lives = Section;
}

/// Nothing in the block.
pub struct Section;

impl<P: Platform> Lives<P> for Section {
    /// An RCU section.
    type Held<'a> = <P::Reclaim as Reclaim<P>>::Guard<'a>;

    fn new(_: &Cpu<'_, P>) -> Option<Self> {
        Some(Self)
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
        let _rcu = if planted!(cpu, ArmedOutsideSection) {
            drop(rcu);
            None
        } else {
            Some(rcu)
        };
        // SAFETY: kept by the RCU section; what is armed is cancelled after it.
        unsafe { K::start(cpu, &block.as_ref().node, start) };
        Ok(())
    }

    unsafe fn retire<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
    ) {
        if planted!(cpu, SecondCancelTooEarly) {
            // SAFETY: valid until it is deferred.
            K::try_cancel(cpu, unsafe { &block.as_ref().node });
        }
        if planted!(cpu, FreedInSection) {
            // SAFETY: none, this is the bug.
            unsafe { counted::free_unless_running(cpu, block) };
            return;
        }
        // SAFETY: detached; done once.
        unsafe { counted::free_after_grace_period(cpu, block) };
    }
}
