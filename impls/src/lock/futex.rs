//! A mutex whose waiters spin for a short time and then sleep (Drepper, "Futexes are tricky", 2011, his
//! third mutex; the spin first as glibc's adaptive mutex and Rust's `std::sync::Mutex` have it).
//!
//! The word says free, held, or held with waiters. A waiter looks a few times, each time after twice the
//! pauses; while others sleep already it does not spin. Then it marks the word and sleeps as long as it
//! is marked; a release that finds the mark wakes one. On real cores waiters sleep in the host's kernel by
//! the futex system call; elsewhere in the machine's own list of sleepers ([`Sleepers`]), which is what
//! the kernel does: look at the word and join the list under one lock, then wait to be taken off
//! it. What falling asleep and waking cost beyond that is not charged in the simulator.
//!
//! Invariants: no wake is lost; a word that is marked has at most waiters, one that is not has none but
//! those about to mark it; an uncontended pair makes no call. No order: a newcomer takes a free
//! lock before the woken waiter. Four bytes.

use super::node::{GRANTED, WAITING, WaitNode};
use super::{Lock, RawLock, with_raw};
use crate::cell::Errno;
use crate::machine::{Cpu, planted};
use crate::platform::{Exclusive, Memory, Ordering, Platform, Word};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody sleeps or is about to.
const AWAITED: u32 = 2;

/// Looks at the word before a waiter sleeps, each after twice the pauses of the one before, beginning
/// with one: some microseconds in all, about what falling asleep and waking takes.
const LOOKS: u32 = 8;
/// The same in model checkers, where each look doubles the executions and a pause is a step of others.
const CHECKED_LOOKS: u32 = 1;

/// See the module.
pub struct FutexMutex<P: Memory> {
    value: P::U32,
}

impl<P: Platform> Lock<P> for FutexMutex<P> {
    const ID: &'static str = "futex-mutex";
    const FALLIBLE: bool = false;
    const SLEEPS: bool = true;

    fn new() -> Self {
        Self { value: P::U32::new("lock.value", FREE) }
    }

    #[inline(always)]
    fn with<R>(&self, cpu: &Cpu<'_, P>, section: impl FnOnce() -> R) -> Result<R, Errno> {
        with_raw(self, cpu, section)
    }

    fn is_held(&self) -> bool {
        self.value.load(Ordering::Relaxed) != FREE
    }
}

impl<P: Platform> RawLock<P> for FutexMutex<P> {
    #[inline(always)]
    fn acquire(&self, cpu: &Cpu<'_, P>) -> Result<(), Errno> {
        // Acquire pairs with the release of the last holder.
        if self.value.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.acquire_slow(cpu);
        }
        Ok(())
    }

    #[inline(always)]
    fn release(&self, cpu: &Cpu<'_, P>) {
        // Release pairs with the acquire of the next holder.
        if self.value.swap(FREE, Ordering::Release) == AWAITED && !planted!(cpu, SleeperNotWoken) {
            wake_one(cpu, &self.value);
        }
    }
}

impl<P: Platform> FutexMutex<P> {
    #[cold]
    fn acquire_slow(&self, cpu: &Cpu<'_, P>) {
        if self.spin() {
            return;
        }
        // A woken waiter cannot know whether others sleep: it takes the lock as awaited. Acquire pairs
        // with the release of the last holder.
        let mark = if planted!(cpu, WokenTakesUnmarked) { HELD } else { AWAITED };
        let mut first = true;
        while self.value.swap(if first { AWAITED } else { mark }, Ordering::Acquire) != FREE {
            first = false;
            sleep_while(cpu, &self.value, mark);
        }
    }
}

impl<P: Memory> FutexMutex<P> {
    /// Waits for a short time without sleeping; returns whether the lock was taken.
    fn spin(&self) -> bool {
        for look in 0..if P::QUARANTINE { CHECKED_LOOKS } else { LOOKS } {
            let pauses = if P::QUARANTINE { 0 } else { 1 << look };
            for _ in 0..pauses {
                P::relax();
            }
            // Relaxed: the exchange takes the lock.
            match self.value.load(Ordering::Relaxed) {
                // Acquire pairs with the release of the last holder.
                FREE => {
                    let taken =
                        self.value.cas(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok();
                    if taken {
                        return true;
                    }
                }
                // The lock is busy for long: others have given up.
                AWAITED => return false,
                _ => {}
            }
        }
        false
    }
}

/// Those who sleep on words of a machine, first come first.
pub struct Sleepers<P: Platform> {
    list: P::Exclusive<Vec<Sleeper<P>>>,
}

/// One who sleeps.
struct Sleeper<P: Platform> {
    /// The word's address.
    word: usize,
    node: *const WaitNode<P>,
}

// SAFETY: the node is used through its atomic words alone, while its owner sleeps on it.
unsafe impl<P: Platform> Send for Sleeper<P> {}

impl<P: Platform> Sleepers<P> {
    pub(crate) fn new() -> Self {
        Self { list: P::Exclusive::new("futex.bucket", Vec::new()) }
    }
}

/// Sleeps if `word` holds `value`, until woken; may also return for no reason.
fn sleep_while<P: Platform>(cpu: &Cpu<'_, P>, word: &P::U32, value: u32) {
    if P::HOST_SLEEPS {
        return P::sleep_while(word, value);
    }
    let node = cpu.this.wait.push();
    node.state.store(WAITING, Ordering::Relaxed);
    let address = core::ptr::from_ref(word).addr();
    let late = planted!(cpu, SleepsWithoutLook);
    // No interrupt handler sleeps or wakes, so interrupts may stay on.
    let asleep = cpu.machine().sleepers().list.with(|list| {
        let asleep = late || word.load(Ordering::Relaxed) == value;
        if asleep {
            list.push(Sleeper { word: address, node });
        }
        asleep
    });
    if asleep {
        node.wait_for_state();
    }
    cpu.this.wait.pop();
}

/// Wakes the one that has slept longest on `word`, if any.
fn wake_one<P: Platform>(cpu: &Cpu<'_, P>, word: &P::U32) {
    if P::HOST_SLEEPS {
        return P::wake_one(word);
    }
    let address = core::ptr::from_ref(word).addr();
    let sleeper = cpu.machine().sleepers().list.with(|list| {
        let place = list.iter().position(|sleeper| sleeper.word == address)?;
        Some(list.remove(place))
    });
    if let Some(sleeper) = sleeper {
        // SAFETY: its owner sleeps on it until this store.
        // Release pairs with the acquire in `wait_for_state`.
        unsafe { &*sleeper.node }.state.store(GRANTED, Ordering::Release);
    }
}
