//! Simulated memory: each access is a step of the coherence simulator (`cellbench-sim`), charged
//! with the line movement that it causes. Words have the native size, so lines are the native
//! ones.
//!
//! A virtual core's code runs on the OS thread that runs its simulation; everything that is
//! simulated is made, used and dropped on that thread.

use core::sync::atomic::Ordering;

use cellbench_sim::{Integer, SimWord, Value, advance, fence, now_ns, pause, read_clock_ns};

use super::{DoubleWord, Exclusive, IntWord, Label, Memory, SplitWord, Word};

/// The memory of a simulated machine.
pub struct Simulated;

/// A word of a simulated machine. Like every [`SimWord`] it may be sent and shared, and panics if
/// it is used on another OS thread than the one that made it.
#[repr(transparent)]
pub struct Virtual<T: Value>(SimWord<T>);

impl<T: Value> Word<T> for Virtual<T> {
    fn new(label: Label, value: T) -> Self {
        Self(SimWord::new(label, value))
    }
    fn load(&self, order: Ordering) -> T {
        self.0.load(order)
    }
    fn store(&self, value: T, order: Ordering) {
        self.0.store(value, order);
    }
    fn swap(&self, value: T, order: Ordering) -> T {
        self.0.swap(value, order)
    }
    fn cas(&self, current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T> {
        self.0.compare_exchange(current, new, success, failure)
    }
}

impl<T: Integer> IntWord<T> for Virtual<T> {
    fn fetch_add(&self, value: T, order: Ordering) -> T {
        self.0.fetch_add(value, order)
    }
    fn fetch_sub(&self, value: T, order: Ordering) -> T {
        self.0.fetch_sub(value, order)
    }
    fn fetch_or(&self, value: T, order: Ordering) -> T {
        self.0.fetch_or(value, order)
    }
    fn fetch_and(&self, value: T, order: Ordering) -> T {
        self.0.fetch_and(value, order)
    }
}

impl SplitWord for Virtual<u32> {
    fn clear_low_byte_release(&self) {
        self.0.store_low_byte(0, Ordering::Release);
    }
    fn store_low_half(&self, value: u16) {
        self.0.store_low_half(value, Ordering::Relaxed);
    }
    fn swap_high_half(&self, value: u16) -> u16 {
        // AcqRel, as the contract says.
        self.0.swap_high_half(value, Ordering::AcqRel)
    }
    fn cas_high_half(&self, current: u16, new: u16) -> bool {
        // The simulator has no compare-exchange of a half. A failure because of the other half, which
        // a narrow one would not have, is tried again.
        let mut word = self.0.load(Ordering::Relaxed);
        while word >> 16 == u32::from(current) {
            let replaced = word & 0xffff | u32::from(new) << 16;
            match self.cas(word, replaced, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
        false
    }
    fn set_low_byte_acquire(&self) -> bool {
        self.0.fetch_or(1, Ordering::Acquire) & 1 == 0
    }
    fn any_above_low_byte(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !0xff != 0
    }
    fn set_bit_8_acquire(&self) -> u32 {
        self.0.fetch_or(1 << 8, Ordering::Acquire)
    }
    fn store_low_byte_one(&self) {
        self.0.store_low_byte(1, Ordering::Relaxed);
    }
    fn clear_second_byte(&self) {
        self.0.store_second_byte(0, Ordering::Relaxed);
    }
}

/// Two words of a simulated machine, in 16 bytes. The simulator has no access of two words: what is charged
/// is one access to the first, and the values, which no other virtual core sees meanwhile, change
/// with it.
#[repr(C, align(16))]
pub struct VirtualDouble {
    charged: Virtual<u64>,
    halves: Box<[core::cell::Cell<u64>; 2]>,
}

// SAFETY: as with words: those used on another OS thread than their simulation's panic, and every
// access to the values follows one to a word.
unsafe impl Sync for VirtualDouble {}
// SAFETY: as above.
unsafe impl Send for VirtualDouble {}

impl DoubleWord for VirtualDouble {
    fn new(label: Label, halves: [u64; 2]) -> Self {
        let halves = Box::new(halves.map(core::cell::Cell::new));
        Self { charged: Virtual::new(label, 0), halves }
    }
    fn load_half(&self, half: usize, order: Ordering) -> u64 {
        self.charged.load(order);
        self.halves[half].get()
    }
    fn cas(&self, current: [u64; 2], new: [u64; 2], order: Ordering) -> Result<(), [u64; 2]> {
        // Changes the word, so that who waits for it looks again.
        self.charged.fetch_add(1, order);
        let found = self.halves.each_ref().map(core::cell::Cell::get);
        if found != current {
            return Err(found);
        }
        for (half, value) in self.halves.iter().zip(new) {
            half.set(value);
        }
        Ok(())
    }
}

/// A test-and-set lock around a value, charged like every other access.
pub struct SimExclusive<T> {
    taken: Virtual<u32>,
    value: core::cell::UnsafeCell<T>,
}

// SAFETY: `value` is reached only by the virtual core that set `taken`; words used on another OS thread
// than their simulation's panic.
unsafe impl<T: Send> Sync for SimExclusive<T> {}

impl<T: Send> Exclusive<T> for SimExclusive<T> {
    fn new(label: Label, value: T) -> Self {
        Self { taken: Virtual::new(label, 0), value: core::cell::UnsafeCell::new(value) }
    }

    fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        // Acquire pairs with the release below.
        Simulated::wait_until(|| {
            let free = self.taken.load(Ordering::Relaxed) == 0;
            (free && self.taken.swap(1, Ordering::Acquire) == 0).then_some(())
        });
        // SAFETY: this core made `taken` non-zero and nobody else enters until it is zero.
        let result = body(unsafe { &mut *self.value.get() });
        self.taken.store(0, Ordering::Release);
        result
    }
}

/// Time of a spin of the native platform, in nanoseconds: how often a simulated waiter evaluates an expensive
/// condition.
const SPIN_NS: f64 = 40.0;

impl Memory for Simulated {
    const NAME: &'static str = "sim";
    type U32 = Virtual<u32>;
    type U64 = Virtual<u64>;
    type Ptr<T: 'static> = Virtual<*mut T>;
    type Double = VirtualDouble;
    type Exclusive<T: Send> = SimExclusive<T>;

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
        pause();
    }

    fn wait_until<R>(condition: impl FnMut() -> Option<R>) -> R {
        cellbench_sim::wait_until(condition)
    }

    fn wait_until_or_every<R>(
        spins: u32,
        mut condition: impl FnMut() -> Option<R>,
        mut seldom: impl FnMut() -> Option<R>,
    ) -> R {
        let check_every_ns = SPIN_NS * f64::from(spins);
        let mut next_check_ns = now_ns();
        cellbench_sim::wait_until_deadline(check_every_ns, || {
            condition().or_else(|| {
                if now_ns() < next_check_ns {
                    return None;
                }
                next_check_ns = now_ns() + check_every_ns;
                seldom()
            })
        })
    }

    fn now_ns() -> u64 {
        read_clock_ns() as u64
    }

    fn spend(turns: u32) {
        advance(f64::from(turns));
    }
}
