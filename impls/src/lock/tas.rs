//! Test, then test-and-set, with a pause (Rudolph and Segall, ISCA 1984).
//!
//! `spin-tas` is what the kernel's queued spinlock becomes under virtualisation, where a queue would
//! wait for a CPU that does not run (`virt_spin_lock`). It keeps the queued spinlock's fast path and
//! release: a compare-exchange of the word, and a store of its lowest byte. See
//! [`super::queued::WordForm`] for what that costs whoever takes it again at once. `ttas` is the lock of
//! the literature and of libraries: taken by an exchange and released by a store, both of the word.
//!
//! Invariants: the lowest byte is 1 if and only if somebody holds the lock. No order among waiters, and
//! no bound on how often one is passed.

use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Memory, Ordering, Platform, SplitWord, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module. `EXCHANGE`: taken by an exchange, released by a store, of the word.
pub struct Tas<P: Memory, const EXCHANGE: bool = false> {
    value: P::U32,
}

impl<P: Platform, const EXCHANGE: bool> Lock<P> for Tas<P, EXCHANGE> {
    const ID: &'static str = if EXCHANGE { "ttas" } else { "spin-tas" };
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

impl<P: Platform, const EXCHANGE: bool> RawLock<P> for Tas<P, EXCHANGE> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let taken = if EXCHANGE && planted!(cpu, TtasTakenByStore) {
            let was = self.value.load(Ordering::Acquire);
            self.value.store(HELD, Ordering::Relaxed);
            was == FREE
        } else if EXCHANGE && planted!(cpu, TtasTakenRelaxed) {
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
        if EXCHANGE && planted!(cpu, TtasReleasedRelaxed) {
            self.value.store(FREE, Ordering::Relaxed);
        } else if EXCHANGE {
            // Release, here and next, pairs with the acquires below: the section comes before the
            // next.
            self.value.store(FREE, Ordering::Release);
        } else {
            self.value.clear_low_byte_release();
        }
    }
}

impl<P: Memory, const EXCHANGE: bool> Tas<P, EXCHANGE> {
    /// Takes the lock if it is free; returns whether it was.
    #[inline(always)]
    pub(super) fn try_acquire(&self) -> bool {
        if EXCHANGE {
            return self.value.test_and_set_acquire();
        }
        // Acquire pairs with the release of the last holder.
        self.value.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn acquire_slow(&self) {
        if EXCHANGE {
            // The exchange has taken the line away from the holder: not at once again.
            P::relax();
        }
        P::wait_until(|| {
            // Relaxed: only the exchange that follows takes the lock. Reading first keeps the
            // line shared among the waiters while the lock is held.
            let free = self.value.load(Ordering::Relaxed) == FREE;
            let take = || {
                if EXCHANGE {
                    return self.try_acquire();
                }
                // A full barrier, as `atomic_try_cmpxchg` is.
                self.value.cas(FREE, HELD, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            };
            (free && take()).then_some(())
        });
    }
}
