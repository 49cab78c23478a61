//! The control block: what a cell points to, and the steps that every design shares: running the
//! callback, setting it, and the rules against deadlock in cancel. Giving the block back is in
//! [`worker`](super::worker) and [`counted`](super::counted).

use core::ptr::{self, NonNull};

use super::{Errno, Inspection, Kind};
use crate::machine::{Context, Cpu, planted};
use crate::map::Map;
use crate::platform::{IntWord, Ordering, Platform, Word};
use crate::program::{Callback, Program};
use crate::rcu::{RcuFn, RcuHead, Reclaim};

/// What a design adds to the block.
pub trait Own: Send + Sync + 'static {}

impl<X: Send + Sync + 'static> Own for X {}

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
    /// The design's own words.
    pub(crate) own: X,
}

// SAFETY: `map` and `value` are addresses that are dereferenced only under the contract of
// `AsyncCell::new`; everything else is `Sync`.
unsafe impl<P: Platform, K: Kind, X: Own> Sync for Block<P, K, X> {}
// SAFETY: as above.
unsafe impl<P: Platform, K: Kind, X: Own> Send for Block<P, K, X> {}

impl<P: Platform, K: Kind, X: Own> Block<P, K, X> {
    /// Allocates a block that nobody knows yet; `own` makes the design's words for the block at
    /// the given address. `None`: no memory that this context may take.
    pub(crate) fn alloc(
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        value: *const (),
        own: impl FnOnce(*mut Self) -> X,
    ) -> Option<NonNull<Self>> {
        cpu.machine().heap().alloc(cpu, |this: *mut Self| Self {
            rcu: RcuHead::new(),
            program: P::Ptr::new("block.program", ptr::null_mut()),
            callback: P::Ptr::new("block.callback", ptr::null_mut()),
            cancelling: P::U32::new("block.cancelling", 0),
            map: ptr::from_ref(map),
            value,
            node: K::node(Self::fire, this.cast()),
            own: own(this),
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
        // SAFETY: by contract; the pointer keeps the provenance of the whole block.
        unsafe { cpu.machine().rcu().defer(cpu, block.as_ptr().cast(), function) };
    }

    /// The block whose head this is.
    pub(crate) fn of_head(head: *mut RcuHead<P>) -> NonNull<Self> {
        // The head is the block's first field.
        NonNull::new(head.cast()).expect("not null")
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

    /// Exchanges the program, putting the old one, and sets the callback. `None` clears both.
    /// Callers make sure that no two of them do this at once; those that cannot use
    /// [`exchange`](Self::exchange).
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
            self.exchange_program(cpu, program);
        }
        // Release pairs with the acquire in `fire`.
        self.callback.store(callback, Ordering::Release);
        Ok(())
    }

    /// As [`update`](Self::update), for any number of callers at once, in any context: repeats
    /// until what is in the block is what was written, so that program and callback of the last
    /// one stay together. A caller repeats only if another one wrote in between.
    ///
    /// Published with a plain store of the callback, which may become visible after the check
    /// that follows it; the exchange does not (see VERIFICATION.md).
    ///
    /// # Errors
    /// ENOENT: no reference on the new program; nothing was changed.
    #[inline(always)]
    pub(crate) fn exchange(
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
            self.exchange_program(cpu, program);
            if planted!(cpu, CallbackStored) {
                self.callback.store(callback, Ordering::Release);
            } else {
                // Release pairs with the acquire in `fire`. Acquire: after another's callback,
                // the check below sees the program that was exchanged before it.
                self.callback.swap(callback, Ordering::AcqRel);
            }
            // Relaxed: only compared; ordered by the acquire above.
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

    /// Exchanges the program and puts the old one: each is put by the one who took it out.
    #[inline(always)]
    fn exchange_program(&self, cpu: &Cpu<'_, P>, program: *mut Program<P>) {
        let old = self.program.swap(program, Ordering::AcqRel);
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

    /// What the block refers to.
    pub(crate) fn inspect(&self) -> Inspection<P> {
        Inspection {
            initialised: true,
            program: self.program.load(Ordering::Acquire),
            callback: self.callback.load(Ordering::Acquire),
        }
    }
}

/// A program and a callback as the block holds them; null for none.
#[inline(always)]
fn pointers<P: Platform>(
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
