//! Flat combining: whoever holds the lock runs the sections of those who wait (Hendler, Incze, Shavit
//! and Tzafrir, "Flat combining and the synchronization-parallelism tradeoff", SPAA 2010).
//!
//! A caller posts its section on a list and waits until it was run, or until the lock is free: then it
//! takes the lock and runs all that is posted. The data stays in the combiner's cache. (The paper's
//! list keeps a record of each thread, found again by scanning; here a posted section is pushed
//! and the combiner takes the list off, since a lock does not know its threads.)
//!
//! Invariants: each section runs once, by a CPU that holds the lock, before its caller returns; those
//! taken off together run in the order of their coming; a combiner takes the list off at most [`PASSES`]
//! times, which bounds its work. Sixteen bytes.
//!
//! [`Lock::with`] has its section run here, so it waits for the lock; it then combines for others.

use core::ptr;

use super::job::Job;
use super::node::{GRANTED, WAITING, WaitNode};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};

/// How often a combiner looks for more.
pub const PASSES: u32 = 4;

const FREE: u32 = 0;
const HELD: u32 = 1;

/// See the module.
pub struct FlatCombining<P: Platform> {
    held: P::U32,
    /// The newest of the sections that are posted, each on its poster's node.
    posted: P::Ptr<WaitNode<P>>,
}

impl<P: Platform> Lock<P> for FlatCombining<P> {
    const ID: &'static str = "flat-combining";
    const FALLIBLE: bool = false;
    const COMBINES: bool = true;

    fn new() -> Self {
        Self {
            held: P::U32::new("lock.held", FREE),
            posted: P::Ptr::new("lock.posted", ptr::null_mut()),
        }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    #[inline(always)]
    fn run<R: Send>(
        &self,
        cpu: &Cpu<'_, P>,
        section: impl FnOnce(&Cpu<'_, P>) -> R + Send,
    ) -> Result<R, Errno> {
        if self.try_acquire() {
            let result = section(cpu);
            self.release(cpu);
            return Ok(result);
        }
        Ok(Job::post(section, |job| self.post(cpu, job)))
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) != FREE
    }
}

impl<P: Platform> RawLock<P> for FlatCombining<P> {
    #[inline(always)]
    fn acquire(&self, _: &Cpu<'_, P>) -> Result<(), Errno> {
        if !self.try_acquire() {
            P::wait_until(|| self.try_acquire().then_some(()));
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        if planted!(cpu, CombinesAfterRelease) {
            self.held.store(FREE, Ordering::Release);
            return self.combine(cpu);
        }
        for _ in 0..PASSES {
            // Relaxed: only to see whether there is anything.
            if self.posted.load(Ordering::Relaxed).is_null() {
                break;
            }
            self.combine(cpu);
        }
        // Release pairs with the acquire in `try_acquire`.
        self.held.store(FREE, Ordering::Release);
    }
}

impl<P: Platform> FlatCombining<P> {
    /// Tries to take the lock. Acquire pairs with the release of the last holder.
    #[inline(always)]
    fn try_acquire(&self) -> bool {
        self.held.load(Ordering::Relaxed) == FREE
            && self.held.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Has a job run: by a combiner, or by this CPU as one.
    #[cold]
    fn post(&self, cpu: &Cpu<'_, P>, job: &Job<P>) {
        let node = cpu.this.wait.push();
        // Relaxed, all: the exchange below publishes them.
        node.state.store(WAITING, Ordering::Relaxed);
        node.link.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        let mut newest = self.posted.load(Ordering::Relaxed);
        loop {
            node.next.store(newest, Ordering::Relaxed);
            // Release pairs with the acquire in `combine`.
            match self.posted.cas(newest, node.address(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => newest = found,
            }
        }
        // Acquire pairs with the release of the combiner: the result is there.
        let is_done = || node.state.load(Ordering::Acquire) == GRANTED;
        let combiner = P::wait_until(|| {
            if is_done() {
                return Some(false);
            }
            (!planted!(cpu, PosterNeverCombines) && self.try_acquire()).then_some(true)
        });
        if combiner {
            // No combiner runs: what is not done is posted, our own too unless it was just done.
            while !is_done() {
                self.combine(cpu);
            }
            self.release(cpu);
        }
        cpu.this.wait.pop();
    }

    /// Takes the list off and runs what is on it, oldest first. The lock is held.
    fn combine(&self, cpu: &Cpu<'_, P>) {
        // Acquire pairs with the release in `post`.
        let mut newest = self.posted.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest: *mut WaitNode<P> = ptr::null_mut();
        // SAFETY: posters wait until they are told.
        while let Some(node) = unsafe { newest.as_ref() } {
            newest = node.next.load(Ordering::Relaxed);
            node.next.store(oldest, Ordering::Relaxed);
            oldest = node.address();
        }
        // SAFETY: as above.
        while let Some(node) = unsafe { oldest.as_ref() } {
            // Before it is told: then the node is its owner's again.
            oldest = node.next.load(Ordering::Relaxed);
            let job = node.link.load(Ordering::Relaxed).cast::<Job<P>>();
            if planted!(cpu, ToldBeforeRun) {
                node.state.store(GRANTED, Ordering::Release);
            }
            // SAFETY: its owner waits, and it was taken off the list by this CPU alone.
            unsafe { (*job).run(cpu) };
            // Release pairs with the acquire in `post`: the result is there.
            node.state.store(GRANTED, Ordering::Release);
        }
    }
}
