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
use super::shfl::Shfl;
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
    /// Returns the word that changes when somebody comes, as a number.
    fn last_come(&self) -> u64;

    /// Returns whether somebody has come since, and stands where it is to be passed from.
    fn has_come_since(&self, before: u64) -> bool {
        self.last_come() != before
    }
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
    Shfl<Shuttle>: tail,
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

    /// Returns whether somebody has come since. The first of the node that does not hold the lock has yet to
    /// enter the queue of the nodes.
    fn has_come_since(&self, before: u64) -> bool {
        let is_complete = || self.last_of(1).is_null() || self.is_last_node(1);
        self.last_come() != before && is_complete()
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
            Shuttle::wait_until(|| lock.has_come_since(before).then_some(()));
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

/// Returns how often a CPU was passed by those that came later, at most.
fn most_passes(orders: &BTreeSet<Vec<u32>>, cpu: u32) -> usize {
    let passes = |order: &Vec<u32>| {
        order.iter().take_while(|served| **served != cpu).filter(|served| **served > cpu).count()
    };
    orders.iter().map(passes).max().expect("some schedules")
}

/// CPU 1 is the pending waiter, and CPU 2, of node 0, the head. If it has the time before the lock is free,
/// it moves CPUs 3 and 4, of node 1, behind CPUs 5 and 6 of its own.
#[test]
fn cna_serves_the_heads_node_first() {
    let orders = orders::<Cna<Shuttle>>(&[0, 0, 0, 1, 1, 0, 0]);
    assert!(orders.contains(&[1, 2, 5, 6, 3, 4][..]), "{orders:?}");
    assert!(orders.iter().all(|order| order.starts_with(&[1, 2])), "{orders:?}");
}

/// The checkers' bound is two handovers that pass the second queue by. CPU 3 is in it first.
#[test]
fn cna_passes_nobody_more_often_than_its_bound() {
    let orders = orders::<Cna<Shuttle>>(&[0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(most_passes(&orders, 3), 2, "{orders:?}");
}

/// The checkers' batch is of two: CPU 1, the head, of node 0, and CPU 3, which passes CPU 2. CPU 4 may not, nor
/// CPU 5, and the last is never moved.
#[test]
fn shfllock_passes_nobody_by_more_than_a_batch() {
    let orders = orders::<Shfl<Shuttle>>(&[0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(most_passes(&orders, 2), 1, "{orders:?}");
    assert!(orders.iter().all(|order| order.starts_with(&[1])), "{orders:?}");
}

/// The checkers' bound is two sections of a node running: CPU 2 follows CPU 0, of node 0, and CPU 4 does not.
/// Then the nodes queue for the lock again, each with two. CPU 0 does not wait for a successor that has
/// come and not announced itself: then the nodes change at once, as in the paper.
#[test]
fn hmcs_serves_the_holders_node_first_and_not_for_ever() {
    let orders = orders::<Hmcs<Shuttle>>(&[0, 1, 0, 1, 0, 0]);
    let preferred = vec![2, 1, 3, 4, 5];
    let allowed = BTreeSet::from([preferred.clone(), vec![1, 3, 2, 4, 5]]);
    assert!(orders.is_subset(&allowed) && orders.contains(&preferred), "{orders:?}");
}
