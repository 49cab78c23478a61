//! Mechanisms that all designs rely on, in every interleaving: the real grace periods, `irq_work` between two
//! CPUs, timers that arm themselves again, and callbacks that cancel each other. The model checks of the
//! cells run a specification of RCU in place of the first.
//!
//! `cargo test -p cellbench-impls --features loom,planted --test loom_mechanisms`

#![cfg(feature = "loom")]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use cellbench_impls::cell::queue::Repaired;
use cellbench_impls::cell::{InitFlags, Start, Timer};
use cellbench_impls::engine::{Engine, Expiry, Queued, QueuedEngine};
use cellbench_impls::irq_work::IrqWork;
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::checked::{Strength, set_strength};
use cellbench_impls::platform::loom::Model;
use cellbench_impls::platform::{IntWord, Loom, Memory, Ordering, Word, World};
use cellbench_impls::program::{Callback, Program};
use cellbench_impls::rcu::{Qsbr, RcuHead, Reclaim};
use cellbench_impls::task::TaskItem;
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine};

type U32 = <Loom as Memory>::U32;

/// A time by which everything is due.
const END_NS: u64 = u64::MAX - 1;

/// Read-modify-writes that return a value are full barriers, as in the kernel.
fn explore(preemptions: usize, story: impl Fn() + Send + Sync + 'static) {
    set_strength(Strength::Kernel);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 5_000;
    builder.check(story);
}

/// The platform of the models, with the grace periods that the benchmark has.
type Real = World<Model, Qsbr, Queued>;

/// An object that readers find until it is detached.
#[repr(C)]
struct Object {
    head: RcuHead<Real>,
    value: <Real as Memory>::U32,
}

fn free(head: *mut RcuHead<Real>, cpu: &Cpu<'_, Real>) {
    let object = NonNull::new(head.cast::<Object>()).expect("not null");
    // SAFETY: allocated by the story, detached, and its grace period has ended: which is checked.
    unsafe { cpu.machine().heap().free(cpu, object) };
}

/// A reader that comes, reads, says that it has read, reads again and goes, against one that detaches
/// what it reads and has it freed: by the checker's books no access comes after the freeing, or without
/// an order to it.
#[test]
fn readers_keep_what_they_found() {
    struct Story {
        machine: Machine<Real>,
        shared: <Real as Memory>::Ptr<Object>,
    }
    explore(3, || {
        let story = Arc::new(Story {
            machine: Machine::new(MachineConfig::new(2)),
            shared: <Real as Memory>::Ptr::new("shared", ptr::null_mut()),
        });
        {
            let cpu = story.machine.cpu(CpuId(0));
            let made = story.machine.heap().alloc(&cpu, |_| Object {
                head: RcuHead::new(),
                value: Word::new("object.value", 7),
            });
            story.shared.store(made.expect("memory").as_ptr(), Ordering::Release);
        }
        let reads = Arc::clone(&story);
        let reader = loom::thread::spawn(move || {
            let cpu = reads.machine.cpu(CpuId(1));
            for _ in 0..2 {
                {
                    let _rcu = cpu.rcu_read();
                    let found = reads.shared.load(Ordering::Acquire);
                    // SAFETY: kept by the section: which is checked.
                    if let Some(object) = unsafe { found.as_ref() } {
                        assert_eq!(object.value.load(Ordering::Relaxed), 7);
                    }
                }
                cpu.quiescent();
            }
        });
        let cpu = story.machine.cpu(CpuId(0));
        let object = story.shared.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: detached, and deferred once.
        unsafe {
            story.machine.rcu().defer(&cpu, object.cast(), free);
        }
        for _ in 0..3 {
            cpu.quiescent();
        }
        reader.join().expect("loom ends the execution at a panic");
        story.machine.settle(&cpu);
        assert_eq!(story.machine.heap().stats().live(), 0);
    });
}

/// Two CPUs queue one item, each after a write of its own. Whoever is told that it was queued already can
/// rely on the run to come.
#[test]
fn an_item_that_was_queued_already_sees_what_came_before() {
    struct Note {
        written: U32,
        seen: U32,
    }
    unsafe fn handler(owner: *mut (), _: &Cpu<'_, Loom>) {
        // SAFETY: the story's note, which outlives the runs.
        let note = unsafe { &*owner.cast::<Note>() };
        if note.written.load(Ordering::Relaxed) == 1 {
            note.seen.store(1, Ordering::Relaxed);
        }
    }
    struct Story {
        machine: Machine<Loom>,
        note: Box<Note>,
        work: IrqWork<Loom>,
    }
    explore(3, || {
        let zero = |label| <U32 as Word<u32>>::new(label, 0);
        let note = Box::new(Note { written: zero("written"), seen: zero("seen") });
        let work = IrqWork::new(handler, ptr::from_ref(&*note).cast_mut().cast());
        let machine = Machine::new(MachineConfig::new(2));
        let story = Arc::new(Story { machine, note, work });
        let other = Arc::clone(&story);
        let queue = |story: &Story, cpu: &Cpu<'_, Loom>| {
            // SAFETY: the story outlives the runs and the grace periods.
            unsafe { IrqWork::queue(&raw const story.work, cpu) }
        };
        let thread = loom::thread::spawn(move || {
            let cpu = other.machine.cpu(CpuId(1));
            let _irq_off = cpu.irq_save();
            queue(&other, &cpu);
        });
        let cpu = story.machine.cpu(CpuId(0));
        story.note.written.store(1, Ordering::Relaxed);
        queue(&story, &cpu);
        thread.join().expect("loom ends the execution at a panic");
        assert_eq!(story.note.seen.load(Ordering::Relaxed), 1, "no run saw what was written");
        drop(cpu);
        for number in 0..2 {
            assert!(story.machine.rest(CpuId(number)).is_clean());
        }
    });
}

/// A work of a task that is freed when it has run.
#[repr(C)]
struct TaskWork(TaskItem<Loom>);

unsafe fn run_and_free(item: *mut (), cpu: &Cpu<'_, Loom>) {
    let work = NonNull::new(item.cast::<TaskWork>()).expect("not null");
    // SAFETY: allocated by the story; in no list any more, and looked at by nobody: which is checked.
    unsafe { cpu.machine().heap().free(cpu, work) };
}

/// A cancel walks through the works of a task, which runs them: each one that the cancel looks at is
/// still there.
#[test]
fn works_that_a_cancel_looks_at_are_not_run_meanwhile() {
    explore(2, || {
        let machine = Arc::new(Machine::<Loom>::new(MachineConfig::new(2)));
        let other = Arc::clone(&machine);
        let cpu = machine.cpu(CpuId(0));
        let works = [(); 2].map(|()| {
            let made = machine.heap().alloc(&cpu, |_| TaskWork(TaskItem::new(run_and_free)));
            let work = made.expect("memory").as_ptr();
            // SAFETY: in no list, and valid until it has run or was cancelled.
            assert!(unsafe { cpu.current().add(work.cast()) });
            work.expose_provenance()
        });
        let thread = loom::thread::spawn(move || {
            let cpu = other.cpu(CpuId(1));
            // The older one, behind the other.
            let work = ptr::with_exposed_provenance_mut::<TaskWork>(works[0]);
            if other.task(CpuId(0)).cancel(&cpu, work.cast_const().cast()) == Ok(true) {
                // SAFETY: taken out of the list by this call.
                unsafe { run_and_free(work.cast(), &cpu) };
            }
        });
        cpu.return_to_user();
        thread.join().expect("loom ends the execution at a panic");
        machine.settle(&cpu);
        assert_eq!(machine.heap().stats().live(), 0);
    });
}

/// A timer whose handler arms it again, so often.
struct Ticking {
    machine: Machine<Loom>,
    timer: <QueuedEngine<Loom> as Engine<Loom>>::Timer,
    note: Box<Handled>,
}

struct Handled {
    inside: U32,
    again: U32,
    timer: loom::sync::atomic::AtomicPtr<<QueuedEngine<Loom> as Engine<Loom>>::Timer>,
}

const NOW: Expiry = Expiry { ns: 0, absolute: true, pinned: false };

unsafe fn tick(owner: *mut (), cpu: &Cpu<'_, Loom>) {
    // SAFETY: the story's note, which outlives the timer.
    let note = unsafe { &*owner.cast::<Handled>() };
    assert_eq!(note.inside.swap(1, Ordering::AcqRel), 0, "two handlers of one timer at once");
    if note.again.load(Ordering::Relaxed) > 0 {
        note.again.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the timer is part of the story, whose end cancels it.
        let timer = unsafe { &*note.timer.load(Ordering::Relaxed) };
        // SAFETY: as above.
        unsafe { cpu.machine().engine().arm(cpu, timer, NOW) };
    }
    // Others look while it runs.
    Loom::relax();
    assert_eq!(note.inside.swap(0, Ordering::AcqRel), 1);
}

impl Ticking {
    /// Makes a machine with two CPUs, and the timer armed on one of them.
    fn armed(on: u32, again: u32) -> Arc<Self> {
        let word = |label, value| <U32 as Word<u32>>::new(label, value);
        let timer = loom::sync::atomic::AtomicPtr::new(ptr::null_mut());
        let note =
            Box::new(Handled { inside: word("inside", 0), again: word("again", again), timer });
        let timer = QueuedEngine::<Loom>::timer(tick, ptr::from_ref(&*note).cast_mut().cast());
        let story = Arc::new(Self { machine: Machine::new(MachineConfig::new(2)), timer, note });
        let address = ptr::from_ref(&story.timer).cast_mut();
        story.note.timer.store(address, Ordering::Relaxed);
        let cpu = story.machine.cpu(CpuId(on));
        // SAFETY: it lives as long as the story.
        unsafe { story.machine.engine().arm(&cpu, &story.timer, NOW) };
        drop(cpu);
        story
    }

    /// Fires what is due on CPU `number`, there.
    fn fire(&self, number: u32) -> usize {
        let cpu = self.machine.cpu(CpuId(number));
        self.machine.engine().run_timers(&cpu, number, END_NS)
    }
}

/// A cancel meets a handler that arms its timer again: when the cancel returns, the handler does not run,
/// and will not.
#[test]
fn a_cancel_waits_for_a_handler_that_arms_its_timer_again() {
    explore(2, || {
        let story = Ticking::armed(0, 1);
        let fires = Arc::clone(&story);
        let thread = loom::thread::spawn(move || fires.fire(0));
        {
            let cpu = story.machine.cpu(CpuId(1));
            story.machine.engine().cancel(&cpu, &story.timer);
            assert_eq!(story.note.inside.load(Ordering::Acquire), 0, "its handler runs");
        }
        thread.join().expect("loom ends the execution at a panic");
        assert_eq!(story.fire(0) + story.fire(1), 0, "it is armed");
    });
}

/// One CPU runs the handler while another one arms the timer, and fires what is due there.
#[test]
fn a_timer_whose_handler_runs_stays_where_it_is() {
    explore(2, || {
        let story = Ticking::armed(0, 0);
        let fires = Arc::clone(&story);
        let thread = loom::thread::spawn(move || fires.fire(0));
        {
            let cpu = story.machine.cpu(CpuId(1));
            // SAFETY: it lives as long as the story.
            unsafe { story.machine.engine().arm(&cpu, &story.timer, NOW) };
        }
        story.fire(1);
        thread.join().expect("loom ends the execution at a panic");
        story.fire(0);
        story.fire(1);
        assert_eq!(story.fire(0) + story.fire(1), 0);
    });
}

/// A timer is moved to another CPU while somebody cancels it: who waited for the lock of the base that it
/// left looks again.
#[test]
fn a_timer_that_moved_is_looked_for_again() {
    explore(2, || {
        let story = Ticking::armed(1, 0);
        let moves = Arc::clone(&story);
        let thread = loom::thread::spawn(move || {
            let cpu = moves.machine.cpu(CpuId(0));
            // SAFETY: it lives as long as the story.
            unsafe { moves.machine.engine().arm(&cpu, &moves.timer, NOW) };
        });
        let cpu = story.machine.cpu(CpuId(1));
        assert!(story.machine.engine().cancel(&cpu, &story.timer), "it was armed all the time");
        drop(cpu);
        thread.join().expect("loom ends the execution at a panic");
        story.fire(0);
        assert_eq!(story.fire(0) + story.fire(1), 0);
    });
}

type Cell = Repaired<Loom, Timer>;

/// Two cells whose callbacks cancel the other one.
struct Pair {
    cells: [Cell; 2],
    map: Map<Loom>,
    programs: [Box<Program<Loom>>; 2],
    machine: Machine<Loom>,
    refused: loom::sync::atomic::AtomicU32,
}

fn cancel_the_other(cpu: &Cpu<'_, Loom>, callback: &Callback<Loom>, _: *const ()) {
    // SAFETY: the story exposed its address, and outlives the callbacks.
    let pair = unsafe { &*ptr::with_exposed_provenance::<Pair>(callback.data & !1) };
    match pair.cells[callback.data & 1].cancel(cpu) {
        Ok(_) => {}
        Err(Errno::EDEADLK) => _ = pair.refused.fetch_add(1, Ordering::Relaxed),
        Err(errno) => panic!("{errno}"),
    }
}

/// Two callbacks that cancel each other at once: neither waits for ever. What they counted is gone
/// afterwards, so that a callback may cancel again.
#[test]
fn callbacks_that_cancel_each_other_do_not_wait_for_ever() {
    explore(2, || {
        let mut pair = Arc::new_uninit();
        let address = Arc::as_ptr(&pair).expose_provenance();
        // SAFETY: used with this machine alone, which is dropped last, after both were freed.
        let cells = [(); 2].map(|()| unsafe { Cell::new() });
        let programs = [1, 0].map(|other| Program::new([(cancel_the_other as _, address | other)]));
        Arc::get_mut(&mut pair).expect("nobody else has it").write(Pair {
            cells,
            map: Map::new(),
            programs,
            machine: Machine::new(MachineConfig::new(2)),
            refused: loom::sync::atomic::AtomicU32::new(0),
        });
        // SAFETY: written above.
        let pair = unsafe { pair.assume_init() };
        let start = Start { ns: 0, flags: Start::ABSOLUTE };
        let arm = |number: usize| {
            let cpu = pair.machine.cpu(CpuId(number as u32));
            let program = &pair.programs[number];
            let set = pair.cells[number].set_callback(&cpu, program, program.callback(0));
            assert_eq!((set, pair.cells[number].start(&cpu, start)), (Ok(()), Ok(())));
        };
        for (number, cell) in pair.cells.iter().enumerate() {
            let cpu = pair.machine.cpu(CpuId(number as u32));
            assert_eq!(cell.init(&cpu, &pair.map, InitFlags::NONE), Ok(()));
            drop(cpu);
            arm(number);
        }
        let fire = |pair: &Pair, number: u32| {
            let cpu = pair.machine.cpu(CpuId(number));
            pair.machine.engine().run_timers(&cpu, number, END_NS);
        };
        let other = Arc::clone(&pair);
        let thread = loom::thread::spawn(move || fire(&other, 1));
        fire(&pair, 0);
        thread.join().expect("loom ends the execution at a panic");
        // Alone, a callback is not refused.
        let before = pair.refused.load(Ordering::Relaxed);
        arm(0);
        fire(&pair, 0);
        assert_eq!(pair.refused.load(Ordering::Relaxed), before, "a cancel is still counted");
        let cpu = pair.machine.cpu(CpuId(0));
        pair.cells.iter().for_each(|cell| cell.cancel_and_free(&cpu));
        pair.machine.settle(&cpu);
        assert_eq!(pair.machine.heap().stats().live(), 0);
    });
}
