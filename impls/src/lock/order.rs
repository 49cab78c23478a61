//! The order in which queue locks serve, tested where their words are seen: the holder lets the others
//! come one after the other, and each has come when the lock's word shows it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

use super::Lock;
use super::abortable::AbortableMcs;
use super::ccsynch::CcSynch;
use super::clh::Clh;
use super::cna::Cna;
use super::hapax::Hapax;
use super::hemlock::Hemlock;
use super::hmcs::Hmcs;
use super::mcs::Mcs;
use super::reciprocating::Reciprocating;
use super::ticket::Ticket;
use super::twa::Twa;
use crate::machine::MachineConfig;
use crate::platform::{Memory, Ordering, Shuttle, Word};
use crate::{CpuId, Machine};

/// Schedules of each test, and for PCT the points at which priorities change.
const SCHEDULES: usize = 300;
const CHANGES: usize = 3;
const SEED: u64 = 1;

/// A lock whose word changes when somebody comes.
trait Arrivals: Lock<Shuttle> {
    /// What changes.
    fn last_come(&self) -> u64;
}

macro_rules! arrivals {
    ($($lock:ty: $word:ident,)*) => {
        $(impl Arrivals for $lock {
            fn last_come(&self) -> u64 {
                let value = self.$word.load(Ordering::Relaxed);
                IntoNumber::number(value)
            }
        })*
    };
}

trait IntoNumber {
    fn number(self) -> u64;
}

impl IntoNumber for u32 {
    fn number(self) -> u64 {
        self.into()
    }
}

impl IntoNumber for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl<T> IntoNumber for *mut T {
    fn number(self) -> u64 {
        self.addr() as u64
    }
}

arrivals! {
    Ticket<Shuttle, false>: next,
    Ticket<Shuttle, true>: next,
    Twa<Shuttle>: next,
    Mcs<Shuttle>: tail,
    AbortableMcs<Shuttle>: tail,
    Clh<Shuttle>: tail,
    CcSynch<Shuttle>: tail,
    Hemlock<Shuttle>: tail,
    Hapax<Shuttle>: arrived,
    Reciprocating<Shuttle>: arrivals,
}

impl Arrivals for Cna<Shuttle> {
    fn last_come(&self) -> u64 {
        self.word.load().into()
    }
}

impl Arrivals for Hmcs<Shuttle> {
    fn last_come(&self) -> u64 {
        self.last_of(0).addr() as u64 ^ (self.last_of(1).addr() as u64) << 1
    }
}

/// Waits for a lock in an order, and returns the order in which they got it. CPU `n` comes `n`-th; CPU
/// 0 holds the lock meanwhile.
fn served<L: Arrivals>(numa_nodes: &[u16]) -> Vec<u32> {
    let config = MachineConfig {
        numa_nodes: numa_nodes.to_vec(),
        ..MachineConfig::new(numa_nodes.len() as u32)
    };
    let (lock, machine) = (Arc::new(L::new()), Arc::new(Machine::<Shuttle>::new(config)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let cpu = machine.cpu(CpuId(0));
    let held = lock.with(&cpu, || {
        let come = |number| {
            let before = lock.last_come();
            let (taken, machine) = (Arc::clone(&lock), Arc::clone(&machine));
            let order = Arc::clone(&order);
            let thread = shuttle::thread::spawn(move || {
                let cpu = machine.cpu(CpuId(number));
                let noted = taken.with(&cpu, || order.lock().unwrap().push(number));
                noted.expect("time stands still");
            });
            Shuttle::wait_until(|| (lock.last_come() != before).then_some(()));
            thread
        };
        (1..numa_nodes.len() as u32).map(come).collect::<Vec<_>>()
    });
    for thread in held.expect("nobody else held it") {
        thread.join().unwrap();
    }
    let order = order.lock().unwrap();
    order.clone()
}

/// Returns the orders in which waiters were served, under random schedules.
fn orders<L: Arrivals>(numa_nodes: &'static [u16]) -> BTreeSet<Vec<u32>> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let random = RandomScheduler::new_from_seed(SEED, SCHEDULES);
    let pct = PctScheduler::new_from_seed(SEED, CHANGES, SCHEDULES);
    let schedulers: [Box<dyn Scheduler + Send>; 2] = [Box::new(random), Box::new(pct)];
    for scheduler in schedulers {
        let noted = Arc::clone(&seen);
        Runner::new(scheduler, Config::new()).run(move || {
            let order = served::<L>(numa_nodes);
            noted.lock().unwrap().insert(order);
        });
    }
    let seen = seen.lock().unwrap();
    seen.clone()
}

const ONE_NODE: &[u16] = &[0; 5];

/// Checks that waiters are always served in this order.
fn check<L: Arrivals>(expected: &[u32]) {
    let orders = orders::<L>(ONE_NODE);
    assert!(orders.iter().eq([expected]), "{}: {orders:?}", L::ID);
}

fn check_first_come_first_served<L: Arrivals>() {
    check::<L>(&[1, 2, 3, 4]);
}

#[test]
fn ticket_locks_are_first_come_first_served() {
    check_first_come_first_served::<Ticket<Shuttle>>();
    check_first_come_first_served::<Ticket<Shuttle, true>>();
    check_first_come_first_served::<Twa<Shuttle>>();
}

#[test]
fn queue_locks_are_first_come_first_served() {
    check_first_come_first_served::<Mcs<Shuttle>>();
    check_first_come_first_served::<AbortableMcs<Shuttle>>();
    check_first_come_first_served::<Clh<Shuttle>>();
    check_first_come_first_served::<CcSynch<Shuttle>>();
    check_first_come_first_served::<Hemlock<Shuttle>>();
    check_first_come_first_served::<Hapax<Shuttle>>();
}

#[test]
fn locks_that_prefer_a_node_are_first_come_first_served_on_one() {
    check_first_come_first_served::<Cna<Shuttle>>();
    check_first_come_first_served::<Hmcs<Shuttle>>();
}

/// Those of a lot are served from the last that came; what comes later is another lot.
#[test]
fn a_reciprocating_lock_serves_a_lot_backwards() {
    check::<Reciprocating<Shuttle>>(&[4, 3, 2, 1]);
}

/// CPU 1 is the pending waiter, and CPU 2, of node 0, the head. If it has the time before the lock is free,
/// it moves CPUs 3 and 4, of node 1, behind CPUs 5 and 6 of its own.
#[test]
fn cna_serves_the_heads_node_first() {
    let orders = orders::<Cna<Shuttle>>(&[0, 0, 0, 1, 1, 0, 0]);
    assert!(orders.contains(&[1, 2, 5, 6, 3, 4][..]), "{orders:?}");
    assert!(orders.iter().all(|order| order.starts_with(&[1, 2])), "{orders:?}");
}

/// The checkers' bound is two sections of a node running: CPU 2 follows CPU 0, of node 0, and not CPU 4.
/// Then the nodes queue for the lock again, each with two.
#[test]
fn hmcs_serves_the_holders_node_first_and_not_for_ever() {
    let orders = orders::<Hmcs<Shuttle>>(&[0, 1, 0, 1, 0, 0]);
    let allowed = BTreeSet::from([vec![2, 1, 3, 4, 5], vec![2, 4, 5, 1, 3]]);
    assert!(orders.is_subset(&allowed), "{orders:?}");
}
