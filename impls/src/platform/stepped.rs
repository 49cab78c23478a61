//! Native atomics with a chosen interruption: a test names the step (the n-th access to a word)
//! before which a handler runs, and repeats with every step until the operation has no more. So
//! re-entrance is tested at every instruction that matters, deterministically.
//!
//! The hook is a thread-local, as an interrupt would be: the platform's operations have no other
//! way to it. Nothing but tests uses this platform.

use std::cell::RefCell;

use super::observed::{Access, ObservedCores, Observer, Untagged};

/// Native memory whose every access is a step.
pub type Steps = ObservedCores<Interruption>;

/// Observes for [`Steps`].
pub struct Interruption;

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

impl Observer for Interruption {
    const NAME: &'static str = "stepped";
    const POISON: bool = true;
    type Tag = Untagged;

    #[inline]
    fn about_to(_: Access, _: &Untagged) {
        step();
    }
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
