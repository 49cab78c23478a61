//! Orders that the model's memory allows: total store order, as x86 has it, and no more.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use cellbench_sim::protocol::Protocol;
use cellbench_sim::{
    End, Interrupt, MachineModel, SimU32, SimU64, Simulation, Trigger, advance, fence, now_ns,
    wait_until,
};
use common::{Padded, rounds};

/// Runs two cores, each of which stores to its word and then loads the other's; returns whether
/// some seed showed both loads the old value.
fn store_buffering(barrier: fn(&Padded<SimU64>)) -> bool {
    // Cores 0 and 8 are in different LLCs.
    let machine = MachineModel::preset("desktop").expect("a built-in machine");
    (0..40).any(|seed| {
        let words = Rc::new([0, 1].map(|_| Padded(SimU64::new("word", 0))));
        let scratch = Rc::new([0, 1].map(|_| Padded(SimU64::new("scratch", 0))));
        let seen = Rc::new([Cell::new(9), Cell::new(9)]);
        let mut simulation = Simulation::new(&machine, seed);
        for side in 0..2 {
            let (words, seen) = (Rc::clone(&words), Rc::clone(&seen));
            let scratch = Rc::clone(&scratch);
            let code = move || {
                // Both lines are shared, so that each store has to wait for its line.
                words[0].0.load(Relaxed);
                words[1].0.load(Relaxed);
                while now_ns() < 2_000.0 {
                    advance(1.0);
                }
                words[side].0.store(1, Relaxed);
                barrier(&scratch[side]);
                seen[side].set(words[1 - side].0.load(Relaxed));
            };
            simulation.spawn(8 * side, code).expect("the machine has the core");
        }
        simulation.run().expect("it runs");
        assert_eq!([words[0].0.peek(), words[1].0.peek()], [1, 1]);
        seen.iter().all(|value| value.get() == 0)
    })
}

#[test]
fn a_load_passes_an_older_store_unless_something_drains_the_store_buffer() {
    assert!(store_buffering(|_| ()), "the store buffer never shows");
    assert!(!store_buffering(|_| fence(SeqCst)), "a fence leaves stores behind");
    let locked = |scratch: &Padded<SimU64>| {
        scratch.0.swap(1, Relaxed);
    };
    assert!(!store_buffering(locked), "a locked instruction leaves stores behind");
    let ordered = |scratch: &Padded<SimU64>| scratch.0.store(1, SeqCst);
    assert!(!store_buffering(ordered), "a SeqCst store leaves stores behind");
}

/// Sends numbers from one core to another: first the content, then a flag by `publish`.
fn messages(machine: &MachineModel, from: usize, publish: fn(&SimU64, u64)) {
    for seed in 0..40 {
        let [before, data, flag] =
            ["before", "data", "flag"].map(|label| Rc::new(Padded(SimU64::new(label, 0))));
        let mut simulation = Simulation::new(machine, seed);
        let (contended, sent_data, sent_flag) =
            (Rc::clone(&before), Rc::clone(&data), Rc::clone(&flag));
        let send = move || {
            for round in 1..20 {
                // Others want the line of the first: those of the data and the flag arrive earlier.
                contended.0.store(round, Relaxed);
                sent_data.0.store(round, Relaxed);
                publish(&sent_flag.0, round);
            }
        };
        for core in 1..8 {
            let contended = Rc::clone(&before);
            let code = move || {
                for _ in 0..40 {
                    contended.0.fetch_add(1, Relaxed);
                }
            };
            simulation.spawn(core, code).expect("the machine has the core");
        }
        simulation.spawn(from, send).expect("the machine has the core");
        let name = machine.name.clone();
        let receive = move || {
            let mut last = 0;
            while last < 19 {
                last = wait_until(|| Some(flag.0.load(Acquire)).filter(|&flag| flag > last));
                assert!(data.0.load(Relaxed) >= last, "{name}, seed {seed}");
            }
        };
        simulation.spawn(0, receive).expect("the machine has the core");
        simulation.run().expect("it runs");
    }
}

/// Also where read-modify-writes that do not release pass older stores, as on Arm.
#[test]
fn a_message_is_never_seen_before_its_content() {
    // Another socket: the data's line is far, the flag's may be near.
    for (machine, from) in [("epyc-genoa-2s", 96), ("graviton3", 63)] {
        let machine = MachineModel::preset(machine).expect("a built-in machine");
        messages(&machine, from, |flag, round| flag.store(round, Release));
        messages(&machine, from, |flag, round| flag.store(round, SeqCst));
        messages(&machine, from, |flag, round| {
            flag.swap(round, AcqRel);
        });
        messages(&machine, from, |flag, _| {
            flag.fetch_add(1, Release);
        });
        messages(&machine, from, |flag, round| {
            flag.compare_exchange(round - 1, round, Release, Relaxed).expect("nobody else writes");
        });
    }
}

/// The flag's line is here when it is written, the data's is not: the younger store would be done at
/// once, and may not be seen before the older.
#[test]
fn a_store_that_hits_does_not_overtake_one_that_waits() {
    let machine = MachineModel::preset("epyc-genoa-2s").expect("a built-in machine");
    for seed in 0..40 {
        let data = Rc::new(Padded(SimU64::new("data", 0)));
        let flag = Rc::new(Padded(SimU64::new("flag", 0)));
        let mut simulation = Simulation::new(&machine, seed);
        let (sent_data, sent_flag) = (Rc::clone(&data), Rc::clone(&flag));
        let send = move || {
            sent_flag.0.swap(0, Relaxed);
            while now_ns() < 2_000.0 {
                advance(1.0);
            }
            sent_data.0.store(1, Relaxed);
            sent_flag.0.store(1, Release);
        };
        simulation.spawn(96, send).expect("the machine has the core");
        // A neighbour, which has the flag soon and still has its old copy of the data, as long as
        // the invalidation is under way to the far one.
        let far = Rc::clone(&data);
        let takes = move || {
            far.0.swap(0, Relaxed);
        };
        simulation.spawn(0, takes).expect("the machine has the core");
        let receive = move || {
            while now_ns() < 1_000.0 {
                advance(1.0);
            }
            data.0.load(Relaxed);
            while now_ns() < 2_000.0 + seed as f64 * 5.0 {
                advance(1.0);
            }
            let sent = flag.0.load(Acquire) == 1;
            assert!(!sent || data.0.load(Relaxed) == 1, "seed {seed}");
        };
        simulation.spawn(97, receive).expect("the machine has the core");
        simulation.run().expect("it runs");
    }
}

#[test]
fn a_core_sees_its_own_stores_at_once_whole_or_narrow() {
    let machine = MachineModel::preset("desktop").expect("a built-in machine");
    let word = Rc::new(Padded(SimU32::new("word", 0)));
    let mut simulation = Simulation::new(&machine, 1);
    let shared = Rc::clone(&word);
    simulation.spawn(1, move || shared.0.store(0x0102_0304, SeqCst)).expect("core 1 exists");
    let mine = Rc::clone(&word);
    let code = move || {
        cellbench_sim::advance(10_000.0);
        // The line is in the other core's cache: these wait in the store buffer.
        mine.0.store_low_byte(0xff, Relaxed);
        assert_eq!(mine.0.load_low_byte(Relaxed), 0xff);
        assert_eq!(mine.0.load(Relaxed), 0x0102_03ff);
        mine.0.store(7, Relaxed);
        mine.0.store_low_half(8, Relaxed);
        assert_eq!(mine.0.load(Relaxed), 8);
    };
    simulation.spawn(0, code).expect("core 0 exists");
    simulation.run().expect("it runs");
    assert_eq!(word.0.peek(), 8);
}

#[test]
fn no_addition_is_lost_by_any_protocol_on_any_distance() {
    for name in ["desktop", "epyc-genoa-2s", "xeon-spr-2s", "graviton3"] {
        let machine = MachineModel::preset(name).expect("a built-in machine");
        // With SMT siblings among them where there are any.
        let cores = machine.places().len().min(384);
        let counter = Rc::new(Padded(SimU64::new("counter", 0)));
        let shared = Rc::clone(&counter);
        let (counts, _) = rounds(&machine, 3, cores, 3_000.0, move |_| {
            let seen = shared.0.load(Acquire);
            assert!(shared.0.fetch_add(1, SeqCst) >= seen, "{name}: time runs backwards");
        });
        assert_eq!(counter.0.peek(), counts.iter().sum::<u64>(), "{name}");
    }
}

/// Passes a token round among cores near and far, siblings among them, over packed words, while others write
/// to the same line, interrupts come and cores are stalled: whoever sleeps through a change stops it for
/// good.
fn token_goes_round(protocol: Protocol, drains: bool, seed: u64) -> End {
    const ROUNDS: u64 = 12;
    #[repr(align(64))]
    struct Line {
        token: SimU64,
        half: SimU32,
        noise: SimU32,
    }
    let mut machine = MachineModel::preset("desktop").expect("a built-in machine");
    machine.protocol = protocol;
    machine.store_buffer.drained_by_atomics = drains;
    machine.store_buffer.entries = 2;
    let line = Rc::new(Line {
        token: SimU64::new("token", 0),
        half: SimU32::new("half", 0),
        noise: SimU32::new("noise", 0),
    });
    let ring = [0, 16, 8, 1, 24, 9];
    let mut simulation = Simulation::new(&machine, seed);
    simulation.time_limit_ns(10e6);
    for (place, core) in ring.into_iter().enumerate() {
        let shared = Rc::clone(&line);
        let code = move || {
            for round in 0..ROUNDS {
                let turn = round * ring.len() as u64 + place as u64;
                wait_until(|| (shared.token.load(Acquire) == turn).then_some(()));
                // A narrow store and a load of the whole word, before the token goes on.
                shared.half.store_low_half(turn as u16, Relaxed);
                assert_eq!(u64::from(shared.half.load(Relaxed)), turn & 0xffff);
                match turn % 3 {
                    0 => shared.token.store(turn + 1, Release),
                    1 => shared.token.store(turn + 1, SeqCst),
                    _ => {
                        shared.token.swap(turn + 1, AcqRel);
                    }
                }
            }
        };
        simulation.spawn(core, code).expect("the machine has the core");
        let shared = Rc::clone(&line);
        let tick = move || {
            shared.noise.fetch_add(1, Relaxed);
        };
        let often = Trigger::Random { mean_ns: 900.0 };
        simulation.interrupt(core, Interrupt::Irq, often, tick).expect("the core exists");
        let seldom = Trigger::Random { mean_ns: 5_000.0 };
        simulation.stall(core, seldom, 300.0).expect("the core exists");
    }
    let shared = Rc::clone(&line);
    let noise = move || {
        for _ in 0..200 {
            shared.noise.store(1, Relaxed);
            advance(40.0);
        }
    };
    simulation.spawn(2, noise).expect("core 2 exists");
    let report = simulation.run().expect("it runs");
    if report.end == End::Completed {
        assert_eq!(line.token.peek(), ROUNDS * ring.len() as u64);
    }
    report.end
}

#[test]
fn nobody_sleeps_through_a_change() {
    for protocol in [Protocol::Mesi, Protocol::Mesif, Protocol::Moesi] {
        for drains in [true, false] {
            for seed in 0..40 {
                let end = token_goes_round(protocol, drains, seed);
                assert_eq!(end, End::Completed, "{protocol:?}, drains: {drains}, seed {seed}");
            }
        }
    }
}

/// Siblings and other cores store, exchange and add to four lines, each in a pattern of its own: a
/// store whose line was here before that of an older one leaves the buffer behind it.
#[test]
fn no_store_stays_in_its_buffer() {
    let machine = MachineModel::preset("xeon-spr-2s").expect("a built-in machine");
    let siblings = machine.places().len() / 2;
    // Seed 33 is the one of the first 2000 with a store that stayed.
    for seed in 20..40_usize {
        let words = || Padded([0; 4].map(|_| SimU64::new("word", 0)));
        let lines: Rc<Vec<_>> = Rc::new((0..4).map(|_| words()).collect());
        let mut simulation = Simulation::new(&machine, seed as u64);
        for worker in 0..4 {
            let lines = Rc::clone(&lines);
            let mut random = (seed * 1000 + worker + 1) as u64;
            let mut draw = move || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize
            };
            let pattern: Vec<usize> = (0..seed % 7 + 2).map(|_| draw()).collect();
            let code = move || {
                for step in 0..60 {
                    let choice =
                        if step % 11 == 10 { draw() } else { pattern[step % pattern.len()] };
                    let [first, second, third, fourth] = &lines[(choice >> 20) % 4].0;
                    match (choice >> 8) % 5 {
                        0 => first.store(1, Relaxed),
                        1 => assert!(second.load(Acquire) <= 3),
                        2 => assert!(fourth.swap(2, AcqRel) <= 2),
                        3 => assert!(third.fetch_add(1, Relaxed) < 240),
                        _ => second.store(3, Release),
                    }
                }
            };
            let core = worker / 2 + worker % 2 * siblings;
            simulation.spawn(core, code).expect("the machine has the core");
        }
        assert_eq!(simulation.run().expect("it runs").end, End::Completed, "seed {seed}");
    }
}

/// A store that waits for an older one may lose its line meanwhile. It asks for it again at once, and so
/// has it by its turn.
#[test]
fn a_buffered_store_that_loses_its_line_asks_for_it_again_at_once() {
    let through_ns = |take: Option<fn(&SimU64)>| {
        let machine = common::steady("desktop");
        let near = Rc::new(Padded(SimU64::new("near", 0)));
        let far = Rc::new(Padded(SimU64::new("far", 0)));
        let through_ns = Rc::new(Cell::new(0.0));
        let mut simulation = Simulation::new(&machine, 1);
        simulation.start_spread_ns(0.0);
        let (first, second, through) = (Rc::clone(&far), Rc::clone(&near), Rc::clone(&through_ns));
        let writer = move || {
            second.0.swap(1, Relaxed);
            advance(1_000.0 - now_ns());
            first.0.store(1, Relaxed);
            second.0.store(2, Relaxed);
            fence(SeqCst);
            through.set(now_ns());
        };
        simulation.spawn(0, writer).expect("core 0 exists");
        // Core 8 is in the other LLC.
        let owner = move || {
            far.0.swap(2, Relaxed);
        };
        simulation.spawn(8, owner).expect("core 8 exists");
        let taker = move || {
            if let Some(take) = take {
                advance(1_000.0 - now_ns());
                take(&near.0);
            }
        };
        simulation.spawn(1, taker).expect("core 1 exists");
        simulation.run().expect("it runs");
        through_ns.get()
    };
    let undisturbed = through_ns(None);
    let taken = through_ns(Some(|near| {
        near.swap(3, Relaxed);
    }));
    assert!(taken - undisturbed < 1.0, "{taken} against {undisturbed} ns");
    let read = through_ns(Some(|near| {
        near.load(Relaxed);
    }));
    assert!(read - undisturbed < 1.0, "{read} against {undisturbed} ns");
}

/// Whoever waited for a line keeps it for a while. A store in the store buffer keeps nobody waiting
/// but the line's next reader, unless an atomic waits behind it.
#[test]
fn a_line_that_a_buffered_store_asked_for_is_not_kept() {
    let seen_ns = |ownership_share, write: fn(&SimU64, &SimU64)| {
        let mut machine = MachineModel::preset("desktop").expect("a built-in machine");
        machine.directory.ownership_share = ownership_share;
        machine.core.jitter = 0.0;
        let word = Rc::new(Padded(SimU64::new("word", 0)));
        let other = Padded(SimU64::new("other", 0));
        let seen_ns = Rc::new(Cell::new(0.0));
        let mut simulation = Simulation::new(&machine, 1);
        simulation.start_spread_ns(0.0);
        let written = Rc::clone(&word);
        let writer = move || {
            other.0.swap(1, Relaxed);
            advance(1_000.0);
            write(&written.0, &other.0);
            // Its code does not end before the store has left: that would be waiting for it.
            advance(1_000.0);
        };
        simulation.spawn(0, writer).expect("core 0 exists");
        let seen = Rc::clone(&seen_ns);
        let reader = move || {
            word.0.swap(0, Relaxed);
            while word.0.load(Relaxed) == 0 {}
            seen.set(now_ns());
        };
        simulation.spawn(1, reader).expect("core 1 exists");
        simulation.run().expect("it runs");
        seen_ns.get()
    };
    let kept_longer_ns = |write| seen_ns(0.9, write) - seen_ns(0.1, write);
    let swapped = kept_longer_ns(|word, _| {
        word.swap(1, Relaxed);
    });
    assert!(swapped > 5.0, "{swapped}");
    let stored = kept_longer_ns(|word, _| word.store(1, Relaxed));
    assert!(stored.abs() < 1.0, "{stored}");
    let awaited = kept_longer_ns(|word, other| {
        word.store(1, Relaxed);
        other.swap(2, Relaxed);
    });
    assert!(awaited > 5.0, "{awaited}");
}
