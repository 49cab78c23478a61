//! Locks of Concurrency Kit, the C library, to judge ours by: native only, feature `ck`.
//!
//! The library's locks are inline functions of its headers. `ck.c` makes functions of them, so that
//! each acquire and each release is a call, which inlined C would not pay.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use crossbeam_utils::CachePadded;

use super::Lock;
use super::peers::{RealCores, peer};
use crate::cell::Errno;
use crate::engine::EngineKind;
use crate::machine::Cpu;
use crate::platform::World;
use crate::rcu::ReclaimKind;

unsafe extern "C" {
    fn cellbench_ck_fas_init(lock: *mut c_void);
    fn cellbench_ck_fas_lock(lock: *mut c_void);
    fn cellbench_ck_fas_unlock(lock: *mut c_void);
    fn cellbench_ck_fas_locked(lock: *mut c_void) -> bool;
    fn cellbench_ck_ticket_init(lock: *mut c_void);
    fn cellbench_ck_ticket_lock(lock: *mut c_void);
    fn cellbench_ck_ticket_lock_pb(lock: *mut c_void);
    fn cellbench_ck_ticket_unlock(lock: *mut c_void);
    fn cellbench_ck_ticket_locked(lock: *mut c_void) -> bool;
    fn cellbench_ck_mcs_init(lock: *mut c_void);
    fn cellbench_ck_mcs_lock(lock: *mut c_void, node: *mut c_void);
    fn cellbench_ck_mcs_unlock(lock: *mut c_void, node: *mut c_void);
    fn cellbench_ck_mcs_locked(lock: *mut c_void) -> bool;
    fn cellbench_ck_clh_init(lock: *mut c_void, unowned: *mut c_void);
    fn cellbench_ck_clh_lock(lock: *mut c_void, node: *mut c_void);
    fn cellbench_ck_clh_unlock(node: *mut c_void) -> *mut c_void;
    fn cellbench_ck_clh_locked(lock: *mut c_void) -> bool;
}

/// CPUs that may use one CLH lock.
const MAX_CPUS: usize = 1024;

/// A lock's word. The C side alone touches it after its initialisation.
#[repr(transparent)]
struct Word(UnsafeCell<u64>);

// SAFETY: the C functions access the word atomically.
unsafe impl Sync for Word {}

impl Word {
    /// Returns a word that the C side has initialised.
    fn new(init: unsafe extern "C" fn(*mut c_void)) -> Self {
        let word = Self(UnsafeCell::new(0));
        // SAFETY: large enough, as `ck.c` asserts; nobody else has it.
        unsafe { init(word.pointer()) };
        word
    }

    #[inline(always)]
    fn pointer(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

/// Calls a C function when dropped.
struct Unlock<F: Fn()>(F);

impl<F: Fn()> Drop for Unlock<F> {
    #[inline(always)]
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs `section` between a function that locks and one that unlocks.
#[inline(always)]
fn with_locked<T>(lock: impl FnOnce(), unlock: impl Fn(), section: impl FnOnce() -> T) -> T {
    lock();
    let _unlock = Unlock(unlock);
    section()
}

/// A lock that is a word: the functions that lock and unlock it, and say whether it is locked.
macro_rules! word_lock {
    ($(#[$doc:meta])* $name:ident, $id:literal, $init:ident, $lock:ident, $unlock:ident, $locked:ident) => {
        peer! {
            $(#[$doc])*
            $name, $id, Word, Word::new($init),
            |word, section| with_locked(
                // SAFETY: initialised by `new`.
                || unsafe { $lock(word.pointer()) },
                // SAFETY: locked by this thread.
                || unsafe { $unlock(word.pointer()) },
                section,
            ), {
                // SAFETY: initialised by `new`.
                unsafe { $locked(word.pointer()) }
            }
        }
    };
}

word_lock! {
    /// `ck_spinlock_fas`: exchange, then test until free.
    Fas, "ck-fas", cellbench_ck_fas_init,
    cellbench_ck_fas_lock, cellbench_ck_fas_unlock, cellbench_ck_fas_locked
}
word_lock! {
    /// `ck_spinlock_ticket`: both numbers in one word on x86.
    Ticket, "ck-ticket", cellbench_ck_ticket_init,
    cellbench_ck_ticket_lock, cellbench_ck_ticket_unlock, cellbench_ck_ticket_locked
}
word_lock! {
    /// `ck_spinlock_ticket` with proportional backoff.
    TicketBackoff, "ck-ticket-pb", cellbench_ck_ticket_init,
    cellbench_ck_ticket_lock_pb, cellbench_ck_ticket_unlock, cellbench_ck_ticket_locked
}

/// A node of `ck_spinlock_mcs` or `ck_spinlock_clh`: a flag and a pointer.
type Node = MaybeUninit<[usize; 2]>;

peer! {
    /// `ck_spinlock_mcs`: a queue of nodes on the waiters' stacks.
    Mcs, "ck-mcs", Word, Word::new(cellbench_ck_mcs_init), |word, section| {
        let node = UnsafeCell::new(Node::uninit());
        let node: *mut c_void = node.get().cast();
        with_locked(
            // SAFETY: the C side writes the node before it reads it.
            || unsafe { cellbench_ck_mcs_lock(word.pointer(), node) },
            // SAFETY: locked with this node, which the C side has forgotten when this returns.
            || unsafe { cellbench_ck_mcs_unlock(word.pointer(), node) },
            section,
        )
    }, {
        // SAFETY: initialised by `new`.
        unsafe { cellbench_ck_mcs_locked(word.pointer()) }
    }
}

/// `ck_spinlock_clh`: each waiter spins on the node of the one in front. Each CPU's node is made at its
/// first use.
pub struct Clh {
    tail: Word,
    /// The node that each CPU goes on with; null before its first use.
    nodes: Box<[CachePadded<UnsafeCell<*mut c_void>>]>,
}

// SAFETY: a place of `nodes` is used by its own CPU alone, and what it points to is the C side's.
unsafe impl Send for Clh {}
// SAFETY: as above.
unsafe impl Sync for Clh {}

impl Clh {
    fn new_node() -> *mut c_void {
        Box::into_raw(Box::new(CachePadded::new(Node::uninit()))).cast()
    }
}

impl<M: RealCores, R: ReclaimKind, E: EngineKind> Lock<World<M, R, E>> for Clh {
    const ID: &'static str = "ck-clh";
    const FALLIBLE: bool = false;

    fn new() -> Self {
        let tail = Word(UnsafeCell::new(0));
        // SAFETY: the word holds a pointer; the node is the lock's until somebody takes it over.
        unsafe { cellbench_ck_clh_init(tail.pointer(), Self::new_node()) };
        let place = || CachePadded::new(UnsafeCell::new(ptr::null_mut()));
        Self { tail, nodes: (0..MAX_CPUS).map(|_| place()).collect() }
    }

    #[inline(always)]
    fn with<T>(
        &self,
        cpu: &Cpu<'_, World<M, R, E>>,
        section: impl FnOnce() -> T,
    ) -> Result<T, Errno> {
        let place = self.nodes[cpu.id().0 as usize].get();
        // SAFETY: this CPU alone uses the place, and does not take a lock that it holds.
        let mut node = unsafe { *place };
        if node.is_null() {
            node = Self::new_node();
        }
        Ok(with_locked(
            // SAFETY: this CPU owns the node.
            || unsafe { cellbench_ck_clh_lock(self.tail.pointer(), node) },
            // SAFETY: locked with this node; the node that comes back is this CPU's.
            || unsafe { *place = cellbench_ck_clh_unlock(node) },
            section,
        ))
    }

    fn is_held(&self) -> bool {
        // SAFETY: initialised in `new`.
        unsafe { cellbench_ck_clh_locked(self.tail.pointer()) }
    }
}

impl Drop for Clh {
    fn drop(&mut self) {
        // SAFETY: nobody uses the lock any more: its own node and those of the CPUs are all there are, each
        // once.
        unsafe {
            let last = *self.tail.0.get().cast::<*mut c_void>();
            let places = self.nodes.iter().map(|place| *place.get());
            for node in places.chain([last]).filter(|node| !node.is_null()) {
                drop(Box::from_raw(node.cast::<CachePadded<Node>>()));
            }
        }
    }
}
