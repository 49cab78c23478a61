//! The cell under a lock: every operation takes the lock inside the cell with interrupts off.
//!
//! What was there before the patches, over any [`Lock`]: test-and-set, queued, or resilient, which
//! may fail; a failed lock returns its error and changes nothing. The comparison of the three is
//! the comparison of one type parameter.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::Timer;
use super::block::{Block, Cancelling, Own};
use super::worker::{self, ByWorker, Worker};
use super::{
    AsyncCell, CellKind, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Promises, Start,
};
use crate::lock::Lock;
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Native, Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// A cell whose block pointer is guarded by a lock of type `L`: 16 bytes with the kernel's locks.
#[repr(C)]
pub struct Locked<P: Platform, K: Kind, L: Lock<P>> {
    block: P::Ptr<LockedBlock<P, K>>,
    lock: L,
    kind: PhantomData<K>,
}

/// Words that the design adds to the block before the hrtimer: none of its own. These are the words of the
/// kernel's `delete_work`, which shares the room of `rcu` there, and `flags`.
#[repr(C)]
pub struct Words<P: Platform, K> {
    _delete_work_and_flags: [u64; 3],
    kind: PhantomData<fn() -> (P, K)>,
}

impl<P: Platform, K: Kind> Own<P> for Words<P, K> {
    type Tail = Worker<P>;
}

impl<P: Platform, K: Kind> ByWorker<P> for Words<P, K> {
    // The start of a work item takes neither lock nor reference: it can come after the worker's
    // cancel (see VERIFICATION.md). The second cancel is ours; the published code has none.
    const STARTS_ARE_ORDERED: bool = !K::START_NEEDS_PROGRAM;
}

/// The hrtimer begins on the second line, as in Linux 6.18.
const _: () = assert!(LockedBlock::<Native, Timer>::NODE_AT == 72);

type LockedBlock<P, K> = Block<P, K, Words<P, K>>;

impl<P: Platform, K: Kind, L: Lock<P>> Locked<P, K, L> {
    /// Runs `body` with the lock held and interrupts off.
    #[inline(always)]
    fn locked<R>(
        &self,
        cpu: &Cpu<'_, P>,
        body: impl FnOnce() -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let _irq_off = cpu.irq_save();
        self.lock.with(cpu, body)?
    }

    /// Runs as [`locked`](Self::locked) does, with the block, which the lock keeps from being freed.
    #[inline(always)]
    fn with_block<R>(
        &self,
        cpu: &Cpu<'_, P>,
        body: impl FnOnce(&LockedBlock<P, K>) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        self.locked(cpu, || {
            // Relaxed: written under the lock.
            let block = self.block.load(Ordering::Relaxed);
            // SAFETY: a block is detached under the lock before it is freed.
            let block = unsafe { block.as_ref() }.ok_or(Errno::EINVAL)?;
            body(block)
        })
    }

    /// Returns a spinlock in NMI context could be held by the very code that was interrupted.
    #[inline(always)]
    fn check_context(cpu: &Cpu<'_, P>) -> Outcome {
        if cpu.in_nmi() && !L::FALLIBLE { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }
}

impl<P: Platform, K: Kind, L: Lock<P>> AsyncCell<P> for Locked<P, K, L> {
    const ID: &'static str = L::ID;
    const KIND: CellKind = K::KIND;
    const CANCELS: bool = K::CANCELS;
    const PROMISES: Promises = Promises {
        lockless: false,
        update_needs_user: true,
        init_in_nmi: L::FALLIBLE,
        update_in_nmi: L::FALLIBLE,
        free_by_worker: K::CANCELLED_BY_WORKER,
        ..Promises::BASE
    };
    const OCCUPIES: bool = true;

    unsafe fn new() -> Self {
        Self {
            block: P::Ptr::new("cell.block", ptr::null_mut()),
            lock: L::new(),
            kind: PhantomData,
        }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        Self::check_context(cpu)?;
        K::check_init(flags)?;
        self.locked(cpu, || {
            if !self.block.load(Ordering::Relaxed).is_null() {
                return Err(Errno::EBUSY);
            }
            let abandoned_before = planted!(cpu, UsercntBeforePublish) && map.is_abandoned();
            let value = ptr::from_ref(self).cast();
            let words = |block: *mut LockedBlock<P, K>| {
                let own = Words { _delete_work_and_flags: [0; 3], kind: PhantomData };
                (own, Worker::new(block))
            };
            let block = Block::alloc(cpu, map, value, words).ok_or(Errno::ENOMEM)?;
            // Release pairs with the acquire of the wq's lockless `start`.
            self.block.store(block.as_ptr(), Ordering::Release);
            // Publish the block, then read usercnt. Pairs with drop usercnt, then read the cell,
            // in `Map::put_user`: one of the two sees the other.
            P::fence();
            let abandoned = if planted!(cpu, UsercntBeforePublish) {
                abandoned_before
            } else {
                map.is_abandoned()
            };
            if abandoned {
                self.block.store(ptr::null_mut(), Ordering::Relaxed);
                if K::START_NEEDS_PROGRAM {
                    // A lockless `start` may look at it.
                    // SAFETY: detached under the lock; nothing was started.
                    unsafe { worker::free_after_grace_period(cpu, block) };
                } else {
                    // SAFETY: only seen by others under the lock, which is still held.
                    unsafe { Block::free(cpu, block) };
                }
                return Err(Errno::EPERM);
            }
            Ok(())
        })
    }

    #[inline(always)]
    fn set_callback(
        &self,
        cpu: &Cpu<'_, P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome {
        Self::check_context(cpu)?;
        self.with_block(cpu, |block| {
            if block.is_map_abandoned() {
                return Err(Errno::EPERM);
            }
            block.update_locked(cpu, Some((program, callback)))
        })
    }

    #[inline(always)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        if cpu.in_nmi() {
            // Whatever the lock: arming takes the timer base's own, which may be held by the
            // very code that was interrupted.
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_start(start)?;
        if K::START_NEEDS_PROGRAM {
            // Work items: block and program are read without the lock; RCU keeps the block.
            let _rcu = cpu.rcu_read();
            // Acquire pairs with the release in `init`.
            // SAFETY: freed after a grace period.
            let block = unsafe { self.block.load(Ordering::Acquire).as_ref() };
            let block = block.ok_or(Errno::EINVAL)?;
            if block.program.load(Ordering::Relaxed).is_null() {
                return Err(Errno::EINVAL);
            }
            // SAFETY: the worker that frees the block cancels the work first.
            unsafe { K::start(cpu, &block.node, start) };
            return Ok(());
        }
        self.with_block(cpu, |block| {
            if block.program.load(Ordering::Relaxed).is_null() {
                return Err(Errno::EINVAL);
            }
            // SAFETY: whoever frees the block cancels it first, after taking this lock.
            unsafe { K::start(cpu, &block.node, start) };
            Ok(())
        })
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.in_nmi() {
            // Waiting in NMI context is never possible, whatever the lock.
            return Err(Errno::EOPNOTSUPP);
        }
        // Keeps the block while this waits for its callback, without the lock.
        let _rcu = cpu.rcu_read();
        let (block, _cancelling) = self.with_block(cpu, |block| {
            // SAFETY: lives until the RCU section ends.
            let block: &LockedBlock<P, K> = unsafe { &*ptr::from_ref(block) };
            let cancelling = Cancelling::begin(cpu, block)?;
            block.update_locked(cpu, None)?;
            Ok((block, cancelling))
        })?;
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        // Cheap look without the lock.
        if self.block.load(Ordering::Relaxed).is_null() {
            return;
        }
        let detached = self.locked(cpu, || {
            let block = NonNull::new(self.block.load(Ordering::Relaxed)).ok_or(Errno::EINVAL)?;
            // SAFETY: attached, and detached under this lock only.
            unsafe { block.as_ref() }.update_locked(cpu, None)?;
            self.block.store(ptr::null_mut(), Ordering::Relaxed);
            Ok(block)
        });
        if let Ok(block) = detached {
            // SAFETY: this call detached it; later starts do not find it.
            unsafe { worker::delete(cpu, block) };
        }
    }

    fn is_occupied(&self, _: &Cpu<'_, P>) -> bool {
        self.lock.is_held()
    }

    fn inspect(&self) -> Inspection<P> {
        // SAFETY: at rest nobody frees it.
        unsafe { self.block.load(Ordering::Acquire).as_ref() }
            .map_or_else(Inspection::uninitialised, Block::inspect)
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<LockedBlock<P, K>>(cpu, count);
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<LockedBlock<P, K>>() }
    }
}
