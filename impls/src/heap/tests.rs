//! The real allocator, which no model checker has below it: every step of an allocation interrupted by
//! others, what each CPU writes, and in which order.

use core::ptr::NonNull;
use std::collections::BTreeSet;

use super::{CLASSES, Heap};
use crate::machine::{Cpu, MachineConfig};
use crate::platform::observed::Operation;
use crate::platform::recorded::{Event, record};
use crate::platform::stepped::interrupt_at;
use crate::platform::{Native, Ordering, Recorded, Stepped};
use crate::{CpuId, Machine, Platform};

/// An object of the largest class.
type Object = [u8; 2048];

fn alloc<P: Platform>(cpu: &Cpu<'_, P>) -> Option<NonNull<Object>> {
    cpu.machine().heap().alloc(cpu, |_| [0; 2048])
}

fn free<P: Platform>(cpu: &Cpu<'_, P>, object: NonNull<Object>) {
    // SAFETY: each test frees what it got once, and uses it no more.
    unsafe { cpu.machine().heap().free(cpu, object) };
}

/// Before each access of an allocation another one takes two objects and gives the first back: the stack
/// has its old top again, above another one.
#[test]
fn a_slot_that_left_the_stack_and_came_back_is_noticed() {
    for place in 0.. {
        let machine = Machine::<Stepped>::new(MachineConfig::new(1));
        let cpu = machine.cpu(CpuId(0));
        machine.heap().reserve::<Object>(&cpu, 1);
        let mut kept = None;
        let (own, fired) = interrupt_at(
            place,
            || {
                cpu.nmi(|nmi| {
                    let back = alloc(nmi).expect("reserved");
                    kept = alloc(nmi);
                    free(nmi, back);
                });
            },
            || alloc(&cpu),
        );
        let mut all: Vec<_> = own.into_iter().chain(kept).collect();
        all.extend((0..4).filter_map(|_| alloc(&cpu)));
        let distinct: BTreeSet<_> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len(), "step {place}: two owners of one slot");
        let live = machine.heap().stats().live();
        assert_eq!(live, all.len() as u64);
        all.into_iter().for_each(|object| free(&cpu, object));
        if !fired {
            return;
        }
    }
}

#[test]
fn where_memory_may_not_be_taken_an_empty_heap_refuses() {
    let machine = Machine::<Stepped>::new(MachineConfig::new(2));
    let cpu = machine.cpu(CpuId(0));
    assert_eq!(cpu.nmi(|nmi| alloc(nmi)), None);
    let object = alloc(&cpu).expect("a task may take memory");
    free(&cpu, object);
    assert!(cpu.nmi(|nmi| alloc(nmi).map(|object| free(nmi, object))).is_some());
}

/// The accesses of taking and of giving back, with their order.
#[test]
fn taking_acquires_and_giving_back_releases() {
    let machine = Machine::<Recorded>::new(MachineConfig::new(1));
    let cpu = machine.cpu(CpuId(0));
    machine.heap().reserve::<Object>(&cpu, 1);
    let (object, taking) = record(|_| (), || alloc(&cpu).expect("reserved"));
    let ((), giving) = record(|_| (), || free(&cpu, object));
    let access = |label, operation, order| Event::Access(label, operation, order);
    let expected = [
        access("heap.free", Operation::Load, Ordering::Acquire),
        access("heap.below", Operation::Load, Ordering::Relaxed),
        access("heap.free", Operation::CompareExchange, Ordering::Acquire),
    ];
    assert_eq!(taking, expected);
    let expected = [
        access("heap.free", Operation::Load, Ordering::Relaxed),
        access("heap.below", Operation::Store, Ordering::Relaxed),
        access("heap.free", Operation::CompareExchange, Ordering::Release),
    ];
    assert_eq!(giving, expected);
}

/// Each CPU writes its own books and its own stacks, on lines of their own.
#[test]
fn cpus_share_no_line_of_the_allocator() {
    let machine = Machine::<Native>::new(MachineConfig::new(3));
    let cpu = machine.cpu(CpuId(1));
    alloc(&cpu).map(|object| free(&cpu, object)).expect("memory");
    let heap: &Heap<Native> = machine.heap();
    // Relaxed: nobody else runs.
    let counted: Vec<u64> =
        heap.books.iter().map(|books| books.allocated.load(Ordering::Relaxed)).collect();
    assert_eq!(counted, [0, 1, 0]);
    let line = |address: usize| address / 64;
    let books = heap.books.iter().map(|books| line(core::ptr::from_ref(books).addr()));
    let stacks = heap.classes.iter().flat_map(|class| class.free.iter());
    let stacks = stacks.map(|stack| line(core::ptr::from_ref(stack).addr()));
    let all: Vec<usize> = books.chain(stacks).collect();
    let distinct: BTreeSet<&usize> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (3 + 3 * CLASSES.len(), all.len()));
}
