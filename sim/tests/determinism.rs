//! The same seed gives the same bytes, wherever memory lies; another seed gives another run.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use cellbench_sim::{
    Interrupt, MachineModel, SimU64, Simulation, Trigger, advance, now_ns, operation, wait_until,
};
use common::Padded;

/// Runs all that could depend on chance: contention, waiting, interrupts, allocation.
fn run(seed: u64, cores: usize) -> String {
    let machine = MachineModel::preset("xeon-spr-2s").expect("a built-in machine");
    let lock = Rc::new(Padded(SimU64::new("lock", 0)));
    let counters: Rc<Vec<Padded<SimU64>>> =
        Rc::new((0..cores).map(|_| Padded(SimU64::new("counter", 0))).collect());
    let shelf = Rc::new(RefCell::new(Vec::new()));
    let mut simulation = Simulation::new(&machine, seed);
    simulation.record_timeline("lock", 500);
    for core in 0..cores {
        let (lock, counters, shelf) = (Rc::clone(&lock), Rc::clone(&counters), Rc::clone(&shelf));
        let code = move || {
            while now_ns() < 30_000.0 {
                let _locked = operation("locked");
                wait_until(|| {
                    (lock.0.load(Relaxed) == 0 && lock.0.swap(1, SeqCst) == 0).then_some(())
                });
                let fresh = Box::new(Padded(SimU64::new("fresh", 0)));
                fresh.0.fetch_add(1, Relaxed);
                if let Some(old) = shelf.replace(vec![fresh]).pop() {
                    old.0.load(Relaxed);
                }
                advance(30.0);
                lock.0.store(0, SeqCst);
                let _own = operation("own");
                counters[core].0.fetch_add(1, Relaxed);
                advance(200.0);
            }
        };
        simulation.spawn(core, code).expect("the machine has the core");
        let counters = Rc::new(Padded(SimU64::new("ticks", 0)));
        let tick = move || {
            counters.0.fetch_add(1, Relaxed);
        };
        simulation
            .interrupt(core, Interrupt::Irq, Trigger::Random { mean_ns: 5_000.0 }, tick)
            .expect("the machine has the core");
    }
    let report = simulation.run().expect("the simulation runs");
    serde_json::to_string(&report).expect("a report is serialisable")
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let first = run(7, 24);
    // Other addresses, other slots, labels known already.
    let ballast: Vec<_> = (0..1000).map(|n| Box::new(SimU64::new("ballast", n))).collect();
    assert_eq!(run(7, 24), first);
    drop(ballast);
    let elsewhere = std::thread::spawn(|| run(7, 24)).join().expect("no panic");
    assert_eq!(elsewhere, first, "on another thread");
}

#[test]
fn different_seeds_give_different_runs() {
    let runs = [1, 2, 3, 4].map(|seed| run(seed, 8).replacen(&format!("\"seed\":{seed},"), "", 1));
    for (position, one) in runs.iter().enumerate() {
        for other in &runs[..position] {
            assert_ne!(one, other);
        }
    }
}

/// Has cores make words, use them beside contended ones and drop them; the memory of these is used again, or
/// never.
fn churn(seed: u64, again: bool) -> String {
    let machine = MachineModel::preset("epyc-genoa-2s").expect("a built-in machine");
    let shared: Rc<Vec<Padded<SimU64>>> =
        Rc::new((0..3).map(|_| Padded(SimU64::new("shared", 0))).collect());
    let kept = Rc::new(RefCell::new(Vec::new()));
    let mut simulation = Simulation::new(&machine, seed);
    for core in 0..6 {
        let (shared, kept) = (Rc::clone(&shared), Rc::clone(&kept));
        let code = move || {
            for step in 0..100 {
                shared[(core + step) % 3].0.fetch_add(1, Relaxed);
                let mut fresh = Box::new(Some(Padded(SimU64::new("fresh", 0))));
                if let Some(word) = fresh.as_ref() {
                    word.0.fetch_add(1, Relaxed);
                    shared[step % 3].0.store(1, Relaxed);
                    word.0.store(2, Relaxed);
                }
                *fresh = None;
                if !again {
                    kept.borrow_mut().push(fresh);
                }
            }
        };
        simulation.spawn(7 * core, code).expect("the machine has the core");
    }
    let report = simulation.run().expect("the simulation runs");
    serde_json::to_string(&report).expect("a report is serialisable")
}

#[test]
fn whether_freed_memory_is_used_again_does_not_matter() {
    for seed in 0..10 {
        assert_eq!(churn(seed, true), churn(seed, false), "seed {seed}");
    }
}
