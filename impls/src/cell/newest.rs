//! The cell of `mpmc-cell` and `seq-latch`: start and cancel write a command into a buffer of two
//! slots that keeps the newest one, and an `irq_work` executes it. The two designs differ in the
//! buffer alone; their blocks are freed as v6 does, which sets `last` beyond every command. (v3 and v4
//! freed by the last put of the `irq_work`: v3 could lose that, see VERIFICATION.md.)
//!
//! Nobody waits: a writer that meets another returns EBUSY, a reader that meets a writer reads the
//! other slot. A command that was not executed yet is overwritten by a newer one: a start may
//! replace a cancel. Each command has a number; whoever executes one first moves `last` forward to
//! its number, so that it runs once and none older runs after it. Freeing moves `last` to
//! `DESTROY`, after which nothing runs.
//!
//! Claims are ordered, executions are not: two `irq_work`s may run at once on two CPUs, and one
//! that is slow after its claim may arm or cancel after a newer command was executed.
//!
//! `cancel` is not a command: it clears the callback and waits, as published. So a start that waits
//! for its `irq_work` is executed after a cancel that has returned: what reviewers distrusted.
//!
//! As published the latch is read and claimed by its raw sequence, odd values included, so that one
//! command may be executed twice ([`Buffer::RAW`], VERIFICATION.md).

use core::ptr::NonNull;

use super::block::{Block, Cancelling, Own};
use super::command::Command;
use super::counted::{self, Counted};
use super::refs::Refs;
use super::slot::Slot;
use super::{
    AsyncCell, CellKind, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Promises, Start,
};
use crate::irq_work::IrqWork;
use crate::machine::{Cpu, planted};
use crate::map::Map;
use crate::platform::{Ordering, Platform, Word};
use crate::program::{Callback, Program};

/// A buffer for commands that keeps the newest.
pub trait Buffer<P: Platform>: Send + Sync + 'static {
    /// The design's name in reports.
    const ID: &'static str;

    /// Returns an empty buffer.
    fn new() -> Self;
    /// Whether a command is executed by its writer, unless in NMI; else always by the `irq_work`.
    const DIRECT: bool;
    /// Whether the numbers of commands are raw: one command has two.
    const RAW: bool;

    /// Writes a command.
    ///
    /// # Errors
    /// EBUSY: another writer is in the buffer; nothing was written.
    fn write(&self, cpu: &Cpu<'_, P>, command: Command) -> Outcome;
    /// Returns the newest command and its number, which grows; `None` if that number is `last`,
    /// which
    /// is 0 as long as no command was claimed.
    ///
    /// # Errors
    /// EAGAIN: writers got in the way; try again.
    fn read(&self, cpu: &Cpu<'_, P>, last: u64) -> Result<Option<(u64, Command)>, Errno>;
    /// Returns whether a writer is in the buffer.
    fn is_occupied(&self) -> bool;
}

/// Beyond every command's number: the cell was freed, and is to be cancelled.
const DESTROY: u64 = u64::MAX - 1;
/// Beyond that: somebody cancels it.
const DESTROYED: u64 = u64::MAX;

/// A cell that is a pointer and nothing else.
#[repr(transparent)]
pub struct Newest<P: Platform, K: Kind, B: Buffer<P>> {
    slot: Slot<P, K, Words<P, B>>,
}

/// Words that the design adds to the block, in the order of the patched `struct bpf_async_cb`.
#[repr(C)]
pub struct Words<P: Platform, B> {
    _flags: u64,
    /// Executes the newest command.
    irq_work: IrqWork<P>,
    /// The map's own reference, and one for the `irq_work` while it is queued.
    refs: Refs<P>,
    _type: u32,
    /// The number of the newest command that somebody executes or has executed, `DESTROY` or
    /// `DESTROYED`.
    last: P::U64,
    buffer: B,
}

impl<P: Platform, B: Buffer<P>> Own<P> for Words<P, B> {
    type Tail = ();
}

impl<P: Platform, B: Buffer<P>> Counted<P> for Words<P, B> {
    #[inline(always)]
    fn refs(&self) -> &Refs<P> {
        &self.refs
    }
}

/// Command to execute, if there is one.
enum Next {
    /// Nothing that somebody else does not execute.
    Nothing,
    /// This command, once.
    Run(Command),
    /// The cell was freed: the cancel, once.
    Destroy,
}

impl<P: Platform, B: Buffer<P>> Words<P, B> {
    /// Claims the newest command.
    fn next(&self, cpu: &Cpu<'_, P>) -> Next {
        loop {
            // Acquire pairs with the release of the claim before.
            let last = self.last.load(Ordering::Acquire);
            if last >= DESTROY {
                return self.claim_destruction();
            }
            // A bug that does not look at what was claimed.
            let known = if planted!(cpu, CommandNotClaimed) { 0 } else { last };
            match self.buffer.read(cpu, known) {
                // A DESTROY that is set later is found by the `irq_work` queued after it.
                Ok(None) => return Next::Nothing,
                Ok(Some((number, command))) => {
                    // Release pairs with the acquire above. It fails where another one claimed a
                    // command meanwhile: what is the newest then?
                    let claim = || {
                        self.last.cas(last, number, Ordering::Release, Ordering::Relaxed).is_ok()
                    };
                    let unclaimed = planted!(cpu, CommandNotClaimed)
                        || planted!(cpu, CancelNotClaimed) && command == Command::Cancel;
                    if unclaimed || claim() {
                        return Next::Run(command);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Claims the cancel of a cell that was freed.
    #[cold]
    fn claim_destruction(&self) -> Next {
        // Release: as the claim of a command.
        match self.last.cas(DESTROY, DESTROYED, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => Next::Destroy,
            Err(_) => Next::Nothing,
        }
    }
}

type NewestBlock<P, K, B> = Block<P, K, Words<P, B>>;

/// Writes a command and has the `irq_work` run.
///
/// # Errors
/// EBUSY: another writer, or the cell is being freed.
#[inline(always)]
fn post<P: Platform, K: Kind, B: Buffer<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<NewestBlock<P, K, B>>,
    command: Command,
) -> Outcome {
    // SAFETY: kept by the RCU section that the caller has open.
    let own = unsafe { &block.as_ref().own };
    own.buffer.write(cpu, command)?;
    if !own.refs.try_get() {
        return Err(Errno::EBUSY);
    }
    if B::DIRECT && !cpu.in_nmi() {
        // SAFETY: taken above, and given to it.
        unsafe { run_newest::<P, K, B>(block.as_ptr().cast(), cpu) };
        return Ok(());
    }
    // SAFETY: taken above.
    unsafe { hand_over(cpu, block) };
    Ok(())
}

/// Has the `irq_work` run, with a reference of the caller's.
///
/// # Safety
/// The caller holds the reference and does not use the block after this, but for an RCU section
/// that it has open.
#[inline(always)]
unsafe fn hand_over<P: Platform, K: Kind, B: Buffer<P>>(
    cpu: &Cpu<'_, P>,
    block: NonNull<NewestBlock<P, K, B>>,
) {
    // SAFETY: the reference keeps the block until the handler returns it.
    if !unsafe { IrqWork::queue(&block.as_ref().own.irq_work, cpu) } {
        // Queued already, with a reference of its own: that run sees what was written.
        if planted!(cpu, QueueResultIgnored) {
            return;
        }
        // SAFETY: the caller's reference.
        unsafe { counted::put(cpu, block) };
    }
}

/// Handles the `irq_work`.
unsafe fn run_newest<P: Platform, K: Kind, B: Buffer<P>>(owner: *mut (), cpu: &Cpu<'_, P>) {
    let block = NonNull::new(owner.cast::<NewestBlock<P, K, B>>()).expect("not null");
    // SAFETY: the reference that came with the `irq_work` keeps it.
    let this = unsafe { block.as_ref() };
    match this.own.next(cpu) {
        Next::Nothing => {}
        Next::Run(command) => {
            // SAFETY: the last put cancels before it frees, and this reference comes before it.
            unsafe { command.run::<P, K>(cpu, &this.node) };
        }
        Next::Destroy => {
            // A callback that runs is left to the last put.
            K::try_cancel(cpu, &this.node);
        }
    }
    // SAFETY: the reference that came with the `irq_work`.
    unsafe { counted::put(cpu, block) };
}

impl<P: Platform, K: Kind, B: Buffer<P>> AsyncCell<P> for Newest<P, K, B> {
    const ID: &'static str = B::ID;
    const KIND: CellKind = K::KIND;
    const CANCELS: bool = K::CANCELS;
    const CANCELS_ASYNC: bool = K::CANCELS;
    const PROMISES: Promises = Promises {
        init_in_nmi: true,
        update_in_nmi: true,
        start_in_nmi: true,
        async_reports: false,
        posts: true,
        callback_may_differ: true,
        // Who executes a command twice took part with one of his own. Where all are starts, nothing
        // runs more often than started.
        may_repeat: B::RAW && K::CANCELS,
        waits_for_irqs: !B::DIRECT,
        ..Promises::BASE
    };
    const OCCUPIES: bool = true;

    unsafe fn new() -> Self {
        Self { slot: Slot::new() }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        K::check_init(flags)?;
        let words = |block: *mut NewestBlock<P, K, B>| {
            let own = Words {
                _flags: 0,
                irq_work: IrqWork::new(run_newest::<P, K, B>, block.cast()),
                refs: Refs::one(),
                _type: 0,
                last: P::U64::new("block.last", 0),
                buffer: B::new(),
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
        unsafe { self.slot.get()?.as_ref() }.exchange::<false>(cpu, Some((program, callback)))
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
        post(cpu, block, Command::Start(start))
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = unsafe { self.slot.get()?.as_ref() };
        let _cancelling = Cancelling::begin(cpu, block)?;
        block.exchange::<false>(cpu, None)?;
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_async(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS {
            return Err(Errno::EOPNOTSUPP);
        }
        let _rcu = cpu.rcu_read();
        // What the command finds is not known here.
        post(cpu, self.slot.get()?, Command::Cancel).map(|()| false)
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        let Some(block) = self.slot.detach() else { return };
        // Relaxed: queueing the `irq_work` orders it. Whoever claimed a command before holds a
        // reference, and the last put cancels what it starts.
        // SAFETY: the map's reference keeps it.
        unsafe { block.as_ref() }.own.last.store(DESTROY, Ordering::Relaxed);
        if planted!(cpu, FreeLost) {
            // SAFETY: the map's reference keeps it, for ever where the item was queued.
            unsafe { IrqWork::queue(&block.as_ref().own.irq_work, cpu) };
            return;
        }
        // SAFETY: the map's own reference, given away once by whoever detached the block.
        unsafe { hand_over(cpu, block) };
    }

    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        let _rcu = cpu.rcu_read();
        // SAFETY: kept by the RCU section.
        let block = self.slot.get().map(|block| unsafe { block.as_ref() });
        block.is_ok_and(|block| block.own.buffer.is_occupied())
    }

    fn inspect(&self) -> Inspection<P> {
        self.slot.inspect()
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<NewestBlock<P, K, B>>(cpu, count);
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<NewestBlock<P, K, B>>() }
    }
}
