//! The program that owns a callback, and its reference count, which a cell holds while the
//! callback is set. One program serves many cells, so its count is itself a hot line.

use core::ptr;
use core::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;

use crate::cell::Errno;
use crate::machine::Cpu;
use crate::platform::{IntWord, Ordering, Platform, Word};

/// A program with its callbacks.
///
/// Its memory belongs to whoever made it, who also holds one reference; the count is what is
/// studied.
pub struct Program<P: Platform> {
    /// On a line of its own, as in the kernel, where it is far from the code that callbacks are
    /// part of: who looks up a callback is not to wait for those that count.
    refs: CachePadded<P::U64>,
    callbacks: Box<[Callback<P>]>,
}

/// Function of a callback: called with the CPU, the callback itself and the address of the map value.
pub type CallbackFn<P> = fn(&Cpu<'_, P>, &Callback<P>, *const ());

/// A callback of a program.
pub struct Callback<P: Platform> {
    function: CallbackFn<P>,
    /// Any number its function wants to know.
    pub data: usize,
    program: *const Program<P>,
    /// How often it ran. Counts, and orders nothing.
    runs: AtomicU64,
}

// SAFETY: `program` is compared, and dereferenced only under the contract of `Callback::program`.
unsafe impl<P: Platform> Send for Callback<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Callback<P> {}

/// Does nothing: the callback of workloads that count runs.
pub fn count_only<P: Platform>(_: &Cpu<'_, P>, _: &Callback<P>, _: *const ()) {}

impl<P: Platform> Program<P> {
    /// Returns a program with the given callbacks (function and data) and one reference, the
    /// maker's.
    /// Boxed, as its callbacks point back to it.
    pub fn new(callbacks: impl IntoIterator<Item = (CallbackFn<P>, usize)>) -> Box<Self> {
        let refs = CachePadded::new(P::U64::new("program.refs", 1));
        let mut program = Box::new(Self { refs, callbacks: Box::default() });
        let address = ptr::from_ref(&*program);
        program.callbacks = callbacks
            .into_iter()
            .map(|(function, data)| Callback {
                function,
                data,
                program: address,
                runs: AtomicU64::new(0),
            })
            .collect();
        program
    }

    /// Returns the callback with number `index`.
    pub fn callback(&self, index: usize) -> &Callback<P> {
        &self.callbacks[index]
    }

    /// Returns the number of callbacks.
    pub fn callbacks(&self) -> usize {
        self.callbacks.len()
    }

    /// References held now.
    pub fn refs(&self) -> u64 {
        self.refs.load(Ordering::Relaxed)
    }

    /// Takes a reference unless the count is 0 (`bpf_prog_inc_not_zero`).
    ///
    /// # Errors
    /// ENOENT if the count is 0: the program is on its way out.
    #[inline(always)]
    pub fn get(&self) -> Result<(), Errno> {
        let mut refs = self.refs.load(Ordering::Relaxed);
        loop {
            if refs == 0 {
                return Err(Errno::ENOENT);
            }
            // A full barrier, as `atomic64_fetch_add_unless` is.
            match self.refs.cas(refs, refs + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(found) => refs = found,
            }
        }
    }

    /// Returns a reference. The last one would free the program in the kernel.
    ///
    /// # Panics
    /// If the count is 0.
    #[inline(always)]
    pub fn put(&self) {
        // A full barrier, as `atomic64_dec_and_test` is: what was done under the reference comes before
        // whatever the last put leads to.
        let before = self.refs.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a program reference was put twice");
    }
}

impl<P: Platform> Callback<P> {
    /// Runs the callback for the map value at `value`.
    pub fn run(&self, cpu: &Cpu<'_, P>, value: *const ()) {
        // Relaxed: read at rest.
        self.runs.fetch_add(1, Ordering::Relaxed);
        (self.function)(cpu, self, value);
    }

    /// Returns how often it ran. Exact at rest.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Returns whether it is one of `program`'s.
    pub fn belongs_to(&self, program: *const Program<P>) -> bool {
        self.program == program
    }
}
