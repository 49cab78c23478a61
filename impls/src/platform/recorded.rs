//! Native atomics that write down what is done to them: the sequence of accesses of an operation, by
//! the names of the words, which the access scripts are compared with.
//!
//! Words are larger here than natively, as each keeps its label. The record is a thread-local, for the
//! reason given in [`super::stepped`].

use std::cell::RefCell;
use std::mem;

use super::observed::{Access, Barrier, ObservedCores, Observer, Operation};
use super::{Label, Ordering};

/// Native memory whose accesses are recorded.
pub type Words = ObservedCores<Recorder>;

/// Observes for [`Words`].
pub struct Recorder;

/// Event of a recorded sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An access to the word of this name.
    Access(Label, Operation, Ordering),
    /// A barrier.
    Fence(Barrier),
    /// Remark of a test, see [`note`].
    Note(&'static str),
}

/// Called before each event.
type Before<'a> = &'a mut dyn FnMut(&Event);

thread_local! {
    /// The events so far; `None` while nobody records.
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
    /// Taken out while it runs: what it does is not recorded.
    static BEFORE: RefCell<Option<Before<'static>>> = const { RefCell::new(None) };
}

impl Observer for Recorder {
    const NAME: &'static str = "recorded";
    const POISON: bool = false;
    type Tag = Label;

    fn about_to(access: Access, label: &Label) {
        record_event(Event::Access(label, access.operation, access.order));
    }

    fn fence(barrier: Barrier) {
        record_event(Event::Fence(barrier));
    }
}

/// Records a note of the test's own.
pub fn note(text: &'static str) {
    record_event(Event::Note(text));
}

fn record_event(event: Event) {
    let Some(before) = BEFORE.take() else { return };
    before(&event);
    EVENTS.with_borrow_mut(|events| events.get_or_insert_default().push(event));
    BEFORE.set(Some(before));
}

/// Runs `body` and records what it does on this thread. Calls `before` before each event; what that
/// does, as another CPU, is not recorded.
pub fn record<R>(mut before: impl FnMut(&Event), body: impl FnOnce() -> R) -> (R, Vec<Event>) {
    /// Ends the record also when `body` panics, as `before` does not outlive this call.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            BEFORE.take();
        }
    }
    let before: Before<'_> = &mut before;
    // SAFETY: only the lifetime is erased; `End` removes the reference before it ends, and nothing else
    // keeps it: `record_event` returns before `body` does.
    let before: Before<'static> = unsafe { mem::transmute(before) };
    let end = End;
    EVENTS.set(None);
    BEFORE.set(Some(before));
    let result = body();
    drop(end);
    (result, EVENTS.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Event, Words, note, record};
    use crate::platform::observed::{Barrier, Operation};
    use crate::platform::{IntWord, Memory, Ordering, Word};

    #[test]
    fn accesses_are_recorded_in_their_order_but_for_those_of_others() {
        let word = <Words as Memory>::U32::new("word", 0);
        let mut other = None;
        let ((), events) = record(
            |event| {
                if *event == Event::Note("now") {
                    other = Some(word.fetch_add(2, Ordering::Relaxed));
                }
            },
            || {
                word.store(1, Ordering::Release);
                note("now");
                Words::fence();
                assert_eq!(word.cas(3, 4, Ordering::SeqCst, Ordering::Relaxed), Ok(3));
            },
        );
        assert_eq!(other, Some(1));
        let expected = [
            Event::Access("word", Operation::Store, Ordering::Release),
            Event::Note("now"),
            Event::Fence(Barrier::Full),
            Event::Access("word", Operation::CompareExchange, Ordering::SeqCst),
        ];
        assert_eq!(events, expected);
        word.load(Ordering::Relaxed);
        assert_eq!(record(|_| (), || ()).1, []);
    }
}
