//! Test, then test-and-set, with a pause: what a queued spinlock becomes under virtualisation,
//! where a queue would wait for a CPU that does not run (`virt_spin_lock`).
//!
//! It keeps the queued spinlock's fast path and release: a compare-exchange of the word, and a store of
//! its lowest byte. See [`super::queued::WordForm`] for what that costs whoever takes it again at once.

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::Cpu;
use crate::platform::{Memory, Ordering, Platform, SplitWord, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module. No order among waiters.
pub struct Tas<P: Memory> {
    value: P::U32,
}

impl<P: Platform> Lock<P> for Tas<P> {
    const ID: &'static str = "spin-tas";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        Self { value: P::U32::new("lock.value", FREE) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.value.load(Ordering::Relaxed) != FREE
    }
}

impl<P: Platform> RawLock<P> for Tas<P> {
    #[inline(always)]
    fn acquire(&self, _: &Cpu<'_, P>) -> Result<(), Errno> {
        if !self.try_acquire() {
            self.acquire_slow();
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, _: &Cpu<'_, P>) {
        // Release pairs with the acquires below: the section comes before the next.
        self.value.clear_low_byte_release();
    }
}

impl<P: Memory> Tas<P> {
    /// Acquire pairs with the release of the last holder.
    #[inline(always)]
    pub(super) fn try_acquire(&self) -> bool {
        self.value.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slow(&self) {
        P::wait_until(|| {
            // Relaxed: only the exchange that follows takes the lock. Reading first keeps the
            // line shared among the waiters while the lock is held.
            let free = self.value.load(Ordering::Relaxed) == FREE;
            // A full barrier, as `atomic_try_cmpxchg` is.
            let take = || self.value.cas(FREE, HELD, Ordering::SeqCst, Ordering::Relaxed);
            (free && take().is_ok()).then_some(())
        });
    }
}
