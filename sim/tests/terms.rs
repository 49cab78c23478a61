//! Each term of the model has a scene of its own whose time is known to the picosecond: another value of
//! the constant, or a term left out, changes the time of its scene.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use cellbench_sim::protocol::Protocol;
use cellbench_sim::{
    Interrupt, MachineModel, SimU64, Simulation, Trigger, advance, fence, mask_interrupts, now_ns,
    pause, read_clock_ns, unmask_interrupts,
};
use common::{Padded, steady};

/// Returns a machine of two sockets on which no two constants are equal, no core runs ahead, and no owner
/// keeps a line longer than it must.
fn machine(name: &str) -> MachineModel {
    let mut machine = steady(name);
    machine.core.run_ahead = 0;
    machine.directory.ownership_share = 0.0;
    machine
}

/// How a core's turn ends: at some time it does something with the word, which takes so long.
type Turn = (usize, f64, fn(&SimU64));

/// Lets cores take turns at a word that is in memory, and returns how long each took.
fn turns(machine: &MachineModel, turns: &[Turn]) -> Vec<f64> {
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let mut simulation = Simulation::new(machine, 1);
    simulation.start_spread_ns(0.0);
    let took: Vec<Rc<Cell<f64>>> = turns.iter().map(|_| Rc::default()).collect();
    for (&(core, at_ns, turn), took) in turns.iter().zip(&took) {
        let (word, took) = (Rc::clone(&word), Rc::clone(took));
        let code = move || {
            advance(at_ns);
            let before_ns = now_ns();
            turn(&word.0);
            took.set(now_ns() - before_ns);
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    simulation.run().expect("it runs");
    took.iter().map(|took| took.get()).collect()
}

fn last(machine: &MachineModel, of: &[Turn]) -> f64 {
    turns(machine, of).pop().expect("there are turns")
}

#[track_caller]
fn check(found_ns: f64, expected_ns: f64) {
    assert!((found_ns - expected_ns).abs() < 0.01, "{found_ns} ns, expected {expected_ns}");
}

fn load(word: &SimU64) {
    word.load(Relaxed);
}

fn write(word: &SimU64) {
    word.swap(1, SeqCst);
}

/// Returns the time that a core takes for something with a word that it owns, in nanoseconds.
fn on_own_line(machine: &MachineModel, what: fn(&SimU64)) -> f64 {
    let took = Rc::new(Cell::new(0.0));
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let mut simulation = Simulation::new(machine, 1);
    let result = Rc::clone(&took);
    let code = move || {
        word.0.fetch_add(1, SeqCst);
        advance(1_000.0);
        let before_ns = now_ns();
        what(&word.0);
        result.set(now_ns() - before_ns);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    took.get()
}

#[test]
fn a_hit_takes_what_its_kind_takes() {
    let machine = machine("xeon-spr-2s");
    check(on_own_line(&machine, load), machine.hit.load_ns);
    check(on_own_line(&machine, |word| word.store(2, Relaxed)), machine.hit.store_ns);
    check(on_own_line(&machine, |word| _ = word.fetch_add(1, SeqCst)), machine.hit.atomic_ns);
}

#[test]
fn what_touches_no_line_takes_its_time() {
    let machine = machine("xeon-spr-2s");
    check(on_own_line(&machine, |_| fence(SeqCst)), machine.hit.fence_ns);
    check(on_own_line(&machine, |_| pause()), machine.core.pause_ns);
    check(on_own_line(&machine, |_| _ = read_clock_ns()), machine.core.clock_ns);
}

#[test]
fn the_first_touch_waits_for_memory() {
    let machine = machine("xeon-spr-2s");
    let took = last(&machine, &[(3, 100.0, load)]);
    check(took, machine.fill.memory_ns + machine.hit.load_ns);
}

/// The line is in the memory of the socket that touched it first, and somebody of the other socket is
/// served before.
#[test]
fn memory_of_the_other_socket_is_farther() {
    let mut machine = machine("xeon-spr-2s");
    (machine.fill.memory_ns, machine.fill.remote_memory_ns) = (900.0, 130.0);
    let took = last(&machine, &[(0, 100.0, load), (56, 101.0, load)]);
    check(took, machine.fill.remote_memory_ns + machine.hit.load_ns);
}

#[test]
fn a_modified_line_comes_from_its_writer_at_the_price_of_the_distance() {
    let machine = machine("epyc-genoa-2s");
    let surprised_ns = machine.core.restart_ns + machine.hit.load_ns;
    for (reader, transfer_ns) in [
        (1, machine.transfer.same_llc_ns),
        (8, machine.transfer.cross_llc_ns),
        (96, machine.transfer.cross_socket_ns),
    ] {
        let took = last(&machine, &[(0, 0.0, write), (reader, 5_000.0, load)]);
        check(took, transfer_ns + surprised_ns);
    }
}

#[test]
fn a_shared_line_comes_from_the_last_level_cache() {
    let mut machine = machine("xeon-spr-2s");
    machine.protocol = Protocol::Mesi;
    let took = last(&machine, &[(0, 0.0, write), (1, 5_000.0, load), (2, 10_000.0, load)]);
    check(took, machine.fill.llc_ns + machine.hit.load_ns);
}

/// The line crosses the sockets once: the reader there supplies its neighbours.
#[test]
fn the_newest_reader_forwards_the_line() {
    let mut machine = machine("xeon-spr-2s");
    machine.protocol = Protocol::Mesif;
    let took = turns(&machine, &[(0, 0.0, write), (56, 5_000.0, load), (57, 10_000.0, load)]);
    assert!(took[1] > machine.transfer.cross_socket_ns, "{took:?}");
    assert!(took[2] < machine.transfer.cross_socket_ns, "{took:?}");
}

#[test]
fn a_write_waits_for_the_farthest_of_the_copies() {
    let machine = machine("xeon-spr-2s");
    let took = last(
        &machine,
        &[(0, 0.0, load), (56, 3_000.0, load), (1, 6_000.0, load), (2, 9_000.0, write)],
    );
    let expected_ns = machine.transfer.cross_socket_ns
        + 2.0 * machine.directory.snoop_issue_ns
        + machine.hit.atomic_ns;
    check(took, expected_ns);
}

/// Three copies of a line, and two more readers at once: the second waits until the first is served.
#[test]
fn readers_are_served_one_after_the_other() {
    let mut machine = machine("xeon-spr-2s");
    machine.protocol = Protocol::Mesi;
    let readers = [(2, 10_000.0, load as fn(&SimU64)), (3, 10_000.0, load)];
    let mut all = vec![(0, 0.0, write as fn(&SimU64)), (1, 5_000.0, load)];
    all.extend(readers);
    let took = turns(&machine, &all);
    check((took[3] - took[2]).abs(), machine.directory.service_ns);
}

/// Who takes a line from an owner waits until that one's window has ended.
#[test]
fn an_owner_keeps_its_line_for_its_window() {
    let mut machine = machine("xeon-spr-2s");
    let atomic_ns = machine.hit.atomic_ns;
    let mut took = |window_ns: f64| {
        machine.directory.ownership_window_ns = window_ns;
        last(&machine, &[(0, 0.0, write), (1, 1.0, write)])
    };
    check(took(50.0) - took(0.0), 50.0 - atomic_ns);
}

/// A line of the other socket's memory goes by that socket, also between neighbours.
#[test]
fn a_line_goes_by_its_home_where_the_machine_does_so() {
    let machine = machine("altra-max-2s");
    let cores = machine.places().len();
    let took = last(&machine, &[(cores - 1, 0.0, load), (0, 5_000.0, write), (1, 10_000.0, load)]);
    let surprised_ns = machine.core.restart_ns + machine.hit.load_ns;
    check(took, machine.transfer.cross_socket_ns + surprised_ns);
}

/// Returns the time, in nanoseconds, of what came while interrupts were masked, when they are masked no more.
fn held_back_ns(prepare: impl FnOnce(&mut Simulation), machine: &MachineModel) -> f64 {
    let took = Rc::new(Cell::new(0.0));
    let mut simulation = Simulation::new(machine, 1);
    simulation.start_spread_ns(0.0);
    prepare(&mut simulation);
    let result = Rc::clone(&took);
    let code = move || {
        mask_interrupts();
        advance(10_000.0);
        let before_ns = now_ns();
        unmask_interrupts();
        result.set(now_ns() - before_ns);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    took.get()
}

#[test]
fn an_interrupt_and_a_preemption_take_their_time() {
    let machine = machine("xeon-spr-2s");
    let at = || Trigger::At { at_ns: 4_000.0 };
    let interrupted = |simulation: &mut Simulation| {
        simulation.interrupt(0, Interrupt::Irq, at(), || ()).expect("core 0 exists");
    };
    check(held_back_ns(interrupted, &machine), machine.core.interrupt_ns);
    let preempted = |simulation: &mut Simulation| {
        simulation.preempt(0, at(), 700.0).expect("core 0 exists");
    };
    let switches_ns = 2.0 * machine.core.context_switch_ns;
    check(held_back_ns(preempted, &machine), 700.0 + switches_ns);
}
