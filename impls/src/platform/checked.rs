//! Model-checked memory, written once for every checker whose atomics look like `std`'s.
//!
//! A word knows whether it was dropped, and its memory is not used again within an execution
//! ([`Memory::QUARANTINE`](super::Memory::QUARANTINE)): an access to a freed block is reported
//! with the field's name. Where the checker can tell, so is an access that only happens to come
//! after the making of the word or before its dropping, without an order between them ([`Life`]).
//!
//! Time stands still unless a test moves it: at a point of its choice with `advance_ns`, or with
//! every fruitless turn of a wait that watches the clock with `tick_ns`. So a timeout can happen
//! at any point of the schedules, and only where the test wants it.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, Ordering};

use super::Label;

/// A checker's knowledge of the order between the making, the use and the dropping of a word.
pub trait Life: Send + Sync {
    /// Notes that the word is made.
    #[track_caller]
    fn begin() -> Self;
    /// Notes that the word is used: to come after it was made.
    #[track_caller]
    fn touch(&self);
    /// Notes that the word is dropped: to come after its last use.
    #[track_caller]
    fn end(&self);
}

/// Under a checker whose executions are sequentially consistent there is nothing to know.
pub struct Sequential;

impl Life for Sequential {
    fn begin() -> Self {
        Self
    }
    fn touch(&self) {}
    fn end(&self) {}
}

/// Accesses that are ordered by a read-modify-write which returns a value, and has no order of its own in its
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// Accesses that C11 orders by a sequentially consistent one, as far as the checker has it: acquire and
    /// release.
    C11,
    /// Everything, as in the kernel's memory model. So does one that fails here, which is more
    /// than the
    /// kernel's.
    Kernel,
}

/// Whether the strength is the kernel's. Of the process, as a checker's threads are not those of
/// the
/// test: set before the first execution.
static KERNEL: AtomicBool = AtomicBool::new(false);

/// Chooses the strength of all executions that follow in this process.
pub fn set_strength(strength: Strength) {
    // Relaxed: threads begin after it.
    KERNEL.store(strength == Strength::Kernel, Ordering::Relaxed);
}

/// Returns the strength that was chosen.
pub(super) fn strength() -> Strength {
    if KERNEL.load(Ordering::Relaxed) { Strength::Kernel } else { Strength::C11 }
}

/// A word of a checked execution.
pub struct Checked<A, L: Life> {
    // Never dropped: a late access must find it, to be reported.
    word: ManuallyDrop<A>,
    label: Label,
    alive: AtomicBool,
    life: ManuallyDrop<L>,
}

impl<A, L: Life> Checked<A, L> {
    #[track_caller]
    pub(super) fn wrap(label: Label, word: A) -> Self {
        Self {
            word: ManuallyDrop::new(word),
            label,
            alive: AtomicBool::new(true),
            life: ManuallyDrop::new(L::begin()),
        }
    }

    /// Returns the checker's atomic.
    ///
    /// # Panics
    /// If the word was dropped, or its making is not ordered before this access.
    #[track_caller]
    pub(super) fn get(&self) -> &A {
        assert!(self.alive.load(Ordering::Relaxed), "use after free of {}", self.label);
        self.life.touch();
        &self.word
    }
}

impl<A, L: Life> Drop for Checked<A, L> {
    fn drop(&mut self) {
        // An execution that failed is unwound outside of the checker.
        if !std::thread::panicking() {
            self.life.end();
        }
        self.alive.store(false, Ordering::Relaxed);
    }
}

/// [`Word`](super::Word) for a checked atomic.
macro_rules! checked_word {
    ($atomic:ty, $life:ty, $t:ty $(, $generic:ident)?) => {
        impl$(<$generic: 'static>)? Word<$t> for Checked<$atomic, $life> {
            #[track_caller]
            fn new(label: Label, value: $t) -> Self {
                Self::wrap(label, <$atomic>::new(value))
            }
            #[track_caller]
            fn load(&self, order: Ordering) -> $t {
                self.get().load(order)
            }
            #[track_caller]
            fn store(&self, value: $t, order: Ordering) {
                self.get().store(value, order);
            }
            #[track_caller]
            fn swap(&self, value: $t, order: Ordering) -> $t {
                full(order, || self.get().swap(value, order))
            }
            #[track_caller]
            fn cas(
                &self,
                current: $t,
                new: $t,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$t, $t> {
                full(success, || self.get().compare_exchange(current, new, success, failure))
            }
        }
    };
}

/// [`IntWord`](super::IntWord) for a checked atomic.
macro_rules! checked_int_word {
    ($atomic:ty, $life:ty, $t:ty) => {
        checked_word!($atomic, $life, $t);
        impl IntWord<$t> for Checked<$atomic, $life> {
            #[track_caller]
            fn fetch_add(&self, value: $t, order: Ordering) -> $t {
                full(order, || self.get().fetch_add(value, order))
            }
            #[track_caller]
            fn fetch_sub(&self, value: $t, order: Ordering) -> $t {
                full(order, || self.get().fetch_sub(value, order))
            }
            #[track_caller]
            fn fetch_or(&self, value: $t, order: Ordering) -> $t {
                full(order, || self.get().fetch_or(value, order))
            }
            #[track_caller]
            fn fetch_and(&self, value: $t, order: Ordering) -> $t {
                full(order, || self.get().fetch_and(value, order))
            }
        }
    };
}

/// A memory named `$name` over the atomics, mutex and threads of the crate `$checker`, with words
/// of the given [`Life`].
macro_rules! checked_memory {
    ($name:literal, $checker:ident, $life:ty) => {
        use core::sync::atomic::Ordering;

        use $checker::sync::Mutex;
        use $checker::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
        use $checker::thread::yield_now;

        use super::checked::{Checked, Strength, checked_int_word, checked_word};
        use super::{DoubleWord, Exclusive, IntWord, Label, Memory, SplitWord, Word};

        /// The memory of a checked execution; see the module.
        pub struct Model;

        /// Runs a read-modify-write of a word; under the kernel's strength, with a full barrier on
        /// both
        /// sides where the kernel's has no suffix, as here those that are sequentially consistent.
        #[track_caller]
        fn full<R>(order: Ordering, rmw: impl FnOnce() -> R) -> R {
            let full = order == Ordering::SeqCst && super::checked::strength() == Strength::Kernel;
            if full {
                fence(Ordering::SeqCst);
            }
            let result = rmw();
            if full {
                fence(Ordering::SeqCst);
            }
            result
        }

        $checker::lazy_static! {
            static ref CLOCK_NS: AtomicU64 = AtomicU64::new(0);
            // Set before the threads begin: no step to explore.
            static ref TICK_NS: core::sync::atomic::AtomicU64 =
                core::sync::atomic::AtomicU64::new(0);
        }

        /// Moves the execution's clock on.
        pub fn advance_ns(duration_ns: u64) {
            CLOCK_NS.fetch_add(duration_ns, Ordering::AcqRel);
        }

        /// Sets that from now on every fruitless turn of a wait that watches the clock takes so long.
        pub fn tick_ns(duration_ns: u64) {
            TICK_NS.store(duration_ns, Ordering::Relaxed);
        }

        checked_int_word!(AtomicU32, $life, u32);
        checked_int_word!(AtomicU64, $life, u64);
        checked_word!(AtomicPtr<T>, $life, *mut T, T);

        impl SplitWord for Checked<AtomicU32, $life> {
            fn clear_low_byte_release(&self) {
                self.get().fetch_and(!0xff, Ordering::Release);
            }

            fn store_low_half(&self, value: u16) {
                let replace = |word| Some(word & 0xffff_0000 | u32::from(value));
                let _ = self.get().fetch_update(Ordering::Relaxed, Ordering::Relaxed, replace);
            }

            fn swap_high_half(&self, value: u16) -> u16 {
                let replace = |word| Some(word & 0xffff | u32::from(value) << 16);
                // AcqRel, as the contract says.
                match self.get().fetch_update(Ordering::AcqRel, Ordering::Relaxed, replace) {
                    Ok(before) | Err(before) => (before >> 16) as u16,
                }
            }

            fn cas_high_half(&self, current: u16, new: u16) -> bool {
                let replace = |word: u32| {
                    let new = word & 0xffff | u32::from(new) << 16;
                    (word >> 16 == u32::from(current)).then_some(new)
                };
                self.get().fetch_update(Ordering::Relaxed, Ordering::Relaxed, replace).is_ok()
            }

            fn set_low_byte_acquire(&self) -> bool {
                self.get().fetch_or(1, Ordering::Acquire) & 1 == 0
            }

            fn test_and_set_acquire(&self) -> bool {
                // Not by an exchange: loom lets the holder's later store come before the 1 that an
                // exchange wrote over the holder's 1.
                self.get().compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            }

            fn any_above_low_byte(&self) -> bool {
                self.get().load(Ordering::Relaxed) & !0xff != 0
            }

            fn clear_second_byte(&self) {
                self.get().fetch_and(!0xff00, Ordering::Relaxed);
            }

            fn set_bit_8_acquire(&self) -> u32 {
                self.get().fetch_or(1 << 8, Ordering::Acquire)
            }

            fn store_low_byte_one(&self) {
                self.get().fetch_or(1, Ordering::Relaxed);
            }
        }

        /// Two words behind the checker's mutex, as it has no access of two: in an order that all
        /// agree on, each access acquires and releases.
        pub struct ModelDouble(Checked<Mutex<[u64; 2]>, $life>);

        impl DoubleWord for ModelDouble {
            #[track_caller]
            fn new(label: Label, halves: [u64; 2]) -> Self {
                Self(Checked::wrap(label, Mutex::new(halves)))
            }
            #[track_caller]
            fn load_half(&self, half: usize, _: Ordering) -> u64 {
                self.0.get().lock().expect("a panic ends the execution")[half]
            }
            #[track_caller]
            fn cas(&self, current: [u64; 2], new: [u64; 2], _: Ordering) -> Result<(), [u64; 2]> {
                let mut halves = self.0.get().lock().expect("a panic ends the execution");
                if *halves != current {
                    return Err(*halves);
                }
                *halves = new;
                Ok(())
            }
        }

        /// The checker's own mutex: one step to explore where a spinning lock has many.
        pub struct ModelExclusive<T>(Mutex<T>);

        impl<T: Send> Exclusive<T> for ModelExclusive<T> {
            fn new(_: Label, value: T) -> Self {
                Self(Mutex::new(value))
            }

            fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
                body(&mut self.0.lock().expect("a panic ends the execution"))
            }
        }

        impl Memory for Model {
            const NAME: &'static str = $name;
            const QUARANTINE: bool = true;
            type U32 = Checked<AtomicU32, $life>;
            type U64 = Checked<AtomicU64, $life>;
            type Ptr<T: 'static> = Checked<AtomicPtr<T>, $life>;
            type Double = ModelDouble;
            type Exclusive<T: Send> = ModelExclusive<T>;

            fn fence() {
                fence(Ordering::SeqCst);
            }

            fn fence_writes() {
                fence(Ordering::Release);
            }

            fn fence_reads() {
                fence(Ordering::Acquire);
            }

            fn relax() {
                yield_now();
            }

            fn wait_until<R>(mut condition: impl FnMut() -> Option<R>) -> R {
                loop {
                    if let Some(result) = condition() {
                        return result;
                    }
                    yield_now();
                }
            }

            fn wait_until_or_every<R>(
                _: u32,
                mut condition: impl FnMut() -> Option<R>,
                mut seldom: impl FnMut() -> Option<R>,
            ) -> R {
                let tick_ns = TICK_NS.load(Ordering::Relaxed);
                loop {
                    if let Some(result) = condition().or_else(&mut seldom) {
                        return result;
                    }
                    if tick_ns > 0 {
                        advance_ns(tick_ns);
                    }
                    yield_now();
                }
            }

            fn now_ns() -> u64 {
                CLOCK_NS.load(Ordering::Acquire)
            }
        }
    };
}

pub(super) use {checked_int_word, checked_memory, checked_word};
