//! The control block: what a cell points to, and the steps that every design shares: running the
//! callback, the rules against deadlock in cancel, and giving the block back.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicBool;

use super::{Errno, Inspection, Kind};
use crate::engine::{Cancelled, Engine};
use crate::machine::{Context, Cpu, planted};
use crate::map::Map;
use crate::platform::{IntWord, Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::rcu::{RcuHead, Reclaim};

/// What a design adds to the block.
pub trait Own: Send + Sync + 'static {
    /// Whether every start is ordered before the cancel that precedes freeing, by a lock or a
    /// reference. Else a start may come after that cancel, as long as its RCU section is open,
    /// and the block is cancelled once more when the grace period has ended.
    const STARTS_ARE_ORDERED: bool;
}

/// A control block; `own` holds the words that one design adds.
#[repr(C)]
pub struct Block<P: Platform, K: Kind, X: Own> {
    /// First, so that the RCU callback gets back to the block.
    rcu: RcuHead<P>,
    /// The program that owns the callback, with one reference held, or null.
    pub(crate) program: P::Ptr<Program<P>>,
    /// What runs, or null.
    pub(crate) callback: P::Ptr<Callback<P>>,
    /// Callbacks that are cancelling this timer now.
    cancelling: P::U32,
    map: *const Map<P>,
    value: *const (),
    pub(crate) node: K::Node<P>,
    /// Cancels in a worker, where waiting is possible, and then frees.
    delete: <P::Engine as Engine<P>>::Work,
    /// The grace period that every reader is waited for has ended.
    readers_are_gone: AtomicBool,
    /// The design's own words.
    pub(crate) own: X,
}

// SAFETY: `map` and `value` are addresses that are dereferenced only under the contract of
// `AsyncCell::new`; everything else is `Sync`.
unsafe impl<P: Platform, K: Kind, X: Own> Sync for Block<P, K, X> {}
// SAFETY: as above.
unsafe impl<P: Platform, K: Kind, X: Own> Send for Block<P, K, X> {}

impl<P: Platform, K: Kind, X: Own> Block<P, K, X> {
    /// Allocates a block that nobody knows yet. `None`: no memory that this context may take.
    pub(crate) fn alloc(
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        value: *const (),
        own: impl FnOnce() -> X,
    ) -> Option<NonNull<Self>> {
        cpu.machine().heap().alloc(cpu, |this: *mut Self| Self {
            rcu: RcuHead::new(),
            program: P::Ptr::new("block.program", ptr::null_mut()),
            callback: P::Ptr::new("block.callback", ptr::null_mut()),
            cancelling: P::U32::new("block.cancelling", 0),
            map: ptr::from_ref(map),
            value,
            node: K::node(Self::fire, this.cast()),
            delete: P::Engine::work(Self::cancel_then_free, this.cast()),
            readers_are_gone: AtomicBool::new(false),
            own: own(),
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

    /// Frees the block after a grace period.
    ///
    /// # Safety
    /// Detached, its node and its worker at rest or in their last run; done once.
    pub(crate) unsafe fn free_after_grace_period(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: by contract; the pointer keeps the provenance of the whole block.
        unsafe { cpu.machine().rcu().defer(cpu, block.as_ptr().cast(), Self::readers_gone) };
    }

    /// The grace period after detaching has ended.
    unsafe fn readers_gone(head: *mut RcuHead<P>, cpu: &Cpu<'_, P>) {
        // The head is the block's first field.
        let block = NonNull::new(head.cast::<Self>()).expect("not null");
        // SAFETY: freed below or by the worker.
        let this = unsafe { block.as_ref() };
        if X::STARTS_ARE_ORDERED || planted!(cpu, NoSecondCancel) {
            // SAFETY: nobody can reach it any more, and it is at rest.
            unsafe { Self::free(cpu, block) };
        } else {
            // Relaxed: the queue that the work goes through orders it.
            this.readers_are_gone.store(true, Ordering::Relaxed);
            // SAFETY: the block lives until the handler frees it.
            unsafe { cpu.machine().engine().defer(cpu, &this.delete) };
        }
    }

    /// Whether user space holds no reference to the map any more.
    #[inline(always)]
    pub(crate) fn is_map_abandoned(&self) -> bool {
        // SAFETY: the map outlives the block, by the contract of `AsyncCell::new`.
        unsafe { (*self.map).is_abandoned() }
    }

    /// The handler of the node: reads the callback once and runs it.
    unsafe fn fire(owner: *mut (), cpu: &Cpu<'_, P>) {
        let _rcu = cpu.rcu_read();
        // SAFETY: the engine calls it for a node that was not cancelled; its block is freed only
        // after the node came to rest and a grace period ended, and this is a reader.
        let block = unsafe { &*owner.cast::<Self>() };
        // Acquire pairs with the release that published the callback.
        let callback = block.callback.load(Ordering::Acquire);
        // SAFETY: programs and their callbacks outlive the machine's rest.
        let Some(callback) = (unsafe { callback.as_ref() }) else { return };
        let timer = cpu.context() == Context::Softirq;
        let before = if timer { cpu.set_running(owner) } else { ptr::null_mut() };
        callback.run(cpu, block.value);
        if timer {
            cpu.set_running(before);
        }
    }

    /// The handler of the worker.
    unsafe fn cancel_then_free(owner: *mut (), cpu: &Cpu<'_, P>) {
        let block = NonNull::new(owner.cast::<Self>()).expect("not null");
        // SAFETY: queued by the one who detached the block, and again after the grace period.
        let this = unsafe { block.as_ref() };
        K::cancel(cpu, &this.node);
        if this.readers_are_gone.load(Ordering::Relaxed) {
            // SAFETY: no start can come any more, and what was started is cancelled.
            unsafe { Self::free(cpu, block) };
        } else {
            // SAFETY: detached, cancelled, and this worker is in its last run but one.
            unsafe { Self::free_after_grace_period(cpu, block) };
        }
    }

    /// Cancels and frees a detached block, without waiting here.
    ///
    /// # Safety
    /// Nobody can reach the block but readers in open sections, and nobody starts it any more;
    /// done once.
    pub(crate) unsafe fn delete(cpu: &Cpu<'_, P>, block: NonNull<Self>) {
        // SAFETY: valid until freed below.
        let this = unsafe { block.as_ref() };
        let own_callback = cpu.running() == block.as_ptr().cast();
        if own_callback || K::try_cancel(cpu, &this.node) != Cancelled::Running {
            // Own callback: the grace period cannot end before it does.
            // SAFETY: by contract.
            unsafe { Self::free_after_grace_period(cpu, block) };
        } else {
            // SAFETY: the block lives until the handler hands it over.
            unsafe { cpu.machine().engine().defer(cpu, &this.delete) };
        }
    }

    /// Exchanges the program, putting the old one, and sets the callback. `None` clears both.
    /// Callers make sure that no two of them do this at once, or exchange (see `state`).
    ///
    /// # Errors
    /// ENOENT: no reference on the new program; nothing was changed.
    #[inline(always)]
    pub(crate) fn update(
        &self,
        cpu: &Cpu<'_, P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Result<(), Errno> {
        let (program, callback) = match new {
            Some((program, callback)) => {
                (ptr::from_ref(program).cast_mut(), ptr::from_ref(callback).cast_mut())
            }
            None => (ptr::null_mut(), ptr::null_mut()),
        };
        // Relaxed: only compared.
        if self.program.load(Ordering::Relaxed) != program {
            if let Some((program, _)) = new {
                program.get()?;
            }
            // An exchange: each old program is put by the one who took it out.
            let old = self.program.swap(program, Ordering::AcqRel);
            // SAFETY: the reference that the block held keeps the program, and its memory
            // outlives the machine's rest.
            if let Some(old) = unsafe { old.as_ref() } {
                if !planted!(cpu, OldProgramKept) {
                    old.put();
                }
                if planted!(cpu, OldProgramPutTwice) {
                    old.put();
                }
            }
        }
        // Release pairs with the acquire in `fire`.
        self.callback.store(callback, Ordering::Release);
        Ok(())
    }

    /// What the block refers to.
    pub(crate) fn inspect(&self) -> Inspection<P> {
        Inspection {
            initialised: true,
            program: self.program.load(Ordering::Acquire),
            callback: self.callback.load(Ordering::Acquire),
        }
    }
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
    pub(crate) fn begin<K: Kind, X: Own>(
        cpu: &Cpu<'_, P>,
        block: &'a Block<P, K, X>,
    ) -> Result<Self, Errno> {
        let running = cpu.running();
        if running.is_null() {
            return Ok(Self(None));
        }
        if running == ptr::from_ref(block).cast_mut().cast() {
            return Err(Errno::EDEADLK);
        }
        // Relaxed: the full barrier orders it. On success as on failure the guard lowers it.
        block.cancelling.fetch_add(1, Ordering::Relaxed);
        let raised = Self(Some(&block.cancelling));
        // Raise mine, then look at theirs; the other callback does the same: one sees the other.
        P::fence();
        // SAFETY: the running block's callback is on this CPU, so the block is not freed; timers
        // of one machine share the design, and `cancelling` lies in the same place.
        let running = unsafe { &*running.cast::<Block<P, K, X>>() };
        if running.cancelling.load(Ordering::Relaxed) > 0 {
            return Err(Errno::EDEADLK);
        }
        Ok(raised)
    }
}

impl<P: Platform> Drop for Cancelling<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(cancelling) = self.0 {
            // Release: the wait that it covered is over.
            cancelling.fetch_sub(1, Ordering::Release);
        }
    }
}
