//! A lock that never waits: a guard per CPU against re-entrance, and one attempt.
//!
//! The third published way to be safe in NMI: fail instead of waiting. The BPF hash map had such a
//! guard per CPU and bucket class, and returned EBUSY to whoever interrupted its own CPU's section
//! (`map_locked`, commit 20b6cc34ea74, Linux 5.11, until rqspinlock in 6.15); `kmalloc_nolock()` and
//! `local_trylock_t` of 2025 try the lock once besides, as this does, since a lock of another CPU may
//! be held by what that CPU's NMI interrupted.
//!
//! Invariants: an attempt is of a constant number of steps; it fails if the lock is held, or if this CPU
//! holds a lock of the same class (the guard is chosen by address); no order, and a bypass without
//! bound. Four bytes, and `GUARDS` words per CPU.

use super::{GivesUp, Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Memory, Ordering, Platform, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module.
pub struct Guard<P: Memory> {
    value: P::U32,
}

impl<P: Platform> Lock<P> for Guard<P> {
    const ID: &'static str = "guard-try";
    const FALLIBLE: bool = true;
    const GIVES_UP: GivesUp = GivesUp::AtOnce;

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

impl<P: Platform> RawLock<P> for Guard<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        let guard = cpu.this.wait.guard(core::ptr::from_ref(self).addr());
        if guard.get() != 0 {
            return Err(Errno::EBUSY);
        }
        // An interrupt between the look and the store leaves the guard as it found it.
        guard.set(1);
        // Relaxed: only the exchange that follows takes the lock.
        let taken = if planted!(cpu, LockLookedAtOnly) {
            let free = self.value.load(Ordering::Relaxed) == FREE;
            self.value.store(HELD, Ordering::Relaxed);
            free
        } else {
            // Acquire pairs with the release of the last holder.
            self.value.load(Ordering::Relaxed) == FREE
                && self.value.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        if !taken {
            if !planted!(cpu, GuardLeftTaken) {
                guard.set(0);
            }
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        let order =
            if planted!(cpu, GuardReleasedRelaxed) { Ordering::Relaxed } else { Ordering::Release };
        // Release pairs with the acquire of the next holder. The lock first: an NMI in between is
        // refused, the other way round it could not tell its own CPU's section from another's.
        self.value.store(FREE, order);
        cpu.this.wait.guard(core::ptr::from_ref(self).addr()).set(0);
    }
}
