//! Who supplies a line, under each protocol, and what lines remember.

mod common;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use cellbench_sim::machine::MachineModel;
use cellbench_sim::protocol::Protocol;
use cellbench_sim::report::Counters;
use cellbench_sim::{End, Report, SimU64, Simulation, advance, operation};
use common::{Padded, fetch_add_ns, rounds, steady};

fn with_protocol(protocol: Protocol) -> MachineModel {
    let mut machine = steady("xeon-spr-2s");
    machine.protocol = protocol;
    machine
}

/// Runs core 0, which writes a word; then cores 1, 2 and one of the other socket read it, one by one.
fn write_then_read(protocol: Protocol) -> Report {
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let mut simulation = Simulation::new(&with_protocol(protocol), 1);
    simulation.start_spread_ns(0.0);
    for (turn, core) in [0, 1, 2, 56].into_iter().enumerate() {
        let word = Rc::clone(&word);
        let code = move || {
            advance(1_000.0 * turn as f64);
            let _operation = operation(["write", "first", "second", "third"][turn]);
            if turn == 0 {
                word.0.swap(1, SeqCst);
            } else {
                assert_eq!(word.0.load(SeqCst), 1);
            }
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    simulation.run().expect("it runs")
}

fn row(report: &Report, operation: &str) -> Counters {
    let row = report.rows.iter().find(|row| row.operation == operation);
    row.expect("the operation was counted").counters
}

#[test]
fn the_first_reader_of_a_modified_line_gets_it_from_its_owner_everywhere() {
    for protocol in [Protocol::Mesi, Protocol::Mesif, Protocol::Moesi] {
        let report = write_then_read(protocol);
        assert_eq!(row(&report, "write").memory_fills, 1);
        let first = row(&report, "first");
        assert_eq!((first.transfers_same_llc, first.hitms), (1, 1), "{protocol:?}");
    }
}

#[test]
fn later_readers_are_served_by_llc_forwarder_or_owner() {
    let mesi = write_then_read(Protocol::Mesi);
    assert_eq!(row(&mesi, "first").writebacks, 1);
    assert_eq!((row(&mesi, "second").llc_fills, row(&mesi, "second").transfers()), (1, 0));
    assert_eq!(row(&mesi, "third").transfers_cross_socket, 1);

    let mesif = write_then_read(Protocol::Mesif);
    assert_eq!(row(&mesif, "first").writebacks, 1);
    let second = row(&mesif, "second");
    assert_eq!((second.transfers_same_llc, second.hitms, second.llc_fills), (1, 0, 0));
    assert_eq!(row(&mesif, "third").transfers_cross_socket, 1);

    let moesi = write_then_read(Protocol::Moesi);
    assert_eq!(moesi.totals.writebacks, 0);
    let second = row(&moesi, "second");
    assert_eq!((second.transfers_same_llc, second.hitms), (1, 1), "the owner still has it dirty");
}

#[test]
fn writing_a_shared_line_invalidates_every_copy_and_needs_no_data() {
    let machine = steady("xeon-spr-2s");
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let mut simulation = Simulation::new(&machine, 1);
    for core in 0..10 {
        let word = Rc::clone(&word);
        let code = move || {
            word.0.load(Relaxed);
            advance(10_000.0);
            if core == 0 {
                let _operation = operation("upgrade");
                word.0.swap(1, SeqCst);
            }
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    let upgrade = row(&simulation.run().expect("it runs"), "upgrade");
    assert_eq!((upgrade.rfos, upgrade.upgrades, upgrade.invalidations), (1, 1, 9));
    assert_eq!(upgrade.transfers(), 0);
    let expected_ns = machine.transfer.same_llc_ns + 8.0 * machine.directory.snoop_issue_ns;
    assert!((upgrade.wait_ns - expected_ns).abs() < 0.1, "{} ns", upgrade.wait_ns);
}

#[test]
fn many_readers_are_served_at_the_pace_of_the_directory() {
    let machine = steady("xeon-spr-2s");
    let readers = 40;
    let word = Rc::new(Padded(SimU64::new("word", 0)));
    let mut simulation = Simulation::new(&machine, 1);
    simulation.start_spread_ns(0.0);
    for core in 0..=readers {
        let word = Rc::clone(&word);
        let code = move || {
            if core == 0 {
                word.0.swap(1, SeqCst);
            } else {
                advance(10_000.0);
                word.0.load(Relaxed);
            }
        };
        simulation.spawn(core, code).expect("the core exists");
    }
    let report = simulation.run().expect("it runs");
    let line = &report.lines[0];
    assert_eq!(line.longest_queue, readers as u64);
    let last_ns = report.duration_ns - 10_000.0;
    let expected_ns = readers as f64 * machine.directory.service_ns;
    assert!((expected_ns..expected_ns + 100.0).contains(&last_ns), "{last_ns} ns");
}

#[test]
fn a_fresh_word_is_in_its_creators_cache() {
    let mut simulation = Simulation::new(&steady("xeon-spr-2s"), 1);
    let shelf = Rc::new(OnceCell::new());
    let maker = Rc::clone(&shelf);
    let code = move || {
        let fresh = Box::new(Padded(SimU64::new("fresh", 0)));
        fresh.0.load(Relaxed);
        assert!(maker.set(fresh).is_ok());
    };
    simulation.spawn(0, code).expect("core 0 exists");
    let code = move || {
        advance(5_000.0);
        shelf.get().expect("it was made").0.load(Relaxed);
    };
    simulation.spawn(1, code).expect("core 1 exists");
    let totals = simulation.run().expect("it runs").totals;
    assert_eq!((totals.memory_fills, totals.hits, totals.transfers()), (0, 1, 1));
}

#[test]
fn freed_memory_is_forgotten_and_lines_of_one_layout_are_one_entry() {
    let shelf: RefCell<Option<Rc<Padded<SimU64>>>> = RefCell::default();
    let (counts, report) = rounds(&steady("desktop"), 1, 2, 50_000.0, move |core| {
        if core == 0 {
            let fresh = Rc::new(Padded(SimU64::new("object", 0)));
            fresh.0.store(1, Relaxed);
            shelf.replace(Some(fresh));
        } else {
            let object = shelf.borrow().clone();
            if let Some(object) = object {
                object.0.load(Relaxed);
            }
        }
        advance(50.0);
    });
    let objects = &report.lines[0];
    assert_eq!(report.lines.len(), 1, "{:?}", report.lines);
    assert!(objects.lines > counts[0] / 2, "{} of {} objects", objects.lines, counts[0]);
    assert_eq!(objects.fields.len(), 1);
}

#[test]
fn more_than_256_cores_work() {
    let machine = MachineModel::preset("epyc-genoa-2s").expect("a built-in machine");
    let (_, report) = fetch_add_ns(&machine, 384);
    assert_eq!((report.end, report.cores.len()), (End::Completed, 384));
    assert!(report.totals.transfers_cross_socket > 0);
}

/// Upgrades of a word that both of two cores read and then write, or of which one only reads; and
/// its transfers.
fn read_then_write(migratory: bool, both_write: bool) -> (u64, u64) {
    let mut machine = steady("epyc-genoa-2s");
    machine.directory.migratory = migratory;
    let word = Padded(SimU64::new("word", 0));
    let (_, report) = rounds(&machine, 1, 2, 40_000.0, move |core| {
        let seen = word.0.load(Relaxed);
        if both_write || core == 0 {
            word.0.store(seen + 1, SeqCst);
        }
        advance(900.0);
    });
    (report.totals.upgrades, report.totals.transfers())
}

#[test]
fn a_migratory_line_moves_once_for_a_read_and_a_write() {
    let ((with, _), (without, _)) = (read_then_write(true, true), read_then_write(false, true));
    assert!(without > 50 && with < 10, "{with} upgrades with detection, {without} without");
}

#[test]
fn a_line_that_one_core_only_reads_stays_with_its_writer() {
    assert_eq!(read_then_write(true, false), read_then_write(false, false));
}
