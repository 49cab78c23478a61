//! Locks that people use, to judge ours by: native only.

use lock_api::RawMutex;
use mcslock::raw::spins::Mutex as Mcs;

use super::Lock;
use crate::cell::Errno;
use crate::engine::EngineKind;
use crate::machine::Cpu;
use crate::platform::{Memory, World};
use crate::rcu::ReclaimKind;

/// A platform on real cores: the peers bring their own atomics.
pub trait RealCores: Memory {}
impl RealCores for crate::platform::native::Cores {}
impl RealCores for crate::platform::native::Audited {}

macro_rules! peer {
    ($(#[$doc:meta])* $name:ident, $id:literal, $inner:ty, $new:expr, |$lock:ident, $section:ident| $with:expr, $held:expr) => {
        $(#[$doc])*
        pub struct $name($inner);

        impl<M: RealCores, R: ReclaimKind, E: EngineKind> Lock<World<M, R, E>> for $name {
            const ID: &'static str = $id;
            const FALLIBLE: bool = false;

            fn new() -> Self {
                Self($new)
            }

            #[inline(always)]
            fn with<T>(
                &self,
                _: &Cpu<'_, World<M, R, E>>,
                $section: impl FnOnce() -> T,
            ) -> Result<T, Errno> {
                let $lock = &self.0;
                Ok($with)
            }

            fn is_held(&self) -> bool {
                let $lock = &self.0;
                $held
            }
        }
    };
}

#[cfg(feature = "ck")]
pub(super) use peer;

/// Runs `section` while a guard lives.
#[inline(always)]
fn with_guard<G, T>(_guard: G, section: impl FnOnce() -> T) -> T {
    section()
}

/// Runs `section` under a raw mutex.
#[inline(always)]
fn with_raw_mutex<L: RawMutex, T>(lock: &L, section: impl FnOnce() -> T) -> T {
    struct Unlock<'a, L: RawMutex>(&'a L);
    impl<L: RawMutex> Drop for Unlock<'_, L> {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: locked by this thread below.
            unsafe { self.0.unlock() };
        }
    }
    lock.lock();
    let _unlock = Unlock(lock);
    section()
}

peer! {
    /// `std::sync::Mutex`: spins briefly, then sleeps in the kernel.
    StdMutex, "std-mutex", std::sync::Mutex<()>, std::sync::Mutex::new(()), |lock, section| {
        with_guard(lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner), section)
    }, matches!(lock.try_lock(), Err(std::sync::TryLockError::WouldBlock))
}
peer! {
    /// `parking_lot::RawMutex`: spins briefly, then sleeps in the kernel.
    ParkingLot, "parking-lot", parking_lot::RawMutex, parking_lot::RawMutex::INIT,
    |lock, section| with_raw_mutex(lock, section), lock.is_locked()
}
peer! {
    /// `spin::Mutex`: test-and-test-and-set.
    Spin, "spin-crate", spin::mutex::SpinMutex<()>, spin::mutex::SpinMutex::new(()),
    |lock, section| with_guard(lock.lock(), section), lock.is_locked()
}
peer! {
    /// `spin::mutex::TicketMutex`: numbers drawn and shown.
    SpinTicket, "spin-ticket", spin::mutex::TicketMutex<()>, spin::mutex::TicketMutex::new(()),
    |lock, section| with_guard(lock.lock(), section), lock.is_locked()
}
peer! {
    /// `mcslock::raw`: a queue of nodes on the waiters' stacks.
    McsLock, "mcs-crate", Mcs<()>, Mcs::new(()), |lock, section| {
        let mut node = mcslock::raw::MutexNode::new();
        lock.lock_with_then(&mut node, |_| section())
    }, lock.is_locked()
}
