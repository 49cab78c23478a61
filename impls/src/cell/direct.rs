//! The frame of the counter-proposals: cells in which one thing is built differently than in the
//! merged design, and the rest is as plain as it can be.
//!
//! Two questions are asked of each [`Variant`]: how program and callback stay together
//! ([`Keeps`]), and what keeps a block for those who use it ([`Lives`]). Everything else is the same
//! in all: a pointer in the map value, set by a compare-exchange and taken out by an exchange; starts
//! go straight to the timer's queue, as the merged design's do in a task. There are no commands, so that
//! starting, cancelling and freeing are refused in NMI; a list as that of [`super::queue`] would
//! serve each of them alike.
//!
//! Freeing waits for nothing. The timer is cancelled by whoever detached the block, and once more when
//! no start can be in progress, because one may have armed it in between.

use core::ptr::NonNull;

use super::block::{Block, Cancelling, Header, Own};
use super::counted::Counted;
use super::refs::Refs;
use super::slot::Slot;
use super::{
    AsyncCell, CellKind, Errno, Footprint, InitFlags, Inspection, Kind, Outcome, Promises, Start,
};
use crate::machine::Cpu;
use crate::map::Map;
use crate::platform::Platform;
use crate::program::{Callback, Program};

/// A counter-proposal: its name and its answers.
pub trait Variant<P: Platform>: Send + Sync + 'static {
    /// Name in reports.
    const ID: &'static str;
    /// The way to keep program and callback together.
    type Keeps: Keeps<P>;
    /// The way to keep a block.
    type Lives: Lives<P>;
}

/// A program with one of its callbacks, or null and null.
pub type Pair<P> = (*mut Program<P>, *mut Callback<P>);

/// A way to keep program and callback in a block, with a reference held on the program. The words of
/// [`Header`] are there for those that use them.
pub trait Keeps<P: Platform>: Send + Sync + Sized + 'static {
    /// Whether updates work in NMI.
    const UPDATES_IN_NMI: bool;
    /// Whether updates keep others out: [`AsyncCell::OCCUPIES`].
    const OCCUPIES: bool = false;
    /// Whether an update takes memory, and may fail with ENOMEM.
    const ALLOCATES: bool = false;
    /// As [`Own::READ_UNDER_RCU`].
    const READ_UNDER_RCU: bool = false;

    /// Returns none set.
    fn new() -> Self;
    /// Sets both, or clears both; puts the program that was set before.
    ///
    /// # Errors
    /// ENOENT: no reference on the new program. ENOMEM. Nothing was changed.
    fn update(
        &self,
        cpu: &Cpu<'_, P>,
        header: &Header<P>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome;
    /// Returns whether a program is set, for those who start.
    fn is_set(&self, header: &Header<P>) -> bool;
    /// Reads the callback, for the handler; null: none.
    fn callback(&self, header: &Header<P>) -> *mut Callback<P>;
    /// Returns what is set.
    fn pair(&self, header: &Header<P>) -> Pair<P>;
    /// Puts what is still set: nobody else can reach the block.
    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>);
    /// Makes room for so many updates, see [`AsyncCell::reserve`].
    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        let _ = (cpu, count);
    }
    /// Returns what [`AsyncCell::is_occupied`] says.
    fn is_occupied(&self) -> bool {
        false
    }
}

/// A block of a variant.
pub type DirectBlock<P, K, V> = Block<P, K, Words<P, V>>;
/// A block that was found, with what keeps it.
pub type Found<H, P, K, V> = Result<(H, NonNull<DirectBlock<P, K, V>>), Errno>;
/// The map value of a variant.
pub type DirectSlot<P, K, V> = Slot<P, K, Words<P, V>>;

/// A way to keep a block for those who use it, and to know when a start can no longer be in progress.
pub trait Lives<P: Platform>: Send + Sync + Sized + 'static {
    /// Whether [`new`](Self::new) works in NMI.
    const INIT_IN_NMI: bool = true;
    /// A guard that keeps a block that was found.
    type Held<'a>;

    /// Returns the words for a block that nobody knows yet. `None`: no memory that this context may
    /// take.
    fn new(cpu: &Cpu<'_, P>) -> Option<Self>;
    /// Returns the block of a cell, with what keeps it.
    ///
    /// # Errors
    /// EINVAL: not initialised.
    fn find<'a, K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &'a Cpu<'_, P>,
        slot: &DirectSlot<P, K, V>,
    ) -> Found<Self::Held<'a>, P, K, V>;
    /// Arms the timer or queues the work of a block, and lets go of it.
    ///
    /// # Errors
    /// ENOENT: the block is being freed.
    ///
    /// # Safety
    /// `held` came with the block from [`find`](Self::find).
    unsafe fn start<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        held: Self::Held<'_>,
        block: NonNull<DirectBlock<P, K, V>>,
        start: Start,
    ) -> Outcome;
    /// Frees a block when nobody uses it any more, without waiting.
    ///
    /// # Safety
    /// The caller detached it, and does not use it after this.
    unsafe fn retire<K: Kind, V: Variant<P, Lives = Self>>(
        cpu: &Cpu<'_, P>,
        block: NonNull<DirectBlock<P, K, V>>,
    );
}

/// A cell that is a pointer and nothing else.
#[repr(transparent)]
pub struct Direct<P: Platform, K: Kind, V: Variant<P>> {
    slot: DirectSlot<P, K, V>,
}

/// Words that a variant adds to the block.
#[repr(C)]
pub struct Words<P: Platform, V: Variant<P>> {
    keeps: V::Keeps,
    /// Words that keep the block alive.
    pub(crate) lives: V::Lives,
}

impl<P: Platform, V: Variant<P>> Own<P> for Words<P, V> {
    type Tail = ();
    const READ_UNDER_RCU: bool = V::Keeps::READ_UNDER_RCU;

    #[inline(always)]
    fn callback(&self, header: &Header<P>) -> *mut Callback<P> {
        self.keeps.callback(header)
    }

    fn inspect(&self, header: &Header<P>) -> Inspection<P> {
        let (program, callback) = self.keeps.pair(header);
        Inspection { initialised: true, program, callback }
    }

    fn put_last(&self, cpu: &Cpu<'_, P>, header: &Header<P>) {
        self.keeps.put_last(cpu, header);
    }
}

impl<P: Platform, V: Variant<P, Lives = Refs<P>>> Counted<P> for Words<P, V> {
    #[inline(always)]
    fn refs(&self) -> &Refs<P> {
        &self.lives
    }
}

impl<P: Platform, K: Kind, V: Variant<P>> Direct<P, K, V> {
    fn update(
        cpu: &Cpu<'_, P>,
        block: &DirectBlock<P, K, V>,
        new: Option<(&Program<P>, &Callback<P>)>,
    ) -> Outcome {
        block.own.keeps.update(cpu, block, new)
    }
}

impl<P: Platform, K: Kind, V: Variant<P>> AsyncCell<P> for Direct<P, K, V> {
    const ID: &'static str = V::ID;
    const KIND: CellKind = K::KIND;
    const CANCELS: bool = K::CANCELS;
    const PROMISES: Promises = Promises {
        init_in_nmi: V::Lives::INIT_IN_NMI,
        update_in_nmi: V::Keeps::UPDATES_IN_NMI,
        update_allocates: V::Keeps::ALLOCATES,
        lockless: !V::Keeps::OCCUPIES,
        ..Promises::BASE
    };
    const OCCUPIES: bool = V::Keeps::OCCUPIES;

    unsafe fn new() -> Self {
        Self { slot: Slot::new() }
    }

    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        if cpu.in_nmi() && !V::Lives::INIT_IN_NMI {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_init(flags)?;
        let mut lives = None;
        if !V::Lives::INIT_IN_NMI {
            // Takes memory of its own: not where the cell has a block, and before the block.
            if !self.slot.is_empty() {
                return Err(Errno::EBUSY);
            }
            lives = Some(V::Lives::new(cpu).ok_or(Errno::ENOMEM)?);
        }
        let words = |_| {
            let lives = lives.or_else(|| V::Lives::new(cpu)).expect("takes no memory");
            (Words { keeps: V::Keeps::new(), lives }, ())
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
        if cpu.in_nmi() && !V::Keeps::UPDATES_IN_NMI {
            return Err(Errno::EOPNOTSUPP);
        }
        let (_held, block) = V::Lives::find(cpu, &self.slot)?;
        // SAFETY: kept by what came with it.
        Self::update(cpu, unsafe { block.as_ref() }, Some((program, callback)))
    }

    #[inline(always)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        if cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        K::check_start(start)?;
        let (held, block) = V::Lives::find(cpu, &self.slot)?;
        // SAFETY: kept by what came with it.
        let this = unsafe { block.as_ref() };
        if !this.own.keeps.is_set(this) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: found above.
        unsafe { V::Lives::start(cpu, held, block, start) }
    }

    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        if !K::CANCELS || cpu.in_nmi() {
            return Err(Errno::EOPNOTSUPP);
        }
        let (_held, block) = V::Lives::find(cpu, &self.slot)?;
        // SAFETY: kept by what came with it.
        let block = unsafe { block.as_ref() };
        let _cancelling = Cancelling::begin(cpu, block)?;
        Self::update(cpu, block, None)?;
        Ok(K::cancel(cpu, &block.node))
    }

    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        if self.slot.is_empty() {
            return;
        }
        let Some(block) = self.slot.detach() else { return };
        // SAFETY: whoever detached it keeps it until it is retired.
        let this = unsafe { block.as_ref() };
        Self::update(cpu, this, None).expect("clearing takes nothing");
        K::try_cancel(cpu, &this.node);
        // SAFETY: detached above.
        unsafe { V::Lives::retire(cpu, block) };
    }

    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        let found = V::Lives::find(cpu, &self.slot);
        // SAFETY: kept by what came with it.
        found.is_ok_and(|(_held, block)| unsafe { block.as_ref() }.own.keeps.is_occupied())
    }

    fn inspect(&self) -> Inspection<P> {
        self.slot.inspect()
    }

    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        cpu.machine().heap().reserve::<DirectBlock<P, K, V>>(cpu, count);
        V::Keeps::reserve(cpu, count);
    }

    fn footprint() -> Footprint {
        Footprint { cell_bytes: size_of::<Self>(), block_bytes: size_of::<DirectBlock<P, K, V>>() }
    }
}
