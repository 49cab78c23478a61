//! Virtual cores as fibers: stackful coroutines of one OS thread.
//!
//! A fiber that can never go on (its core was stopped, or the simulation ended before its code
//! did) is forgotten with everything on its stack, as a thread that never runs again would be:
//! unwinding it would run destructors of code that was stopped in its midst.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::{Coroutine, Yielder};

use crate::thread;

/// The end of the code of a core: the payload of its panic, if it panicked.
pub(crate) type Outcome = Result<(), Box<dyn Any + Send>>;
/// The fiber of one core.
pub(crate) type Fiber = Coroutine<(), (), Outcome, ColouredStack>;

/// A stack that does not begin where all others do within their pages: what their fibers use of them
/// would else compete for the same few sets of the host's caches.
pub(crate) struct ColouredStack {
    memory: DefaultStack,
    unused_bytes: usize,
}

impl ColouredStack {
    fn new(number: usize) -> io::Result<Self> {
        // So many lines, which a fiber uses mostly, from one to the next; odd, so that all come in turn.
        const LINES: usize = 9;
        let unused_bytes = number * LINES % 64 * 64;
        Ok(Self { memory: DefaultStack::new(STACK_BYTES)?, unused_bytes })
    }
}

// SAFETY: it is the part of a valid stack below its first bytes, a multiple of 64 and less than a page
// of many: aligned and mapped as the whole is, and large enough.
unsafe impl Stack for ColouredStack {
    fn base(&self) -> StackPointer {
        let base = self.memory.base().get() - self.unused_bytes;
        StackPointer::new(base).expect("a stack does not end at address 0")
    }

    fn limit(&self) -> StackPointer {
        self.memory.limit()
    }
}

/// Enough for code that formats a panic message in a debug build; pages are used as touched.
const STACK_BYTES: usize = 256 * 1024;
/// Stacks kept for the next simulation on this OS thread.
const KEPT_STACKS: usize = 512;

thread_local! {
    /// Stacks created so far.
    static CREATED: Cell<usize> = const { Cell::new(0) };
    static RUNNING: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
    static STACKS: RefCell<Vec<ColouredStack>> = const { RefCell::new(Vec::new()) };
}

/// Makes a fiber that runs `code`, then `ended`.
pub(crate) fn create(code: Box<dyn FnOnce()>, ended: impl FnOnce() + 'static) -> io::Result<Fiber> {
    let kept = STACKS.with_borrow_mut(Vec::pop);
    let stack = match kept {
        Some(stack) => stack,
        None => ColouredStack::new(CREATED.replace(CREATED.get() + 1))?,
    };
    Ok(Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        RUNNING.set(yielder);
        catch_unwind(AssertUnwindSafe(|| {
            code();
            ended();
        }))
    }))
}

/// Leaves the running fiber for the core that was chosen; returns when its own core goes on.
///
/// A fiber that unwinds cannot be left (the thread counts its panics): the simulation is abandoned
/// instead, and what its destructors still do happens at once.
#[inline(always)]
pub(crate) fn switch() {
    if std::thread::panicking() {
        return abandon();
    }
    let mine = RUNNING.get();
    assert!(!mine.is_null(), "a virtual core can only wait inside its own code");
    // SAFETY: `RUNNING` is set by the running fiber itself, when it starts and below whenever it
    // goes on: it points to that fiber's yielder, which lives on its stack as long as it runs.
    unsafe { (*mine).suspend(()) };
    RUNNING.set(mine);
}

#[cold]
fn abandon() {
    thread::with(|thread| {
        if let Some(world) = &mut thread.world {
            world.abandon();
        }
    });
}

/// Keeps the stack of a fiber that ended; forgets one that is stopped in its midst.
pub(crate) fn retire(fiber: Fiber) {
    if fiber.done() {
        STACKS.with_borrow_mut(|stacks| {
            if stacks.len() < KEPT_STACKS {
                stacks.push(fiber.into_stack());
            }
        });
    } else if fiber.started() {
        std::mem::forget(fiber);
    }
}
