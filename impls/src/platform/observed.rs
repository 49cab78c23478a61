//! Native atomics that tell an observer of each access before it happens: what the tests'
//! interruptions ([`super::stepped`]), the count of touched lines ([`super::traced`]) and the
//! sequences of accesses ([`super::recorded`]) are made of.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::double::AtomicDouble;
use super::native::{Cores, SpinExclusive};
use super::{DoubleWord, IntWord, Label, Memory, SplitWord, Word};

/// Claim of an access on the cache line it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A copy.
    Read,
    /// To own it: a store.
    Write,
    /// To own it while it reads and writes: an atomic read-modify-write, also a compare-exchange that
    /// fails.
    Locked,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $wants:ident;)*) => {
        /// An operation on a word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// Returns the name in access scripts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Returns what it wants of its line.
            pub const fn wants(self) -> Wants {
                match self { $(Self::$name => Wants::$wants,)* }
            }
        }
    };
}

operations! {
    /// Load of the whole word.
    Load = "load", Read;
    /// Load of the bytes above the lowest.
    LoadAboveLowByte = "load.above", Read;
    /// Store to the whole word.
    Store = "store", Write;
    /// Store to the lowest byte.
    StoreLowByte = "store.byte0", Write;
    /// Store to the second byte.
    StoreSecondByte = "store.byte1", Write;
    /// Store to the low half.
    StoreLowHalf = "store.half0", Write;
    /// Exchange of the whole word.
    Swap = "xchg", Locked;
    /// Exchange of the lowest byte.
    SwapLowByte = "xchg.byte0", Locked;
    /// Exchange of the high half.
    SwapHighHalf = "xchg.half1", Locked;
    /// Compare-exchange of the whole word.
    CompareExchange = "cmpxchg", Locked;
    /// Compare-exchange of the high half.
    CompareExchangeHighHalf = "cmpxchg.half1", Locked;
    /// Load of the first of two words.
    LoadFirst = "load.word0", Read;
    /// Load of the second of two words.
    LoadSecond = "load.word1", Read;
    /// Compare-exchange of two words as one.
    CompareExchangeDouble = "cmpxchg16", Locked;
    /// Addition to the word.
    Add = "add", Locked;
    /// Subtraction from the word.
    Subtract = "sub", Locked;
    /// Bitwise or.
    Or = "or", Locked;
    /// Bitwise and.
    And = "and", Locked;
    /// Bit 8 is tested and set, and the word read after that.
    TestAndSetBit8 = "bts8", Locked;
}

/// An access to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Operation on the word.
    pub operation: Operation,
    /// In which order with others. Of a compare-exchange, where it succeeds.
    pub order: Ordering,
    /// Address of the word.
    pub address: usize,
}

/// A memory barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// All loads and stores.
    Full,
    /// Everything, where the read-modify-write before is no barrier itself.
    AfterRmw,
    /// Stores against stores.
    Writes,
    /// Loads against loads.
    Reads,
}

/// Who is told.
pub trait Observer: Send + Sync + 'static {
    /// Name in reports.
    const NAME: &'static str;
    /// See [`Memory::POISON`].
    const POISON: bool;
    /// Part of its label that a word keeps. Where this takes no room, words have the native size.
    type Tag: From<Label> + Send + Sync + 'static;
    /// Hears that an access to a word is about to happen.
    fn about_to(access: Access, tag: &Self::Tag);
    /// Hears that a barrier is about to happen.
    fn fence(barrier: Barrier) {
        let _ = barrier;
    }
}

/// A tag that keeps nothing.
pub struct Untagged;

impl From<Label> for Untagged {
    fn from(_: Label) -> Self {
        Self
    }
}

/// A native word whose accesses are told to `O`.
#[repr(C)]
pub struct Observed<A, O: Observer> {
    word: A,
    tag: O::Tag,
    observer: PhantomData<fn() -> O>,
}

impl<A, O: Observer> Observed<A, O> {
    fn wrap(label: Label, word: A) -> Self {
        Self { word, tag: label.into(), observer: PhantomData }
    }

    #[inline]
    fn told(&self, operation: Operation, order: Ordering) -> &A {
        let address = core::ptr::from_ref(self).addr();
        O::about_to(Access { operation, order, address }, &self.tag);
        &self.word
    }
}

macro_rules! observed {
    ($atomic:ty, $t:ty $(, $generic:ident)?) => {
        impl<$($generic: 'static,)? O: Observer> Word<$t> for Observed<$atomic, O> {
            fn new(label: Label, value: $t) -> Self {
                Self::wrap(label, <$atomic>::new(value))
            }
            fn load(&self, order: Ordering) -> $t {
                self.told(Operation::Load, order).load(order)
            }
            fn store(&self, value: $t, order: Ordering) {
                self.told(Operation::Store, order).store(value, order);
            }
            fn swap(&self, value: $t, order: Ordering) -> $t {
                self.told(Operation::Swap, order).swap(value, order)
            }
            fn cas(
                &self,
                current: $t,
                new: $t,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$t, $t> {
                self.told(Operation::CompareExchange, success)
                    .compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! observed_int {
    ($atomic:ty, $t:ty) => {
        observed!($atomic, $t);
        impl<O: Observer> IntWord<$t> for Observed<$atomic, O> {
            fn fetch_add(&self, value: $t, order: Ordering) -> $t {
                self.told(Operation::Add, order).fetch_add(value, order)
            }
            fn fetch_sub(&self, value: $t, order: Ordering) -> $t {
                self.told(Operation::Subtract, order).fetch_sub(value, order)
            }
            fn fetch_or(&self, value: $t, order: Ordering) -> $t {
                self.told(Operation::Or, order).fetch_or(value, order)
            }
            fn fetch_and(&self, value: $t, order: Ordering) -> $t {
                self.told(Operation::And, order).fetch_and(value, order)
            }
        }
    };
}

observed_int!(AtomicU32, u32);
observed_int!(AtomicU64, u64);
observed!(AtomicPtr<T>, *mut T, T);

impl<O: Observer> SplitWord for Observed<AtomicU32, O> {
    fn set_low_byte_acquire(&self) -> bool {
        self.told(Operation::SwapLowByte, Ordering::Acquire).set_low_byte_acquire()
    }
    fn any_above_low_byte(&self) -> bool {
        self.told(Operation::LoadAboveLowByte, Ordering::Relaxed).any_above_low_byte()
    }
    fn clear_second_byte(&self) {
        self.told(Operation::StoreSecondByte, Ordering::Relaxed).clear_second_byte();
    }
    fn set_bit_8_acquire(&self) -> u32 {
        self.told(Operation::TestAndSetBit8, Ordering::Acquire).set_bit_8_acquire()
    }
    fn store_low_byte_one(&self) {
        self.told(Operation::StoreLowByte, Ordering::Relaxed).store_low_byte_one();
    }
    fn clear_low_byte_release(&self) {
        self.told(Operation::StoreLowByte, Ordering::Release).clear_low_byte_release();
    }
    fn store_low_half(&self, value: u16) {
        self.told(Operation::StoreLowHalf, Ordering::Relaxed).store_low_half(value);
    }
    fn cas_high_half(&self, current: u16, new: u16) -> bool {
        self.told(Operation::CompareExchangeHighHalf, Ordering::Relaxed).cas_high_half(current, new)
    }
    fn swap_high_half(&self, value: u16) -> u16 {
        self.told(Operation::SwapHighHalf, Ordering::AcqRel).swap_high_half(value)
    }
}

impl<O: Observer> DoubleWord for Observed<AtomicDouble, O> {
    fn new(label: Label, halves: [u64; 2]) -> Self {
        Self::wrap(label, AtomicDouble::new(label, halves))
    }
    fn load_half(&self, half: usize, order: Ordering) -> u64 {
        let operation = if half == 0 { Operation::LoadFirst } else { Operation::LoadSecond };
        self.told(operation, order).load_half(half, order)
    }
    fn cas(&self, current: [u64; 2], new: [u64; 2], order: Ordering) -> Result<(), [u64; 2]> {
        self.told(Operation::CompareExchangeDouble, order).cas(current, new, order)
    }
}

/// Native memory whose accesses are told to `O`.
pub struct ObservedCores<O>(PhantomData<fn() -> O>);

impl<O: Observer> Memory for ObservedCores<O> {
    const NAME: &'static str = O::NAME;
    const POISON: bool = O::POISON;
    type U32 = Observed<AtomicU32, O>;
    type U64 = Observed<AtomicU64, O>;
    type Ptr<T: 'static> = Observed<AtomicPtr<T>, O>;
    type Double = Observed<AtomicDouble, O>;
    const DOUBLE_WORD_AT_ONCE: bool = Cores::DOUBLE_WORD_AT_ONCE;
    type Exclusive<T: Send> = SpinExclusive<T>;

    fn fence() {
        O::fence(Barrier::Full);
        Cores::fence();
    }
    fn fence_after_rmw() {
        O::fence(Barrier::AfterRmw);
        Cores::fence_after_rmw();
    }
    fn fence_writes() {
        O::fence(Barrier::Writes);
        Cores::fence_writes();
    }
    fn fence_reads() {
        O::fence(Barrier::Reads);
        Cores::fence_reads();
    }
    fn relax() {
        Cores::relax();
    }
    fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R {
        Cores::wait_until(condition)
    }
    fn wait_until_or_every<R>(
        spins: u32,
        condition: impl FnMut() -> Option<R>,
        seldom: impl FnMut() -> Option<R>,
    ) -> R {
        Cores::wait_until_or_every(spins, condition, seldom)
    }
    fn now_ns() -> u64 {
        Cores::now_ns()
    }
}
