//! Requests of a core while it waits: misses that do not depend on each other overlap.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use cellbench_sim::calibrate::{PingPong, ping_pong_ns};
use cellbench_sim::{
    MachineModel, SimU64, Simulation, advance, advance_after_stall, now_ns, read_clock_ns,
    wait_until,
};
use common::{Padded, fetch_add_ns, rounds, steady};

const LINES: usize = 8;

fn machine(run_ahead: u32) -> MachineModel {
    let mut machine = steady("desktop");
    machine.core.run_ahead = run_ahead;
    machine
}

/// Hands eight lines to and fro between two cores; returns the time that one of them takes for the lines of a
/// turn, after some turns, in nanoseconds.
fn turn_ns(machine: &MachineModel, step: fn(usize, &SimU64)) -> f64 {
    const TURNS: u64 = 12;
    let lines: Rc<[Padded<SimU64>; LINES]> =
        Rc::new(std::array::from_fn(|_| Padded(SimU64::new("line", 0))));
    let turn = Rc::new(Padded(SimU64::new("turn", 0)));
    let last_ns = Rc::new(Cell::new(0.0));
    let mut simulation = Simulation::new(machine, 1);
    for side in 0..2 {
        let (lines, turn) = (Rc::clone(&lines), Rc::clone(&turn));
        let last_ns = Rc::clone(&last_ns);
        let code = move || {
            for round in 0..TURNS {
                let mine = 2 * round + side;
                // Acquire pairs with the other side's release.
                wait_until(|| (turn.0.load(Acquire) == mine).then_some(()));
                let began_ns = now_ns();
                for (place, line) in lines.iter().enumerate() {
                    step(place, &line.0);
                }
                last_ns.set(now_ns() - began_ns);
                turn.0.store(mine + 1, Release);
            }
        };
        simulation.spawn(side as usize, code).expect("the machine has the core");
    }
    simulation.run().expect("it runs");
    last_ns.get()
}

#[test]
fn misses_of_known_lines_overlap_and_others_do_not() {
    let transfer_ns = machine(0).transfer.same_llc_ns;
    let steps: [fn(usize, &SimU64); 3] = [
        |_, word| {
            word.fetch_add(1, SeqCst);
        },
        |_, word| {
            word.swap(1, AcqRel);
        },
        |_, word| {
            word.load(Relaxed);
            word.store(1, SeqCst);
        },
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let (in_order_ns, ahead_ns) = (turn_ns(&machine(0), step), turn_ns(&machine(8), step));
        assert!(in_order_ns > 7.0 * transfer_ns, "step {number}: {in_order_ns} ns in order");
        assert!(ahead_ns < 0.5 * in_order_ns, "step {number}: {ahead_ns} of {in_order_ns} ns");
        assert!(ahead_ns > transfer_ns, "step {number}: {ahead_ns} ns");
    }
}

/// A core that spins on a line expects to go on spinning: it does not ask for what comes after.
#[test]
fn nobody_runs_ahead_past_a_spin_loop() {
    for style in [PingPong::CompareExchange, PingPong::LoadStore, PingPong::TwoLines] {
        let one_way_ns = |run_ahead| ping_pong_ns(&machine(run_ahead), [0, 1], style);
        let (in_order_ns, ahead_ns) = (one_way_ns(0).expect("it runs"), one_way_ns(8));
        let ahead_ns = ahead_ns.expect("it runs");
        assert!((ahead_ns / in_order_ns - 1.0).abs() < 0.02, "{style:?}: {ahead_ns}");
    }
}

/// The other core takes every line back before it is used: asking for it early was for nothing.
#[test]
fn a_line_asked_for_ahead_can_be_lost_before_it_is_used() {
    let transfers = |run_ahead| {
        let lines: Rc<[Padded<SimU64>; LINES]> =
            Rc::new(std::array::from_fn(|_| Padded(SimU64::new("line", 0))));
        let mut simulation = Simulation::new(&machine(run_ahead), 1);
        for core in 0..2 {
            let lines = Rc::clone(&lines);
            let code = move || {
                for _ in 0..100 {
                    for line in lines.iter() {
                        line.0.swap(1, SeqCst);
                    }
                }
            };
            simulation.spawn(core, code).expect("the machine has the core");
        }
        let totals = simulation.run().expect("it runs").totals;
        assert_eq!(totals.rmws, 2 * 100 * LINES as u64, "each exchange counts once");
        totals.transfers()
    };
    let (in_order, ahead) = (transfers(0), transfers(8));
    assert!(ahead > in_order, "{ahead} transfers, {in_order} in order");
}

/// Returns the time of an exchange by two cores, in nanoseconds; what they write is by the number of the
/// core.
fn exchange_ns(machine: &MachineModel, new: fn(usize) -> u64) -> f64 {
    let word = Padded(SimU64::new("word", 1));
    let (exchanges, report) = rounds(machine, 1, 2, 50_000.0, move |core| {
        word.0.swap(new(core), SeqCst);
    });
    report.duration_ns / exchanges.iter().sum::<u64>() as f64
}

#[test]
fn a_restart_costs_exchanges_and_no_additions() {
    let with_restart = |restart_ns| {
        let mut machine = machine(8);
        machine.core.restart_ns = restart_ns;
        (fetch_add_ns(&machine, 2).0, exchange_ns(&machine, |core| core as u64))
    };
    let ((add_ns, exchange_ns), (add_restarting_ns, exchange_restarting_ns)) =
        (with_restart(0.0), with_restart(5.0));
    assert_eq!(add_ns, add_restarting_ns);
    assert!(exchange_restarting_ns > 1.2 * exchange_ns);
}

/// Who waited for a line and finds in it what was there before goes on as it was going.
#[test]
fn a_line_that_nobody_changed_surprises_nobody() {
    let with_restart = |restart_ns| {
        let mut machine = machine(8);
        machine.core.restart_ns = restart_ns;
        exchange_ns(&machine, |_| 1)
    };
    assert_eq!(with_restart(0.0), with_restart(5.0));
}

#[test]
fn windows_of_ownership_vary_by_the_spread() {
    let runs = |spread| {
        let mut machine = machine(0);
        machine.directory.ownership_spread = spread;
        machine.directory.ownership_share = 0.9;
        let word = Rc::new(Padded(SimU64::new("word", 0)));
        let lengths = Rc::new(Cell::new([0_u32; 64]));
        let mut simulation = Simulation::new(&machine, 1);
        for core in 0..2 {
            let (word, lengths) = (Rc::clone(&word), Rc::clone(&lengths));
            let code = move || {
                let (mut last, mut length) = (u64::MAX, 0);
                while now_ns() < 20_000.0 {
                    let seen = word.0.fetch_add(1, SeqCst);
                    if seen == last.wrapping_add(1) {
                        length += 1;
                    } else {
                        let mut found = lengths.get();
                        found[length] += 1;
                        lengths.set(found);
                        length = 0;
                    }
                    last = seen;
                }
            };
            simulation.spawn(core, code).expect("the machine has the core");
        }
        simulation.run().expect("it runs");
        lengths.get().iter().filter(|&&count| count > 5).count()
    };
    assert!(runs(0.5) > runs(0.0) + 2, "lengths: {} and {}", runs(0.5), runs(0.0));
}

#[test]
fn code_is_hidden_behind_accesses_that_hit() {
    let [word, other] = [0; 2].map(|_| Rc::new(Padded(SimU64::new("word", 0))));
    let mut simulation = Simulation::new(&machine(8), 1);
    let code = move || {
        let charged_ns = || {
            let before_ns = now_ns();
            advance_after_stall(7.0);
            now_ns() - before_ns
        };
        word.0.swap(1, SeqCst);
        assert!((charged_ns() - 7.0).abs() < 0.01, "it came from memory");
        word.0.swap(1, SeqCst);
        assert_eq!(charged_ns(), 0.0, "it was here");
        other.0.fetch_add(1, SeqCst);
        assert_eq!(charged_ns(), 0.0, "it came from memory, and nothing hangs on a sum");
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
}

#[test]
fn reading_the_clock_takes_its_time() {
    let mut machine = machine(8);
    machine.core.clock_ns = 25.0;
    let mut simulation = Simulation::new(&machine, 1);
    let code = || {
        advance(100.0);
        let free_ns = now_ns();
        assert_eq!(now_ns(), free_ns);
        assert!((read_clock_ns() - free_ns - 25.0).abs() < 0.01);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    assert_eq!(read_clock_ns(), 0.0);
}

/// Returns the nanoseconds for each of the steps of two cores.
fn step_ns(run_ahead: u32, step: impl Fn() + 'static) -> f64 {
    let (steps, report) = rounds(&machine(run_ahead), 1, 2, 50_000.0, move |_| step());
    report.duration_ns / steps.iter().sum::<u64>() as f64
}

/// Two cores add to two lines in turn: each loses the line that it will want next, and asks again.
#[test]
fn a_line_that_was_lost_is_asked_for_again() {
    let two_lines_ns = |run_ahead| {
        let lines = [0, 1].map(|_| Padded(SimU64::new("line", 0)));
        step_ns(run_ahead, move || {
            for line in &lines {
                line.0.fetch_add(1, SeqCst);
            }
        })
    };
    let (in_order_ns, ahead_ns) = (two_lines_ns(0), two_lines_ns(8));
    assert!(ahead_ns < 0.85 * in_order_ns, "{ahead_ns} and {in_order_ns} ns");
}

/// Returns how long a core waits for a line that it uses with an atomic, between four lines of its own,
/// while another core takes the line now and then, in nanoseconds; and how often it was taken.
fn wait_for_a_taken_line_ns(atomics_run_ahead: bool) -> (f64, u64) {
    const WINDOW_NS: f64 = 50_000.0;
    let mut machine = machine(8);
    machine.core.atomics_run_ahead = atomics_run_ahead;
    let taken = Rc::new(Padded(SimU64::new("taken", 0)));
    let mut simulation = Simulation::new(&machine, 1);
    let shared = Rc::clone(&taken);
    let waited = Rc::new(Cell::new(0.0));
    let waits = Rc::clone(&waited);
    let owner = move || {
        let own = [0; 4].map(|_| Padded(SimU64::new("own", 0)));
        while now_ns() < WINDOW_NS {
            let before_ns = now_ns();
            shared.0.fetch_add(1, SeqCst);
            waits.set(waits.get() + now_ns() - before_ns);
            for line in &own {
                line.0.fetch_add(1, SeqCst);
            }
        }
    };
    simulation.spawn(0, owner).expect("the machine has the core");
    let times = Rc::new(Cell::new(0));
    let counted = Rc::clone(&times);
    let taker = move || {
        while now_ns() < WINDOW_NS {
            // A store does not keep the line when it has taken effect.
            taken.0.store(1, Relaxed);
            counted.set(counted.get() + 1);
            advance(500.0);
        }
    };
    simulation.spawn(1, taker).expect("the machine has the core");
    simulation.run().expect("it runs");
    (waited.get(), times.get())
}

/// The instructions behind the current one are in flight whether the core waits or not: an atomic on a
/// line that another core takes asks for it again while the core executes what comes before.
#[test]
fn a_core_asks_again_before_it_misses_it() {
    let ((late_ns, times), (at_once_ns, _)) =
        (wait_for_a_taken_line_ns(false), wait_for_a_taken_line_ns(true));
    let earlier_ns = (late_ns - at_once_ns) / times as f64;
    // It is somewhere among four accesses of its own when it loses the line.
    let own_ns = 4.0 * machine(8).hit.atomic_ns;
    assert!(earlier_ns > 0.2 * own_ns && earlier_ns < own_ns, "{earlier_ns} of {own_ns} ns");
}

/// Two cores exchange on two lines, in opposite orders: each takes the line that the other had asked
/// for ahead.
#[test]
fn a_core_pays_for_lines_lost_before_it_was_used() {
    let step_ns = |replay_ns| {
        let mut machine = machine(8);
        machine.core.replay_ns = Some(replay_ns);
        let lines = [0, 1, 2].map(|_| Padded(SimU64::new("line", 0)));
        let (steps, report) = rounds(&machine, 1, 2, 50_000.0, move |core| {
            for place in 0..3 {
                let line = if core == 0 { place } else { 2 - place };
                lines[line].0.swap(core as u64, SeqCst);
            }
        });
        report.duration_ns / steps.iter().sum::<u64>() as f64
    };
    let [free, dear] = [0.0, 10.0].map(step_ns);
    let charged = (dear - free) / 10.0;
    assert!(charged > 0.2 && charged < 1.6, "{charged} replays a step, {free} and {dear} ns");
    // By the restart where the machine has no figure of its own.
    let restart_ns = machine(8).core.restart_ns;
    let mut without = machine(8);
    without.core.replay_ns = None;
    let mut with = machine(8);
    with.core.replay_ns = Some(restart_ns);
    assert_eq!(exchange_ns(&without, |core| core as u64), exchange_ns(&with, |core| core as u64));
}

/// Returns the steps that a core makes which adds to a line and then to some of its own, while another
/// core reads the first line now and then.
fn steps_beside_a_reader<const OWN: usize>(disturbed_ns: f64) -> u64 {
    const WINDOW_NS: f64 = 50_000.0;
    let mut machine = machine(8);
    machine.core.disturbed_ns = disturbed_ns;
    let shared = Rc::new(Padded(SimU64::new("shared", 0)));
    let steps = Rc::new(Cell::new(0));
    let mut simulation = Simulation::new(&machine, 1);
    let (used, counted) = (Rc::clone(&shared), Rc::clone(&steps));
    let owner = move || {
        let own = [0; OWN].map(|_| Padded(SimU64::new("own", 0)));
        while now_ns() < WINDOW_NS {
            used.0.fetch_add(1, SeqCst);
            for line in &own {
                line.0.fetch_add(1, SeqCst);
            }
            counted.set(counted.get() + 1);
        }
    };
    simulation.spawn(0, owner).expect("the machine has the core");
    let reader = move || {
        while now_ns() < WINDOW_NS {
            shared.0.load(Relaxed);
            advance(400.0);
        }
    };
    simulation.spawn(1, reader).expect("the machine has the core");
    simulation.run().expect("it runs");
    steps.get()
}

/// The holder of a lock does not pay for a look of a waiter while its next atomic on the lock is far.
#[test]
fn a_read_costs_what_is_in_flight_on_the_line_and_nothing_else() {
    fn lost_share<const OWN: usize>() -> f64 {
        let [free, dear] = [0.0, 100.0].map(steps_beside_a_reader::<OWN>);
        1.0 - dear as f64 / free as f64
    }
    // Of four accesses the one on the line is always among the next eight, of 32 a quarter of the time.
    let (near, far) = (lost_share::<3>(), lost_share::<31>());
    assert!(near > 0.15 && far < 0.5 * near, "{near} near, {far} far");
}

/// Works on two lines of one core's own, by `step`, while another core reads the first of them now and then;
/// returns the cost of each of these reads to the first core, in nanoseconds.
fn lost_by_a_read_ns(disturbed_ns: f64, step: fn(&SimU64, &SimU64)) -> f64 {
    const WINDOW_NS: f64 = 100_000.0;
    let mut machine = machine(8);
    machine.core.disturbed_ns = disturbed_ns;
    let steps_and_reads = |reads: bool| {
        let lines = Rc::new([0, 1].map(|_| Padded(SimU64::new("line", 0))));
        let count = Rc::new(Cell::new((0_u64, 0_u64)));
        let mut simulation = Simulation::new(&machine, 1);
        let (owned, counted) = (Rc::clone(&lines), Rc::clone(&count));
        let owner = move || {
            while now_ns() < WINDOW_NS {
                step(&owned[0].0, &owned[1].0);
                counted.set((counted.get().0 + 1, counted.get().1));
            }
        };
        simulation.spawn(0, owner).expect("the machine has the core");
        let counted = Rc::clone(&count);
        let reader = move || {
            while reads && now_ns() < WINDOW_NS {
                lines[0].0.load(Relaxed);
                counted.set((counted.get().0, counted.get().1 + 1));
                advance(200.0);
            }
        };
        simulation.spawn(1, reader).expect("the machine has the core");
        simulation.run().expect("it runs");
        count.get()
    };
    let (alone, disturbed) = (steps_and_reads(false).0, steps_and_reads(true));
    WINDOW_NS * (1.0 - disturbed.0 as f64 / alone as f64) / disturbed.1 as f64
}

#[test]
fn a_read_costs_its_owner_what_it_had_executed_ahead() {
    let in_turn: fn(&SimU64, &SimU64) = |first, second| {
        first.fetch_add(1, SeqCst);
        second.fetch_add(1, SeqCst);
    };
    let extra_ns = |step| lost_by_a_read_ns(25.0, step) - lost_by_a_read_ns(0.0, step);
    let both_ns = extra_ns(in_turn);
    assert!((both_ns - 25.0).abs() < 1.5, "{both_ns}");
    let transfer_ns = machine(8).transfer.same_llc_ns;
    let without_ns = lost_by_a_read_ns(0.0, in_turn);
    assert!((without_ns / transfer_ns - 1.0).abs() < 0.2, "{without_ns}");
    // On one line each atomic waits for the one before, and on another line than the one that is
    // read nothing is lost.
    assert_eq!(extra_ns(|first, _| _ = first.fetch_add(1, SeqCst)), 0.0);
    assert_eq!(extra_ns(|_, second| _ = second.fetch_add(1, SeqCst)), 0.0);
}

/// A line that was asked for ahead is kept by additions only: for others a longer window makes no
/// difference.
#[test]
fn a_line_that_was_asked_for_ahead_is_kept_by_additions_only() {
    let by_share = |step: fn(&SimU64)| {
        [0.1, 0.9].map(|share| {
            let mut machine = machine(8);
            machine.directory.ownership_share = share;
            let lines = [0, 1].map(|_| Padded(SimU64::new("line", 0)));
            let (steps, _) = rounds(&machine, 1, 2, 50_000.0, move |_| {
                for line in &lines {
                    step(&line.0);
                }
            });
            steps.iter().sum::<u64>() as f64
        })
    };
    let [added, added_kept] = by_share(|word| _ = word.fetch_add(1, SeqCst));
    let [exchanged, exchanged_kept] = by_share(|word| _ = word.swap(1, SeqCst));
    let (additions, exchanges) = (added_kept / added, exchanged_kept / exchanged);
    println!("{additions} {exchanges}");
    assert!(additions > 1.2 * exchanges, "{additions} and {exchanges}");
}

/// Lets a core own a line and, if `exchanges`, exchange on it at 5000 ns; another one reads it, beginning at a
/// time. Returns the value that it reads and when it has it, in nanoseconds.
fn read_beside_exchange(machine: &MachineModel, exchanges: bool, asked_at_ns: f64) -> (u64, f64) {
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let seen = Rc::new(Cell::new((0, 0.0)));
    let mut simulation = Simulation::new(machine, 1);
    simulation.start_spread_ns(0.0);
    let owned = Rc::clone(&word);
    let owner = move || {
        owned.0.store(1, SeqCst);
        advance(5_000.0 - now_ns());
        if exchanges {
            owned.0.swap(2, SeqCst);
        }
    };
    simulation.spawn(0, owner).expect("the machine has the core");
    let by_reader = Rc::clone(&seen);
    let reader = move || {
        advance(asked_at_ns);
        let value = word.0.load(Relaxed);
        by_reader.set((value, now_ns()));
    };
    simulation.spawn(1, reader).expect("the machine has the core");
    simulation.run().expect("it runs");
    seen.get()
}

/// Who asks for a line on which an atomic has begun gets it when that has ended.
#[test]
fn an_atomic_that_has_begun_keeps_its_line_to_the_end() {
    const ATOMIC_NS: f64 = 200.0;
    let mut machine = machine(8);
    machine.hit.atomic_ns = ATOMIC_NS;
    let [(_, free_ns), (_, kept_ns)] =
        [false, true].map(|exchanges| read_beside_exchange(&machine, exchanges, 5_010.0));
    assert!(free_ns < 5_000.0 + ATOMIC_NS, "{free_ns}");
    assert!(kept_ns > 5_000.0 + ATOMIC_NS, "{kept_ns}");
}

/// A request that is served while an atomic has its line locked takes the line when the atomic has ended;
/// one that is served earlier takes it before.
#[test]
fn an_atomic_keeps_its_line_from_when_it_has_locked_it() {
    const ATOMIC_NS: f64 = 200.0;
    const TRANSFER_NS: f64 = 300.0;
    let [(before, before_ns), (after, after_ns)] = [0.2, 0.8].map(|atomic_locked| {
        let mut machine = machine(0);
        machine.hit.atomic_ns = ATOMIC_NS;
        machine.transfer.same_llc_ns = TRANSFER_NS;
        machine.core.atomic_locked = atomic_locked;
        // Served in the middle of the atomic.
        read_beside_exchange(&machine, true, 5_000.0 + ATOMIC_NS / 2.0 - TRANSFER_NS / 2.0)
    });
    assert_eq!((before, after), (1, 2), "at {before_ns} and {after_ns} ns");
    // Half an atomic later, but for the variation of latencies.
    assert!(after_ns > before_ns + 0.3 * ATOMIC_NS, "{before_ns} and {after_ns}");
}

/// A core that waits with an atomic for a store to leave its buffer has less of the window.
#[test]
fn a_store_has_to_leave_the_buffer_first() {
    let steps = |share: f64, drained_window: f64| {
        let mut machine = machine(0);
        machine.directory.ownership_share = share;
        machine.directory.drained_window = drained_window;
        // It is the store that misses the line, and not the atomic before it.
        machine.core.atomic_locked = 0.9;
        let line = Padded(SimU64::new("line", 0));
        let (steps, _) = rounds(&machine, 1, 2, 50_000.0, move |_| {
            line.0.store(1, Relaxed);
            line.0.swap(2, SeqCst);
        });
        steps.iter().sum::<u64>() as f64
    };
    let (whole, quarter) = (steps(0.9, 1.0), steps(0.9, 0.25));
    assert!(whole > 1.3 * quarter, "{whole} and {quarter}");
    // Where there is no window, there is nothing to have less of.
    assert_eq!(steps(0.0, 1.0), steps(0.0, 0.25));
}

/// Where an atomic is a barrier nothing behind one that waits is asked for; behind a load, the lines of
/// atomics are.
#[test]
fn lines_are_asked_for_behind_a_load_and_not_behind_an_atomic() {
    let mut barrier = machine(8);
    barrier.core.atomics_run_ahead = false;
    let transfers = |machine: &MachineModel, step: fn(usize, &SimU64)| {
        turn_ns(machine, step) / machine.transfer.same_llc_ns
    };
    let exchanges: fn(usize, &SimU64) = |_, word| _ = word.swap(1, SeqCst);
    let mixed: fn(usize, &SimU64) = |place, word| {
        if place % 4 == 0 {
            word.load(Relaxed);
        }
        word.swap(1, SeqCst);
    };
    let one_by_one = transfers(&machine(0), exchanges);
    let behind_atomics = transfers(&barrier, exchanges);
    assert!((behind_atomics / one_by_one - 1.0).abs() < 0.02, "{behind_atomics}, {one_by_one}");
    let (apart, behind_loads) = (transfers(&machine(0), mixed), transfers(&barrier, mixed));
    assert!(behind_loads < 0.6 * apart, "{behind_loads} and {apart} transfers");
}
