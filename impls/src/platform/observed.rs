//! Native atomics that tell an observer of each access before it happens: what the tests'
//! interruptions ([`super::stepped`]) and the count of touched lines ([`super::traced`]) are made
//! of.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use super::native::{Cores, SpinExclusive};
use super::{IntWord, Label, Memory, SplitWord, Word};

/// What an access wants of the cache line it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A copy.
    Read,
    /// To own it: a store.
    Write,
    /// To own it while it reads and writes: an atomic read-modify-write, also a compare-exchange that
    /// fails.
    Locked,
}

/// Who is told.
pub trait Observer: Send + Sync + 'static {
    /// Name in reports.
    const NAME: &'static str;
    /// See [`Memory::POISON`].
    const POISON: bool;
    /// An access to the word at `address` is about to happen.
    fn about_to(access: Access, address: usize);
}

/// A native word whose accesses are told to `O`. Has the size and place of the native word.
#[repr(transparent)]
pub struct Observed<A, O> {
    word: A,
    observer: PhantomData<fn() -> O>,
}

impl<A, O: Observer> Observed<A, O> {
    fn wrap(word: A) -> Self {
        Self { word, observer: PhantomData }
    }

    #[inline]
    fn reading(&self) -> &A {
        O::about_to(Access::Read, core::ptr::from_ref(self).addr());
        &self.word
    }

    #[inline]
    fn writing(&self) -> &A {
        O::about_to(Access::Write, core::ptr::from_ref(self).addr());
        &self.word
    }

    #[inline]
    fn locking(&self) -> &A {
        O::about_to(Access::Locked, core::ptr::from_ref(self).addr());
        &self.word
    }
}

macro_rules! observed {
    ($atomic:ty, $t:ty $(, $generic:ident)?) => {
        impl<$($generic: 'static,)? O: Observer> Word<$t> for Observed<$atomic, O> {
            fn new(_: Label, value: $t) -> Self {
                Self::wrap(<$atomic>::new(value))
            }
            fn load(&self, order: Ordering) -> $t {
                self.reading().load(order)
            }
            fn store(&self, value: $t, order: Ordering) {
                self.writing().store(value, order);
            }
            fn swap(&self, value: $t, order: Ordering) -> $t {
                self.locking().swap(value, order)
            }
            fn cas(
                &self,
                current: $t,
                new: $t,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$t, $t> {
                self.locking().compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! observed_int {
    ($atomic:ty, $t:ty) => {
        observed!($atomic, $t);
        impl<O: Observer> IntWord<$t> for Observed<$atomic, O> {
            fn fetch_add(&self, value: $t, order: Ordering) -> $t {
                self.locking().fetch_add(value, order)
            }
            fn fetch_sub(&self, value: $t, order: Ordering) -> $t {
                self.locking().fetch_sub(value, order)
            }
            fn fetch_or(&self, value: $t, order: Ordering) -> $t {
                self.locking().fetch_or(value, order)
            }
            fn fetch_and(&self, value: $t, order: Ordering) -> $t {
                self.locking().fetch_and(value, order)
            }
        }
    };
}

observed_int!(AtomicU32, u32);
observed_int!(AtomicU64, u64);
observed!(AtomicPtr<T>, *mut T, T);

impl<O: Observer> SplitWord for Observed<AtomicU32, O> {
    fn set_low_byte_acquire(&self) -> bool {
        self.locking().set_low_byte_acquire()
    }
    fn any_above_low_byte(&self) -> bool {
        self.reading().any_above_low_byte()
    }
    fn clear_second_byte(&self) {
        self.writing().clear_second_byte();
    }
    fn set_bit_8_acquire(&self) -> u32 {
        self.locking().set_bit_8_acquire()
    }
    fn store_low_byte_one(&self) {
        self.writing().store_low_byte_one();
    }
    fn clear_low_byte_release(&self) {
        self.writing().clear_low_byte_release();
    }
    fn store_low_half(&self, value: u16) {
        self.writing().store_low_half(value);
    }
    fn swap_high_half(&self, value: u16) -> u16 {
        self.locking().swap_high_half(value)
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
    type Exclusive<T: Send> = SpinExclusive<T>;

    fn fence() {
        fence(Ordering::SeqCst);
    }
    fn relax() {
        Cores::relax();
    }
    fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R {
        Cores::wait_until(condition)
    }
    fn wait_until_or<R>(
        condition: impl FnMut() -> Option<R>,
        seldom: impl FnMut() -> Option<R>,
    ) -> R {
        Cores::wait_until_or(condition, seldom)
    }
    fn now_ns() -> u64 {
        Cores::now_ns()
    }
}
