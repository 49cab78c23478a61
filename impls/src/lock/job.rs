//! A section that another CPU may run: what combining locks pass around.
//!
//! [`Lock::with`](super::Lock::with) runs its section on the caller's CPU. A lock that has sections run
//! by whoever holds it needs more: the section must be `Send`, and is told on which CPU it runs
//! ([`Lock::run`](super::Lock::run)).

use core::mem::MaybeUninit;

use crate::machine::Cpu;
use crate::platform::Platform;

/// A section on its owner's stack, with the type erased.
pub(crate) struct Job<P: Platform> {
    call: unsafe fn(*mut (), &Cpu<'_, P>),
    data: *mut (),
}

/// A section and the place for its result.
struct Parts<F, R> {
    section: Option<F>,
    result: MaybeUninit<R>,
}

/// Ends the process when a section panics: its owner, on another CPU, would wait for ever.
struct MustReturn;

impl Drop for MustReturn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl<P: Platform> Job<P> {
    /// Runs the section, wherever its owner is.
    ///
    /// # Safety
    /// The owner waits for it, and nobody else runs it.
    pub(crate) unsafe fn run(&self, cpu: &Cpu<'_, P>) {
        let must_return = (!P::QUARANTINE).then_some(MustReturn);
        // SAFETY: made by `post`, which has not returned.
        unsafe { (self.call)(self.data, cpu) };
        core::mem::forget(must_return);
    }

    /// Makes a job of `section` and has `wait` return once somebody has run it; returns its result.
    pub(crate) fn post<F, R>(section: F, wait: impl FnOnce(&Self)) -> R
    where
        F: FnOnce(&Cpu<'_, P>) -> R + Send,
        R: Send,
    {
        /// # Safety
        /// `data` is a `Parts<F, R>` that nobody else uses.
        unsafe fn call<P: Platform, F: FnOnce(&Cpu<'_, P>) -> R, R>(
            data: *mut (),
            cpu: &Cpu<'_, P>,
        ) {
            // SAFETY: by contract.
            let parts = unsafe { &mut *data.cast::<Parts<F, R>>() };
            let section = parts.section.take().expect("a job runs once");
            parts.result.write(section(cpu));
        }
        let mut parts = Parts { section: Some(section), result: MaybeUninit::uninit() };
        let data = core::ptr::from_mut(&mut parts).cast();
        wait(&Self { call: call::<P, F, R>, data });
        assert!(parts.section.is_none(), "the section has not run");
        // SAFETY: the section was taken by the call, which wrote the result.
        unsafe { parts.result.assume_init() }
    }
}
