//! Task work under a lock: the same states, each transition in a critical section of the cell's
//! lock. What the reviewer of the lockless form asked for: with a resilient lock it works in NMI
//! context as well.
//!
//! Under the lock the irq step adds the work and says so in one section, so that SCHEDULING is
//! never seen. A work that the task has when its cell is freed is left to its callback, which
//! finds FREED: cancelling takes the task's `pi_lock`, whatever guards the cell.
//!
//! A failed lock returns its error to whoever schedules. The irq step and the callback have nobody
//! to return it to, and try again: their locks time out only while the holder does not run.

use core::ptr::{self, NonNull};

use super::{Design, FREED, PENDING, RUNNING, References, SCHEDULED, STANDBY, TaskBlock};
use crate::cell::{Errno, Inspection, Outcome};
use crate::irq_work::IrqWork;
use crate::lock::Lock;
use crate::machine::Cpu;
use crate::map::Map;
use crate::platform::{Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::task::Task;

type Block<P> = TaskBlock<P, ()>;

/// A cell whose block is guarded by a lock of type `L`: 16 bytes with the kernel's locks.
#[repr(C)]
pub struct LockedWork<P: Platform, L: Lock<P>> {
    block: P::Ptr<Block<P>>,
    lock: L,
}

impl<P: Platform, L: Lock<P>> LockedWork<P, L> {
    /// Runs `body` with the lock held and interrupts off.
    #[inline(always)]
    fn locked<R>(&self, cpu: &Cpu<'_, P>, body: impl FnOnce() -> R) -> Result<R, Errno> {
        let _irq_off = cpu.irq_save();
        self.lock.with(cpu, body)
    }

    /// Runs as [`locked`](Self::locked) does, until the lock is had.
    fn insist<R>(&self, cpu: &Cpu<'_, P>, mut body: impl FnMut() -> R) -> R {
        loop {
            match self.locked(cpu, &mut body) {
                Ok(result) => return result,
                Err(_) => P::relax(),
            }
        }
    }

    /// Returns the cell's block; a fresh one if it has none. The lock is held.
    fn block(&self, cpu: &Cpu<'_, P>, map: &Map<P>) -> Result<NonNull<Block<P>>, Errno> {
        // Relaxed: written under the lock.
        if let Some(block) = NonNull::new(self.block.load(Ordering::Relaxed)) {
            return Ok(block);
        }
        let value = ptr::from_ref(self).cast();
        let block = Block::alloc(cpu, value, irq_step::<P, L>, callback::<P, L>, ())?;
        // Relaxed: read under the lock, but for the cheap look of `cancel_and_free`.
        self.block.store(block.as_ptr(), Ordering::Relaxed);
        // Publish the block, then read usercnt. Pairs with drop usercnt, then read the cell, in
        // `Map::put_user`: one of the two sees the other.
        P::fence();
        if map.is_abandoned() {
            self.block.store(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: only seen by others under the lock, which is still held.
            unsafe { Block::free(cpu, block) };
            return Err(Errno::EBADF);
        }
        Ok(block)
    }
}

impl<P: Platform, L: Lock<P>> Design<P> for LockedWork<P, L> {
    const ID: &'static str = L::ID;
    const NMI_SAFE: bool = L::FALLIBLE;
    const LOCKLESS: bool = false;
    type Block = Block<P>;

    fn new() -> Self {
        Self { block: P::Ptr::new("cell.block", ptr::null_mut()), lock: L::new() }
    }

    #[inline(always)]
    fn schedule(
        &self,
        cpu: &Cpu<'_, P>,
        task: &Task<P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome {
        if cpu.in_nmi() && !L::FALLIBLE {
            return Err(Errno::EOPNOTSUPP);
        }
        let references = References::take(program, map, task)?;
        let block = self.locked(cpu, || {
            let block = self.block(cpu, map)?;
            // SAFETY: attached, and detached under this lock only.
            let this = unsafe { block.as_ref() };
            if this.state.load(Ordering::Relaxed) != STANDBY {
                return Err(Errno::EBUSY);
            }
            this.state.store(PENDING, Ordering::Relaxed);
            this.fill(references, callback);
            Ok(block)
        })??;
        // SAFETY: the block is PENDING by this caller: nobody frees it before the irq step.
        unsafe { IrqWork::queue(&block.as_ref().irq_work, cpu) };
        Ok(())
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        // Cheap look without the lock.
        if self.block.load(Ordering::Relaxed).is_null() {
            return;
        }
        let detached = self.locked(cpu, || {
            let block = NonNull::new(self.block.load(Ordering::Relaxed))?;
            self.block.store(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: attached until now, and freed below or by the party that finds FREED.
            let state = unsafe { &block.as_ref().state };
            let was = state.load(Ordering::Relaxed);
            state.store(FREED, Ordering::Relaxed);
            (was == STANDBY).then_some(block)
        });
        if let Ok(Some(block)) = detached {
            // SAFETY: this call detached it; no party is to come.
            unsafe { Block::destroy(cpu, block) };
        }
    }

    fn is_occupied(&self, _: &Cpu<'_, P>) -> bool {
        self.lock.is_held()
    }

    fn inspect(&self) -> Inspection<P> {
        // SAFETY: at rest nobody frees it.
        unsafe { self.block.load(Ordering::Acquire).as_ref() }
            .map_or_else(Inspection::uninitialised, TaskBlock::inspect)
    }
}

/// Returns a block that a handler was called for, and the cell whose lock guards it.
///
/// # Safety
/// It is the block of a cell of type `L`, in a round that has not ended.
unsafe fn parts<'a, P: Platform, L: Lock<P>>(
    block: NonNull<Block<P>>,
) -> (&'a Block<P>, &'a LockedWork<P, L>) {
    // SAFETY: by contract.
    let this: &Block<P> = unsafe { &*block.as_ptr() };
    // SAFETY: the cell stays valid as long as callbacks may run, by the contract of
    // `AsyncCell::new`.
    (this, unsafe { &*this.value.cast() })
}

/// Handles the `irq_work`: hands the work to the task.
unsafe fn irq_step<P: Platform, L: Lock<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let block = NonNull::new(owner.cast::<Block<P>>()).expect("not null");
    // SAFETY: queued by `schedule`; this is the round's next party.
    let (this, cell) = unsafe { parts::<P, L>(block) };
    let freed = cell.insist(cpu, || {
        if this.state.load(Ordering::Relaxed) == FREED {
            return true;
        }
        // SAFETY: PENDING by this round: SCHEDULING, while the lock is held.
        if unsafe { this.add() } {
            this.state.store(SCHEDULED, Ordering::Relaxed);
        } else {
            this.reset();
            this.state.store(STANDBY, Ordering::Relaxed);
        }
        false
    });
    if freed {
        // SAFETY: detached, never added, and no other party is to come.
        unsafe { Block::destroy(cpu, block) };
    }
}

/// Handles the task's work.
unsafe fn callback<P: Platform, L: Lock<P>>(item: *mut (), cpu: &Cpu<'_, P>) {
    // Keeps the map value that the callback is given.
    let _rcu = cpu.rcu_read();
    let block = Block::<P>::of_item(item);
    // SAFETY: added by the irq step; this is the round's last party.
    let (this, cell) = unsafe { parts::<P, L>(block) };
    let moved = |to| {
        cell.insist(cpu, || {
            let freed = this.state.load(Ordering::Relaxed) == FREED;
            if !freed {
                this.state.store(to, Ordering::Relaxed);
            }
            !freed
        })
    };
    if moved(RUNNING) {
        this.run(cpu);
        // Before STANDBY, from which the next round fills the block.
        this.reset();
        if moved(STANDBY) {
            return;
        }
    }
    // SAFETY: detached, taken out of the task's list, and no other party is to come.
    unsafe { Block::destroy(cpu, block) };
}
