//! `cmd-queue`, v9 and merged: no lock and no state word. A reference count orders starting before
//! freeing; callback and program are exchanged until they stay together; start and cancel go
//! straight to the timer's queue, except in hardirq and NMI context and with interrupts off: there
//! they are pushed on a lock-free list in the block, which an `irq_work` executes.
//!
//! Two `irq_work`s of one block may run at once on two CPUs, each with a list of its own. Commands
//! are executed in their order of arrival within a list, not between lists.

use core::mem::offset_of;
use core::ptr::{self, NonNull};

use super::Timer;
use super::block::{Block, Cancelling, Own};
use super::command::Command;
use super::counted::{self, Counted};
use super::refs::Refs;
use super::slot::Slot;
use super::{
    AsyncCell, CellKind, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Promises, Start,
};
use crate::engine::Cancelled;
use crate::irq_work::IrqWork;
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Native, Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// A cell that is a pointer and nothing else.
#[repr(transparent)]
pub struct CmdQueue<P: Platform, K: Kind, const EXCHANGED: bool> {
    slot: Slot<P, K, Words<P>>,
}

/// `cmd-queue`: as merged.
pub type Merged<P, K> = CmdQueue<P, K, false>;
/// `cmd-queue-xchg`: with the callback exchanged.
pub type Repaired<P, K> = CmdQueue<P, K, true>;

/// Words that the design adds to the block, at the offsets of the merged `struct bpf_async_cb`.
#[repr(C)]
pub struct Words<P: Platform> {
    _flags: u64,
    /// Executes the commands; in the end, leaves the block to a grace period.
    irq_work: IrqWork<P>,
    /// The map's own reference, one for each start in progress and each command in the list.
    refs: Refs<P>,
    _type: u32,
    /// Commands to execute, newest first.
    commands: P::Ptr<Item<P>>,
}

impl<P: Platform> Own<P> for Words<P> {
    type Tail = ();
}

const _: () = {
    const OWN_AT: usize = QueueBlock::<Native, Timer>::OWN_AT;
    assert!(OWN_AT + offset_of!(Words<Native>, irq_work) == 56);
    assert!(OWN_AT + offset_of!(Words<Native>, refs) == 88);
    assert!(OWN_AT + offset_of!(Words<Native>, commands) == 96);
    assert!(QueueBlock::<Native, Timer>::NODE_AT == 104);
};

impl<P: Platform> Counted<P> for Words<P> {
    #[inline(always)]
    fn refs(&self) -> &Refs<P> {
        &self.refs
    }

    #[inline(always)]
    fn last_put(&self) -> Option<&IrqWork<P>> {
        Some(&self.irq_work)
    }
}

/// A command in the list, with a reference on the block.
#[repr(C)]
struct Item<P: Platform> {
    next: P::Ptr<Item<P>>,
    command: Command,
}

type QueueBlock<P, K> = Block<P, K, Words<P>>;

/// Takes a reference on a block that an RCU section keeps.
///
/// # Errors
/// ENOENT: it is being freed.
#[inline(always)]
fn get<P: Platform, K: Kind>(block: NonNull<QueueBlock<P, K>>) -> Outcome {
    // SAFETY: kept by the RCU section that the caller has open.
    if unsafe { block.as_ref() }.own.refs.try_get() { Ok(()) } else { Err(Errno::ENOENT) }
}

/// Executes the command here, or leaves it to the `irq_work` where that is not possible. Takes
/// over a reference. Returns what a cancel found; `None`: left.
///
/// # Errors
/// ENOMEM: no memory for the command that this context may take. EDEADLK: this CPU executes
/// commands
/// of this block now. Nothing was done.
///
/// # Safety
/// The caller holds the reference, and does not use the block after this, but for an RCU section
/// that it has open.
#[inline(always)]
unsafe fn submit<P: Platform, K: Kind>(
    cpu: &Cpu<'_, P>,
    block: NonNull<QueueBlock<P, K>>,
    command: Command,
) -> Result<Option<Cancelled>, Errno> {
    // Interrupts off, in NMI or not: what was interrupted may hold the timer's base lock
    // (7d49635e3775).
    let defers = if planted!(cpu, DefersInNmiAlone) { cpu.in_nmi() } else { cpu.irqs_disabled() };
    if defers {
        // SAFETY: the same contract.
        return unsafe { push(cpu, block, command) }.map(|()| None);
    }
    // SAFETY: the last put cancels before it frees, and this reference comes before it.
    let found = unsafe { command.run::<P, K>(cpu, &block.as_ref().node) };
    // SAFETY: the caller's reference.
    unsafe { counted::put(cpu, block) };
    Ok(Some(found))
}

/// Pushes a command, with the reference, and has the `irq_work` run.
///
/// # Safety
/// As [`submit`].
#[cold]
unsafe fn push<P: Platform, K: Kind>(
    cpu: &Cpu<'_, P>,
    block: NonNull<QueueBlock<P, K>>,
    command: Command,
) -> Outcome {
    // An operation that an executed command leads to, as by a tracepoint, must not queue the next
    // one: that would never end (64873307e888).
    if !planted!(cpu, RecursionUnguarded) && cpu.executing() == block.as_ptr().cast() {
        // SAFETY: the caller's reference.
        unsafe { counted::put(cpu, block) };
        return Err(Errno::EDEADLK);
    }
    let make = |_| Item::<P> { next: P::Ptr::new("command.next", ptr::null_mut()), command };
    let Some(item) = cpu.machine().heap().alloc(cpu, make) else {
        // SAFETY: the caller's reference.
        unsafe { counted::put(cpu, block) };
        return Err(Errno::ENOMEM);
    };
    // SAFETY: kept by the reference until the command has run, and by the RCU section after that.
    let own = unsafe { &block.as_ref().own };
    let mut head = own.commands.load(Ordering::Relaxed);
    loop {
        // SAFETY: this call's alone until it is in the list.
        unsafe { item.as_ref() }.next.store(head, Ordering::Relaxed);
        // A full barrier, as `llist_add` is. Release pairs with the acquire in `run_commands`: `next`
        // and the command. Acquire pairs with the release there: whoever finds the list empty also
        // finds the `irq_work` idle.
        match own.commands.cas(head, item.as_ptr(), Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => break,
            Err(found) => head = found,
        }
    }
    // A list that was not empty waits for an `irq_work` that somebody else queues.
    if head.is_null() || planted!(cpu, QueuedAgain) {
        // SAFETY: only the run that is asked for here takes the list, and with it the reference
        // that keeps the block.
        unsafe { IrqWork::queue(&own.irq_work, cpu) };
    }
    Ok(())
}

/// Handles the `irq_work`: takes the whole list and executes it in order of arrival.
unsafe fn run_commands<P: Platform, K: Kind>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let block = NonNull::new(owner.cast::<QueueBlock<P, K>>()).expect("not null");
    // SAFETY: the commands in the list hold references. The list is not empty: it was when this
    // run was asked for, and only this run takes it.
    let this = unsafe { block.as_ref() };
    // A full barrier, as `llist_del_all` is: pairs with `push`, see there.
    let newest_first = this.own.commands.swap(ptr::null_mut(), Ordering::SeqCst);
    let mut list =
        if planted!(cpu, CommandsNotReversed) { newest_first } else { reverse(newest_first) };
    cpu.set_executing(owner);
    while let Some(item) = NonNull::new(list) {
        // SAFETY: taken from the list; this run's alone.
        let Item { next, command } = unsafe { item.as_ref() };
        let (next, command) = (next.load(Ordering::Relaxed), *command);
        // SAFETY: the last put cancels before it frees, and the command's reference comes before.
        unsafe { command.run::<P, K>(cpu, &block.as_ref().node) };
        // SAFETY: the command's reference; the block is used again only if another one follows.
        unsafe { counted::put(cpu, block) };
        // SAFETY: allocated in `push` and not used any more.
        unsafe { cpu.machine().heap().free(cpu, item) };
        list = next;
    }
    cpu.set_executing(ptr::null_mut());
}

/// Returns turns a list that was taken around.
fn reverse<P: Platform>(mut newest_first: *mut Item<P>) -> *mut Item<P> {
    let mut oldest_first = ptr::null_mut();
    while !newest_first.is_null() {
        // SAFETY: taken from the list; the caller's alone.
        let next = &unsafe { &*newest_first }.next;
        let following = next.load(Ordering::Relaxed);
        next.store(oldest_first, Ordering::Relaxed);
        oldest_first = newest_first;
        newest_first = following;
    }
    oldest_first
}

impl<P: Platform, K: Kind, const EXCHANGED: bool> AsyncCell<P> for CmdQueue<P, K, EXCHANGED> {
    const ID: &'static str = if EXCHANGED { "cmd-queue-xchg" } else { "cmd-queue" };
    const KIND: CellKind = K::KIND;
    const CANCELS: bool = K::CANCELS;
    const CANCELS_ASYNC: bool = K::CANCELS;
    const PROMISES: Promises = Promises {
        init_in_nmi: true,
        update_in_nmi: true,
        start_in_nmi: true,
        callback_may_differ: !EXCHANGED,
        cancel_needs_irqs: true,
        waits_for_irqs: true,
        ..Promises::BASE
    };

    unsafe fn new() -> Self {
        Self { slot: Slot::new() }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        K::check_init(flags)?;
        let words = |block: *mut QueueBlock<P, K>| {
            let own = Words {
                _flags: 0,
                irq_work: IrqWork::new(run_commands::<P, K>, block.cast()),
                refs: Refs::one(),
                _type: 0,
                commands: P::Ptr::new("block.commands", ptr::null_mut()),
            };
            (own, ())
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
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        unsafe { self.slot.get()?.as_ref() }.exchange::<EXCHANGED>(cpu, Some((program, callback)))
    }

    #[inline(always)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        K::check_start(start)?;
        let _rcu = cpu.rcu_read();
        let block = self.slot.get()?;
        // SAFETY: kept by the RCU section.
        if unsafe { block.as_ref() }.program.load(Ordering::Relaxed).is_null() {
            return Err(Errno::EINVAL);
        }
        get(block)?;
        // SAFETY: taken above.
        unsafe { submit(cpu, block, Command::Start(start)) }.map(drop)
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.irqs_disabled() {
            // Waiting for a callback there might never end (7d49635e3775).
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.slot.get()?.as_ref() };
        let _cancelling = Cancelling::begin(cpu, block)?;
        block.exchange::<EXCHANGED>(cpu, None)?;
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_async(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        let block = self.slot.get()?;
        get(block)?;
        // SAFETY: taken above.
        match unsafe { submit(cpu, block, Command::Cancel) }? {
            Some(Cancelled::Pending) => Ok(true),
            Some(Cancelled::Idle) => Ok(false),
            // -1, as `hrtimer_try_to_cancel` returns it.
            Some(Cancelled::Running) => Err(Errno::EPERM),
            None => Err(Errno::ECANCELED),
        }
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        if self.slot.is_empty() {
            return;
        }
        let Some(block) = self.slot.detach() else { return };
        // Here, not where the command is executed: an expiry in between would run the callback of
        // a cell that is free (5000a097f82c).
        if !planted!(cpu, CallbackKeptByFree) {
            // SAFETY: the map's reference keeps it.
            unsafe { block.as_ref() }
                .exchange::<EXCHANGED>(cpu, None)
                .expect("clearing takes no reference");
        }
        // Without memory for a command the last put cancels alone, as it does in any case.
        // SAFETY: the map's own reference, given away once by whoever detached the block.
        let _ = unsafe { submit(cpu, block, Command::Cancel) };
    }

    fn inspect(&self) -> Inspection<P> {
        self.slot.inspect()
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<QueueBlock<P, K>>(cpu, count);
        cpu.machine().heap().reserve::<Item<P>>(cpu, count);
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<QueueBlock<P, K>>() }
    }
}
