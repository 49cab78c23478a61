//! Native atomics with a chosen interruption: a test names the step (the n-th access to a word)
//! before which a handler runs, and repeats with every step until the operation has no more. So
//! re-entrance is tested at every instruction that matters, deterministically.
//!
//! The hook is a thread-local, as an interrupt would be: the platform's operations have no other
//! way to it. Nothing but tests uses this platform.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
use std::cell::RefCell;

use super::native::{Cores, SpinExclusive};
use super::{IntWord, Label, Memory, SplitWord, Word};

/// Native memory whose every access is a step.
pub struct Steps;

/// An interruption that waits for its step.
struct Armed {
    steps_left: u64,
    handler: *mut dyn FnMut(),
}

thread_local! {
    static ARMED: RefCell<Option<Armed>> = const { RefCell::new(None) };
}

/// Runs `body`, and `handler` before the access to a word with number `step` (from 0) that this
/// thread makes in it. Returns what `body` returned and whether the handler ran: `false` means
/// that `body` has fewer steps. The handler's own accesses are not counted.
pub fn interrupt_at<R>(
    step: u64,
    mut handler: impl FnMut(),
    body: impl FnOnce() -> R,
) -> (R, bool) {
    /// Disarms also when `body` panics, as the handler does not outlive this call.
    struct Disarm;
    impl Drop for Disarm {
        fn drop(&mut self) {
            ARMED.take();
        }
    }
    let handler: &mut dyn FnMut() = &mut handler;
    // SAFETY: only the lifetime is erased; `Disarm` removes the pointer before it ends.
    let handler: *mut (dyn FnMut() + 'static) = unsafe { core::mem::transmute(handler) };
    let disarm = Disarm;
    ARMED.set(Some(Armed { steps_left: step, handler }));
    let result = body();
    let fired = ARMED.with_borrow(Option::is_none);
    drop(disarm);
    (result, fired)
}

#[inline]
fn step() {
    let due = ARMED.with_borrow_mut(|armed| {
        let left = &mut armed.as_mut()?.steps_left;
        if *left > 0 {
            *left -= 1;
            return None;
        }
        armed.take()
    });
    if let Some(armed) = due {
        // SAFETY: `interrupt_at`, which owns the handler, is still running; the handler was taken
        // out, so it does not run on top of itself.
        unsafe { (*armed.handler)() };
    }
}

/// A native word whose accesses are steps.
pub struct Stepped<A>(A);

macro_rules! stepped {
    ($atomic:ty, $t:ty $(, $generic:ident)?) => {
        impl$(<$generic: 'static>)? Word<$t> for Stepped<$atomic> {
            fn new(_: Label, value: $t) -> Self {
                Self(<$atomic>::new(value))
            }
            fn load(&self, order: Ordering) -> $t {
                step();
                self.0.load(order)
            }
            fn store(&self, value: $t, order: Ordering) {
                step();
                self.0.store(value, order);
            }
            fn swap(&self, value: $t, order: Ordering) -> $t {
                step();
                self.0.swap(value, order)
            }
            fn cas(
                &self,
                current: $t,
                new: $t,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$t, $t> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! stepped_int {
    ($atomic:ty, $t:ty) => {
        stepped!($atomic, $t);
        impl IntWord<$t> for Stepped<$atomic> {
            fn fetch_add(&self, value: $t, order: Ordering) -> $t {
                step();
                self.0.fetch_add(value, order)
            }
            fn fetch_sub(&self, value: $t, order: Ordering) -> $t {
                step();
                self.0.fetch_sub(value, order)
            }
            fn fetch_or(&self, value: $t, order: Ordering) -> $t {
                step();
                self.0.fetch_or(value, order)
            }
            fn fetch_and(&self, value: $t, order: Ordering) -> $t {
                step();
                self.0.fetch_and(value, order)
            }
        }
    };
}

stepped_int!(AtomicU32, u32);
stepped_int!(AtomicU64, u64);
stepped!(AtomicPtr<T>, *mut T, T);

impl SplitWord for Stepped<AtomicU32> {
    fn clear_low_byte_release(&self) {
        step();
        self.0.clear_low_byte_release();
    }
    fn store_low_half(&self, value: u16) {
        step();
        self.0.store_low_half(value);
    }
    fn swap_high_half(&self, value: u16) -> u16 {
        step();
        self.0.swap_high_half(value)
    }
    fn set_low_byte_acquire(&self) -> bool {
        step();
        self.0.set_low_byte_acquire()
    }
    fn any_above_low_byte(&self) -> bool {
        step();
        self.0.any_above_low_byte()
    }
    fn clear_second_byte(&self) {
        step();
        self.0.clear_second_byte();
    }
}

impl Memory for Steps {
    const NAME: &'static str = "stepped";
    const POISON: bool = true;
    type U32 = Stepped<AtomicU32>;
    type U64 = Stepped<AtomicU64>;
    type Ptr<T: 'static> = Stepped<AtomicPtr<T>>;
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

#[cfg(test)]
mod tests {
    use super::{Steps, interrupt_at};
    use crate::platform::{IntWord, Memory, Ordering, Word};

    type U32 = <Steps as Memory>::U32;

    #[test]
    fn the_handler_runs_before_each_step_once() {
        let word = U32::new("word", 0);
        let mut seen = Vec::new();
        for step in 0.. {
            word.store(0, Ordering::Relaxed);
            let mut value_then = None;
            let (_, fired) = interrupt_at(
                step,
                || value_then = Some(word.load(Ordering::Relaxed)),
                || {
                    word.fetch_add(1, Ordering::Relaxed);
                    word.fetch_add(1, Ordering::Relaxed);
                },
            );
            assert_eq!(fired, value_then.is_some());
            if !fired {
                break;
            }
            seen.extend(value_then);
        }
        assert_eq!(seen, [0, 1]);
    }
}
