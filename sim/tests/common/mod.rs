//! The textbook's locks and a way to run code on many cores, for the tests of the model.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use cellbench_sim::{
    MachineModel, Report, SimPtr, SimU32, SimWord, Simulation, advance, now_ns, wait_until,
};

/// Something on a cache line of its own.
#[repr(align(64))]
pub(crate) struct Padded<T>(pub(crate) T);

/// Returns a built-in machine without random variation.
pub(crate) fn steady(name: &str) -> MachineModel {
    let mut machine = MachineModel::preset(name).expect("a built-in machine");
    machine.core.jitter = 0.0;
    machine
}

/// A mutual exclusion lock used with a queue node of the caller's.
pub(crate) trait Lock {
    fn new() -> Self;
    fn lock(&self, node: &Node);
    fn unlock(&self, node: &Node);
}

/// Node of a queued lock, with the word that its waiter spins on, on a line of its own.
#[repr(align(64))]
pub(crate) struct Node {
    locked: SimU32,
    next: SimPtr<Node>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self {
            locked: SimU32::new("mcs.locked", 0),
            next: SimPtr::new("mcs.next", std::ptr::null_mut()),
        }
    }
}

/// Test, then test-and-set.
#[repr(align(64))]
pub(crate) struct TestAndSet(SimU32);

impl Lock for TestAndSet {
    fn new() -> Self {
        Self(SimU32::new("tas", 0))
    }
    fn lock(&self, _node: &Node) {
        // Acquire pairs with the release in `unlock`.
        if self.0.swap(1, Acquire) == 0 {
            return;
        }
        wait_until(|| (self.0.load(Relaxed) == 0 && self.0.swap(1, Acquire) == 0).then_some(()));
    }
    fn unlock(&self, _node: &Node) {
        self.0.store(0, Release);
    }
}

/// First come, first served, everybody spinning on one word.
#[repr(align(64))]
pub(crate) struct Ticket {
    next: SimU32,
    serving: Padded<SimU32>,
}

impl Lock for Ticket {
    fn new() -> Self {
        Self {
            next: SimU32::new("ticket.next", 0),
            serving: Padded(SimU32::new("ticket.serving", 0)),
        }
    }
    fn lock(&self, _node: &Node) {
        let mine = self.next.fetch_add(1, Relaxed);
        // Acquire pairs with the release in `unlock`.
        wait_until(|| (self.serving.0.load(Acquire) == mine).then_some(()));
    }
    fn unlock(&self, _node: &Node) {
        self.serving.0.store(self.serving.0.load(Relaxed).wrapping_add(1), Release);
    }
}

/// J. M. Mellor-Crummey and M. L. Scott, "Algorithms for scalable synchronization on
/// shared-memory multiprocessors", ACM TOCS 9(1), 1991: each waiter spins on its own line.
#[repr(align(64))]
pub(crate) struct Mcs(SimPtr<Node>);

impl Lock for Mcs {
    fn new() -> Self {
        Self(SimPtr::new("mcs.tail", std::ptr::null_mut()))
    }
    fn lock(&self, node: &Node) {
        node.next.store(std::ptr::null_mut(), Relaxed);
        node.locked.store(1, Relaxed);
        let me = std::ptr::from_ref(node).cast_mut();
        // AcqRel: publishes this node to the next waiter, sees the previous one's.
        let before = self.0.swap(me, AcqRel);
        if before.is_null() {
            return;
        }
        // SAFETY: the tail points to nodes of cores that hold or await the lock; they live on
        // their owners' stacks until they are through.
        unsafe { &*before }.next.store(me, Release);
        wait_until(|| (node.locked.load(Acquire) == 0).then_some(()));
    }
    fn unlock(&self, node: &Node) {
        let me = std::ptr::from_ref(node).cast_mut();
        let mut next = node.next.load(Acquire);
        if next.is_null() {
            if self.0.compare_exchange(me, std::ptr::null_mut(), Release, Relaxed).is_ok() {
                return;
            }
            next = wait_until(|| {
                let next = node.next.load(Acquire);
                (!next.is_null()).then_some(next)
            });
        }
        // SAFETY: as in `lock`: the successor waits for this very store.
        unsafe { &*next }.locked.store(0, Release);
    }
}

/// Runs `body` on each of `cores` cores until `window_ns`; returns the rounds each one finished.
pub(crate) fn rounds(
    machine: &MachineModel,
    seed: u64,
    cores: usize,
    window_ns: f64,
    body: impl Fn(usize) + 'static,
) -> (Vec<u64>, Report) {
    let body = Rc::new(body);
    let counts: Vec<Rc<Cell<u64>>> = (0..cores).map(|_| Rc::default()).collect();
    let mut simulation = Simulation::new(machine, seed);
    for (core, count) in counts.iter().enumerate() {
        let (body, count) = (Rc::clone(&body), Rc::clone(count));
        simulation
            .spawn(core, move || {
                while now_ns() < window_ns {
                    body(core);
                    count.set(count.get() + 1);
                }
            })
            .expect("the machine has the core");
    }
    let report = simulation.run().expect("the simulation runs");
    (counts.iter().map(|count| count.get()).collect(), report)
}

/// Returns the simulated nanoseconds between two acquisitions of a lock that `cores` cores want all the time,
/// each holding it for 20 ns; also checks mutual exclusion.
pub(crate) fn handoff_ns<L: Lock + 'static>(machine: &MachineModel, cores: usize) -> f64 {
    let lock = Rc::new(L::new());
    let protected = Rc::new(Cell::new(false));
    let nodes: Vec<Node> = (0..cores).map(|_| Node::new()).collect();
    let draws: Vec<Cell<u64>> = (0..cores as u64).map(|core| Cell::new(core << 32)).collect();
    let window_ns = 20_000.0 * (cores as f64) + 20_000.0;
    let (counts, report) = rounds(machine, 1, cores, window_ns, move |core| {
        lock.lock(&nodes[core]);
        assert!(!protected.replace(true), "two cores hold the lock");
        advance(20.0);
        protected.set(false);
        lock.unlock(&nodes[core]);
        // Long enough that the releaser is not there again before a waiter has the lock, and
        // uneven, so that no rhythm comes up.
        let draw = draws[core].get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        draws[core].set(draw);
        advance((draw >> 54) as f64);
    });
    report.duration_ns / counts.iter().sum::<u64>() as f64
}

/// Returns the simulated nanoseconds per `fetch_add` of all cores on one word.
pub(crate) fn fetch_add_ns(machine: &MachineModel, cores: usize) -> (f64, Report) {
    let counter = Rc::new(Padded(SimWord::<u64>::new("counter", 0)));
    let (counts, report) = rounds(machine, 1, cores, 50_000.0, move |_| {
        counter.0.fetch_add(1, SeqCst);
    });
    (report.duration_ns / counts.iter().sum::<u64>() as f64, report)
}
