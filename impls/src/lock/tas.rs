//! Test, then test-and-set, with a pause (Rudolph and Segall, ISCA 1984).
//!
//! `spin-tas` is what the kernel's queued spinlock becomes under virtualisation, where a queue would
//! wait for a CPU that does not run (`virt_spin_lock`). It keeps the queued spinlock's fast path and
//! release: a compare-exchange of the word, and a store of its lowest byte. See
//! [`super::queued::WordForm`] for what that costs whoever takes it again at once. `ttas` is the lock of
//! the literature and of libraries: its release stores the word.
//!
//! Invariants: the lowest byte is 1 if and only if somebody holds the lock. No order among waiters, and
//! no bound on how often one is passed.

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Memory, Ordering, Platform, SplitWord, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module. `WORD`: the release stores the whole word.
pub struct Tas<P: Memory, const WORD: bool = false> {
    value: P::U32,
}

impl<P: Platform, const WORD: bool> Lock<P> for Tas<P, WORD> {
    const ID: &'static str = if WORD { "ttas" } else { "spin-tas" };
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

impl<P: Platform, const WORD: bool> RawLock<P> for Tas<P, WORD> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let taken = if WORD && planted!(cpu, TtasTakenByStore) {
            let was = self.value.load(Ordering::Acquire);
            self.value.store(HELD, Ordering::Relaxed);
            was == FREE
        } else if WORD && planted!(cpu, TtasTakenRelaxed) {
            self.value.cas(FREE, HELD, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        } else {
            self.try_acquire()
        };
        if !taken {
            self.acquire_slow();
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // Release, of the byte and of the word, pairs with the acquires below: the section comes
        // before the next.
        if WORD && planted!(cpu, TtasReleasedRelaxed) {
            self.value.store(FREE, Ordering::Relaxed);
        } else if WORD {
            self.value.store(FREE, Ordering::Release);
        } else {
            self.value.clear_low_byte_release();
        }
    }
}

impl<P: Memory, const WORD: bool> Tas<P, WORD> {
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
