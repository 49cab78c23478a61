//! A lock that holds its data, for programs that want one of these locks and not a benchmark.
//!
//! ```
//! use cellbench_impls::lock::mutex::Mutex;
//! use cellbench_impls::lock::resilient::Resilient;
//! use cellbench_impls::machine::MachineConfig;
//! use cellbench_impls::platform::Native;
//! use cellbench_impls::{CpuId, Errno, Machine};
//!
//! let machine = Machine::<Native>::new(MachineConfig::new(2));
//! let balance = Mutex::<Native, Resilient<Native>, u64>::new(10);
//! // Each thread claims a CPU of the machine: its queue nodes and its table of held locks.
//! let cpu = machine.cpu(CpuId(0));
//! *balance.lock(&cpu)? += 5;
//! let guard = balance.lock(&cpu)?;
//! assert_eq!(*guard, 15);
//! // A resilient lock answers where others would wait for ever.
//! assert_eq!(balance.lock(&cpu).err(), Some(Errno::EDEADLK));
//! assert!(balance.try_lock(&cpu).is_none());
//! # Ok::<(), Errno>(())
//! ```
//!
//! How long a lock with a time-out waits is the machine's:
//! `MachineConfig { lock_timeout_ns: 1_000_000, ..MachineConfig::new(2) }`.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use super::held::leave_failed;
use super::queued::{Form, Queued};
use super::resilient::{Generation, Resilient};
use super::tas::Tas;
use super::{Lock, RawLock};
use crate::cell::Errno;
use crate::machine::Cpu;
use crate::platform::Platform;

/// A lock that can be tried: taken if it is free, and left alone if not.
pub trait TryLock<P: Platform>: RawLock<P> {
    /// Takes the lock if nobody holds it; returns whether it did.
    fn try_acquire(&self, cpu: &Cpu<'_, P>) -> bool;
}

impl<P: Platform> TryLock<P> for Tas<P> {
    fn try_acquire(&self, _: &Cpu<'_, P>) -> bool {
        Tas::try_acquire(self)
    }
}

impl<P: Platform, F: Form> TryLock<P> for Queued<P, F> {
    fn try_acquire(&self, _: &Cpu<'_, P>) -> bool {
        self.word.try_fast().is_ok()
    }
}

impl<P: Platform, F: Form, G: Generation> TryLock<P> for Resilient<P, F, G> {
    fn try_acquire(&self, cpu: &Cpu<'_, P>) -> bool {
        // As a lock that waits: an NMI that arrives after the attempt must find the entry.
        cpu.this.held.enter(core::ptr::from_ref(self).cast_mut().cast());
        let taken = self.word.try_fast().is_ok();
        if !taken {
            leave_failed(cpu);
        }
        taken
    }
}

/// Data that is reached with the lock `L` held.
pub struct Mutex<P, L, T> {
    lock: L,
    data: UnsafeCell<T>,
    platform: core::marker::PhantomData<fn() -> P>,
}

// SAFETY: the data is reached by one holder of the lock at a time, on whatever thread that is.
unsafe impl<P, L: Sync, T: Send> Sync for Mutex<P, L, T> {}

impl<P: Platform, L: Lock<P>, T> Mutex<P, L, T> {
    /// Wraps `data` in a free lock.
    pub fn new(data: T) -> Self {
        Self { lock: L::new(), data: UnsafeCell::new(data), platform: core::marker::PhantomData }
    }

    /// Runs `section` on the data with the lock held.
    ///
    /// # Errors
    /// Those of the lock; `section` has not run.
    pub fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce(&mut T) -> R) -> Result<R, Errno> {
        self.lock.with(cpu, || {
            // SAFETY: the lock is held, so nobody else reaches the data.
            section(unsafe { &mut *self.data.get() })
        })
    }

    /// Returns the data; nobody holds the lock any more.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<P: Platform, L: RawLock<P>, T> Mutex<P, L, T> {
    /// Waits until the lock is held. Guards of several locks are to be dropped in reverse order: a
    /// resilient lock keeps what a CPU holds as a stack, as the kernel does.
    ///
    /// # Errors
    /// Those of the lock, which is then not held.
    pub fn lock<'a, 'm>(
        &'a self,
        cpu: &'a Cpu<'m, P>,
    ) -> Result<MutexGuard<'a, 'm, P, L, T>, Errno> {
        self.lock.acquire(cpu)?;
        Ok(MutexGuard { mutex: self, cpu })
    }

    /// Takes the lock if it is free; `None` if somebody holds it.
    pub fn try_lock<'a, 'm>(&'a self, cpu: &'a Cpu<'m, P>) -> Option<MutexGuard<'a, 'm, P, L, T>>
    where
        L: TryLock<P>,
    {
        // Not `then_some`: a guard that is made and dropped releases the lock.
        self.lock.try_acquire(cpu).then(|| MutexGuard { mutex: self, cpu })
    }
}

/// Access to the data of a [`Mutex`]; releases the lock when dropped.
pub struct MutexGuard<'a, 'm, P: Platform, L: RawLock<P>, T> {
    mutex: &'a Mutex<P, L, T>,
    cpu: &'a Cpu<'m, P>,
}

impl<P: Platform, L: RawLock<P>, T> Deref for MutexGuard<'_, '_, P, L, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held as long as the guard lives.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<P: Platform, L: RawLock<P>, T> DerefMut for MutexGuard<'_, '_, P, L, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed alone.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<P: Platform, L: RawLock<P>, T> Drop for MutexGuard<'_, '_, P, L, T> {
    fn drop(&mut self) {
        self.mutex.lock.release(self.cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::abortable::AbortableMcs;
    use crate::machine::{CpuId, Machine, MachineConfig};
    use crate::platform::{Memory as _, Native};

    fn counts_every_section<L: Lock<Native> + TryLock<Native>>() {
        const THREADS: u32 = 3;
        const SECTIONS: u64 = 2_000;
        let machine = Machine::<Native>::new(MachineConfig::new(THREADS));
        let count = Mutex::<Native, L, u64>::new(0);
        let tried: u64 = std::thread::scope(|scope| {
            let worker = |index| {
                let (machine, count) = (&machine, &count);
                scope.spawn(move || {
                    let cpu = machine.cpu(CpuId(index));
                    let mut tried = 0;
                    for _ in 0..SECTIONS {
                        *count.lock(&cpu).expect("nobody holds it for long") += 1;
                        if let Some(mut guard) = count.try_lock(&cpu) {
                            *guard += 1;
                            tried += 1;
                        }
                        count.with(&cpu, |count| *count += 1).expect("nobody holds it for long");
                    }
                    tried
                })
            };
            let workers: Vec<_> = (0..THREADS).map(worker).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
        });
        assert!((0..THREADS).all(|cpu| machine.rest(CpuId(cpu)).is_clean()));
        assert_eq!(count.into_inner(), 2 * u64::from(THREADS) * SECTIONS + tried);
    }

    #[test]
    fn sections_exclude_each_other() {
        counts_every_section::<Tas<Native>>();
        counts_every_section::<Queued<Native>>();
        counts_every_section::<Resilient<Native>>();
    }

    fn gives_up_in_the_machines_time<L: RawLock<Native> + Lock<Native>>() {
        let lock_timeout_ns = 1_000_000;
        let config = MachineConfig { lock_timeout_ns, ..MachineConfig::new(2) };
        let machine = Machine::<Native>::new(config);
        let mutex = Mutex::<Native, L, ()>::new(());
        let (holder, waiter) = (machine.cpu(CpuId(0)), machine.cpu(CpuId(1)));
        let guard = mutex.lock(&holder).unwrap();
        // Nobody ever releases it: with the kernel's quarter of a second this would still end.
        let began_ns = Native::now_ns();
        assert_eq!(mutex.lock(&waiter).err(), Some(Errno::ETIMEDOUT));
        assert!(Native::now_ns() - began_ns >= lock_timeout_ns);
        drop(guard);
        assert!(mutex.lock(&waiter).is_ok());
    }

    #[test]
    fn a_time_out_is_a_parameter() {
        gives_up_in_the_machines_time::<Resilient<Native>>();
        gives_up_in_the_machines_time::<AbortableMcs<Native>>();
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_and_leaves_nothing_behind() {
        let machine = Machine::<Native>::new(MachineConfig::new(2));
        let mutex = Mutex::<Native, Resilient<Native>, ()>::new(());
        let (one, other) = (machine.cpu(CpuId(0)), machine.cpu(CpuId(1)));
        let guard = mutex.lock(&one).unwrap();
        assert!(mutex.try_lock(&other).is_none());
        assert!(mutex.try_lock(&one).is_none());
        drop(guard);
        assert!(mutex.try_lock(&other).is_some());
        drop((one, other));
        assert!((0..2).all(|cpu| machine.rest(CpuId(cpu)).is_clean()));
    }
}
