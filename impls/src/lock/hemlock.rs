//! Hemlock: a queue lock with one word for each thread, however many locks it holds (Dice and Kogan,
//! "Hemlock: Compact and scalable mutual exclusion", SPAA 2021).
//!
//! The lock is one pointer, to the hand-over word of the last who came. A newcomer waits until that
//! word names the lock, and clears it to say that it was seen; the holder who leaves writes the
//! lock's address into its own word and waits for that. The word serves all locks of its thread, here
//! of a CPU in one context: an interrupt has its own.
//!
//! Invariants: first come, first served in the order of the exchanges; a word is null but between a
//! release and its answer; one word for each CPU and context, and one for each lock. A release waits
//! for the successor, which is the price for having no node.

use core::ptr;

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// Where a CPU hands locks over in one context.
type Grant<P> = <P as crate::platform::Memory>::Ptr<()>;

/// See the module.
pub struct Hemlock<P: Platform> {
    pub(super) tail: P::Ptr<Grant<P>>,
}

impl<P: Platform> Lock<P> for Hemlock<P> {
    const ID: &'static str = "hemlock";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { tail: P::Ptr::new("lock.tail", ptr::null_mut()) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        !self.tail.load(Ordering::Relaxed).is_null()
    }
}

impl<P: Platform> RawLock<P> for Hemlock<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let own = ptr::from_ref(cpu.this.wait.grant(cpu.context())).cast_mut();
        // AcqRel: publishes the word to the next, and sees what the last holder did.
        let front = self.tail.swap(own, Ordering::AcqRel);
        // SAFETY: the words belong to the machine, which outlives the wait.
        if let Some(front) = unsafe { front.as_ref() } {
            let lock = self.address();
            // Acquire pairs with the release of the holder in front.
            P::wait_until(|| (front.load(Ordering::Acquire) == lock).then_some(()));
            if !planted!(cpu, GrantNotAnswered) {
                // Release pairs with the acquire in `release`: the word may be used again.
                front.store(ptr::null_mut(), Ordering::Release);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let own = cpu.this.wait.grant(cpu.context());
        let tail = ptr::from_ref(own).cast_mut();
        // Release pairs with the acquire of whoever finds the lock free.
        if self.tail.cas(tail, ptr::null_mut(), Ordering::Release, Ordering::Relaxed).is_err() {
            // Release pairs with the acquire in `acquire`: the section comes before the next.
            own.store(self.address(), Ordering::Release);
            if !planted!(cpu, GrantReusedUnanswered) {
                // Acquire pairs with the release of the answer.
                P::wait_until(|| own.load(Ordering::Acquire).is_null().then_some(()));
            }
        }
    }
}

impl<P: Platform> Hemlock<P> {
    fn address(&self) -> *mut () {
        ptr::from_ref(self).cast_mut().cast()
    }
}
