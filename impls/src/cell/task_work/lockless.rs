//! Task work without a lock: every transition of the state is a compare-exchange, and whoever
//! finds FREED in its way cleans up, so that exactly one party does.
//!
//! Two choices are type parameters. *Who frees* ([`Owner`]): the party whose transition finds
//! FREED, as first posted ([`ByState`]), or the last of those who counted themselves in, as merged
//! ([`ByCount`]). *What happens to a work that the task already has* when its cell is freed
//! ([`CancelPolicy`]): it is cancelled at once, which takes the task's `pi_lock` and in NMI can
//! deadlock (the finding of the review); cancelled from the `irq_work`, which is made ready again for that; or left in the list,
//! where its callback finds FREED.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use super::{
    Design, FREED, PENDING, RUNNING, References, SCHEDULED, SCHEDULING, STANDBY, TaskBlock,
};
use crate::cell::refs::Refs;
use crate::cell::{Errno, Inspection, Outcome};
use crate::irq_work::IrqWork;
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Memory, Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::task::Task;

/// Who frees a block that was detached.
pub trait Owner: Send + Sync + 'static {
    /// As merged: a map that was abandoned is looked for when a round has begun, and EBUSY; a task
    /// that is gone is EBADF. Else as first posted: before anything, and EBADF; EPERM.
    const MERGED: bool;
    /// Returns a block with the map's share.
    fn new() -> Self;
    /// Returns a round of scheduling begins; `false`: the block is being freed.
    fn enter(&self) -> bool;
    /// Returns a round, or the map's share, ends. Returns whether this party frees the block.
    /// `found`:
    /// by the states it falls to this party.
    fn leave(&self, found: bool) -> bool;
}

/// The party whose transition finds FREED frees; `cancel_and_free` itself if there is none.
pub struct ByState;

impl Owner for ByState {
    const MERGED: bool = false;

    fn new() -> Self {
        Self
    }

    #[inline(always)]
    fn enter(&self) -> bool {
        true
    }

    #[inline(always)]
    fn leave(&self, found: bool) -> bool {
        found
    }
}

/// The last one out frees: the map counts, and each round of scheduling.
pub struct ByCount<P: Memory>(Refs<P>);

impl<P: Memory> Owner for ByCount<P> {
    const MERGED: bool = true;

    fn new() -> Self {
        Self(Refs::one())
    }

    #[inline(always)]
    fn enter(&self) -> bool {
        self.0.try_get()
    }

    #[inline(always)]
    fn leave(&self, _: bool) -> bool {
        self.0.put()
    }
}

/// How to cancel a work that the task has when its cell is freed.
pub trait CancelPolicy: Send + Sync + 'static {
    /// Whether such a work is cancelled at all.
    const CANCELS: bool;
    /// Whether the `irq_work` cancels it, which is used again.
    const FROM_IRQ_WORK: bool;
}

/// By `cancel_and_free` itself.
pub struct AtOnce;
/// By the `irq_work`.
pub struct FromIrqWork;
/// Not: its callback finds FREED and cleans up.
pub struct LeftToCallback;

impl CancelPolicy for AtOnce {
    const CANCELS: bool = true;
    const FROM_IRQ_WORK: bool = false;
}

impl CancelPolicy for FromIrqWork {
    const CANCELS: bool = true;
    const FROM_IRQ_WORK: bool = true;
}

impl CancelPolicy for LeftToCallback {
    const CANCELS: bool = false;
    const FROM_IRQ_WORK: bool = false;
}

/// A choice of both, with a name.
pub trait Variant<P: Platform>: Send + Sync + 'static {
    /// Name in reports.
    const ID: &'static str;
    /// Who frees.
    type Owner: Owner;
    /// How to cancel.
    type Cancel: CancelPolicy;
}

macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $owner:ty, $cancel:ty;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl<P: Platform> Variant<P> for $name {
            const ID: &'static str = $id;
            type Owner = $owner;
            type Cancel = $cancel;
        }
    )*};
}

variants! {
    /// As merged, in its newest form: counted, cancelled from the `irq_work`, freed by `kfree_rcu`.
    Merged = "task-work", ByCount<P>, FromIrqWork;
    /// As first posted: cancelled at once.
    CancelNow = "task-work-cancel-now", ByState, AtOnce;
    /// The author's way out of the finding.
    CancelIrq = "task-work-cancel-irq", ByState, FromIrqWork;
    /// The reviewer's way out of the finding.
    NoCancel = "task-work-no-cancel", ByState, LeftToCallback;
}

type Block<P, V> = TaskBlock<P, <V as Variant<P>>::Owner>;

/// A cell that is a pointer and nothing else: the 8 bytes of `struct bpf_task_work`.
#[repr(C)]
pub struct Lockless<P: Platform, V: Variant<P>> {
    block: P::Ptr<Block<P, V>>,
    variant: PhantomData<V>,
}

impl<P: Platform, V: Variant<P>> Lockless<P, V> {
    /// Returns the cell's block; a fresh one if it has none. An RCU section is open.
    fn block(&self, cpu: &Cpu<'_, P>, map: &Map<P>) -> Result<NonNull<Block<P, V>>, Errno> {
        // Acquire pairs with the release below.
        if let Some(block) = NonNull::new(self.block.load(Ordering::Acquire)) {
            return Ok(block);
        }
        let value = ptr::from_ref(self).cast();
        let block =
            Block::<P, V>::alloc(cpu, value, irq_step::<P, V>, callback::<P, V>, V::Owner::new())?;
        // A full barrier, as `cmpxchg` is, here and below: publishes the block. Acquire pairs with it
        // when another CPU was faster.
        let published =
            self.block.cas(ptr::null_mut(), block.as_ptr(), Ordering::SeqCst, Ordering::Acquire);
        if let Err(winners) = published {
            // SAFETY: never published.
            unsafe { Block::<P, V>::free(cpu, block) };
            return Ok(NonNull::new(winners).expect("the exchange failed as it was not null"));
        }
        if V::Owner::MERGED {
            // Every round looks, see `schedule`.
            return Ok(block);
        }
        // Not as first posted, which has no order here (the review's open point). Publish the block,
        // then read usercnt. Pairs with drop usercnt, then read the cell, in `Map::put_user`: one of
        // the two sees the other.
        P::fence();
        if map.is_abandoned() && !planted!(cpu, TaskUsercntUnordered) {
            // Not a plain free: another CPU may already have used the block.
            self.cancel_and_free(cpu);
            return Err(Errno::EBADF);
        }
        Ok(block)
    }
}

impl<P: Platform, V: Variant<P>> Design<P> for Lockless<P, V> {
    const ID: &'static str = V::ID;
    const NMI_SAFE: bool = true;
    const LOCKLESS: bool = true;
    type Block = Block<P, V>;

    fn new() -> Self {
        Self { block: P::Ptr::new("cell.block", ptr::null_mut()), variant: PhantomData }
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
        let references = if V::Owner::MERGED {
            References::take_merged(program, task)?
        } else {
            References::take(program, map, task)?
        };
        // Keeps the block until the state, or the count, says that it is this caller's.
        let _rcu = cpu.rcu_read();
        let block = self.block(cpu, map)?;
        // SAFETY: kept by the RCU section, then by the round that begins.
        let this = unsafe { block.as_ref() };
        if !this.owner.enter() {
            return Err(Errno::EBUSY);
        }
        // Acquire pairs with the release of the last round's end. Release: for whoever finds
        // PENDING and leaves the block to this round.
        if this.state.cas(STANDBY, PENDING, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            // SAFETY: this round has done nothing with the block.
            unsafe { end_round::<P, V>(cpu, block, false) };
            return Err(Errno::EBUSY);
        }
        if V::Owner::MERGED {
            // Move to PENDING, then read usercnt: the exchange is a full barrier in the kernel.
            // Pairs as above.
            P::fence_after_rmw();
            if map.is_abandoned() && !planted!(cpu, TaskUsercntUnordered) {
                // SAFETY: this round has done nothing with the block.
                unsafe { end_round::<P, V>(cpu, block, false) };
                self.cancel_and_free(cpu);
                return Err(Errno::EBUSY);
            }
        }
        this.fill(references, callback);
        this.irq_work.init_again(irq_step::<P, V>);
        // SAFETY: the block is PENDING by this caller: nobody frees it before the irq step.
        unsafe { IrqWork::queue(&this.irq_work, cpu) };
        Ok(())
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        // Before the exchanges: the party that frees the block waits for this section.
        let _rcu = cpu.rcu_read();
        // A full barrier, as `xchg` is, here and below: sees the block as it was published; a later one
        // comes after.
        let Some(block) = NonNull::new(self.block.swap(ptr::null_mut(), Ordering::SeqCst)) else {
            return;
        };
        // SAFETY: kept by the RCU section.
        let this = unsafe { block.as_ref() };
        // Sees what the party before did; the next one sees that the cell let go.
        let was = this.state.swap(FREED, Ordering::SeqCst);
        if was == SCHEDULED && V::Cancel::FROM_IRQ_WORK {
            // The irq step wrote SCHEDULED, so it has no more use for the `irq_work`, which may still
            // be BUSY on its CPU.
            this.irq_work.init_again(cancel_step::<P, V>);
            // SAFETY: counted, the map's share is given back by the handler. By state: the
            // callback may free the block, but the grace period lasts until this CPU has run
            // its pending `irq_work`.
            unsafe { IrqWork::queue(&this.irq_work, cpu) };
            return;
        }
        if was == SCHEDULED && V::Cancel::CANCELS {
            cancel::<P, V>(cpu, block);
        }
        // SAFETY: the map's share, given back once by whoever detached the block. In STANDBY no
        // other party will look at it; in every other state but FREED the one that moves it finds
        // FREED.
        unsafe { end_round::<P, V>(cpu, block, was == STANDBY || planted!(cpu, FreedByTwo)) };
    }

    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section. Acquire pairs with the release that published it.
        let block = unsafe { self.block.load(Ordering::Acquire).as_ref() };
        // Relaxed: a look. Between schedule and the irq step; later states are nobody's operation.
        block.is_some_and(|block| {
            matches!(block.state.load(Ordering::Relaxed), PENDING | SCHEDULING)
        })
    }

    fn inspect(&self) -> Inspection<P> {
        // SAFETY: at rest nobody frees it.
        unsafe { self.block.load(Ordering::Acquire).as_ref() }
            .map_or_else(Inspection::uninitialised, TaskBlock::inspect)
    }
}

/// Ends a round, or the map's share, and frees the block if that falls to this party. `found`: it
/// does by the states.
///
/// # Safety
/// Once for each round and for the map's share; `found` by one of them, which finds the work in no
/// queue. The caller does not use the block after this, but for an RCU section that it has open.
unsafe fn end_round<P: Platform, V: Variant<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<Block<P, V>>,
    found: bool,
) {
    // SAFETY: the round keeps it.
    let this = unsafe { block.as_ref() };
    if !this.owner.leave(found) {
        return;
    }
    if V::Owner::MERGED && cpu.irqs_disabled() {
        // Freeing by RCU takes locks.
        this.irq_work.init_again(destroy_step::<P, V>);
        // SAFETY: nobody else has a use for it; freed by the handler.
        unsafe { IrqWork::queue(&this.irq_work, cpu) };
        return;
    }
    // SAFETY: by contract, nobody else does.
    unsafe { Block::<P, V>::destroy(cpu, block) };
}

/// Handles the `irq_work` after a last put with interrupts off.
unsafe fn destroy_step<P: Platform, V: Variant<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let block = NonNull::new(owner.cast::<Block<P, V>>()).expect("not null");
    // SAFETY: queued by the last put, once.
    unsafe { Block::<P, V>::destroy(cpu, block) };
}

/// Cancels the work of a detached block, if the task still has it, and ends its round. An RCU
/// section is open, or the map's share held.
fn cancel<P: Platform, V: Variant<P>>(cpu: &Cpu<'_, P>, block: NonNull<Block<P, V>>) {
    // SAFETY: see above.
    let this = unsafe { block.as_ref() };
    // Without a task the callback has run. With a deadlock, which the task counts, or without the
    // work in its list, the callback runs, finds FREED and ends the round.
    let task = this.task();
    assert!(
        task.is_some() || !planted!(cpu, LateIrqStepCancels),
        "task_work_cancel() on a null task"
    );
    let cancelled = task.is_some_and(|task| task.cancel(cpu, &this.item) == Ok(true));
    if cancelled {
        // SAFETY: the round of the work that will not run; in no queue any more.
        unsafe { end_round::<P, V>(cpu, block, true) };
    }
}

/// Handles the `irq_work` after `cancel_and_free` found SCHEDULED.
unsafe fn cancel_step<P: Platform, V: Variant<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let _rcu = cpu.rcu_read();
    let block = NonNull::new(owner.cast::<Block<P, V>>()).expect("not null");
    cancel::<P, V>(cpu, block);
    // SAFETY: the map's share, which `cancel_and_free` left here; not found in STANDBY.
    unsafe { end_round::<P, V>(cpu, block, false) };
}

/// Handles the `irq_work` after `schedule`: hands the work to the task.
unsafe fn irq_step<P: Platform, V: Variant<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    // Keeps the block when the callback has already run, and ended the round.
    let _rcu = (!planted!(cpu, IrqStepWithoutSection)).then(|| cpu.rcu_read());
    let block = NonNull::new(owner.cast::<Block<P, V>>()).expect("not null");
    // SAFETY: the round keeps it, then the RCU section.
    let this = unsafe { block.as_ref() };
    // AcqRel, here and below: sees what the party before did, and is seen by the next.
    if this.state.cas(PENDING, SCHEDULING, Ordering::SeqCst, Ordering::Acquire).is_err() {
        // FREED.
        // SAFETY: this round's end; the work was never added.
        unsafe { end_round::<P, V>(cpu, block, true) };
        return;
    }
    // SAFETY: moved to SCHEDULING above.
    if !unsafe { this.add() } {
        this.reset();
        let freed = !to_standby(cpu, &this.state);
        // SAFETY: this round's end; the work was not added.
        unsafe { end_round::<P, V>(cpu, block, freed) };
        return;
    }
    match this.state.cas(SCHEDULING, SCHEDULED, Ordering::SeqCst, Ordering::Acquire) {
        Err(FREED) if V::Cancel::CANCELS => cancel::<P, V>(cpu, block),
        // Or the callback has begun, and may have ended.
        _ => {}
    }
}

/// Takes SCHEDULING back to STANDBY after the task took no work. Returns `false` if it found FREED.
///
/// The irq step of an *earlier* round may be late: it added its work, which ran to the end, and
/// then writes SCHEDULED over this round's SCHEDULING. As published, without the second exchange,
/// the block then stays SCHEDULED without a work, and every later attempt returns EBUSY.
fn to_standby<P: Platform>(cpu: &Cpu<'_, P>, state: &P::U32) -> bool {
    let back = |from| state.cas(from, STANDBY, Ordering::SeqCst, Ordering::Acquire);
    match back(SCHEDULING) {
        Ok(_) => true,
        Err(SCHEDULED) if planted!(cpu, LateIrqStep) => true,
        Err(SCHEDULED) => back(SCHEDULED).is_ok(),
        Err(_) => false,
    }
}

/// Handles the task's work.
unsafe fn callback<P: Platform, V: Variant<P>>(item: *mut (), cpu: &Cpu<'_, P>) {
    // Keeps the map value that the callback is given.
    let _rcu = cpu.rcu_read();
    let block = Block::<P, V>::of_item(item);
    // SAFETY: the round keeps it.
    let this = unsafe { block.as_ref() };
    // AcqRel: as in `irq_step`.
    let begin = |from| this.state.cas(from, RUNNING, Ordering::SeqCst, Ordering::Acquire);
    // The irq step may not have written SCHEDULED yet: that is tried first, as published.
    let first = if planted!(cpu, CallbackMissesScheduling) { SCHEDULED } else { SCHEDULING };
    let begun = match begin(first) {
        Err(SCHEDULED) if !planted!(cpu, CallbackMissesScheduled) => begin(SCHEDULED),
        begun => begun,
    };
    let freed = match begun {
        Ok(_) => {
            this.run(cpu);
            this.reset();
            this.state.cas(RUNNING, STANDBY, Ordering::SeqCst, Ordering::Acquire).is_err()
        }
        Err(found) => found == FREED,
    };
    // SAFETY: this round's end; the task has taken the work out of its list.
    unsafe { end_round::<P, V>(cpu, block, freed) };
}
