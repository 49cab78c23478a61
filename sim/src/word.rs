//! Simulated atomics: what the code under test holds in place of `std::sync::atomic`.
//!
//! A [`SimWord`] has the size and alignment of the native atomic of its type, so that a structure
//! built from simulated words has the very layout of the native one: which fields share a cache
//! line, and therefore which operations disturb each other, is decided by real addresses. The
//! value and the label do not fit in there beside each other; the word holds a handle into a
//! table of its OS thread (see `thread`), and the table holds both.
//!
//! Outside a running simulation every operation acts at once and costs nothing: structures are
//! set up and inspected with the same code that the virtual cores run.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use crate::access::Access;
use crate::perform;
use crate::thread;

mod sealed {
    /// The bits that a word stores in its own bytes: a handle as wide as the value it stands for.
    pub trait Bits: Copy + Send + Sync {
        fn wrap(handle: u32) -> Self;
        fn handle(self) -> u32;
    }

    impl Bits for u32 {
        fn wrap(handle: u32) -> Self {
            handle
        }
        fn handle(self) -> u32 {
            self
        }
    }

    impl Bits for u64 {
        fn wrap(handle: u32) -> Self {
            u64::from(handle)
        }
        fn handle(self) -> u32 {
            self as u32
        }
    }

    /// Conversion of a value to and from the table's representation.
    pub trait Convert: Copy {
        type Handle: Bits;
        fn to_bits(self) -> u64;
        fn from_bits(bits: u64) -> Self;
    }
}

use sealed::Bits as _;

/// A type that a [`SimWord`] can hold: `u32`, `i32`, `u64`, `i64`, `usize`, `isize`, `*mut T`.
pub trait Value: sealed::Convert {}

/// A [`Value`] with arithmetic.
pub trait Integer: Value {
    /// Returns the wrapping sum.
    fn plus(self, other: Self) -> Self;
    /// Returns the wrapping difference.
    fn minus(self, other: Self) -> Self;
}

macro_rules! integer {
    ($($type:ty => $handle:ty, via $unsigned:ty;)*) => {$(
        impl sealed::Convert for $type {
            type Handle = $handle;
            fn to_bits(self) -> u64 {
                self as $unsigned as u64
            }
            fn from_bits(bits: u64) -> Self {
                bits as $unsigned as $type
            }
        }
        impl Value for $type {}
        impl Integer for $type {
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
    )*};
}

integer! {
    u32 => u32, via u32;
    i32 => u32, via u32;
    u64 => u64, via u64;
    i64 => u64, via u64;
    usize => u64, via u64;
    isize => u64, via u64;
}

// The handle of a word-sized type is eight bytes; a target with other pointers has no such layout.
const _: () = assert!(size_of::<usize>() == 8, "the simulator needs a 64-bit target");

impl<T> sealed::Convert for *mut T {
    type Handle = u64;
    fn to_bits(self) -> u64 {
        self.expose_provenance() as u64
    }
    fn from_bits(bits: u64) -> Self {
        std::ptr::with_exposed_provenance_mut(bits as usize)
    }
}
impl<T> Value for *mut T {}

/// A simulated atomic of type `T`, with the size and alignment of the native one.
///
/// Memory orderings: values behave as on x86 (total store order): accesses take effect in program
/// order, except that a store waits in the store buffer until its line is there, and loads of
/// other words may pass it. A `SeqCst` store does not wait there. Read-modify-writes pass older
/// stores only where the machine lets them and they do not release. Otherwise orderings cost nothing
/// and are not checked; whether they suffice is not a question for this simulator.
///
/// It is `Send` and `Sync` as the native atomics are, but belongs to the OS thread that created
/// it: any use on another OS thread panics. (All virtual cores of a simulation run on one OS
/// thread; run many simulations on many threads, each building its own words.)
///
/// The word may be moved until it is first used by a running simulation; from then on its address
/// says which cache line it is in. Structures whose layout is to be independent of the allocator
/// must be aligned to 64 bytes by their owner.
#[repr(transparent)]
pub struct SimWord<T: Value> {
    handle: T::Handle,
    value: PhantomData<fn(T) -> T>,
}

/// A simulated `AtomicU32`.
pub type SimU32 = SimWord<u32>;
/// A simulated `AtomicU64`.
pub type SimU64 = SimWord<u64>;
/// A simulated `AtomicUsize`.
pub type SimUsize = SimWord<usize>;
/// A simulated `AtomicPtr<T>`.
pub type SimPtr<T> = SimWord<*mut T>;

impl<T: Value> SimWord<T> {
    /// Makes a word with an initial value, attributed in reports to `label`.
    ///
    /// Many words may share a label (one field of many objects). A word created by a virtual core
    /// starts in that core's cache, as freshly initialised memory does; a word created before the
    /// simulation starts is in memory.
    pub fn new(label: &'static str, value: T) -> Self {
        let handle = thread::create_word(label, value.to_bits());
        Self { handle: T::Handle::wrap(handle), value: PhantomData }
    }

    /// Loads the value.
    #[inline]
    pub fn load(&self, _order: Ordering) -> T {
        T::from_bits(self.access(Access::Load { mask: u64::MAX }, |bits| *bits))
    }

    /// Stores a value. A store that is not `SeqCst` goes through the store buffer.
    #[inline]
    pub fn store(&self, value: T, order: Ordering) {
        self.store_part(u64::MAX, value.to_bits(), order);
    }

    /// Exchanges the value; returns the previous value.
    #[inline]
    pub fn swap(&self, value: T, order: Ordering) -> T {
        let new = value.to_bits();
        T::from_bits(self.access(rmw(order), |bits| std::mem::replace(bits, new)))
    }

    /// Compares and exchanges; `Ok(previous)` if it stored, else `Err(found)`. A failed one
    /// takes the line as a successful one does, as `lock cmpxchg` and `cas` do.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: T,
        new: T,
        success: Ordering,
        _failure: Ordering,
    ) -> Result<T, T> {
        let (current, new) = (current.to_bits(), new.to_bits());
        self.access(rmw(success), |bits| {
            let found = *bits;
            if found == current {
                *bits = new;
                Ok(T::from_bits(found))
            } else {
                Err(T::from_bits(found))
            }
        })
    }

    /// Returns the value, without a step, a cost or a trace: for assertions and inspection.
    pub fn peek(&self) -> T {
        T::from_bits(thread::peek_word(self.handle.handle()))
    }

    /// Returns the label given at construction.
    pub fn label(&self) -> &'static str {
        thread::label_of_word(self.handle.handle())
    }

    #[inline]
    fn store_part(&self, mask: u64, new: u64, order: Ordering) {
        let access = if order == Ordering::SeqCst {
            Access::FencedStore { mask, new }
        } else {
            Access::Store { mask, new }
        };
        self.access(access, |bits| *bits = *bits & !mask | new);
    }

    #[inline]
    fn access<R>(&self, access: Access, apply: impl Fn(&mut u64) -> R) -> R {
        perform::perform(self.handle.handle(), (&raw const *self).addr(), &access, apply)
    }
}

fn rmw(order: Ordering) -> Access {
    Access::Rmw { releases: releases(order) }
}

/// Returns whether an ordering publishes what was stored before.
fn releases(order: Ordering) -> bool {
    !matches!(order, Ordering::Relaxed | Ordering::Acquire)
}

impl<T: Integer> SimWord<T> {
    #[inline]
    fn update(&self, order: Ordering, new: impl Fn(T) -> T) -> T {
        self.updated(rmw(order), new)
    }

    #[inline]
    fn add(&self, order: Ordering, new: impl Fn(T) -> T) -> T {
        self.updated(Access::Add { releases: releases(order) }, new)
    }

    #[inline]
    fn updated(&self, access: Access, new: impl Fn(T) -> T) -> T {
        T::from_bits(self.access(access, |bits| {
            let old = *bits;
            *bits = new(T::from_bits(old)).to_bits();
            old
        }))
    }

    /// Adds, wrapping; returns the previous value.
    #[inline]
    pub fn fetch_add(&self, value: T, order: Ordering) -> T {
        self.add(order, |old| old.plus(value))
    }

    /// Subtracts, wrapping; returns the previous value.
    #[inline]
    pub fn fetch_sub(&self, value: T, order: Ordering) -> T {
        self.add(order, |old| old.minus(value))
    }

    /// Combines by bitwise or; returns the previous value.
    #[inline]
    pub fn fetch_or(&self, value: T, order: Ordering) -> T {
        let operand = value.to_bits();
        self.update(order, |old| T::from_bits(old.to_bits() | operand))
    }

    /// Combines by bitwise and; returns the previous value.
    #[inline]
    pub fn fetch_and(&self, value: T, order: Ordering) -> T {
        let operand = value.to_bits();
        self.update(order, |old| T::from_bits(old.to_bits() & operand))
    }

    /// Combines by bitwise exclusive or; returns the previous value.
    #[inline]
    pub fn fetch_xor(&self, value: T, order: Ordering) -> T {
        let operand = value.to_bits();
        self.update(order, |old| T::from_bits(old.to_bits() ^ operand))
    }
}

/// Accesses narrower than the word, as a queued spinlock makes them on its lock word: the byte
/// and the half are those of a little-endian machine, whatever the host is.
impl SimWord<u32> {
    /// Loads the least significant byte.
    #[inline]
    pub fn load_low_byte(&self, _order: Ordering) -> u8 {
        self.access(Access::Load { mask: 0xff }, |bits| *bits as u8)
    }

    /// Loads the less significant half.
    #[inline]
    pub fn load_low_half(&self, _order: Ordering) -> u16 {
        self.access(Access::Load { mask: 0xffff }, |bits| *bits as u16)
    }

    /// Stores the least significant byte, leaving the rest.
    #[inline]
    pub fn store_low_byte(&self, value: u8, order: Ordering) {
        self.store_part(0xff, u64::from(value), order);
    }

    /// Stores the second byte, leaving the rest.
    #[inline]
    pub fn store_second_byte(&self, value: u8, order: Ordering) {
        self.store_part(0xff00, u64::from(value) << 8, order);
    }

    /// Stores the less significant half, leaving the rest.
    #[inline]
    pub fn store_low_half(&self, value: u16, order: Ordering) {
        self.store_part(0xffff, u64::from(value), order);
    }

    /// Exchanges the more significant half; returns its previous value.
    #[inline]
    pub fn swap_high_half(&self, value: u16, order: Ordering) -> u16 {
        self.access(rmw(order), |bits| {
            let old = (*bits >> 16) as u16;
            *bits = *bits & 0xffff | u64::from(value) << 16;
            old
        })
    }
}

impl<T: Value> Drop for SimWord<T> {
    fn drop(&mut self) {
        thread::drop_word(self.handle.handle());
    }
}

impl<T: Value + fmt::Debug> fmt::Debug for SimWord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWord")
            .field("label", &self.label())
            .field("value", &self.peek())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn words_have_the_native_layout() {
        assert_eq!(size_of::<SimU32>(), size_of::<AtomicU32>());
        assert_eq!(align_of::<SimU32>(), align_of::<AtomicU32>());
        assert_eq!(size_of::<SimU64>(), size_of::<AtomicU64>());
        assert_eq!(align_of::<SimU64>(), align_of::<AtomicU64>());
        assert_eq!(size_of::<SimUsize>(), size_of::<AtomicUsize>());
        assert_eq!(size_of::<SimPtr<u8>>(), size_of::<AtomicPtr<u8>>());
        assert_eq!(align_of::<SimPtr<u8>>(), align_of::<AtomicPtr<u8>>());
    }

    #[test]
    fn words_are_shared_as_native_atomics_are() {
        fn shared<T: Send + Sync>() {}
        shared::<SimU32>();
        shared::<SimPtr<std::cell::Cell<u8>>>();
    }

    #[test]
    fn integer_operations_match_the_native_ones() {
        let native = AtomicU32::new(0xffff_fff0);
        let word = SimU32::new("word", 0xffff_fff0);
        for operand in [0x1f, 0, 1, 0x8000_0000] {
            assert_eq!(word.fetch_add(operand, SeqCst), native.fetch_add(operand, SeqCst));
            assert_eq!(word.fetch_sub(3, SeqCst), native.fetch_sub(3, SeqCst));
            assert_eq!(word.fetch_or(operand, SeqCst), native.fetch_or(operand, SeqCst));
            assert_eq!(word.fetch_xor(0x55, SeqCst), native.fetch_xor(0x55, SeqCst));
            assert_eq!(word.fetch_and(!operand, SeqCst), native.fetch_and(!operand, SeqCst));
            assert_eq!(word.swap(operand, SeqCst), native.swap(operand, SeqCst));
            let expected = native.compare_exchange(operand, 7, SeqCst, SeqCst);
            assert_eq!(word.compare_exchange(operand, 7, SeqCst, SeqCst), expected);
            let expected = native.compare_exchange(operand, 9, SeqCst, SeqCst);
            assert_eq!(word.compare_exchange(operand, 9, SeqCst, SeqCst), expected);
            assert_eq!(word.load(SeqCst), native.load(SeqCst));
        }
    }

    #[test]
    fn negative_and_pointer_values_survive_the_table() {
        let word = SimWord::<i32>::new("word", -5);
        assert_eq!(word.fetch_sub(1, SeqCst), -5);
        assert_eq!(word.load(SeqCst), -6);
        let mut target = 3_u8;
        let word = SimPtr::new("pointer", &raw mut target);
        // SAFETY: the word gives back the pointer it was given; `target` outlives it.
        assert_eq!(unsafe { *word.load(SeqCst) }, 3);
    }

    #[test]
    fn narrow_accesses_leave_the_rest_of_the_word() {
        let word = SimU32::new("lock", 0x1234_5678);
        word.store_low_byte(0xff, SeqCst);
        assert_eq!(word.load(SeqCst), 0x1234_56ff);
        assert_eq!(word.swap_high_half(0xabcd, SeqCst), 0x1234);
        assert_eq!(word.load(SeqCst), 0xabcd_56ff);
        word.store_low_half(1, SeqCst);
        assert_eq!((word.load_low_byte(SeqCst), word.load_low_half(SeqCst)), (1, 1));
        assert_eq!(word.peek(), 0xabcd_0001);
    }

    #[test]
    fn a_word_used_on_a_foreign_thread_is_refused() {
        let word = SimU32::new("word", 1);
        let outcome = std::thread::scope(|scope| scope.spawn(|| word.load(SeqCst)).join());
        assert!(outcome.is_err(), "the load on the other thread must panic");
    }
}
