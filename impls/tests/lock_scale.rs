//! The papers' findings on how locks scale, checked on a simulated machine: two sockets of Genoa, few cores
//! of each so that it is quick.
//!
//! - J. Mellor-Crummey, M. Scott, TOCS 1991, and S. Boyd-Wickizer et al., OLS 2012: under load a
//!   test-and-set or ticket lock slows down with every waiter, a queue lock does not.
//! - M. Chabbi et al., PPoPP 2015; D. Dice, A. Kogan, EuroSys 2019: across sockets locks that prefer a
//!   node are faster than MCS, by a factor between about 1.4 and 3.
//! - D. Dice, A. Kogan, EuroPar 2019: TWA keeps a ticket lock from collapsing.
//!
//! The papers' sections look up and change a tree or a map. So where a lock is held against MCS the section
//! changes as many lines; with one line alone the word of CNA, which newcomers, head and holder share
//! where MCS has a line for each waiter, costs more than the data.
//!
//! Also counted: cache lines that move for each section, which is what tells these designs apart.

#[expect(dead_code, reason = "lock_space holds the other column")]
mod lock_table;

use std::cell::{Cell, UnsafeCell};
use std::rc::Rc;

use cellbench_impls::lock::GivesUp;
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::platform::{IntWord, Memory, Ordering, Sim, Word};
use cellbench_impls::registry::{LockVisitor, visit_lock};
use cellbench_impls::{CpuId, Lock, Machine};
use cellbench_sim::{End, MachineModel, Simulation, now_ns};

const WINDOW_NS: f64 = 150_000.0;
/// As long as it takes to see the bounds of a thousand handovers.
const LONG_NS: f64 = 2_000_000.0;
const SOCKET: usize = 96;
/// Time between two sections of a CPU: much less than it waits.
const OUTSIDE_NS: u32 = 50;

/// Figures of a run.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Sections in a microsecond, all CPUs together.
    per_us: f64,
    /// Lines that moved for a section.
    transfers: f64,
    /// Sections of the CPU that had least, and most.
    least: u64,
    most: u64,
    /// Sections that others had at most between a CPU's call and its own section.
    passed: u64,
}

/// Counts of the sections that have begun, and of those that did while a CPU waited.
struct Turns {
    served: u64,
    /// For each CPU, how many had at its last call.
    came: Vec<u64>,
    passed: u64,
}

impl Turns {
    /// Notes that a CPU calls.
    fn come(&mut self, cpu: usize) {
        self.came[cpu] = self.served;
    }

    /// Notes that its section begins.
    fn serve(&mut self, cpu: usize) {
        self.passed = self.passed.max(self.served - self.came[cpu]);
        self.served += 1;
    }
}

/// Lines that are padded by themselves.
#[repr(align(128))]
struct OnItsLine<T>(T);

/// Cores that take one lock around a section that changes so many lines.
struct Run<'a> {
    cores: &'a [usize],
    lines: usize,
    window_ns: f64,
}

impl LockVisitor<Sim> for Run<'_> {
    type Output = Seen;

    fn visit<L: Lock<Sim>>(self) -> Seen {
        let model = MachineModel::preset("epyc-genoa-2s").expect("built in");
        let places = model.places();
        let config = MachineConfig {
            numa_nodes: self.cores.iter().map(|core| places[*core].socket as u16).collect(),
            ..MachineConfig::new(self.cores.len() as u32)
        };
        // Boxed: fibers are forgotten at the end of a window, with all they own.
        let machine: &'static Machine<Sim> = Box::leak(Box::new(Machine::new(config)));
        let lock: &'static OnItsLine<L> = Box::leak(Box::new(OnItsLine(L::new())));
        let data: &'static [OnItsLine<<Sim as Memory>::U64>] =
            (0..self.lines).map(|_| OnItsLine(Word::new("data", 0))).collect::<Vec<_>>().leak();
        let counts: Rc<Vec<Cell<u64>>> = Rc::new(self.cores.iter().map(|_| Cell::new(0)).collect());
        let inside = Rc::new(UnsafeCell::new(0_u64));
        let turns = Rc::new(UnsafeCell::new(Turns {
            served: 0,
            came: vec![0; self.cores.len()],
            passed: 0,
        }));
        let window_ns = self.window_ns;
        let mut simulation = Simulation::new(&model, 1);
        for (number, core) in self.cores.iter().enumerate() {
            let (counts, inside) = (Rc::clone(&counts), Rc::clone(&inside));
            let turns = Rc::clone(&turns);
            let code = move || {
                let cpu = machine.cpu(CpuId(number as u32));
                while now_ns() < window_ns {
                    let section =
                        Section { data, inside: inside.get(), turns: turns.get(), cpu: number };
                    // SAFETY: fibers of one thread, and no access of the simulator before the end.
                    unsafe { &mut *turns.get() }.come(number);
                    let outcome = lock.0.run(&cpu, move |_| section.run());
                    if outcome.is_ok() {
                        counts[number].set(counts[number].get() + 1);
                    }
                    Sim::spend(OUTSIDE_NS);
                }
            };
            simulation.spawn(*core, code).expect("a core of the machine");
        }
        let report = simulation.run().expect("nothing panics");
        assert_eq!(report.end, End::Completed, "{}", L::ID);
        let sections: u64 = counts.iter().map(Cell::get).sum();
        // SAFETY: the run is over.
        assert_eq!(unsafe { *inside.get() }, sections, "{}: mutual exclusion", L::ID);
        assert!(data.iter().all(|line| line.0.load(Ordering::Relaxed) == sections), "{}", L::ID);
        Seen {
            per_us: sections as f64 / report.duration_ns * 1e3,
            transfers: report.totals.transfers() as f64 / sections as f64,
            least: counts.iter().map(Cell::get).min().unwrap_or_default(),
            most: counts.iter().map(Cell::get).max().unwrap_or_default(),
            // SAFETY: the run is over.
            passed: unsafe { &*turns.get() }.passed,
        }
    }
}

/// A section: changes its lines, and counts without help of the simulator.
#[derive(Clone, Copy)]
struct Section {
    data: &'static [OnItsLine<<Sim as Memory>::U64>],
    inside: *mut u64,
    turns: *mut Turns,
    /// Whose it is.
    cpu: usize,
}

// SAFETY: virtual cores are fibers of one thread.
unsafe impl Send for Section {}

impl Section {
    fn run(self) {
        // SAFETY: under the lock, which is what the count is to show.
        let before = unsafe { *self.inside };
        // SAFETY: fibers of one thread, and no access of the simulator before the end.
        unsafe { &mut *self.turns }.serve(self.cpu);
        for line in self.data {
            line.0.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { *self.inside = before + 1 };
    }
}

/// Runs a lock on these cores, with so many lines of data.
fn run_with(lock: &str, cores: &[usize], lines: usize) -> Seen {
    run_for(WINDOW_NS, lock, cores, lines)
}

/// Runs as [`run_with`] does, for a time of simulated nanoseconds.
fn run_for(window_ns: f64, lock: &str, cores: &[usize], lines: usize) -> Seen {
    let run = Run { cores, lines, window_ns };
    let seen = visit_lock::<Sim, _>(lock, run).expect("registered");
    println!("{lock:16} {:3} cores, {lines} lines: {seen:.2?}", cores.len());
    seen
}

/// Runs as [`run_with`], with one line.
fn run(lock: &str, cores: &[usize]) -> Seen {
    run_with(lock, cores, 1)
}

/// Four cores of four core complexes, so that lines go as far as they do among [`many`].
const FEW: &[usize] = &[0, 8, 16, 24];

/// Returns 32 cores of one socket.
fn many() -> Vec<usize> {
    (0..32).collect()
}

/// Returns eight cores of each socket, which take turns in the order of arrival.
fn both_sockets() -> Vec<usize> {
    (0..8).flat_map(|core| [core, SOCKET + core]).collect()
}

/// Returns the ratio of a lock's throughput with many cores to that with few.
fn kept(lock: &str) -> f64 {
    run(lock, &many()).per_us / run(lock, FEW).per_us
}

#[test]
fn queue_locks_stay_flat_and_others_collapse() {
    for lock in ["mcs", "clh", "hmcs", "hemlock", "hapax", "reciprocating", "mcs-abortable"] {
        let kept = kept(lock);
        assert!(kept > 0.7, "{lock} kept {kept:.2} of its throughput");
    }
    let flat = kept("mcs");
    for lock in ["spin-tas", "ttas", "ticket"] {
        let kept = kept(lock);
        assert!(kept < 0.6 * flat, "{lock} kept {kept:.2}, mcs {flat:.2}");
    }
    let (twa, ticket) = (run("twa", &many()), run("ticket", &many()));
    assert!(twa.per_us > 1.5 * ticket.per_us, "twa {twa:?}, ticket {ticket:?}");
    let backoff = run("ticket-backoff", &many());
    assert!(backoff.per_us > 1.3 * ticket.per_us, "{backoff:?}, without {ticket:?}");
}

#[test]
fn locks_that_prefer_a_node_win_across_sockets() {
    // Those that fit one word or grew from it against the queued spinlock, as their papers have it.
    for (lock, other) in [("cna", "spin-queued"), ("hmcs", "mcs"), ("shfllock", "spin-queued")] {
        let (seen, plain) = (run(lock, &both_sockets()), run(other, &both_sockets()));
        let ratio = seen.per_us / plain.per_us;
        println!("{lock} {ratio:.2} times {other}");
        assert!((1.3..6.0).contains(&ratio), "{lock}: {ratio:.2} times {other}");
    }
    // Everybody has a turn where the bound on local handovers is within the window.
    let hmcs = run("hmcs", &both_sockets());
    assert!(hmcs.least > 0, "{hmcs:?}");
}

/// As the papers have it: against MCS itself, which passes the data from socket to socket.
#[test]
fn cna_is_above_mcs_across_sockets_where_sections_have_data() {
    let ratio = |lines| {
        let per_us = |lock| run_with(lock, &both_sockets(), lines).per_us;
        per_us("cna") / per_us("mcs")
    };
    let ratios = [1, 8, 16].map(ratio);
    println!("cna of mcs: {ratios:.2?}");
    assert!(ratios.is_sorted(), "the more data, the more it is worth: {ratios:?}");
    assert!((1.3..4.0).contains(&ratios[2]), "with 16 lines: {ratios:?}");
    // What the word costs, and why the kernel's CNA is held against its queued spinlock.
    assert!(ratios[0] < 1.0, "with one line: {ratios:?}");
}

/// Reads how a lock gives up.
struct Gives;

impl LockVisitor<Sim> for Gives {
    type Output = GivesUp;

    fn visit<L: Lock<Sim>>(self) -> GivesUp {
        L::GIVES_UP
    }
}

/// Returns whether a run of two NUMA nodes agrees with what a table says of how many sections of others
/// a waiter sees at most: `n`, `2n`, `n + 64`, with `n` others.
fn allows(said: &str, seen: u64, cpus: usize) -> bool {
    let others = cpus as u64 - 1;
    // Between its call and its place in line a CPU may be passed, by whoever was served meanwhile.
    let slack = others / 2;
    let term = |term: &str| match term.strip_suffix('n') {
        Some("") => Some(others),
        Some(times) => Some(times.parse::<u64>().ok()? * others),
        None => term.parse().ok(),
    };
    if said == "no bound" {
        // Or it would deserve one.
        return seen > others + slack;
    }
    let bound: Option<u64> = said.split(" + ").map(term).sum();
    bound.is_some_and(|bound| seen <= bound + slack)
}

/// The table of docs/locks.md says of every lock what a handover moves, and how often a waiter is passed.
/// Seven in a hundred of the lines moved are the jitter's.
#[test]
fn the_table_says_how_much_a_handover_moves_and_who_is_passed() {
    let mut wrong = Vec::new();
    for row in lock_table::rows() {
        let lock = row.lock.as_str();
        let moved = run(lock, &many()).transfers;
        let said: Option<f64> = row.moved.parse().ok();
        if said.is_none_or(|said| (moved / said - 1.0).abs() > 0.07) {
            wrong.push(format!("{lock}: moves {moved:.1} lines, not {}", row.moved));
        }
        let waits = visit_lock::<Sim, _>(lock, Gives) != Some(GivesUp::AtOnce);
        let cores = both_sockets();
        let seen = run_for(LONG_NS, lock, &cores, 1).passed;
        let agrees = if waits {
            allows(&row.passed, seen, cores.len())
        } else {
            row.passed == "does not wait"
        };
        if !agrees {
            wrong.push(format!("{lock}: passed by {seen} sections, and not {}", row.passed));
        }
    }
    assert!(wrong.is_empty(), "docs/locks.md is wrong:\n{}", wrong.join("\n"));
}

#[test]
fn combining_leaves_the_data_where_it_is() {
    let mcs = run_with("mcs", &many(), 16);
    for lock in ["flat-combining", "ccsynch"] {
        let seen = run_with(lock, &many(), 16);
        assert!(seen.per_us > mcs.per_us, "{lock} {seen:?}, mcs {mcs:?}");
    }
}

/// First come, first served means equal shares; and a handover of a queue lock moves few lines, of a
/// ticket lock one for every waiter.
#[test]
fn lines_moved_for_a_handover_are_those_of_the_design() {
    for lock in ["mcs", "clh", "hemlock", "hapax", "ticket"] {
        let seen = run(lock, &many());
        assert!(seen.most - seen.least <= 2, "{lock} is not fair: {seen:?}");
    }
    for lock in ["mcs", "clh", "hemlock", "reciprocating"] {
        let seen = run(lock, &many());
        assert!(seen.transfers < 8.0, "{lock} {seen:?}");
    }
    let ticket = run("ticket", &many());
    assert!(ticket.transfers > 16.0, "{ticket:?}");
    // Passed twice by each other CPU at most, so that nobody has more than twice another's.
    let seen = run("reciprocating", &many());
    assert!(seen.most <= 2 * seen.least + 2, "reciprocating {seen:?}");
}
