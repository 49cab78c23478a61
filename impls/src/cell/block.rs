//! The control block: what a cell points to, and the steps that every design shares: running the
//! callback, setting it, and the rules against deadlock in cancel. Giving the block back is in
//! [`worker`](super::worker) and [`counted`](super::counted).

use core::mem::offset_of;
use core::ptr::{self, NonNull};

use super::{Errno, Inspection, Kind};
use crate::machine::{Context, Cpu, Running, planted};
use crate::map::Map;
use crate::platform::{IntWord, Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::rcu::{RcuFn, RcuHead, Reclaim};

/// Part of the block that a design adds.
pub trait Own<P: Platform>: Send + Sync + 'static {
    /// Words that the design adds behind the engine's node.
    type Tail: Send + Sync + 'static;
    /// Whether a grace period frees what the callback is read from, so that the handler opens its RCU
    /// section before it reads.
    const READ_UNDER_RCU: bool = false;

    /// Reads the callback, for the handler; null: none.
    #[inline(always)]
    fn callback(&self, header: &Header<P>) -> *mut Callback<P> {
        // Acquire pairs with the release that published the callback.
        header.callback.load(Ordering::Acquire)
    }

    /// Returns what the block refers to.
    fn inspect(&self, header: &Header<P>) -> Inspection<P> {
        header.inspect()
    }

    /// Puts the program that the block still has: nobody else can reach the block.
    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        // Relaxed: a grace period came before.
        header.put_program(cpu, header.program.load(Ordering::Relaxed));
    }
}

/// Words that every block begins with: the first of the kernel's `struct bpf_async_cb`, at its offsets.
#[repr(C)]
pub struct Header<P: Platform> {
    map: *const Map<P>,
    /// The program that owns the callback, with one reference held, or null.
    pub(crate) program: P::Ptr<Program<P>>,
    /// Callback that runs, or null.
    pub(crate) callback: P::Ptr<Callback<P>>,
    value: *const (),
    /// Head by which the grace period finds the block.
    rcu: RcuHead<P>,
}

/// A control block. Which words share a line is part of a design: the order is that of the kernel's
/// structures, `own` in place of what follows `rcu` there, then the hrtimer or the work.
#[repr(C)]
pub struct Block<P: Platform, K: Kind, X: Own<P>> {
    header: Header<P>,
    /// The design's own words.
    pub(crate) own: X,
    pub(crate) node: K::Node<P>,
    /// Callbacks that are cancelling this timer now.
    cancelling: P::U32,
    /// The design's own words that follow.
    pub(crate) tail: X::Tail,
}

impl<P: Platform, K: Kind, X: Own<P>> core::ops::Deref for Block<P, K, X> {
    type Target = Header<P>;

    #[inline(always)]
    fn deref(&self) -> &Header<P> {
        &self.header
    }
}

// SAFETY: `map` and `value` are addresses that are dereferenced only under the contract of
// `AsyncCell::new`; everything else is `Sync`.
unsafe impl<P: Platform, K: Kind, X: Own<P>> Sync for Block<P, K, X> {}
// SAFETY: as above.
unsafe impl<P: Platform, K: Kind, X: Own<P>> Send for Block<P, K, X> {}

impl<P: Platform, K: Kind, X: Own<P>> Block<P, K, X> {
    /// Offset of the design's own words, for the assertions beside each design.
    pub(crate) const OWN_AT: usize = offset_of!(Self, own);
    /// Offset of the hrtimer or work.
    pub(crate) const NODE_AT: usize = offset_of!(Self, node);

    /// Allocates a block that nobody knows yet; `own` makes the design's words for the block at
    /// the given address. `None`: no memory that this context may take.
    pub(crate) fn alloc(
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        value: *const (),
        own: impl FnOnce(*mut Self) -> (X, X::Tail),
    ) -> Option<NonNull<Self>> {
        cpu.machine().heap().alloc(cpu, |this: *mut Self| {
            let (own, tail) = own(this);
            Self {
                header: Header {
                    map: ptr::from_ref(map),
                    program: P::Ptr::new("block.program", ptr::null_mut()),
                    callback: P::Ptr::new("block.callback", ptr::null_mut()),
                    value,
                    rcu: RcuHead::new(),
                },
                own,
                node: K::node(Self::fire, this.cast()),
                cancelling: P::U32::new("block.cancelling", 0),
                tail,
            }
        })
    }

    /// Frees a block that nobody else knows.
    ///
    /// # Safety
    /// As [`Heap::free`](crate::heap::Heap::free).
    pub(crate) unsafe fn free(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: by contract.
        unsafe { cpu.machine().heap().free(cpu, block) };
    }

    /// Has `function` called with the block's head after a grace period.
    ///
    /// # Safety
    /// As [`Reclaim::defer`].
    pub(crate) unsafe fn defer(cpu: &Cpu<'_, P>, block: NonNull<Self>, function: RcuFn<P>) {
        // SAFETY: by contract; the pointer is made from the block's, and keeps its provenance.
        unsafe { cpu.machine().rcu().defer(cpu, &raw mut (*block.as_ptr()).header.rcu, function) };
    }

    /// Returns the block whose head this is.
    pub(crate) fn of_head(head: *mut RcuHead<P>) -> NonNull<Self> {
        // SAFETY: the head lies in a block's header, which is the block's first field.
        let block = unsafe { head.cast::<u8>().sub(offset_of!(Header<P>, rcu)) };
        NonNull::new(block.cast()).expect("not null")
    }

    /// Returns whether user space holds no reference to the map any more.
    #[inline(always)]
    pub(crate) fn is_map_abandoned(&self) -> bool {
        // SAFETY: the map outlives the block, by the contract of `AsyncCell::new`.
        unsafe { (*self.map).is_abandoned() }
    }

    /// Handles the node: reads the callback once and runs it.
    unsafe fn fire(owner: *mut (), cpu: &Cpu<'_, P>) {
        let early = K::HANDLED_UNDER_RCU || X::READ_UNDER_RCU && !planted!(cpu, PairReadOutside);
        let _from_the_beginning = early.then(|| cpu.rcu_read());
        // SAFETY: the engine calls it for a node that was not cancelled; its block is freed only
        // after the node came to rest.
        let block = unsafe { &*owner.cast::<Self>() };
        let callback = block.own.callback(&block.header);
        // SAFETY: programs and their callbacks outlive the machine's rest.
        let Some(callback) = (unsafe { callback.as_ref() }) else { return };
        // Keeps the map value that the callback is given.
        let _value = (!early).then(|| cpu.rcu_read());
        let timer = cpu.context() == Context::Softirq;
        let before =
            timer.then(|| cpu.set_running(Running { block: owner, cancelling: &block.cancelling }));
        callback.run(cpu, block.value);
        if let Some(before) = before {
            cpu.set_running(before);
        }
    }

    /// Sets program and callback under the cell's lock; `None` clears both. Plain, as in the
    /// kernel:
    /// nobody else writes.
    ///
    /// # Errors
    /// ENOENT: no reference on the new program; nothing was changed.
    #[inline(always)]
    pub(crate) fn update_locked(
        &self,
        cpu: &Cpu<'_, P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Result<(), Errno> {
        let (program, callback) = pointers(new);
        // Relaxed, here and below: written under the lock.
        let old = self.program.load(Ordering::Relaxed);
        if old != program {
            if let Some((program, _)) = new {
                program.get()?;
            }
            self.put_program(cpu, old);
            self.program.store(program, Ordering::Relaxed);
        } else if new.is_none() {
            // Nothing was set, so there is no callback either.
            return Ok(());
        }
        // Release pairs with the acquire in `fire`, which takes no lock; null publishes nothing.
        let publish = if new.is_some() { Ordering::Release } else { Ordering::Relaxed };
        self.callback.store(callback, publish);
        Ok(())
    }

    /// Sets program and callback where one update at a time gets here, but for the one that clears
    /// after freeing: the program is exchanged, so that each is put once. `None` clears both.
    ///
    /// # Errors
    /// ENOENT: no reference on the new program; nothing was changed.
    #[inline(always)]
    pub(crate) fn update(
        &self,
        cpu: &Cpu<'_, P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Result<(), Errno> {
        let (program, callback) = pointers(new);
        // Relaxed: only compared.
        if self.program.load(Ordering::Relaxed) != program {
            if let Some((program, _)) = new {
                program.get()?;
            }
            // A full barrier, as `xchg` is.
            let old = self.program.swap(program, Ordering::SeqCst);
            self.put_program(cpu, old);
        }
        // Release pairs with the acquire in `fire`.
        self.callback.store(callback, Ordering::Release);
        Ok(())
    }

    /// Puts the program that the block still has: nobody else can reach the block.
    pub(crate) fn put_last(&self, cpu: &Cpu<'_, P>) {
        self.own.put_last(cpu, &self.header);
    }

    /// Returns what the block refers to.
    pub(crate) fn inspect(&self) -> Inspection<P> {
        self.own.inspect(&self.header)
    }
}

impl<P: Platform> Header<P> {
    /// Updates as [`Block::update`] does, for any number of callers at once, in any context: repeats
    /// until what is in the block is what was written, so that program and callback of the last
    /// one stay together. A caller repeats only if another one wrote in between.
    ///
    /// As published (`EXCHANGED` false) the callback is stored, and the old program put after that.
    /// The store may become visible after the check that follows it where nothing was put (no
    /// program was set): VERIFICATION.md, finding 7. The repair exchanges the callback.
    ///
    /// # Errors
    /// ENOENT: no reference on the new program; nothing was changed.
    #[inline(always)]
    pub(crate) fn exchange<const EXCHANGED: bool>(
        &self,
        cpu: &Cpu<'_, P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Result<(), Errno> {
        let (program, callback) = pointers(new);
        if let Some((program, _)) = new {
            // The guard: keeps the count above 0 while others put what this call wrote.
            program.get()?;
        }
        loop {
            if let Some((program, _)) = new {
                program.get().expect("the guard keeps the count above 0");
            }
            // A full barrier, as `xchg` is.
            let old = self.program.swap(program, Ordering::SeqCst);
            if EXCHANGED && !planted!(cpu, CallbackStored) {
                // A full barrier. Release pairs with the acquire in `fire`. Acquire: after another's
                // callback, the check below sees the program that was exchanged before it.
                self.callback.swap(callback, Ordering::SeqCst);
            } else {
                // Release pairs with the acquire in `fire` (`rcu_assign_pointer`).
                self.callback.store(callback, Ordering::Release);
            }
            self.put_program(cpu, old);
            // Relaxed: only compared; ordered by the exchange or the put above where there is one.
            if self.program.load(Ordering::Relaxed) == program
                && self.callback.load(Ordering::Relaxed) == callback
            {
                break;
            }
        }
        if let Some((program, _)) = new {
            program.put();
        }
        Ok(())
    }

    /// Puts a program that was taken out of the block: by the one who took it out.
    #[inline(always)]
    pub(crate) fn put_program(&self, cpu: &Cpu<'_, P>, old: *mut Program<P>) {
        // SAFETY: the reference that the block held keeps the program, and its memory outlives
        // the machine's rest.
        if let Some(old) = unsafe { old.as_ref() } {
            if !planted!(cpu, OldProgramKept) {
                old.put();
            }
            if planted!(cpu, OldProgramPutTwice) {
                old.put();
            }
        }
    }

    /// Returns what the block refers to.
    pub(crate) fn inspect(&self) -> Inspection<P> {
        Inspection {
            initialised: true,
            program: self.program.load(Ordering::Acquire),
            callback: self.callback.load(Ordering::Acquire),
        }
    }
}

/// Returns a program and a callback as the block holds them; null for none.
#[inline(always)]
pub(crate) fn pointers<P: Platform>(
    new: Option<(&Program<P>, &Callback<P>)>,
) -> (*mut Program<P>, *mut Callback<P>) {
    new.map_or((ptr::null_mut(), ptr::null_mut()), |(program, callback)| {
        (ptr::from_ref(program).cast_mut(), ptr::from_ref(callback).cast_mut())
    })
}

/// A cancel in progress, called from another timer's callback: raises the count of the timer that
/// is cancelled while it lasts, so that two callbacks that cancel each other notice.
pub(crate) struct Cancelling<'a, P: Platform>(Option<&'a P::U32>);

impl<'a, P: Platform> Cancelling<'a, P> {
    /// Applies the rules against deadlock for cancelling `block` on this CPU.
    ///
    /// # Errors
    /// EDEADLK: this is the block's own callback, or somebody is cancelling the timer whose
    /// callback this is.
    pub(crate) fn begin<K: Kind, X: Own<P>>(
        cpu: &Cpu<'_, P>,
        block: &'a Block<P, K, X>,
    ) -> Result<Self, Errno> {
        let Some(running) = cpu.running() else { return Ok(Self(None)) };
        if running.block == ptr::from_ref(block).cast_mut().cast() {
            return Err(Errno::EDEADLK);
        }
        // Relaxed: the full barrier orders it. On success as on failure the guard lowers it.
        block.cancelling.fetch_add(1, Ordering::Relaxed);
        let raised = Self(Some(&block.cancelling));
        // Raise mine, then look at theirs; the other callback does the same: one sees the other
        // (`smp_mb__after_atomic`, as the addition returns no value).
        if !planted!(cpu, CancellingUnfenced) {
            P::fence_after_rmw();
        }
        // SAFETY: the running block's callback is on this CPU, so the block is not freed.
        if unsafe { &*running.cancelling }.load(Ordering::Relaxed) > 0 {
            return Err(Errno::EDEADLK);
        }
        Ok(raised)
    }
}

impl<P: Platform> Drop for Cancelling<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(cancelling) = self.0 {
            // Relaxed, as `atomic_dec` is: who still sees the old count is refused once more.
            cancelling.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
