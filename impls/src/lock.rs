//! Locks: the three that the locked cells are built on, and peers to judge them by.
//!
//! | lock | design |
//! |---|---|
//! | [`tas::Tas`] | test, then test-and-set |
//! | [`queued::Queued`] | the kernel's queued spinlock: locked byte, pending bit, queue of per-CPU nodes |
//! | [`paravirt::Paravirt`] | what a kernel under a hypervisor makes of it |
//! | [`resilient::Resilient`] | the kernel's queued spinlock with deadlock detection and timeouts |
//! | [`resilient::ResilientTas`] | its test-and-set form, as used under virtualisation |
//! | [`ticket::Ticket`], [`twa::Twa`] | numbers drawn and shown; with backoff, with a waiting array |
//! | [`mcs::Mcs`], [`clh::Clh`], [`abortable::AbortableMcs`] | queues of nodes |
//! | [`hemlock::Hemlock`], [`hapax::Hapax`], [`reciprocating::Reciprocating`] | queues without nodes, and a stack |
//! | [`cna::Cna`], [`hmcs::Hmcs`], [`shfl::Shfl`] | queues that prefer a NUMA node |
//! | [`combining::FlatCombining`], [`ccsynch::CcSynch`] | the holder runs the sections of others |
//! | [`guard::Guard`] | one attempt, behind a guard per CPU |
//! | [`futex::FutexMutex`] | waiters sleep |
//! | `peers` (a feature) | `std`, `parking_lot`, `spin`, `mcslock` |
//! | `ck` (a feature) | Concurrency Kit, a C library |
//!
//! The queued locks come in two forms: the kernel's, and one with a byte-wide fast path
//! ([`queued::Form`]).
//!
//! [`mutex::Mutex`] is any of them with its data and a guard, for programs.
//!
//! A lock takes its critical section as a closure: every peer can serve that, and a lock cannot be
//! left held by mistake.

pub mod abortable;
pub mod ccsynch;
#[cfg(feature = "ck")]
pub mod ck;
pub mod clh;
pub mod cna;
pub mod combining;
pub mod futex;
pub mod guard;
pub mod hapax;
pub mod held;
pub mod hemlock;
pub mod hmcs;
mod job;
pub mod mcs;
pub mod mutex;
pub mod node;
#[cfg(all(test, feature = "shuttle"))]
mod order;
pub mod paravirt;
#[cfg(feature = "peers")]
pub mod peers;
pub mod queued;
pub mod reciprocating;
pub mod resilient;
pub mod shfl;
pub mod tas;
pub mod ticket;
pub mod twa;

use crate::cell::Errno;
use crate::machine::Cpu;
use crate::platform::Platform;

/// How an attempt can end without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivesUp {
    /// Not at all: it waits for ever.
    Never,
    /// Deadlocks are found (EDEADLK), everything else ends by a timeout (ETIMEDOUT).
    FindsDeadlocks,
    /// By a timeout alone (ETIMEDOUT).
    InTime,
    /// At once, if the lock is not free (EBUSY).
    AtOnce,
}

impl GivesUp {
    /// Returns whether an error is one that such a lock returns.
    pub fn allows(self, errno: Errno) -> bool {
        match self {
            Self::Never => false,
            Self::FindsDeadlocks => matches!(errno, Errno::EDEADLK | Errno::ETIMEDOUT),
            Self::InTime => errno == Errno::ETIMEDOUT,
            Self::AtOnce => errno == Errno::EBUSY,
        }
    }
}

/// A lock.
///
/// Spinlocks never fail. Taking a spinlock that this CPU holds hangs; a resilient lock returns
/// EDEADLK. No lock masks interrupts: callers that may be interrupted by another user of the lock
/// open an interrupt-off section first ([`Cpu::irq_save`]).
pub trait Lock<P: Platform>: Send + Sync + Sized + 'static {
    /// Name in reports.
    const ID: &'static str;
    /// Whether it can fail instead of waiting for ever, so that it may be taken in NMI context.
    const FALLIBLE: bool;
    /// Whether [`run`](Self::run) may have its section run by another CPU.
    const COMBINES: bool = false;
    /// Whether waiters sleep, so that it may be taken in task context alone.
    const SLEEPS: bool = false;
    /// How it fails.
    const GIVES_UP: GivesUp = if Self::FALLIBLE { GivesUp::FindsDeadlocks } else { GivesUp::Never };

    /// Returns a free lock.
    fn new() -> Self;

    /// Runs `section` with the lock held.
    ///
    /// # Errors
    /// Resilient locks: EDEADLK if waiting would close a cycle, ETIMEDOUT if the holder does not
    /// leave in time; `section` has not run, and lock, queue and table are as before.
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno>;

    /// Has `section` run with the lock held, by this CPU or by another one that holds it, before
    /// this
    /// returns; `section` is told by which. Locks that combine do better with this than with
    /// [`with`](Self::with); to the others it is the same.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    #[inline(always)]
    fn run<R: Send>(
        &self,
        cpu: &Cpu<'_, P>,
        section: impl FnOnce(&Cpu<'_, P>) -> R + Send,
    ) -> Result<R, Errno> {
        self.with(cpu, || section(cpu))
    }

    /// Returns the bytes that a lock takes, those behind its pointers included; what the machine
    /// keeps
    /// per CPU for all locks is not counted.
    fn space_bytes() -> usize {
        size_of::<Self>()
    }

    /// Returns whether somebody holds the lock now. Exact when all who could take it stand still.
    fn is_held(&self) -> bool;
}

/// A lock that is made of an acquire and a release that share nothing but the lock and the CPU.
pub trait RawLock<P: Platform> {
    /// Waits until the lock is held.
    ///
    /// # Errors
    /// Those of [`Lock::with`]; the lock is then not held.
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno>;
    /// Releases the lock, which this CPU holds.
    fn release(&self, cpu: &Cpu<'_, P>);
}

/// Runs `section` between acquire and release, which also happens if it panics.
#[inline(always)]
pub(crate) fn with_raw<P: Platform, L: RawLock<P>, R>(
    lock: &L,
    cpu: &Cpu<'_, P>,
    section: impl FnOnce() -> R,
) -> Result<R, Errno> {
    lock.acquire(cpu)?;
    Ok(run_before(section, || lock.release(cpu)))
}

/// Runs `section` and then `release`, also if the section panics. For locks whose release goes on with
/// what their acquire found.
#[inline(always)]
pub(crate) fn run_before<R>(section: impl FnOnce() -> R, release: impl FnOnce()) -> R {
    struct Then<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Then<F> {
        #[inline(always)]
        fn drop(&mut self) {
            if let Some(release) = self.0.take() {
                release();
            }
        }
    }
    let _release = Then(Some(release));
    section()
}
