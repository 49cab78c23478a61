//! How many accesses the simulator simulates per second on this host core.
//!
//! `cargo run --release -p cellbench-sim --example throughput` prints a line for each workload and
//! number of cores: accesses simulated one by one, share of hits, these per second of host time,
//! host time for each, and per second those together with the loads of spinning waiters, which are
//! charged in bulk when a waiter wakes. With an argument, only the workloads whose name contains it;
//! with a second one, only on so many cores.

use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use cellbench_sim::{MachineModel, Report, SimU64, Simulation, advance, now_ns, wait_until};

#[repr(align(64))]
struct Padded(SimU64);

/// Runs `body` on `cores` cores for `window_ns` and prints what that took.
fn measure(
    name: &str,
    machine: &MachineModel,
    cores: usize,
    window_ns: f64,
    body: impl Fn(usize) + 'static,
) {
    let mut wanted = std::env::args().skip(1);
    if wanted.next().is_some_and(|wanted| !name.contains(&wanted))
        || wanted.next().is_some_and(|wanted| wanted != cores.to_string())
    {
        return;
    }
    let body = Rc::new(body);
    let mut simulation = Simulation::new(machine, 1);
    for core in 0..cores {
        let body = Rc::clone(&body);
        let code = move || {
            while now_ns() < window_ns {
                body(core);
            }
        };
        simulation.spawn(core, code).expect("the machine has the core");
    }
    let start = Instant::now();
    let report: Report = simulation.run().expect("the simulation runs");
    let seconds = start.elapsed().as_secs_f64();
    let totals = &report.totals;
    let accesses = totals.accesses() as f64;
    println!(
        "{name:24} {cores:5} cores {:9.0} accesses {:5.1} % hits {:7.2} M/s {:7.1} ns each, \
         {:7.1} M/s with spinning",
        accesses,
        100.0 * totals.hits as f64 / accesses,
        accesses / seconds / 1e6,
        seconds * 1e9 / accesses,
        (accesses + totals.spin_loads as f64) / seconds / 1e6,
    );
}

fn main() {
    let machine = MachineModel::preset("epyc-genoa-2s").expect("a built-in machine");
    for cores in [1, 2, 16, 64, 192] {
        let scale = 1.0 / cores as f64;
        let own: Vec<Padded> = (0..cores).map(|_| Padded(SimU64::new("own", 0))).collect();
        measure("own line", &machine, cores, 2e7 * scale, move |core| {
            own[core].0.fetch_add(1, SeqCst);
        });
        let shared = Padded(SimU64::new("shared", 0));
        measure("shared line, read", &machine, cores, 5e6 * scale, move |_| {
            shared.0.load(Relaxed);
        });
        let shared = Padded(SimU64::new("shared", 0));
        measure("shared line, fetch_add", &machine, cores, 2e7, move |_| {
            shared.0.fetch_add(1, SeqCst);
        });
        let pairs: Vec<Padded> = (0..cores).map(|_| Padded(SimU64::new("pair", 0))).collect();
        measure("mixed, 1 of 8 contended", &machine, cores, 2e7 * scale.max(0.1), move |core| {
            for _ in 0..7 {
                pairs[core].0.fetch_add(1, SeqCst);
            }
            pairs[core / 2].0.fetch_add(1, SeqCst);
        });
        let lock = Padded(SimU64::new("lock", 0));
        measure("test-and-set lock", &machine, cores, 3e7, move |_| {
            wait_until(|| (lock.0.load(Relaxed) == 0 && lock.0.swap(1, SeqCst) == 0).then_some(()));
            advance(20.0);
            lock.0.store(0, SeqCst);
        });
    }
}
