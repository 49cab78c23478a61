//! The event queue: what happens next on the simulated machine.
//!
//! Events are ordered by time. Of events at one time, those of the lines come first (a core that
//! arrives at the very moment at which it loses a line has lost it), then those queued earlier: the order
//! is total, so a run is repeatable.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::costs::{NEVER, Ps};

/// An event, packed into one word: the parts of an enum are written one by one, and a processor stalls
/// when they are read together soon after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event(u64);

/// Kinds of [`Event`]; those of lines come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// The directory serves the first request in the queue of a line.
    Grant,
    /// The line of a buffered store is at its core.
    Commit,
    /// A sleeping core wakes by its timer, unless it woke and slept again in between.
    Timer,
    /// A waiting core goes on to repeat the loads of its condition, without its fiber.
    Replay,
    /// A core goes on.
    Resume,
}

impl Event {
    /// Stands for no event.
    const NOTHING: Self = Self(u64::MAX);

    #[inline]
    const fn new(kind: EventKind, core: u16, number: u32) -> Self {
        Self(kind as u64 | (core as u64) << 16 | (number as u64) << 32)
    }

    #[inline]
    pub(crate) const fn grant(line: u32) -> Self {
        Self::new(EventKind::Grant, 0, line)
    }

    #[inline]
    pub(crate) const fn commit(core: u16) -> Self {
        Self::new(EventKind::Commit, core, 0)
    }

    #[inline]
    pub(crate) const fn timer(core: u16, sleep: u32) -> Self {
        Self::new(EventKind::Timer, core, sleep)
    }

    #[inline]
    pub(crate) const fn replay(core: u16) -> Self {
        Self::new(EventKind::Replay, core, 0)
    }

    #[inline]
    pub(crate) const fn resume(core: u16) -> Self {
        Self::new(EventKind::Resume, core, 0)
    }

    #[inline]
    pub(crate) fn kind(self) -> EventKind {
        match self.0 & 0xff {
            0 => EventKind::Grant,
            1 => EventKind::Commit,
            2 => EventKind::Timer,
            3 => EventKind::Replay,
            _ => EventKind::Resume,
        }
    }

    /// Returns the core that it happens to, unless it happens to a line.
    #[inline]
    pub(crate) fn core(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Returns the line that is granted, or the number of the sleep that a timer ends.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn rank(self) -> u64 {
        u64::from(self.0 & 0xff > EventKind::Commit as u64)
    }
}

/// When an event is and, in the lowest bit, its rank: as one number it is compared in one instruction.
type Key = u64;

/// Later than all events.
const NO_KEY: Key = Key::MAX;

/// Returns the key of a time and rank. Events more than a hundred days off happen at that time.
#[inline]
fn key_of(at: Ps, rank: u64) -> Key {
    at.min(NEVER >> 2) << 1 | rank
}

#[inline]
fn time_of(key: Key) -> Ps {
    key >> 1
}

#[inline]
fn bucket_of(key: Key) -> u64 {
    time_of(key) >> BUCKET_SHIFT
}

/// A pending event of the wheel.
#[derive(Debug, Clone, Copy)]
struct EventNode {
    key: Key,
    event: Event,
    /// The one after it in its bucket, or among those to be used again, or [`FAR`].
    next: u32,
}

/// First and last event of a bucket; the first is [`FAR`] if it is empty.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    first: u32,
    last: u32,
}

/// An event beyond the wheel. The earlier one is the greater: the standard heap gives the greatest
/// first.
#[derive(Debug)]
struct FarEvent {
    key: Key,
    /// Of those at one time the one with the smaller number was queued earlier.
    number: u64,
    event: Event,
}

impl PartialEq for FarEvent {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FarEvent {}

impl PartialOrd for FarEvent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FarEvent {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key, other.number).cmp(&(self.key, self.number))
    }
}

/// Pending events: one that was queued as the next one, a wheel of sorted buckets for the next half
/// microsecond, where nearly all others are, and a heap for those beyond.
///
/// Nothing is pushed that is more than a bucket before the last event taken, except for grants
/// that are overdue: these go into the bucket of that event, at its head. So the buckets, from that
/// one around the wheel, are in the order of time.
///
/// An event beyond the wheel comes into it as soon as it fits, so all there are later than those in
/// the wheel.
#[derive(Debug)]
pub(crate) struct EventQueue {
    /// Of the next event, or [`NO_KEY`].
    next: Key,
    /// The next event, if it came before all others when it was pushed, or [`Event::NOTHING`]: many are
    /// taken before another one is pushed, and need no place in the wheel.
    front: Event,
    /// Bucket, counted from time 0, of the last event taken.
    base: u64,
    /// The first one beyond the wheel fits into it when `base` is this.
    far_fits_at: u64,
    /// The first event of the wheel and its bucket, or [`FAR`].
    first: u32,
    first_bucket: u32,
    /// First event of those to be used again, or [`FAR`].
    free: u32,
    /// Events in the wheel.
    count: u32,
    /// Those of the wheel, by number, after one that stands for the first one beyond it ([`FAR`]).
    nodes: Vec<EventNode>,
    buckets: Box<[Bucket; BUCKETS]>,
    /// One bit for each bucket that is not empty.
    occupied: [u64; BUCKETS / 64],
    far: BinaryHeap<FarEvent>,
    /// Events that were pushed beyond the wheel.
    pushed_far: u64,
}

/// The first event beyond the wheel, or none.
const FAR: u32 = 0;
/// Width of a bucket in picoseconds, as a power of two.
const BUCKET_SHIFT: u32 = 8;
const BUCKETS: usize = 2048;

impl Default for EventQueue {
    fn default() -> Self {
        Self {
            next: NO_KEY,
            front: Event::NOTHING,
            base: 0,
            far_fits_at: u64::MAX,
            first: FAR,
            first_bucket: 0,
            free: FAR,
            count: 0,
            nodes: vec![EventNode { key: NO_KEY, event: Event::NOTHING, next: FAR }],
            buckets: Box::new([Bucket { first: FAR, last: FAR }; BUCKETS]),
            occupied: [0; BUCKETS / 64],
            far: BinaryHeap::new(),
            pushed_far: 0,
        }
    }
}

impl EventQueue {
    #[inline]
    pub(crate) fn push(&mut self, at: Ps, event: Event) {
        let key = key_of(at, event.rank());
        if key >= self.next {
            return self.push_behind(key, event);
        }
        let before = (self.next, self.front);
        (self.next, self.front) = (key, event);
        if before.1 != Event::NOTHING {
            // It is before all in the wheel, and older than those of its time that will come.
            self.push_first(before.0, before.1);
        }
    }

    /// Puts an event behind the next one.
    // All that is rare is called at the very end of this: so it needs no stack frame.
    fn push_behind(&mut self, key: Key, event: Event) {
        let bucket = bucket_of(key).max(self.base);
        if bucket - self.base >= BUCKETS as u64 {
            self.pushed_far += 1;
            return self.push_far(key, self.pushed_far, event);
        }
        if self.free == FAR {
            return self.grow_and_push(key, event);
        }
        let number = self.free;
        let node = &mut self.nodes[number as usize];
        self.free = node.next;
        *node = EventNode { key, event, next: FAR };
        self.count += 1;
        let place = bucket as usize % BUCKETS;
        if self.first == FAR || key < self.nodes[self.first as usize].key {
            self.first = number;
            self.first_bucket = place as u32;
        }
        let bucket = &mut self.buckets[place];
        if bucket.first != FAR {
            return self.insert_among(place, number, key);
        }
        *bucket = Bucket { first: number, last: number };
        self.occupied[place / 64] |= 1 << (place % 64);
    }

    /// Puts an event before all others in the wheel.
    fn push_first(&mut self, key: Key, event: Event) {
        let bucket = bucket_of(key).max(self.base);
        if bucket - self.base >= BUCKETS as u64 {
            return self.push_far(key, 0, event);
        }
        if self.free == FAR {
            self.grow();
        }
        let number = self.free;
        let place = bucket as usize % BUCKETS;
        let bucket = &mut self.buckets[place];
        let node = &mut self.nodes[number as usize];
        self.free = node.next;
        *node = EventNode { key, event, next: bucket.first };
        if bucket.first == FAR {
            bucket.last = number;
            self.occupied[place / 64] |= 1 << (place % 64);
        }
        bucket.first = number;
        self.first = number;
        self.first_bucket = place as u32;
        self.count += 1;
    }

    #[cold]
    #[inline(never)]
    fn grow_and_push(&mut self, key: Key, event: Event) {
        self.grow();
        self.push_behind(key, event);
    }

    #[cold]
    fn grow(&mut self) {
        self.free = self.nodes.len() as u32;
        self.nodes.push(EventNode { key: NO_KEY, event: Event::NOTHING, next: FAR });
    }

    /// Puts an event into its place in a bucket that has others.
    #[inline(never)]
    fn insert_among(&mut self, place: usize, number: u32, key: Key) {
        let bucket = &mut self.buckets[place];
        if key >= self.nodes[bucket.last as usize].key {
            self.nodes[bucket.last as usize].next = number;
            bucket.last = number;
            return;
        }
        let mut after = bucket.first;
        if key < self.nodes[after as usize].key {
            bucket.first = number;
            self.nodes[number as usize].next = after;
            return;
        }
        // Ends before the last one, which is later.
        let before = loop {
            let next = self.nodes[after as usize].next;
            if key < self.nodes[next as usize].key {
                break next;
            }
            after = next;
        };
        self.nodes[after as usize].next = number;
        self.nodes[number as usize].next = before;
    }

    #[cold]
    #[inline(never)]
    fn push_far(&mut self, key: Key, number: u64, event: Event) {
        self.far.push(FarEvent { key, number, event });
        self.note_first_far();
    }

    /// Notes which event is the first beyond the wheel.
    fn note_first_far(&mut self) {
        let first = &mut self.nodes[FAR as usize];
        (first.key, first.event) =
            self.far.peek().map_or((NO_KEY, Event::NOTHING), |node| (node.key, node.event));
        self.far_fits_at = match self.far.peek() {
            Some(event) => bucket_of(event.key) - (BUCKETS as u64 - 1),
            None => u64::MAX,
        };
    }

    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<(Ps, Event)> {
        let key = self.next;
        let mut event = self.front;
        if event == Event::NOTHING {
            event = self.pop_wheel();
            if event == Event::NOTHING {
                return None;
            }
        }
        self.front = Event::NOTHING;
        self.next = self.nodes[self.first as usize].key;
        let bucket = bucket_of(key);
        if bucket > self.base {
            self.base = bucket;
            if bucket >= self.far_fits_at {
                self.bring_far();
            }
        }
        Some((time_of(key), event))
    }

    /// Takes the first event of the wheel, or beyond it, or [`Event::NOTHING`].
    #[inline(always)]
    fn pop_wheel(&mut self) -> Event {
        let number = self.first;
        if number == FAR {
            return self.pop_far();
        }
        let node = &mut self.nodes[number as usize];
        let EventNode { event, next, .. } = *node;
        node.next = self.free;
        self.free = number;
        self.count -= 1;
        let place = self.first_bucket as usize % BUCKETS;
        self.buckets[place].first = next;
        self.first = if next == FAR { self.find_first(place) } else { next };
        event
    }

    /// Takes the first event beyond the wheel, which is empty.
    #[cold]
    #[inline(never)]
    fn pop_far(&mut self) -> Event {
        let event = self.far.pop().map_or(Event::NOTHING, |node| node.event);
        self.note_first_far();
        event
    }

    /// Brings the events into the wheel that fit into it by now.
    #[cold]
    #[inline(never)]
    fn bring_far(&mut self) {
        while self.base >= self.far_fits_at
            && let Some(FarEvent { key, event, .. }) = self.far.pop()
        {
            self.note_first_far();
            self.push_behind(key, event);
        }
    }

    /// Finds the first event of the wheel when a bucket has become empty.
    #[inline(always)]
    fn find_first(&mut self, empty: usize) -> u32 {
        let mut word = empty / 64;
        self.occupied[word] &= !(1 << (empty % 64));
        if self.count == 0 {
            return FAR;
        }
        // Around the wheel; those before the empty bucket in its word come last.
        let mut found = self.occupied[word] & (u64::MAX << (empty % 64));
        while found == 0 {
            word = (word + 1) % (BUCKETS / 64);
            found = self.occupied[word];
        }
        self.first_bucket = (word * 64) as u32 + found.trailing_zeros();
        self.buckets[self.first_bucket as usize % BUCKETS].first
    }

    /// Returns when the next event is, or a time that never comes.
    #[inline]
    pub(crate) fn next_at(&self) -> Ps {
        time_of(self.next)
    }

    /// Returns whether the next event is that a core goes on.
    #[inline]
    pub(crate) fn next_is_turn(&self) -> bool {
        let next = match self.front {
            Event::NOTHING => self.nodes[self.first as usize].event,
            front => front,
        };
        next.kind() == EventKind::Resume && next != Event::NOTHING
    }

    /// Returns whether something happens before a core can go on at a time.
    #[inline]
    pub(crate) fn any_before(&self, now: Ps) -> bool {
        self.next <= now << 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_grants_then_age() {
        let mut queue = EventQueue::default();
        queue.push(20, Event::resume(9));
        queue.push(10, Event::resume(2));
        queue.push(10, Event::resume(1));
        queue.push(10, Event::grant(5));
        assert_eq!((queue.next_at(), queue.any_before(10)), (10, true));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(
            order,
            [
                (10, Event::grant(5)),
                (10, Event::resume(2)),
                (10, Event::resume(1)),
                (20, Event::resume(9)),
            ]
        );
    }

    #[test]
    fn replacing_the_next_event_keeps_the_order() {
        let mut queue = EventQueue::default();
        for core in 1..6 {
            queue.push(u64::from(core), Event::resume(core));
        }
        queue.pop();
        queue.push(4, Event::resume(7));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let expected = [(2, 2), (3, 3), (4, 4), (4, 7), (5, 5)];
        assert_eq!(order, expected.map(|(at, core)| (at, Event::resume(core))));
    }

    #[test]
    fn any_order_of_pushes_comes_out_sorted() {
        let mut rng = crate::rng::Rng::new(3);
        let mut queue = EventQueue::default();
        let mut expected = Vec::new();
        let mut now = 0;
        for number in 1..20_000_u64 {
            // Overdue, of the same time, near and far beyond the wheel.
            let spans = [0, 300, 5_000, 400_000, 3_000_000];
            let span = spans[rng.below(spans.len() as u64) as usize];
            let at = (now + rng.below(span + 1)).saturating_sub(rng.below(2) * rng.below(900));
            let event = match rng.below(2) {
                0 => Event::grant(number as u32),
                _ => Event::resume((number % 60_000) as u16),
            };
            queue.push(at, event);
            expected.push((at, event.rank(), number, event));
            if rng.below(100) < 49 {
                continue;
            }
            let first =
                expected.iter().enumerate().min_by_key(|(_, event)| (event.0, event.1, event.2));
            let (position, &(at, _, _, event)) = first.expect("one was pushed");
            assert_eq!(queue.next_at(), at);
            assert_eq!(queue.pop(), Some((at, event)));
            expected.swap_remove(position);
            now = now.max(at);
        }
        expected.sort_by_key(|event| (event.0, event.1, event.2));
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, expected.iter().map(|event| (event.0, event.3)).collect::<Vec<_>>());
        assert_eq!(queue.pop(), None);
    }
}
