//! `cmpxchg-state`, RFC v1: no lock in the cell. A state word in the block serialises updates
//! (READY, BUSY, FREED), a reference count orders starting before freeing, RCU keeps the block
//! for whoever still looks at it.
//!
//! An update that meets another returns EBUSY. Freeing never waits: it sets FREED, which is
//! terminal, and an update in progress finds it at its end and takes back what it wrote.
//!
//! RFC v1 refuses NMI altogether. [`State`] with `NMI` takes back that refusal for updates, which
//! return EBUSY if they interrupt another one: what the study of re-entrance compares. Starting a
//! timer takes its base's lock, and stays refused.

use core::mem::offset_of;
use core::ptr::NonNull;

use super::Timer;
use super::block::{Block, Cancelling, Own};
use super::refs::Refs;
use super::slot::Slot;
use super::worker::{self, ByWorker, Worker};
use super::{
    AsyncCell, CellKind, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Promises, Start,
};
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Native, Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// No update in progress.
const READY: u32 = 0;
/// An update is in progress.
const BUSY: u32 = 1;
/// Detached; no state follows.
const FREED: u32 = 2;

/// A cell that is a pointer and nothing else. `NMI`: updates are allowed in NMI context.
#[repr(transparent)]
pub struct State<P: Platform, K: Kind, const NMI: bool> {
    slot: Slot<P, K, Words<P>>,
}

/// Words that the design adds to the block, at the offsets of the patched `struct bpf_async_cb`.
#[repr(C)]
pub struct Words<P: Platform> {
    _delete_work_and_flags: [u64; 3],
    /// The map's own reference and one for each start in progress.
    refs: Refs<P>,
    state: P::U32,
}

impl<P: Platform> Own<P> for Words<P> {
    type Tail = Worker<P>;
}

impl<P: Platform> ByWorker<P> for Words<P> {
    const STARTS_ARE_ORDERED: bool = true;
}

const _: () = {
    assert!(StateBlock::<Native, Timer>::OWN_AT + offset_of!(Words<Native>, refs) == 72);
    assert!(StateBlock::<Native, Timer>::OWN_AT + offset_of!(Words<Native>, state) == 76);
    assert!(StateBlock::<Native, Timer>::NODE_AT == 80);
};

type StateBlock<P, K> = Block<P, K, Words<P>>;

impl<P: Platform, K: Kind> StateBlock<P, K> {
    /// Returns a reference; the last one cancels and frees.
    ///
    /// # Safety
    /// The caller holds the reference and does not use the block after this, but for an RCU
    /// section that it has open.
    #[inline(always)]
    unsafe fn put(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: the reference keeps it.
        if unsafe { block.as_ref() }.own.refs.put() {
            // Every start under a reference came before this.
            // SAFETY: detached, as the map's reference is gone; no reference can be taken.
            unsafe { worker::delete(cpu, block) };
        }
    }

    /// Sets or clears program and callback, one update at a time.
    #[inline(always)]
    fn update_state(&self, cpu: &Cpu<'_, P>, new: Option<(&Program<P>, &Callback<P>)>) -> Outcome {
        let state = &self.own.state;
        // A full barrier, as `cmpxchg` is, here and below: sees what the last update wrote, and is seen
        // by `cancel_and_free`.
        let result = match state.cas(READY, BUSY, Ordering::SeqCst, Ordering::Acquire) {
            Err(BUSY) => return Err(Errno::EBUSY),
            Err(_) => return self.drop_freed(cpu),
            Ok(_) => self.update(cpu, new),
        };
        if planted!(cpu, ReadyOverFreed) {
            state.store(READY, Ordering::Release);
            return result;
        }
        // Publishes the update. If it finds FREED, the exchange that set it comes first: whoever freed
        // may have cleared before this wrote.
        match state.cas(BUSY, READY, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => result,
            Err(_) if planted!(cpu, FreedUpdateSaysOk) => result,
            Err(_) => self.drop_freed(cpu),
        }
    }

    /// Returns the block was freed: takes back what may have been written since.
    #[cold]
    fn drop_freed(&self, cpu: &Cpu<'_, P>) -> Outcome {
        self.update(cpu, None)?;
        Err(Errno::EPERM)
    }
}

impl<P: Platform, K: Kind, const NMI: bool> AsyncCell<P> for State<P, K, NMI> {
    const ID: &'static str = if NMI { "cmpxchg-state-nmi" } else { "cmpxchg-state" };
    const KIND: CellKind = K::KIND;
    const CANCELS: bool = K::CANCELS;
    const PROMISES: Promises = Promises {
        update_in_nmi: NMI,
        start_needs_program: K::START_NEEDS_PROGRAM,
        cancel_may_not_clear: true,
        free_by_worker: K::CANCELLED_BY_WORKER,
        ..Promises::BASE
    };
    const OCCUPIES: bool = true;

    unsafe fn new() -> Self {
        Self { slot: Slot::new() }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_init(flags)?;
        let words = |block| {
            let own = Words {
                _delete_work_and_flags: [0; 3],
                refs: Refs::one(),
                state: P::U32::new("block.state", READY),
            };
            (own, Worker::new::<K, _>(block))
        };
        self.slot.init(cpu, map, words, || self.cancel_and_free(cpu))
    }

    #[inline(always)]
    fn set_callback(
        &self,
        cpu: &Cpu<'_, P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome {
        if cpu.in_nmi() && !NMI {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.slot.get()?.as_ref() };
        block.update_state(cpu, Some((program, callback)))
    }

    #[inline(always)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_start(start)?;
        let _rcu = cpu.rcu_read();
        let block = self.slot.get()?;
        // SAFETY: kept by the RCU section.
        let this = unsafe { block.as_ref() };
        if K::START_NEEDS_PROGRAM && this.program.load(Ordering::Relaxed).is_null() {
            return Err(Errno::EINVAL);
        }
        if planted!(cpu, StartWithoutReference) {
            // SAFETY: none, this is the bug.
            unsafe { K::start(cpu, &this.node, start) };
            return Ok(());
        }
        // The reference orders this start before the final cancel: without it the timer could be
        // armed after that, and fire on freed memory.
        if !this.own.refs.try_get() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: the last put cancels before it frees, and this reference comes before it.
        unsafe { K::start(cpu, &this.node, start) };
        // SAFETY: taken above.
        unsafe { StateBlock::put(cpu, block) };
        Ok(())
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.slot.get()?.as_ref() };
        let _cancelling = Cancelling::begin(cpu, block)?;
        // An update in the way is not waited for: its callback may stay set, as in RFC v1.
        let _ = block.update_state(cpu, None);
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        let Some(block) = self.slot.detach() else { return };
        {
            let _rcu = cpu.rcu_read();
            // SAFETY: the map's reference keeps it.
            let this = unsafe { block.as_ref() };
            // A full barrier: an update in progress finds it at its end; one that has ended is seen.
            this.own.state.swap(FREED, Ordering::SeqCst);
            // Always "freed": clears what is there now.
            let _ = this.update_state(cpu, None);
        }
        // SAFETY: the map's own reference, returned once by whoever detached the block.
        unsafe { StateBlock::put(cpu, block) };
    }

    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = self.slot.get().map(|block| unsafe { block.as_ref() });
        // Relaxed: a look.
        block.is_ok_and(|block| block.own.state.load(Ordering::Relaxed) == BUSY)
    }

    fn inspect(&self) -> Inspection<P> {
        self.slot.inspect()
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<StateBlock<P, K>>(cpu, count);
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<StateBlock<P, K>>() }
    }
}
