//! Native atomics that note the cache lines they touch: how many lines an operation of a design
//! moves, before any clock is asked. Only atomic words are seen, which is where CPUs meet; a
//! block's other fields lie on the lines of its words.
//!
//! The notes are a thread-local, for the reason given in [`super::stepped`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;

use super::observed::{Access, Observed, ObservedCores, Observer, Untagged, Wants};

/// Native memory that notes the lines it touches.
pub type Lines = ObservedCores<Notes>;

/// Observes for [`Lines`].
pub struct Notes;

// A word has the size and place of the native one.
const _: () = assert!(size_of::<Observed<AtomicU32, Notes>>() == 4);

/// Log2 of a cache line's bytes.
const LINE_SHIFT: u32 = 6;

thread_local! {
    /// Touched lines and whether they were written; `None` while nobody traces.
    static TOUCHED: RefCell<Option<BTreeMap<usize, bool>>> = const { RefCell::new(None) };
    /// Atomic read-modify-writes since the trace began.
    static LOCKED: Cell<usize> = const { Cell::new(0) };
}

impl Observer for Notes {
    const NAME: &'static str = "traced";
    const POISON: bool = false;
    type Tag = Untagged;

    fn about_to(access: Access, _: &Untagged) {
        let wants = access.operation.wants();
        TOUCHED.with_borrow_mut(|touched| {
            if let Some(touched) = touched {
                *touched.entry(access.address >> LINE_SHIFT).or_default() |= wants != Wants::Read;
                LOCKED.set(LOCKED.get() + usize::from(wants == Wants::Locked));
            }
        });
    }
}

/// Lines of 64 bytes that were touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Distinct lines.
    pub lines: usize,
    /// Those of them that were written, or had to be owned for a compare-exchange.
    pub written: usize,
    /// Atomic read-modify-writes, each one counted: `lock` instructions, or as many on other CPUs.
    pub locked: usize,
}

/// Runs `body` and counts the lines that it touches on this thread.
pub fn trace<R>(body: impl FnOnce() -> R) -> (R, Touched) {
    TOUCHED.set(Some(BTreeMap::new()));
    LOCKED.set(0);
    let result = body();
    let touched = TOUCHED.take().unwrap_or_default();
    let written = touched.values().filter(|written| **written).count();
    (result, Touched { lines: touched.len(), written, locked: LOCKED.get() })
}

#[cfg(test)]
mod tests {
    use super::{Lines, Touched, trace};
    use crate::platform::{IntWord, Memory, Ordering, Word};

    type U32 = <Lines as Memory>::U32;

    #[repr(align(64))]
    struct OwnLine(U32, U32);

    #[test]
    fn a_line_counts_once_and_as_written_if_ever_written() {
        let words = [(); 3].map(|()| OwnLine(U32::new("a", 0), U32::new("b", 0)));
        let (value, touched) = trace(|| {
            words[0].0.fetch_add(1, Ordering::Relaxed);
            words[0].1.load(Ordering::Relaxed);
            words[1].0.load(Ordering::Relaxed);
            words[2].0.cas(7, 8, Ordering::Relaxed, Ordering::Relaxed)
        });
        assert_eq!(value, Err(0));
        assert_eq!(touched, Touched { lines: 3, written: 2, locked: 2 });
        let ((), untouched) = trace(|| ());
        assert_eq!(untouched, Touched::default());
    }
}
