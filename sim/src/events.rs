//! The event queue: what happens next on the simulated machine.
//!
//! Events are ordered by time. Of events at one time, those of the lines come first (a core that
//! arrives at the very moment at which it loses a line has lost it), then those queued earlier: the order
//! is total, so a run is repeatable.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::costs::Ps;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The directory serves the first request in a line's queue.
    Grant { line: u32 },
    /// The line of a buffered store is at its core.
    Commit { core: u16 },
    /// A sleeping core wakes by its timer, unless it woke and slept again in between.
    Timer { core: u16, sleep: u32 },
    /// A core goes on.
    Resume { core: u16 },
}

impl Happening {
    fn rank(self) -> u64 {
        match self {
            Self::Grant { .. } | Self::Commit { .. } => 0,
            Self::Timer { .. } | Self::Resume { .. } => 1,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Event {
    /// Time, rank and number of the event, from the most significant bit: one comparison orders
    /// two events.
    key: u128,
    what: Happening,
}

impl Event {
    fn at(&self) -> Ps {
        (self.key >> 64) as Ps
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// The earlier event is the greater one: the standard heap gives the greatest first.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

/// Pending events.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    heap: BinaryHeap<Event>,
    pushed: u64,
}

impl EventQueue {
    pub(crate) fn push(&mut self, at: Ps, what: Happening) {
        let event = self.number(at, what);
        self.heap.push(event);
    }

    /// Replaces the next event: as taking it and pushing the other, at the price of one of them.
    pub(crate) fn replace_next(&mut self, at: Ps, what: Happening) {
        let event = self.number(at, what);
        if let Some(mut next) = self.heap.peek_mut() {
            *next = event;
        }
    }

    fn number(&mut self, at: Ps, what: Happening) -> Event {
        self.pushed += 1;
        let order = what.rank() << 63 | self.pushed;
        Event { key: u128::from(at) << 64 | u128::from(order), what }
    }

    pub(crate) fn pop(&mut self) -> Option<(Ps, Happening)> {
        self.heap.pop().map(|event| (event.at(), event.what))
    }

    #[inline]
    pub(crate) fn next(&self) -> Option<(Ps, Happening)> {
        self.heap.peek().map(|event| (event.at(), event.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_grants_then_age() {
        let mut queue = EventQueue::default();
        queue.push(20, Happening::Resume { core: 9 });
        queue.push(10, Happening::Resume { core: 2 });
        queue.push(10, Happening::Resume { core: 1 });
        queue.push(10, Happening::Grant { line: 5 });
        assert_eq!(queue.next(), Some((10, Happening::Grant { line: 5 })));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            order,
            [
                (10, Happening::Grant { line: 5 }),
                (10, Happening::Resume { core: 2 }),
                (10, Happening::Resume { core: 1 }),
                (20, Happening::Resume { core: 9 }),
            ]
        );
    }

    #[test]
    fn replacing_the_next_event_keeps_the_order() {
        let mut queue = EventQueue::default();
        for core in 1..6 {
            queue.push(u64::from(core), Happening::Resume { core });
        }
        queue.replace_next(4, Happening::Resume { core: 7 });
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [(2, 2), (3, 3), (4, 4), (4, 7), (5, 5)];
        assert_eq!(order, expected.map(|(at, core)| (at, Happening::Resume { core })));
    }
}
