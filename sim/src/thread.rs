//! The state of one OS thread: the table of its simulated words, and the simulation it runs.
//!
//! A word's own bytes hold only a handle (see `word`), so value and label live here (the values in
//! the simulation while one runs: it looks at them too). All virtual
//! cores of a simulation are fibers of one OS thread; many simulations run in parallel on many.
//!
//! [`with`] is the only way in, and hands out the only `&mut`: code passed to it must not suspend
//! the fiber, must not run code of the user (closures, destructors), and must not come here again.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicU32, Ordering};

use rustc_hash::FxHashMap;

use crate::slot::{NO_CORE, NO_LINE, Slot, Word};
use crate::world::World;

/// A handle is the index of a slot and, above it, a tag of the OS thread that owns the table: a
/// word that strays to another thread is caught by the tag (one in 256 strays is not).
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// The state of one OS thread.
pub(crate) struct ThreadState {
    tag: u32,
    pub(crate) slots: Vec<Slot>,
    /// By the same number; empty while a simulation runs, which has them then.
    pub(crate) words: Vec<Word>,
    free: Vec<u32>,
    pub(crate) labels: Vec<&'static str>,
    /// Labels by address, so that the text is compared once for each place it occurs in a program.
    label_of_text: FxHashMap<(usize, usize), u32>,
    /// Number of the simulation that runs, or of the last one that ran.
    pub(crate) epoch: u32,
    pub(crate) world: Option<Box<World>>,
}

static NEXT_TAG: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static STATE: UnsafeCell<ThreadState> = UnsafeCell::new(ThreadState::new());
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// In debug builds, proof that the state is entered once at a time; in release builds nothing.
struct Entry;

impl Entry {
    #[inline]
    fn new() -> Self {
        if cfg!(debug_assertions) {
            assert!(!ENTERED.replace(true), "the simulator's thread state was entered twice");
        }
        Self
    }
}

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            ENTERED.set(false);
        }
    }
}

/// Runs `f` on the state of this OS thread; see the module's rules for `f`.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&mut ThreadState) -> R) -> R {
    STATE.with(|state| enter(state, f))
}

#[inline]
fn enter<R>(state: &UnsafeCell<ThreadState>, f: impl FnOnce(&mut ThreadState) -> R) -> R {
    let _entry = Entry::new();
    // SAFETY: the cell is of this OS thread alone, and by the rules of this module `f` neither
    // re-enters nor switches to a fiber that could: no other reference exists while `f` runs.
    f(unsafe { &mut *state.get() })
}

pub(crate) fn create_word(label: &'static str, value: u64) -> u32 {
    with(|thread| thread.create(label, value))
}

pub(crate) fn drop_word(handle: u32) {
    // A word in a thread-local of the user may outlive this one: then nothing is left to free.
    let _gone = STATE.try_with(|state| enter(state, |thread| thread.release(handle)));
}

pub(crate) fn peek_word(handle: u32) -> u64 {
    with(|thread| {
        let index = thread.index(handle);
        if let Some(world) = &mut thread.world
            && world.current != NO_CORE
        {
            // A condition that looks at it depends on more than on its loads.
            world.me().waiter.replay.invalidate();
        }
        thread.words()[index].value
    })
}

pub(crate) fn label_of_word(handle: u32) -> &'static str {
    with(|thread| {
        let index = thread.index(handle);
        thread.labels[thread.slots[index].label as usize]
    })
}

impl ThreadState {
    fn new() -> Self {
        Self {
            tag: (NEXT_TAG.fetch_add(1, Ordering::Relaxed) & 0xff) << INDEX_BITS,
            slots: Vec::new(),
            words: Vec::new(),
            free: Vec::new(),
            labels: Vec::new(),
            label_of_text: FxHashMap::default(),
            epoch: 0,
            world: None,
        }
    }

    /// Returns the values of the words.
    fn words(&mut self) -> &mut Vec<Word> {
        self.world.as_mut().map_or(&mut self.words, |world| &mut world.words)
    }

    /// Returns the index of the slot of a handle.
    #[inline]
    pub(crate) fn index(&self, handle: u32) -> usize {
        let index = (handle ^ self.tag) as usize;
        if index >= self.slots.len() {
            foreign_thread();
        }
        index
    }

    fn create(&mut self, label: &'static str, value: u64) -> u32 {
        let creator = self.world.as_ref().map_or(NO_CORE, |world| world.current);
        let slot = Slot {
            address: 0,
            line: NO_LINE,
            epoch: self.epoch,
            label: self.intern(label),
            creator,
            partial_until: 0,
            last_writer: NO_CORE,
            many_writers: false,
            row: 0,
            live: true,
        };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            let word = &mut self.words()[index as usize];
            *word = Word { value, generation: word.generation.wrapping_add(1) };
            index
        } else {
            let index = u32::try_from(self.slots.len()).expect("the index is checked below");
            assert!(index <= INDEX_MASK, "more than {INDEX_MASK} simulated words on one OS thread");
            self.slots.push(slot);
            self.words().push(Word { value, generation: 0 });
            index
        };
        index | self.tag
    }

    fn release(&mut self, handle: u32) {
        // Dropped on a foreign thread: the owner's slot stays taken, which harms nobody.
        let index = (handle ^ self.tag) as usize;
        let Some(slot) = self.slots.get_mut(index) else { return };
        if !slot.live {
            return;
        }
        slot.live = false;
        if slot.epoch == self.epoch
            && slot.line != NO_LINE
            && let Some(world) = &mut self.world
        {
            world.forget_word(index as u32, slot);
        }
        self.free.push(index as u32);
    }

    fn intern(&mut self, label: &'static str) -> u32 {
        let key = (label.as_ptr().addr(), label.len());
        if let Some(&id) = self.label_of_text.get(&key) {
            return id;
        }
        let known = self.labels.iter().position(|&other| other == label);
        let id = known.unwrap_or_else(|| {
            self.labels.push(label);
            self.labels.len() - 1
        }) as u32;
        self.label_of_text.insert(key, id);
        id
    }
}

#[cold]
#[inline(never)]
fn foreign_thread() -> ! {
    panic!("a simulated word belongs to the OS thread that created it: build and run there");
}
