//! `rcu-pair`: program and callback in an object of their own that is never changed, behind one pointer.
//! An update allocates the next one, exchanges the pointer, and leaves the old one to a grace period
//! (`kfree_rcu`): the way of McKenney and Slingwine's read-copy update, which a reviewer would propose first.
//!
//! No loop, no guard: one exchange replaces both, and whoever takes a pair out owns it. The price is
//! memory: an allocation in every update, that may fail where nobody may wait, and a grace period
//! for each pair. In NMI that asks for an allocator that works there (`kmalloc_nolock`, or
//! `bpf_mem_alloc` with `bpf_mem_free_rcu`): [`Heap`](crate::heap::Heap) does.
//!
//! Invariants: a pair that is published does not change; each is taken out once, by an exchange; who reads
//! it is in an RCU section that began before the read of the pointer, in a work's handler too.

use core::mem::offset_of;
use core::ptr::{self, NonNull};

use super::block::{Header, pointers};
use super::direct::{Keeps, Pair, Variant};
use super::refs::Refs;
use super::{Errno, Outcome};
use crate::machine::{Cpu, planted};
use crate::platform::{Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::rcu::{RcuHead, Reclaim};

/// Variant `rcu-pair`.
pub struct RcuPair;

impl<P: Platform> Variant<P> for RcuPair {
    const ID: &'static str = "rcu-pair";
    type Keeps = Published<P>;
    type Lives = Refs<P>;
}

/// Points to the pair that is set, or to none.
#[repr(transparent)]
pub struct Published<P: Platform> {
    pair: P::Ptr<Fixed<P>>,
}

/// A pair: words, so that checkers see who reads them; nobody writes them.
#[repr(C)]
struct Fixed<P: Platform> {
    program: P::Ptr<Program<P>>,
    callback: P::Ptr<Callback<P>>,
    rcu: RcuHead<P>,
}

/// Frees, when a grace period has ended since the pair was taken out.
unsafe fn free_pair<P: Platform>(head: *mut RcuHead<P>, cpu: &Cpu<'_, P>) {
    // SAFETY: the head lies in a pair.
    let pair = unsafe { head.cast::<u8>().sub(offset_of!(Fixed<P>, rcu)) };
    let pair = NonNull::new(pair.cast::<Fixed<P>>()).expect("not null");
    // SAFETY: taken out before the grace period, so nobody reads it.
    unsafe { cpu.machine().heap().free(cpu, pair) };
}

impl<P: Platform> Published<P> {
    /// Returns the pair that is set, kept by an RCU section that the caller has open.
    #[inline(always)]
    fn get(&self) -> Option<&Fixed<P>> {
        // Acquire pairs with the exchange in `update`. The kernel's `READ_ONCE` heads an address
        // dependency, which C11 has no form for.
        // SAFETY: a pair that was published is freed after a grace period.
        unsafe { self.pair.load(Ordering::Acquire).as_ref() }
    }

    /// Puts the program of a pair that the caller took out, and leaves the pair to a grace period.
    fn drop_pair(cpu: &Cpu<'_, P>, header: &Header<P>, pair: NonNull<Fixed<P>>) {
        // SAFETY: the caller's, until it is deferred.
        let fixed = unsafe { pair.as_ref() };
        // Relaxed: the exchange that took it out ordered it.
        header.put_program(cpu, fixed.program.load(Ordering::Relaxed));
        if planted!(cpu, PairFreedAtOnce) {
            // SAFETY: none, this is the bug.
            unsafe { cpu.machine().heap().free(cpu, pair) };
            return;
        }
        let head = (&raw const fixed.rcu).cast_mut();
        // SAFETY: taken out, so that only open sections can reach it; once.
        unsafe { cpu.machine().rcu().defer(cpu, head, free_pair::<P>) };
    }
}

impl<P: Platform> Keeps<P> for Published<P> {
    const UPDATES_IN_NMI: bool = true;
    const ALLOCATES: bool = true;
    const READ_UNDER_RCU: bool = true;

    fn new() -> Self {
        Self { pair: P::Ptr::new("block.pair", ptr::null_mut()) }
    }

    #[inline(always)]
    fn update(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        let mut next = ptr::null_mut();
        if let Some((taken, _)) = new {
            taken.get()?;
            let (program, callback) = pointers(new);
            let make = |_| Fixed {
                program: P::Ptr::new("pair.program", program),
                callback: P::Ptr::new("pair.callback", callback),
                rcu: RcuHead::new(),
            };
            let Some(pair) = cpu.machine().heap().alloc(cpu, make) else {
                taken.put();
                return Err(Errno::ENOMEM);
            };
            next = pair.as_ptr();
        }
        // A full barrier, as `xchg` is. Pairs with the acquire in `get`.
        let publish =
            if planted!(cpu, PairPublishedRelaxed) { Ordering::Relaxed } else { Ordering::SeqCst };
        if let Some(old) = NonNull::new(self.pair.swap(next, publish)) {
            Self::drop_pair(cpu, header, old);
        }
        Ok(())
    }

    #[inline(always)]
    fn is_set(&self, _: &Header<P>) -> bool {
        // Relaxed: only compared.
        !self.pair.load(Ordering::Relaxed).is_null()
    }

    #[inline(always)]
    fn callback(&self, _: &Header<P>) -> *mut Callback<P> {
        // Relaxed: ordered by the load of the pointer.
        self.get().map_or(ptr::null_mut(), |pair| pair.callback.load(Ordering::Relaxed))
    }

    fn pair(&self, _: &Header<P>) -> Pair<P> {
        // Relaxed, both: as above.
        self.get().map_or((ptr::null_mut(), ptr::null_mut()), |pair| {
            (pair.program.load(Ordering::Relaxed), pair.callback.load(Ordering::Relaxed))
        })
    }

    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        // Acquire: an update on another CPU published it, and nobody will again.
        if let Some(pair) = NonNull::new(self.pair.load(Ordering::Acquire)) {
            Self::drop_pair(cpu, header, pair);
        }
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<Fixed<P>>(cpu, count);
    }
}
