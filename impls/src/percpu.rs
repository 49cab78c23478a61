//! Counters of which every CPU has its own (`alloc_percpu(unsigned long)`): adding is no business of
//! other CPUs, reading all is a line of each.
//!
//! A CPU's copies of some counters lie together on lines that no other CPU's are on.

use core::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::machine::CpuId;
use crate::platform::{Ordering, Platform, Word};

/// Counters whose copies lie together.
const TOGETHER: usize = 8;

/// The copies of one CPU; aligned to pairs of lines, which some cores fetch together.
#[repr(align(128))]
struct Copies<P: Platform>([P::U64; TOGETHER]);

/// The counters of a machine; it stays where it is.
pub(crate) struct Counters<P: Platform> {
    cpus: usize,
    state: Mutex<State<P>>,
}

struct State<P: Platform> {
    /// For each group, the copies of each CPU; boxes.
    groups: Vec<NonNull<[Copies<P>]>>,
    /// Group and place of those that nobody had yet, all at 0.
    fresh: Vec<(NonNull<Copies<P>>, usize)>,
    /// Group and place of those that were given back.
    returned: Vec<(NonNull<Copies<P>>, usize)>,
}

// SAFETY: the pointers are those of `groups`, which are freed with the whole.
unsafe impl<P: Platform> Send for State<P> {}

impl<P: Platform> Drop for State<P> {
    fn drop(&mut self) {
        for group in &self.groups {
            // SAFETY: made from a box, and no counter outlives the machine.
            drop(unsafe { Box::from_raw(group.as_ptr()) });
        }
    }
}

/// A counter, as long as it is held.
pub(crate) struct Counter<P: Platform> {
    /// The copies of CPU 0; those of the others follow.
    copies: NonNull<Copies<P>>,
    place: usize,
    counters: NonNull<Counters<P>>,
}

// SAFETY: what it points to belongs to the machine, which outlives its blocks, and is used through
// atomic words and the lock.
unsafe impl<P: Platform> Send for Counter<P> {}
// SAFETY: as above.
unsafe impl<P: Platform> Sync for Counter<P> {}

impl<P: Platform> Counters<P> {
    /// Returns none, for a machine with so many CPUs.
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            cpus,
            state: Mutex::new(State {
                groups: Vec::new(),
                fresh: Vec::new(),
                returned: Vec::new(),
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a counter at 0. Takes a lock: not in an interrupt.
    pub(crate) fn alloc(&self) -> Counter<P> {
        let counters = NonNull::from(self);
        let mut state = self.state();
        if let Some((copies, place)) = state.returned.pop() {
            // An interruption at one of the stores below may allocate as well.
            drop(state);
            let counter = Counter { copies, place, counters };
            // As the kernel's allocator: cleared when given out. Whoever had it is at rest by then, and
            // what publishes the new owner publishes this. Relaxed for that reason. Where memory is
            // simulated, the mutex orders nothing: a store made when it was given back could still be
            // on its way.
            (0..self.cpus as u32)
                .for_each(|cpu| counter.of(CpuId(cpu)).store(0, Ordering::Relaxed));
            return counter;
        }
        if state.fresh.is_empty() {
            let word = |_| P::U64::new("cpu.counter", 0);
            let copies = || Copies(core::array::from_fn(word));
            let group: Box<[Copies<P>]> = (0..self.cpus).map(|_| copies()).collect();
            let group = NonNull::from(Box::leak(group));
            state.groups.push(group);
            // In model checkers one alone, and that once, as with memory.
            let used = if P::QUARANTINE { 1 } else { TOGETHER };
            state.fresh.extend((0..used).rev().map(|place| (group.cast(), place)));
        }
        let (copies, place) = state.fresh.pop().expect("made above");
        Counter { copies, place, counters }
    }
}

impl<P: Platform> Counter<P> {
    /// Returns a CPU's copy.
    #[inline(always)]
    pub(crate) fn of(&self, cpu: CpuId) -> &P::U64 {
        // SAFETY: a group has copies for each CPU of the machine.
        &unsafe { self.copies.add(cpu.index()).as_ref() }.0[self.place]
    }

    /// Returns the sum of all copies, wrapping. Exact when nobody adds.
    pub(crate) fn sum(&self) -> u64 {
        // SAFETY: the machine outlives the counter.
        let cpus = unsafe { self.counters.as_ref() }.cpus as u32;
        // Relaxed: callers order it.
        let copies = (0..cpus).map(|cpu| self.of(CpuId(cpu)).load(Ordering::Relaxed));
        copies.fold(0, u64::wrapping_add)
    }
}

impl<P: Platform> Drop for Counter<P> {
    fn drop(&mut self) {
        if P::QUARANTINE {
            return;
        }
        // SAFETY: the machine outlives the counter.
        let counters = unsafe { self.counters.as_ref() };
        counters.state().returned.push((self.copies, self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::{Counters, TOGETHER};
    use crate::machine::CpuId;
    use crate::platform::Native;
    use core::sync::atomic::Ordering;

    #[test]
    fn copies_add_up_and_a_counter_begins_at_0_again() {
        let counters = Counters::<Native>::new(3);
        let counter = counters.alloc();
        counter.of(CpuId(0)).store(5, Ordering::Relaxed);
        // Put on another CPU than it was taken on.
        counter.of(CpuId(2)).store(2_u64.wrapping_neg(), Ordering::Relaxed);
        assert_eq!(counter.sum(), 3);
        drop(counter);
        let counters: Vec<_> = (0..=TOGETHER).map(|_| counters.alloc()).collect();
        assert!(counters.iter().all(|counter| counter.sum() == 0));
    }

    #[test]
    fn no_two_cpus_share_a_line() {
        let counters = Counters::<Native>::new(2);
        let (one, other) = (counters.alloc(), counters.alloc());
        let line = |counter: &super::Counter<Native>, cpu| {
            core::ptr::from_ref(counter.of(CpuId(cpu))).addr() / 128
        };
        assert_eq!(line(&one, 0), line(&other, 0), "the counters of a CPU lie together");
        assert_ne!(line(&one, 0), line(&one, 1));
    }

    /// A host's mutex orders nothing in simulated memory: whoever is given a counter next may be sooner than a
    /// clearing store of whoever gave it back.
    #[cfg(feature = "sim")]
    #[test]
    fn a_counter_begins_at_0_on_a_core_that_other_stores_have_not_reached() {
        use std::cell::{Cell, RefCell};
        use std::rc::Rc;

        use cellbench_sim::{MachineModel, Simulation};

        use crate::platform::{Memory, Sim, Word};

        type Turn = <Sim as Memory>::U32;

        let model = MachineModel::preset("desktop").expect("a preset");
        let mut simulation = Simulation::new(&model, 1);
        // Leaked: the code of a core borrows for ever.
        let counters: &'static _ = Box::leak(Box::new(Counters::<Sim>::new(2)));
        let turn: &'static Turn = Box::leak(Box::new(Turn::new("turn", 0)));
        let given = Rc::new(RefCell::new(None));
        let came_back = Rc::new(Cell::new(false));
        let found = Rc::new(Cell::new(None));
        {
            let (given, came_back) = (Rc::clone(&given), Rc::clone(&came_back));
            let giver = simulation.spawn(0, move || {
                while turn.load(Ordering::Acquire) == 0 {}
                drop(given.take());
                came_back.set(true);
            });
            giver.expect("a free core");
        }
        {
            let found = Rc::clone(&found);
            let taker = simulation.spawn(1, move || {
                let counter = counters.alloc();
                counter.of(CpuId(1)).store(1, Ordering::Relaxed);
                *given.borrow_mut() = Some(counter);
                turn.store(1, Ordering::Release);
                while !came_back.get() {
                    turn.load(Ordering::Relaxed);
                }
                let again = counters.alloc();
                found.set(Some(again.of(CpuId(1)).load(Ordering::Relaxed)));
            });
            taker.expect("a free core");
        }
        simulation.run().expect("the code ends");
        assert_eq!(found.get(), Some(0));
    }
}
