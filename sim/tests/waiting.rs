//! Waiting: when a condition is run, and what its loads cost.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use cellbench_sim::{
    Interrupt, Report, SimU64, Simulation, Trigger, advance, now_ns, wait_until,
    wait_until_deadline,
};
use common::{Padded, steady};

/// Two words of one line.
type Pair = Padded<[SimU64; 2]>;

fn pair() -> Rc<Pair> {
    Rc::new(Padded([SimU64::new("flag", 0), SimU64::new("other", 0)]))
}

/// Runs `waiter` on core 0 while core 1 writes the second word ten times and then the first, a microsecond
/// apart.
fn beside_a_writer(pair: &Rc<Pair>, waiter: impl FnOnce() + 'static) -> Report {
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    simulation.spawn(0, waiter).expect("core 0 exists");
    let pair = Rc::clone(pair);
    let writer = move || {
        for round in 1..=10 {
            advance(1_000.0);
            pair.0[1].store(round, Release);
        }
        advance(1_000.0);
        pair.0[0].store(1, Release);
    };
    simulation.spawn(1, writer).expect("core 1 exists");
    simulation.run().expect("it runs")
}

#[test]
fn a_condition_is_run_when_what_it_read_has_changed_and_its_loads_are_charged_each_time() {
    let (pair, runs) = (pair(), Rc::new(Cell::new(0)));
    let (flag, count) = (Rc::clone(&pair), Rc::clone(&runs));
    let report = beside_a_writer(&pair, move || {
        wait_until(|| {
            count.set(count.get() + 1);
            (flag.0[0].load(Acquire) == 1).then_some(())
        });
        assert!((11_000.0..11_500.0).contains(&now_ns()), "woken at {}", now_ns());
    });
    assert_eq!(runs.get(), 2, "at first, and when the flag is there");
    let waited: Vec<_> = report.rows.iter().filter(|row| row.label == "flag").collect();
    assert_eq!(waited[0].counters.loads, 12, "at first, and each time that the line is written");
}

#[test]
fn what_a_condition_does_besides_loading_is_done_each_time() {
    let (pair, runs) = (pair(), Rc::new(Cell::new(0)));
    let (flag, count) = (Rc::clone(&pair), Rc::clone(&runs));
    beside_a_writer(&pair, move || {
        wait_until(|| {
            count.set(count.get() + 1);
            flag.0[0].compare_exchange(1, 2, SeqCst, Relaxed).ok()
        });
    });
    assert_eq!((runs.get(), pair.0[0].peek()), (12, 2));
    runs.set(0);
    let (looked_at, count) = (self::pair(), Rc::clone(&runs));
    let flag = Rc::clone(&looked_at);
    beside_a_writer(&looked_at, move || {
        wait_until(|| {
            count.set(count.get() + 1);
            flag.0[0].load(Acquire);
            (flag.0[0].peek() == 1).then_some(())
        });
    });
    assert_eq!(runs.get(), 12, "a look past the model may have found anything");
}

#[test]
fn a_condition_with_a_deadline_is_run_each_time() {
    let (pair, runs) = (pair(), Rc::new(Cell::new(0)));
    let (flag, count) = (Rc::clone(&pair), Rc::clone(&runs));
    let report = beside_a_writer(&pair, move || {
        wait_until_deadline(1e6, || {
            count.set(count.get() + 1);
            (flag.0[0].load(Acquire) == 1).then_some(())
        });
    });
    assert_eq!(runs.get(), 12);
    let waited: Vec<_> = report.rows.iter().filter(|row| row.label == "flag").collect();
    assert_eq!(waited[0].counters.loads, 12, "no load is performed twice");
}

#[test]
fn a_condition_sees_the_values_of_all_its_loads() {
    let words = [0; 3].map(|_| Rc::new(Padded(SimU64::new("word", 0))));
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let waiter = words.clone();
    let code = move || {
        let mut seen = Vec::new();
        let sum = wait_until(|| {
            // One more word is read each time that the one before it was written.
            let mut sum = 0;
            for word in &waiter {
                let value = word.0.load(Acquire);
                sum += value;
                if value == 0 {
                    seen.push(sum);
                    return None;
                }
            }
            Some(sum)
        });
        assert_eq!((seen, sum), (vec![0, 1, 3], 7));
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let writer = move || {
        for (number, word) in words.iter().enumerate() {
            advance(1_000.0);
            word.0.store(1 << number, Release);
        }
    };
    simulation.spawn(1, writer).expect("core 1 exists");
    simulation.run().expect("it runs");
}

#[test]
fn a_handler_that_waits_itself_leaves_the_interrupted_wait_as_it_was() {
    let (outer, inner) = (pair(), pair());
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let flag = Rc::clone(&outer);
    let code = move || {
        wait_until(|| (flag.0[0].load(Acquire) == 1).then_some(()));
        assert!(now_ns() > 9_000.0, "woken at {}", now_ns());
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let flag = Rc::clone(&inner);
    let handler = move || wait_until(|| (flag.0[0].load(Acquire) == 1).then_some(()));
    let at_ns = 2_010.0;
    simulation.interrupt(0, Interrupt::Irq, Trigger::At { at_ns }, handler).expect("core 0 exists");
    let writer = move || {
        for word in [&outer.0[1], &inner.0[1], &inner.0[0], &outer.0[1], &outer.0[0]] {
            advance(2_000.0);
            word.store(1, Release);
        }
    };
    simulation.spawn(1, writer).expect("core 1 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(report.cores[0].interrupts, 1);
}

/// A waiter looks each time that its pause has ended, not at any time: writes that come between two
/// of its looks are seen together.
#[test]
fn a_waiter_looks_when_its_pause_has_ended() {
    let mut machine = steady("desktop");
    // Far longer than the line takes to move: a look at that time waits for it.
    machine.core.pause_ns = 1_000.0;
    let round_ns = machine.core.pause_ns + machine.hit.load_ns;
    let seen_ns = |written_ns: f64| {
        let pair = pair();
        let mut simulation = Simulation::new(&machine, 1);
        simulation.start_spread_ns(0.0);
        let (flag, seen) = (Rc::clone(&pair), Rc::new(Cell::new(0.0)));
        let at = Rc::clone(&seen);
        let waiter = move || {
            wait_until(|| (flag.0[0].load(Acquire) == 1).then_some(()));
            at.set(now_ns());
        };
        simulation.spawn(0, waiter).expect("core 0 exists");
        let writer = move || {
            advance(written_ns);
            pair.0[0].store(1, Release);
        };
        simulation.spawn(1, writer).expect("core 1 exists");
        simulation.run().expect("it runs");
        seen.get()
    };
    let mut seen: Vec<f64> =
        (0..40).map(|step| seen_ns(5_000.0 + round_ns * f64::from(step) / 40.0)).collect();
    seen.dedup();
    assert!(seen.len() <= 4, "{seen:?}");
    assert!((seen[seen.len() - 1] - seen[0] - round_ns).abs() < 1.0, "{seen:?}");
}
