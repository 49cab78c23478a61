//! Task work (`bpf_task_work`): one operation, [`AsyncCell::schedule`], has the callback run when a
//! task returns to user space, from any context. What the designs share is here: the states, the
//! control block, the references; [`lockless`] is the published six-state machine in its forms,
//! [`locked`] the same machine under a lock.
//!
//! | from | to | by |
//! |---|---|---|
//! | STANDBY | PENDING | `schedule`; any other state is EBUSY |
//! | PENDING | SCHEDULING | the irq step |
//! | SCHEDULING | SCHEDULED | the irq step, after it added the work to the task |
//! | SCHEDULING | STANDBY | the irq step, when the task took no work |
//! | SCHEDULING, SCHEDULED | RUNNING | the callback: it may begin before the irq step wrote SCHEDULED |
//! | RUNNING | STANDBY | the callback, after it dropped program and task |
//! | any | FREED | `cancel_and_free`; no state follows |
//!
//! The irq step is `irq_work`: adding a work may take the task's locks to notify it, which an NMI
//! must not.

pub mod locked;
pub mod lockless;

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use super::refs::Refs;
use super::{AsyncCell, CellKind, Errno, Footprint, Inspection, Outcome, Promises, Start};
use crate::engine::Handler;
use crate::irq_work::IrqWork;
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Native, Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::rcu::{RcuHead, Reclaim};
use crate::task::{Task, TaskItem};

/// Ready to be scheduled.
const STANDBY: u32 = 0;
/// Scheduled by somebody; the irq step is to come.
const PENDING: u32 = 1;
/// The irq step is adding the work to the task.
const SCHEDULING: u32 = 2;
/// The task has the work.
const SCHEDULED: u32 = 3;
/// The callback runs.
const RUNNING: u32 = 4;
/// Detached from its cell; no state follows.
const FREED: u32 = 5;

/// A way of synchronising task work; [`TaskWork`] makes a cell of it.
pub trait Design<P: Platform>: Send + Sync + Sized + 'static {
    /// Name in reports.
    const ID: &'static str;
    /// Whether scheduling works in NMI context.
    const NMI_SAFE: bool;
    /// Whether it goes on while another operation stands still in the middle.
    const LOCKLESS: bool;
    /// Its control block.
    type Block;

    /// Returns an uninitialised cell.
    fn new() -> Self;

    /// Has `callback` run in `task`; see [`AsyncCell::schedule`] for the errors.
    fn schedule(
        &self,
        cpu: &Cpu<'_, P>,
        task: &Task<P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome;

    /// Does what [`AsyncCell::cancel_and_free`] says.
    fn cancel_and_free(&self, cpu: &Cpu<'_, P>);

    /// Returns what [`AsyncCell::is_occupied`] says.
    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool;

    /// Returns what [`AsyncCell::inspect`] says.
    fn inspect(&self) -> Inspection<P>;
}

/// A cell for task work. Its one operation is [`schedule`](AsyncCell::schedule), which initialises
/// as well: [`Steps::One`](super::Steps::One).
#[repr(transparent)]
pub struct TaskWork<P: Platform, D: Design<P>> {
    design: D,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform, D: Design<P>> AsyncCell<P> for TaskWork<P, D> {
    const ID: &'static str = D::ID;
    const KIND: CellKind = CellKind::TaskWork;
    const PROMISES: Promises = Promises {
        init_in_nmi: D::NMI_SAFE,
        update_in_nmi: D::NMI_SAFE,
        start_in_nmi: D::NMI_SAFE,
        lockless: D::LOCKLESS,
        ..Promises::BASE
    };
    const OCCUPIES: bool = true;

    unsafe fn new() -> Self {
        Self { design: D::new(), platform: PhantomData }
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        self.design.cancel_and_free(cpu);
    }

    /// Has `callback` run when the CPU's current task returns to user space; `start` says nothing
    /// to a task work.
    ///
    /// # Errors
    /// EBADF: no reference on the program, or the map was abandoned. EPERM: the task is gone.
    /// ENOMEM. EBUSY: scheduled already, or being freed. EOPNOTSUPP and the lock's errors: under a
    /// lock.
    #[inline(always)]
    fn schedule(
        &self,
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        _: Start,
    ) -> Outcome {
        self.design.schedule(cpu, cpu.current(), map, program, callback)
    }

    fn schedule_on(
        &self,
        cpu: &Cpu<'_, P>,
        task: &Task<P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        _: Start,
    ) -> Outcome {
        self.design.schedule(cpu, task, map, program, callback)
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<D::Block>(cpu, count);
    }

    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        self.design.is_occupied(cpu)
    }

    fn inspect(&self) -> Inspection<P> {
        self.design.inspect()
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<D>(), block_bytes: size_of::<D::Block>() }
    }
}

/// The references that scheduling takes before it looks at the cell; put again when dropped.
struct References<'a, P: Platform> {
    program: &'a Program<P>,
    task: &'a Task<P>,
}

impl<'a, P: Platform> References<'a, P> {
    fn take(program: &'a Program<P>, map: &Map<P>, task: &'a Task<P>) -> Result<Self, Errno> {
        program.get().map_err(|_| Errno::EBADF)?;
        // A cheap look, without order; whoever publishes a block looks again.
        if map.is_abandoned() {
            program.put();
            return Err(Errno::EBADF);
        }
        if !task.get() {
            program.put();
            return Err(Errno::EPERM);
        }
        Ok(Self { program, task })
    }

    /// Answers as merged: the map is not looked at here, and a task that is gone is EBADF.
    fn take_merged(program: &'a Program<P>, task: &'a Task<P>) -> Result<Self, Errno> {
        program.get().map_err(|_| Errno::EBADF)?;
        if !task.get() {
            program.put();
            return Err(Errno::EBADF);
        }
        Ok(Self { program, task })
    }
}

impl<P: Platform> Drop for References<'_, P> {
    fn drop(&mut self) {
        self.task.put();
        self.program.put();
    }
}

/// The control block, laid out as `struct bpf_task_work_ctx`; `owner` is where that has its
/// reference
/// count. Program, task and callback are written by the party that moved the state to PENDING and
/// read
/// by those that it hands the block to through the queues, hence their relaxed accesses.
#[repr(C)]
pub struct TaskBlock<P: Platform, O> {
    state: P::U32,
    owner: O,
    item: TaskItem<P>,
    irq_work: IrqWork<P>,
    program: P::Ptr<Program<P>>,
    task: P::Ptr<Task<P>>,
    _map: u64,
    value: *const (),
    _mode: u64,
    callback: P::Ptr<Callback<P>>,
    rcu: RcuHead<P>,
}

const _: () = {
    type Block = TaskBlock<Native, Refs<Native>>;
    assert!(offset_of!(Block, owner) == 4);
    assert!(offset_of!(Block, item) == 8);
    assert!(offset_of!(Block, irq_work) == 24);
    assert!(offset_of!(Block, program) == 56);
    assert!(offset_of!(Block, task) == 64);
    assert!(offset_of!(Block, value) == 80);
    assert!(offset_of!(Block, callback) == 96);
    assert!(offset_of!(Block, rcu) == 104);
    assert!(size_of::<Block>() == 120);
};

// SAFETY: `value` is an address that is dereferenced only under the contract of `AsyncCell::new`;
// everything else is `Sync`.
unsafe impl<P: Platform, O: Sync> Sync for TaskBlock<P, O> {}
// SAFETY: as above.
unsafe impl<P: Platform, O: Send> Send for TaskBlock<P, O> {}

impl<P: Platform, O> TaskBlock<P, O> {
    /// Allocates a block in STANDBY that nobody knows yet.
    ///
    /// # Errors
    /// ENOMEM: no memory that this context may take.
    fn alloc(
        cpu: &Cpu<'_, P>,
        value: *const (),
        irq_step: Handler<P>,
        callback: Handler<P>,
        owner: O,
    ) -> Result<NonNull<Self>, Errno> {
        let make = |this: *mut Self| Self {
            state: P::U32::new("block.state", STANDBY),
            owner,
            item: TaskItem::new(callback),
            irq_work: IrqWork::new(irq_step, this.cast()),
            program: P::Ptr::new("block.program", ptr::null_mut()),
            task: P::Ptr::new("block.task", ptr::null_mut()),
            _map: 0,
            value,
            _mode: 0,
            callback: P::Ptr::new("block.callback", ptr::null_mut()),
            rcu: RcuHead::new(),
        };
        cpu.machine().heap().alloc(cpu, make).ok_or(Errno::ENOMEM)
    }

    /// Returns the block that an item, which a handler was called with, is part of.
    fn of_item(item: *mut ()) -> NonNull<Self> {
        // SAFETY: items of task blocks alone have their handlers.
        let block = unsafe { item.cast::<u8>().sub(offset_of!(Self, item)) };
        NonNull::new(block.cast()).expect("not null")
    }

    /// Notes what is to run, and keeps the references. The block is PENDING by this caller.
    fn fill(&self, references: References<'_, P>, callback: &Callback<P>) {
        self.task.store(ptr::from_ref(references.task).cast_mut(), Ordering::Relaxed);
        self.callback.store(ptr::from_ref(callback).cast_mut(), Ordering::Relaxed);
        self.program.store(ptr::from_ref(references.program).cast_mut(), Ordering::Relaxed);
        core::mem::forget(references);
    }

    /// Returns the task that the block was filled for, null when it was reset.
    fn task(&self) -> Option<&Task<P>> {
        // SAFETY: tasks belong to the machine, which outlives the blocks.
        unsafe { self.task.load(Ordering::Relaxed).as_ref() }
    }

    /// Adds the block's work to its task; `false` if that has exited.
    ///
    /// # Safety
    /// The caller moved the block to SCHEDULING, and keeps it until its handler began.
    unsafe fn add(&self) -> bool {
        let task = self.task().expect("filled before it was scheduled");
        // From the whole block's address: the handler finds the block by the item's.
        let block = ptr::from_ref(self);
        // SAFETY: in no list, as the last round has ended; the rest by contract.
        unsafe { task.add(&raw const (*block).item) }
    }

    /// Runs the program's callback. The block is RUNNING by this caller.
    fn run(&self, cpu: &Cpu<'_, P>) {
        // SAFETY: programs and their callbacks outlive the machine's rest.
        let callback = unsafe { self.callback.load(Ordering::Relaxed).as_ref() };
        callback.expect("filled before it was scheduled").run(cpu, self.value);
    }

    /// Drops program and task, if the block has them. One party at a time, the one that owns the
    /// round. The callback stays, as published.
    fn reset(&self) {
        // Relaxed: handed on through the queues.
        // SAFETY: the reference that is put keeps the program until then.
        if let Some(program) = unsafe { self.program.load(Ordering::Relaxed).as_ref() } {
            program.put();
            self.program.store(ptr::null_mut(), Ordering::Relaxed);
        }
        if let Some(task) = self.task() {
            task.put();
            self.task.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    /// Drops what the block refers to, and frees it after a grace period (`kfree_rcu`).
    ///
    /// # Safety
    /// The block is detached, in no queue, and the caller is the one party that frees it.
    unsafe fn destroy(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: freed after the grace period only.
        unsafe { block.as_ref() }.reset();
        if planted!(cpu, FreedAtOnce) {
            // SAFETY: none, this is the bug.
            unsafe { Self::free(cpu, block) };
            return;
        }
        // SAFETY: by contract; the pointer is made from the block's, and keeps its provenance.
        unsafe {
            cpu.machine().rcu().defer(cpu, &raw mut (*block.as_ptr()).rcu, Self::readers_gone);
        }
    }

    /// Frees a block that nobody else knows.
    ///
    /// # Safety
    /// As [`Heap::free`](crate::heap::Heap::free).
    unsafe fn free(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: by contract.
        unsafe { cpu.machine().heap().free(cpu, block) };
    }

    unsafe fn readers_gone(head: *mut RcuHead<P>, cpu: &Cpu<'_, P>) {
        // SAFETY: the heads of task blocks alone have this function.
        let block = unsafe { head.cast::<u8>().sub(offset_of!(Self, rcu)) };
        let block = NonNull::new(block.cast::<Self>()).expect("not null");
        // SAFETY: handed over by `destroy`; every reader is gone.
        unsafe { Self::free(cpu, block) };
    }

    fn inspect(&self) -> Inspection<P> {
        let program = self.program.load(Ordering::Acquire);
        // What is left of an old round's callback belongs to nobody.
        let callback =
            if program.is_null() { ptr::null_mut() } else { self.callback.load(Ordering::Acquire) };
        Inspection { initialised: true, program, callback }
    }
}
