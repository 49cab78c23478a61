//! The real grace periods, which the model checks of the cells run a specification of: who is waited for,
//! and in which order each part is done.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::super::{Qsbr, RcuHead, Reclaim};
use super::QsbrReclaim;
use crate::engine::Count;
use crate::machine::{Cpu, MachineConfig};
use crate::platform::observed::{Barrier, Operation};
use crate::platform::recorded::{Event, record};
use crate::platform::stepped::Steps;
use crate::platform::{Native, Ordering, Recorded, World};
use crate::{CpuId, Machine, Platform};

type Real = World<Steps, Qsbr, Count>;

thread_local! {
    static ENDED: Cell<u32> = const { Cell::new(0) };
}

fn ended<P: Platform>(_: *mut RcuHead<P>, _: &Cpu<'_, P>) {
    ENDED.set(ENDED.get() + 1);
}

fn defer<P: Platform>(cpu: &Cpu<'_, P>, head: &mut RcuHead<P>) {
    // SAFETY: the head is deferred once, and outlives the machine's rest: each test drains it.
    unsafe { cpu.machine().rcu().defer(cpu, head, ended) };
}

/// Quiescent states after which a grace period that may end has ended.
const STATES: u32 = 40;

/// Whoever the reader is, whoever asks: nothing ends before the reader has said that it reads no more.
#[test]
fn every_cpu_that_is_online_is_waited_for() {
    const CPUS: u32 = 3;
    for reader in 0..CPUS {
        for asks in (0..CPUS).filter(|asks| *asks != reader) {
            ENDED.set(0);
            let machine = Machine::<Real>::new(MachineConfig::new(CPUS));
            let cpus: Vec<_> = (0..CPUS).map(|number| machine.cpu(CpuId(number))).collect();
            let mut head = RcuHead::new();
            defer(&cpus[asks as usize], &mut head);
            let pass = |but: Option<u32>| {
                for _ in 0..STATES {
                    let others = cpus.iter().filter(|cpu| Some(cpu.id().0) != but);
                    others.for_each(Cpu::quiescent);
                }
            };
            pass(Some(reader));
            assert_eq!(ENDED.get(), 0, "CPU {reader} reads still; CPU {asks} asked");
            pass(None);
            assert_eq!(ENDED.get(), 1, "nobody reads any more");
        }
    }
}

#[test]
fn a_cpu_that_is_offline_is_not_waited_for() {
    ENDED.set(0);
    let machine = Machine::<Real>::new(MachineConfig::new(3));
    let cpu = machine.cpu(CpuId(1));
    let mut head = RcuHead::new();
    defer(&cpu, &mut head);
    (0..STATES).for_each(|_| cpu.quiescent());
    assert_eq!(ENDED.get(), 1);
}

/// Returns the events of RCU: its accesses, and all that are no accesses.
fn of_rcu(events: Vec<Event>) -> Vec<Event> {
    let is = |event: &Event| match event {
        Event::Access(label, ..) => label.starts_with("rcu."),
        _ => true,
    };
    events.into_iter().filter(is).collect()
}

fn access(label: &'static str, operation: Operation, order: Ordering) -> Event {
    Event::Access(label, operation, order)
}

/// Coming and going: a CPU reads after it is known to be online, and is offline after it has read.
#[test]
fn coming_online_is_a_full_barrier_and_going_offline_releases() {
    let machine = Machine::<Recorded>::new(MachineConfig::new(1));
    let (cpu, coming) = record(|_| (), || machine.cpu(CpuId(0)));
    let ((), going) = record(|_| (), || drop(cpu));
    let expected = [
        access("rcu.period", Operation::Load, Ordering::Acquire),
        access("rcu.answered", Operation::Store, Ordering::Relaxed),
        Event::Fence(Barrier::Full),
    ];
    assert_eq!(of_rcu(coming), expected);
    assert_eq!(of_rcu(going), [access("rcu.answered", Operation::Store, Ordering::Release)]);
}

/// Asking for a period comes after what is to be reclaimed was detached, and an answer between the reads
/// before and those behind.
#[test]
fn asking_and_answering_are_ordered_by_full_barriers() {
    let machine = Machine::<Recorded>::new(MachineConfig::new(2));
    let [asks, answers] = [0, 1].map(|number| machine.cpu(CpuId(number)));
    let mut head = RcuHead::new();
    let ((), deferring) = record(|_| (), || defer(&asks, &mut head));
    let ((), asking) = record(|_| (), || asks.quiescent());
    let ((), answering) = record(|_| (), || answers.quiescent());
    (0..STATES).for_each(|_| asks.quiescent());
    let expected = [
        access("rcu.deferred", Operation::Load, Ordering::Relaxed),
        access("rcu.next", Operation::Store, Ordering::Relaxed),
        access("rcu.deferred", Operation::CompareExchange, Ordering::Release),
    ];
    assert_eq!(of_rcu(deferring), expected);
    let looks = [
        access("rcu.period", Operation::Load, Ordering::Relaxed),
        access("rcu.answered", Operation::Load, Ordering::Relaxed),
    ];
    let asks_for_it = [
        access("rcu.deferred", Operation::Load, Ordering::Relaxed),
        access("rcu.deferred", Operation::Swap, Ordering::Acquire),
        Event::Fence(Barrier::Full),
        access("rcu.period", Operation::Load, Ordering::Relaxed),
        access("rcu.period", Operation::CompareExchange, Ordering::AcqRel),
    ];
    assert_eq!(of_rcu(asking), [&looks[..], &asks_for_it].concat());
    let answer = [
        Event::Fence(Barrier::Full),
        access("rcu.answered", Operation::Store, Ordering::Release),
        Event::Fence(Barrier::Full),
        access("rcu.deferred", Operation::Load, Ordering::Relaxed),
    ];
    assert_eq!(of_rcu(answering), [&looks[..], &answer].concat());
}

/// The words that a CPU writes in each quiescent state are on lines of their own.
#[test]
fn cpus_share_no_line_of_the_grace_periods() {
    let rcu = <QsbrReclaim<Native> as Reclaim<Native>>::new(4);
    let mut lines = BTreeSet::new();
    let states = rcu.cpus.iter().map(|state| core::ptr::from_ref(state).addr());
    let words = [&rcu.period, &rcu.ended].map(|word| core::ptr::from_ref(word).addr());
    for address in states.chain(words) {
        assert!(lines.insert(address / 64), "{lines:?}");
    }
    assert!(size_of_val(&rcu.cpus[0]).is_multiple_of(64));
}
