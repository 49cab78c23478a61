//! Interruptions of a core, how cores wait, and how a run ends.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use cellbench_sim::machine::MachineModel;
use cellbench_sim::{
    End, Interrupt, SimError, SimU64, Simulation, TimelineEvent, Trigger, advance, current_core,
    mask_interrupts, now_ns, operation, pause, send_interrupt, set_operation, unmask_interrupts,
    wait_until, wait_until_deadline,
};
use common::{Padded, rounds, steady};

fn word(label: &'static str) -> Rc<Padded<SimU64>> {
    Rc::new(Padded(SimU64::new(label, 0)))
}

/// Returns a log that code and handlers write to, and its writer.
fn log() -> (Rc<RefCell<Vec<String>>>, impl Fn(&str) + Clone + 'static) {
    let log = Rc::new(RefCell::new(Vec::new()));
    let writer = Rc::clone(&log);
    (log, move |entry: &str| writer.borrow_mut().push(entry.to_owned()))
}

#[test]
fn an_interrupt_comes_at_its_time_on_top_of_the_code() {
    let (log, note) = log();
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    simulation.start_spread_ns(0.0);
    let code_note = note.clone();
    let code = move || {
        code_note("before");
        advance(10_000.0);
        code_note("after");
    };
    simulation.spawn(3, code).expect("core 3 exists");
    let handler = move || {
        assert_eq!(current_core(), Some(3));
        assert!((now_ns() - 4_000.0).abs() < 500.0, "handled at {}", now_ns());
        note("handler");
    };
    simulation.interrupt(3, Interrupt::Irq, Trigger::At { at_ns: 4_000.0 }, handler).expect("3");
    let report = simulation.run().expect("it runs");
    assert_eq!(*log.borrow(), ["before", "handler", "after"]);
    assert_eq!(report.cores[0].interrupts, 1);
}

#[test]
fn masked_interrupts_wait_and_an_nmi_does_not() {
    let (log, note) = log();
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    for (kind, name) in [(Interrupt::Irq, "irq"), (Interrupt::Nmi, "nmi")] {
        let note = note.clone();
        let trigger = Trigger::At { at_ns: 1_000.0 };
        simulation.interrupt(0, kind, trigger, move || note(name)).expect("core 0 exists");
    }
    let code = move || {
        mask_interrupts();
        mask_interrupts();
        advance(5_000.0);
        note("masked");
        unmask_interrupts();
        note("still masked");
        unmask_interrupts();
        note("open");
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    assert_eq!(*log.borrow(), ["nmi", "masked", "still masked", "irq", "open"]);
}

#[test]
fn an_nmi_interrupts_an_interrupt_handler_and_not_the_other_way_round() {
    let (log, note) = log();
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let (irq, nmi) = (note.clone(), note.clone());
    let irq_at = Trigger::At { at_ns: 1_000.0 };
    let irq_code = move || {
        irq("irq begins");
        advance(5_000.0);
        irq("irq ends");
    };
    simulation.interrupt(0, Interrupt::Irq, irq_at, irq_code).expect("core 0 exists");
    let nmi_at = Trigger::At { at_ns: 3_000.0 };
    let nmi_code = move || {
        nmi("nmi begins");
        advance(5_000.0);
        nmi("nmi ends");
    };
    simulation.interrupt(0, Interrupt::Nmi, nmi_at, nmi_code).expect("core 0 exists");
    let second = note;
    let second_at = Trigger::At { at_ns: 3_500.0 };
    simulation.interrupt(0, Interrupt::Irq, second_at, move || second("second irq")).expect("0");
    simulation.spawn(0, || advance(30_000.0)).expect("core 0 exists");
    simulation.run().expect("it runs");
    let expected = ["irq begins", "nmi begins", "nmi ends", "irq ends", "second irq"];
    assert_eq!(*log.borrow(), expected);
}

#[test]
fn an_nmi_can_be_placed_before_every_access() {
    for number in 1..=4 {
        let word = word("word");
        let seen = Rc::new(Cell::new(u64::MAX));
        let mut simulation = Simulation::new(&steady("desktop"), 1);
        let (inside, result) = (Rc::clone(&word), Rc::clone(&seen));
        let handler = move || result.set(inside.0.peek());
        let trigger = Trigger::BeforeAccess { number };
        simulation.interrupt(0, Interrupt::Nmi, trigger, handler).expect("core 0 exists");
        let code = move || {
            for _ in 0..4 {
                word.0.fetch_add(1, SeqCst);
            }
        };
        simulation.spawn(0, code).expect("core 0 exists");
        simulation.run().expect("it runs");
        assert_eq!(seen.get(), number - 1);
    }
}

#[test]
fn an_interrupt_reaches_a_core_that_waits_and_may_end_its_wait() {
    let word = word("word");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let condition = Rc::clone(&word);
    let code = move || {
        wait_until(|| (condition.0.load(Acquire) == 1).then_some(()));
        assert!(now_ns() < 3_000.0, "woken at {}", now_ns());
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let sender = move || {
        let word = Rc::clone(&word);
        advance(1_000.0);
        assert!(send_interrupt(0, Interrupt::Irq, 100.0, move || word.0.store(1, Release)));
    };
    simulation.spawn(1, sender).expect("core 1 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(report.end, End::Completed);
}

#[test]
fn what_was_sent_is_served_before_the_receivers_code_ends() {
    let served = Rc::new(Cell::new(0));
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let inside = Rc::clone(&served);
    let code = move || {
        let (first, second) = (Rc::clone(&inside), inside);
        assert!(send_interrupt(0, Interrupt::Irq, 5_000.0, move || first.set(first.get() + 1)));
        assert!(send_interrupt(0, Interrupt::Nmi, 7_000.0, move || second.set(second.get() + 1)));
        assert!(!send_interrupt(5, Interrupt::Irq, 0.0, || ()), "core 5 has no code");
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    assert_eq!(served.get(), 2);
}

#[test]
fn rates_are_kept() {
    for trigger in [
        Trigger::Every { first_ns: 500.0, period_ns: 1_000.0 },
        Trigger::Random { mean_ns: 1_000.0 },
    ] {
        let count = Rc::new(Cell::new(0_u32));
        let mut simulation = Simulation::new(&steady("desktop"), 5);
        let inside = Rc::clone(&count);
        let handler = move || inside.set(inside.get() + 1);
        simulation.interrupt(0, Interrupt::Irq, trigger, handler).expect("core 0 exists");
        let code = || {
            while now_ns() < 400_000.0 {
                advance(200.0);
            }
        };
        simulation.spawn(0, code).expect("core 0 exists");
        simulation.run().expect("it runs");
        assert!((340..460).contains(&count.get()), "{trigger:?}: {} times", count.get());
    }
}

#[test]
fn a_stalled_holder_stalls_the_waiters_and_is_accounted_for() {
    let lock = word("lock");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    for core in 0..2 {
        let lock = Rc::clone(&lock);
        let code = move || {
            advance(500.0 * core as f64);
            wait_until(|| (lock.0.swap(1, Acquire) == 0).then_some(()));
            advance(1_000.0);
            lock.0.store(0, Release);
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    simulation.stall(0, Trigger::At { at_ns: 800.0 }, 50_000.0).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert!((report.cores[0].off_ns - 50_000.0).abs() < 1.0, "{}", report.cores[0].off_ns);
    assert!(report.cores[1].spin_ns > 49_000.0, "{}", report.cores[1].spin_ns);
    assert!(report.cores[1].finished_ns.expect("it finished") > 51_000.0);
}

#[test]
fn a_stopped_holder_is_a_deadlock_and_the_report_says_who_waits_for_what() {
    let lock = word("lock");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    for core in 0..3 {
        let lock = Rc::clone(&lock);
        let code = move || {
            advance(1_000.0 * core as f64);
            wait_until(|| {
                (lock.0.load(Relaxed) == 0 && lock.0.swap(1, Acquire) == 0).then_some(())
            });
            lock.0.fetch_add(0, Relaxed);
            lock.0.store(0, Release);
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    // Between taking the lock and releasing it.
    simulation.stall(0, Trigger::BeforeAccess { number: 3 }, f64::INFINITY).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(report.end, End::Deadlock);
    assert_eq!(report.cores[0].waiting_for, None);
    for waiter in &report.cores[1..] {
        assert_eq!((waiter.waiting_for.as_deref(), waiter.finished_ns), (Some("lock"), None));
    }
}

#[test]
fn a_core_stopped_for_ever_leaves_the_others_to_complete() {
    let count = word("count");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    for core in 0..2 {
        let count = Rc::clone(&count);
        let code = move || {
            for _ in 0..100 {
                count.0.fetch_add(1, Relaxed);
            }
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    let trigger = Trigger::BeforeAccess { number: 51 };
    simulation.stall(0, trigger, f64::INFINITY).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!((report.end, count.0.peek()), (End::Completed, 150));
    assert_eq!(report.cores[0].finished_ns, None);
}

/// Code that is off its core cannot be preempted: with a period below the duration it never gets
/// back to it, and that is all.
#[test]
fn preemptions_do_not_nest() {
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    simulation.time_limit_ns(100_000_000.0);
    let often = Trigger::Every { first_ns: 1_000.0, period_ns: 100.0 };
    simulation.preempt(0, often, 20_000.0).expect("core 0 exists");
    simulation.spawn(0, || advance(10_000.0)).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(report.end, End::TimeLimit);
    assert!(report.cores[0].off_ns > 90_000_000.0, "{}", report.cores[0].off_ns);
}

#[test]
fn preemption_serves_interrupts_and_respects_masking() {
    let machine = steady("desktop");
    let (log, note) = log();
    let mut simulation = Simulation::new(&machine, 1);
    simulation.preempt(0, Trigger::At { at_ns: 1_000.0 }, 20_000.0).expect("core 0 exists");
    let handler_note = note.clone();
    let handler = move || {
        assert!(now_ns() < 6_000.0, "an interrupt waited until {}", now_ns());
        handler_note("irq");
    };
    simulation.interrupt(0, Interrupt::Irq, Trigger::At { at_ns: 5_000.0 }, handler).expect("0");
    let code = move || {
        mask_interrupts();
        advance(2_000.0);
        assert!(now_ns() < 2_500.0, "preempted while masked");
        note("masked over");
        unmask_interrupts();
        assert!(now_ns() > 20_000.0, "not preempted");
        note("back");
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(*log.borrow(), ["masked over", "irq", "back"]);
    let expected_ns = 20_000.0 + 2.0 * machine.core.context_switch_ns;
    assert!((report.cores[0].off_ns - expected_ns).abs() < 1.0, "{}", report.cores[0].off_ns);
}

#[test]
fn a_deadline_is_looked_at_without_anybody_touching_the_line() {
    let lock = word("lock");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let code = move || {
        let outcome = wait_until_deadline(1_000.0, || match lock.0.load(Acquire) {
            0 if now_ns() > 250_000.0 => Some(Err("timed out")),
            0 => None,
            value => Some(Ok(value)),
        });
        assert_eq!(outcome, Err("timed out"));
        assert!(now_ns() < 252_000.0, "noticed at {}", now_ns());
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!(report.end, End::Completed);
    assert!(report.totals.loads < 300, "{} looks", report.totals.loads);
    assert!(report.totals.spin_loads > 5_000, "a spinning core reads all the time");
}

#[test]
fn the_time_limit_ends_a_run_that_would_go_on() {
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    simulation.time_limit_ns(10_000.0);
    let count = word("count");
    let code = move || loop {
        count.0.fetch_add(1, Relaxed);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation
        .spawn(1, || {
            loop {
                pause();
                advance(600.0)
            }
        })
        .expect("core 1 exists");
    let report = simulation.run().expect("it runs");
    assert_eq!((report.end, report.duration_ns), (End::TimeLimit, 10_000.0));
    let possible = 10_000.0 / steady("desktop").hit.atomic_ns;
    assert!((report.totals.rmws as f64 - possible).abs() < 0.1 * possible);
}

#[test]
fn smt_siblings_share_a_cache_and_slow_each_other_down() {
    let machine = steady("desktop");
    let sibling = 16;
    assert_eq!(machine.places()[0], machine.places()[sibling]);
    let alone = rounds(&machine, 1, 1, 20_000.0, |_| advance(10.0)).0[0] as f64;
    let both = Rc::new(Cell::new(0_u32));
    let mut simulation = Simulation::new(&machine, 1);
    let word = word("word");
    for core in [0, sibling] {
        let (both, word) = (Rc::clone(&both), Rc::clone(&word));
        let code = move || {
            while now_ns() < 20_000.0 {
                advance(10.0);
                both.set(both.get() + 1);
                word.0.fetch_add(1, Relaxed);
            }
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    let report = simulation.run().expect("it runs");
    assert_eq!(report.totals.transfers(), 0, "a line moved between siblings");
    let with_atomic = alone * 10.0 / (10.0 + machine.hit.atomic_ns);
    let expected = 2.0 * with_atomic / machine.core.smt_slowdown;
    assert!((f64::from(both.get()) - expected).abs() < 0.05 * expected, "{}", both.get());
}

/// Each sibling writes two words until it finds there what it wrote: in step they would overwrite each
/// other's for ever.
#[test]
fn siblings_in_one_loop_do_not_stay_in_step() {
    let machine = MachineModel::preset("desktop").expect("a built-in machine");
    for seed in 0..20 {
        let words = Rc::new(Padded([SimU64::new("first", 0), SimU64::new("second", 0)]));
        let mut simulation = Simulation::new(&machine, seed);
        simulation.time_limit_ns(1e6).start_spread_ns(0.0);
        for (mark, core) in [(1, 0), (2, 16)] {
            let words = Rc::clone(&words);
            let code = move || {
                let [first, second] = &words.0;
                for _ in 0..100 {
                    loop {
                        first.swap(mark, AcqRel);
                        second.store(mark, Release);
                        if first.load(Acquire) == mark && second.load(Acquire) == mark {
                            break;
                        }
                    }
                }
            };
            simulation.spawn(core, code).expect("the machine has the core");
        }
        let end = simulation.run().expect("it runs").end;
        assert_eq!(end, End::Completed, "seed {seed}");
    }
}

#[test]
fn a_sibling_that_waits_sees_the_write() {
    let machine = MachineModel::preset("desktop").expect("a built-in machine");
    for seed in 0..20 {
        let word = word("word");
        let mut simulation = Simulation::new(&machine, seed);
        for (side, core) in [0, 16].into_iter().enumerate() {
            let word = Rc::clone(&word);
            let code = move || {
                for round in 0..20 {
                    let turn = 2 * round + side as u64;
                    wait_until(|| (word.0.load(Acquire) == turn).then_some(()));
                    word.0.store(turn + 1, Release);
                }
            };
            simulation.spawn(core, code).expect("the core exists");
        }
        let report = simulation.run().expect("it runs");
        assert_eq!((report.end, report.totals.transfers()), (End::Completed, 0));
    }
}

#[test]
fn accesses_are_attributed_to_label_and_operation() {
    let (a, b) = (word("a"), word("b"));
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let code = move || {
        a.0.load(Relaxed);
        {
            let _outer = operation("outer");
            a.0.store(1, Relaxed);
            {
                let _inner = operation("inner");
                b.0.fetch_add(1, Relaxed);
            }
            b.0.load(Relaxed);
            assert_eq!(set_operation("later"), "outer");
        }
        a.0.load(Relaxed);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let report = simulation.run().expect("it runs");
    let rows: Vec<_> = report
        .rows
        .iter()
        .map(|row| {
            let counters = &row.counters;
            let counts = (counters.loads, counters.stores, counters.rmws);
            (row.label.as_str(), row.operation.as_str(), counts)
        })
        .collect();
    let expected = [
        ("a", "", (2, 0, 0)),
        ("a", "outer", (0, 1, 0)),
        ("b", "inner", (0, 0, 1)),
        ("b", "outer", (1, 0, 0)),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn the_timeline_tells_the_life_of_the_line() {
    let machine = steady("graviton3");
    let word = word("word");
    let mut simulation = Simulation::new(&machine, 1);
    simulation.start_spread_ns(0.0).record_timeline("word", 100);
    let (first, second) = (Rc::clone(&word), word);
    let writer = move || {
        advance(1_000.0);
        first.0.swap(1, Release);
    };
    simulation.spawn(0, writer).expect("core 0 exists");
    simulation
        .spawn(1, move || wait_until(|| (second.0.load(Acquire) == 1).then_some(())))
        .expect("core 1 exists");
    let timeline = simulation.run().expect("it runs").timeline.expect("it was asked for");
    let told: Vec<_> = timeline.events.iter().map(|event| (event.core, event.event)).collect();
    let expected = [
        (1, TimelineEvent::Request),
        (1, TimelineEvent::Arrival),
        (1, TimelineEvent::Access),
        (1, TimelineEvent::Sleep),
        (0, TimelineEvent::Request),
        (1, TimelineEvent::Wake),
        // It asks again while the writer still waits for the line.
        (1, TimelineEvent::Request),
        (0, TimelineEvent::Arrival),
        (0, TimelineEvent::Access),
        (1, TimelineEvent::Arrival),
        (1, TimelineEvent::Access),
    ];
    assert_eq!(told, expected);
    assert!(timeline.events.is_sorted_by(|a, b| a.at_ns <= b.at_ns));
}

/// Destructors of a core that panics may be the first to touch words of the simulation.
#[test]
fn destructors_after_a_panic_may_touch_new_words() {
    struct Clear(Rc<Padded<SimU64>>);
    impl Drop for Clear {
        fn drop(&mut self) {
            self.0.0.swap(7, Release);
        }
    }
    let words = ["first", "second", "third"].map(word);
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    let touched = words.clone();
    let code = move || {
        let _guards = touched.map(Clear);
        advance(1_000.0);
        panic!("planted");
    };
    simulation.spawn(0, code).expect("core 0 exists");
    // Keeps the simulation going, so that the other core would have to be left.
    let busy = || {
        let own = word("own");
        while now_ns() < 5_000.0 {
            own.0.swap(1, Release);
        }
    };
    simulation.spawn(1, busy).expect("core 1 exists");
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
    outcome.expect_err("the panic is passed on");
    assert_eq!(words.map(|word| word.0.peek()), [7; 3], "the destructors ran");
}

#[test]
fn a_panic_on_a_core_is_the_panic_of_the_run() {
    struct Unlock(Rc<Padded<SimU64>>);
    impl Drop for Unlock {
        fn drop(&mut self) {
            self.0.0.store(0, Release);
        }
    }
    let lock = word("lock");
    let mut simulation = Simulation::new(&steady("desktop"), 1);
    for core in 0..2 {
        let lock = Rc::clone(&lock);
        let code = move || {
            advance(100.0 * core as f64);
            wait_until(|| (lock.0.swap(1, Acquire) == 0).then_some(()));
            let _guard = Unlock(Rc::clone(&lock));
            advance(1_000.0);
            assert_ne!(core, 0, "planted");
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
    let payload = outcome.expect_err("the panic is passed on");
    let message = payload.downcast_ref::<String>().expect("a formatted message");
    assert!(message.contains("planted"), "{message}");
    assert_eq!(lock.0.peek(), 0, "the destructors ran");
    let next = rounds(&steady("desktop"), 1, 2, 1_000.0, |_| advance(10.0));
    assert_eq!(next.1.end, End::Completed, "the next simulation runs");
}

#[test]
fn mistakes_in_setting_up_are_told_in_one_line() {
    let machine = steady("graviton3");
    let mut simulation = Simulation::new(&machine, 1);
    simulation.spawn(0, || ()).expect("core 0 exists");
    let taken = simulation.spawn(0, || ()).expect_err("taken");
    assert!(matches!(taken, SimError::CoreTaken { core: 0 }));
    let missing = simulation.spawn(64, || ()).expect_err("missing");
    assert_eq!(
        missing.to_string(),
        "machine `graviton3` has no hardware thread 64: choose one from 0 to 63"
    );
    let mut outer = Simulation::new(&machine, 1);
    outer
        .spawn(0, move || {
            let nested = Simulation::new(&machine, 1).run();
            assert!(matches!(nested, Err(SimError::Nested)));
        })
        .expect("core 0 exists");
    outer.run().expect("it runs");
}

#[test]
fn setup_and_inspection_need_no_simulation_and_cost_nothing() {
    let word = SimU64::new("word", 1);
    assert_eq!(word.fetch_add(1, SeqCst), 1);
    assert_eq!((now_ns(), current_core()), (0.0, None));
    advance(1e9);
    assert_eq!(wait_until(|| Some(word.load(Relaxed))), 2);
    assert!(!send_interrupt(0, Interrupt::Irq, 0.0, || ()));
    let waiting = || wait_until(|| (word.load(Relaxed) == 3).then_some(()));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(waiting));
    assert!(outcome.is_err(), "nobody could end this wait");
}
