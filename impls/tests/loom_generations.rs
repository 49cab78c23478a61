//! The designs whose commands an `irq_work` executes, in every interleaving: what no test over the
//! plain operations reaches, as there interrupts are on and every command is executed at once.
//! Here one CPU works in NMI or with interrupts off, so that commands wait and lists grow; and
//! here are the bugs planted into these designs, each with the story that finds it.
//!
//! `cargo test --release -p cellbench-impls --features loom,planted --test loom_generations`

#![cfg(feature = "loom")]

use std::ptr;
use std::sync::Arc;

use cellbench_impls::cell::latch::SeqLatch;
use cellbench_impls::cell::mpmc::MpmcCell;
use cellbench_impls::cell::queue::Repaired;
use cellbench_impls::cell::{InitFlags, Start, Timer, Wq};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::Loom;
use cellbench_impls::platform::loom::advance_ns;
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::{AsyncCell, Cpu, CpuId, Errno, Machine, Outcome};

/// Preemptions in an execution, unless `CELLBENCH_PREEMPTIONS` says another number, or `all`.
const PREEMPTIONS: usize = 3;
/// The same where each thread has many steps, and the executions after which it is enough.
const PREEMPTIONS_OF_MANY_STEPS: usize = 2;
const EXECUTIONS_OF_MANY_STEPS: usize = 20_000;
/// Where the clock stands, in nanoseconds.
const NOW_NS: u64 = 1_000_000;
/// Later than everything.
const END_NS: u64 = u64::MAX - 1;

/// Makes the machine: sound, or with a bug.
type Make = fn(MachineConfig) -> Machine<Loom>;

/// A cell with its map and programs on a machine with a CPU for each thread.
struct Scene<C> {
    cell: C,
    map: Map<Loom>,
    programs: [Box<Program<Loom>>; 2],
    machine: Machine<Loom>,
}

impl<C: AsyncCell<Loom>> Scene<C> {
    /// Makes a scene whose cell is initialised and has no program.
    fn fresh(make: Make, cpus: u32) -> Arc<Self> {
        advance_ns(NOW_NS);
        let scene = Arc::new(Self {
            // SAFETY: used with this machine only, which is dropped last; `finish` settles it.
            cell: unsafe { C::new() },
            map: Map::new(),
            programs: [(); 2].map(|()| Program::new([(count_only as _, 0)])),
            machine: make(MachineConfig::new(cpus)),
        });
        let initialised = scene.cell.init(&scene.cpu(0), &scene.map, InitFlags::NONE);
        assert_eq!(initialised, Ok(()));
        scene
    }

    /// Makes a scene as [`fresh`](Self::fresh), with the first program set.
    fn ready(make: Make, cpus: u32) -> Arc<Self> {
        let scene = Self::fresh(make, cpus);
        assert_eq!(scene.set(&scene.cpu(0), 0), Ok(()));
        scene
    }

    fn cpu(&self, number: u32) -> Cpu<'_, Loom> {
        self.machine.cpu(CpuId(number))
    }

    fn set(&self, cpu: &Cpu<'_, Loom>, program: usize) -> Outcome {
        let program = &self.programs[program];
        self.cell.set_callback(cpu, program, program.callback(0))
    }

    fn start_at(&self, cpu: &Cpu<'_, Loom>, ns: u64) -> Outcome {
        self.cell.start(cpu, Start { ns, flags: Start::ABSOLUTE })
    }

    fn start(&self, cpu: &Cpu<'_, Loom>) -> Outcome {
        self.cell.start(cpu, Start::default())
    }

    /// Fires what is armed or queued; returns how many ran.
    fn fire(&self, cpu: &Cpu<'_, Loom>) -> usize {
        let engine = self.machine.engine();
        (0..self.machine.cpus())
            .map(|base| engine.run_timers(cpu, base, END_NS) + engine.run_works(cpu, base))
            .sum()
    }

    /// Returns when the one timer is due, wherever it was armed; `u64::MAX` if it is not.
    fn due_ns(&self) -> u64 {
        let engine = self.machine.engine();
        (0..self.machine.cpus()).map(|base| engine.next_expiry_ns(base)).min().expect("a CPU")
    }

    fn runs(&self) -> u64 {
        self.programs.iter().map(|program| program.callback(0).runs()).sum()
    }

    /// Checks that program and callback belong together and that references are those of what is set, frees
    /// the cell, and checks that nothing runs and nothing is left.
    fn finish(&self) {
        let cpu = self.cpu(0);
        self.machine.settle(&cpu);
        self.check_references();
        self.cell.cancel_and_free(&cpu);
        self.machine.settle(&cpu);
        self.check_references();
        let runs = self.runs();
        assert_eq!((self.fire(&cpu), self.runs()), (0, runs), "ran after it was freed");
        let heap = self.machine.heap().stats();
        assert_eq!(heap.live(), 0, "leaked: {heap:?}");
        drop(cpu);
        for number in 0..self.machine.cpus() {
            let rest = self.machine.rest(CpuId(number));
            assert!(rest.is_clean(), "CPU {number}: {rest:?}");
        }
    }

    fn check_references(&self) {
        let found = self.cell.inspect();
        // SAFETY: callbacks are those of this scene's programs.
        if let Some(callback) = unsafe { found.callback.as_ref() } {
            let differs = !callback.belongs_to(found.program);
            assert!(
                !differs || C::PROMISES.callback_may_differ,
                "the callback is another program's"
            );
        }
        for program in &self.programs {
            let held = u64::from(ptr::eq(found.program, &raw const **program));
            assert_eq!(program.refs(), 1 + held, "program references");
        }
    }
}

fn sound(config: MachineConfig) -> Machine<Loom> {
    Machine::new(config)
}

fn explore<C: AsyncCell<Loom>>(preemptions: usize, story: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match std::env::var("CELLBENCH_PREEMPTIONS").as_deref() {
        Ok("all") => None,
        Ok(number) => Some(number.parse().expect("CELLBENCH_PREEMPTIONS: a number, or `all`")),
        // Its writers have twice the steps of the others.
        Err(_) if C::ID == "seq-latch" && preemptions == PREEMPTIONS => Some(preemptions - 1),
        Err(_) => {
            if preemptions == PREEMPTIONS_OF_MANY_STEPS {
                builder.checkpoint_interval = 100;
                builder.max_permutations = Some(EXECUTIONS_OF_MANY_STEPS);
            }
            Some(preemptions)
        }
    };
    builder.max_branches = 20_000;
    builder.check(story);
}

/// Runs `other` on CPU 1 and `this` on CPU 0 at once.
fn at_once<C: AsyncCell<Loom>>(
    scene: &Arc<Scene<C>>,
    this: impl FnOnce(&Scene<C>, &Cpu<'_, Loom>),
    other: impl FnOnce(&Scene<C>, &Cpu<'_, Loom>) + Send + 'static,
) {
    let theirs = Arc::clone(scene);
    let thread = loom::thread::spawn(move || other(&theirs, &theirs.cpu(1)));
    this(scene, &scene.cpu(0));
    thread.join().expect("loom ends the execution at a panic");
}

/// Checks that an operation succeeded or lost: EBUSY of designs that let one writer in, or the error of a
/// start while the cell is being freed.
fn may_lose(outcome: Outcome) {
    let allowed = [Ok(()), Err(Errno::EBUSY), Err(Errno::EINVAL), Err(Errno::ENOENT)];
    assert!(allowed.contains(&outcome), "{outcome:?}");
}

/// Explores two first updates: one of the two stays, whole.
fn set_meets_set<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::fresh(make, 2);
        at_once(
            &scene,
            |scene, cpu| assert_eq!(scene.set(cpu, 0), Ok(())),
            |scene, cpu| assert_eq!(scene.set(cpu, 1), Ok(())),
        );
        assert!(!scene.cell.inspect().callback.is_null());
        scene.finish();
    });
}

/// Explores an update in NMI that meets the free: the program that the update set is put by whoever frees the
/// block.
fn set_in_nmi_meets_free<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| {
                let outcome = cpu.nmi(|nmi| scene.set(nmi, 1));
                assert!(matches!(outcome, Ok(()) | Err(Errno::EINVAL)), "{outcome:?}");
            },
            |scene, cpu| scene.cell.cancel_and_free(cpu),
        );
        scene.finish();
    });
}

/// Explores a start that meets the free, which cancels first: a timer that the start armed after that must
/// not fire.
fn start_meets_free<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| may_lose(scene.start(cpu)),
            |scene, cpu| scene.cell.cancel_and_free(cpu),
        );
        scene.finish();
    });
}

/// Explores the same from NMI on both sides, with the irq steps that follow.
fn start_meets_free_in_nmi<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| may_lose(cpu.nmi(|nmi| scene.start(nmi))),
            |scene, cpu| cpu.nmi(|nmi| scene.cell.cancel_and_free(nmi)),
        );
        scene.finish();
    });
}

/// Explores a callback that runs while its cell is freed in NMI, and may be armed again meanwhile.
fn fire_meets_free_in_nmi<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        assert_eq!(scene.start(&scene.cpu(0)), Ok(()));
        at_once(
            &scene,
            |scene, cpu| {
                scene.fire(cpu);
            },
            |scene, cpu| {
                may_lose(cpu.nmi(|nmi| scene.start(nmi)));
                cpu.nmi(|nmi| scene.cell.cancel_and_free(nmi));
            },
        );
        scene.finish();
    });
}

/// Explores two starts, one of them in NMI: the callback runs once for both or once for each. A start that
/// was refused met another one.
fn start_meets_start_in_nmi<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| may_lose(cpu.nmi(|nmi| scene.start(nmi))),
            |scene, cpu| {
                may_lose(scene.start(cpu));
                scene.fire(cpu);
            },
        );
        scene.fire(&scene.cpu(0));
        assert!((1..=2).contains(&scene.runs()), "{} runs of two starts", scene.runs());
        scene.finish();
    });
}

/// Explores a cancel that does not wait and meets the firing: if it says that it was in time, it was.
fn cancel_async_meets_fire<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        assert_eq!(scene.start(&scene.cpu(0)), Ok(()));
        at_once(
            &scene,
            |scene, cpu| {
                if scene.cell.cancel_async(cpu) == Ok(true) {
                    assert_eq!(scene.runs(), 0, "cancelled in time, and ran");
                }
            },
            |scene, cpu| {
                scene.fire(cpu);
            },
        );
        assert!(scene.runs() <= 1);
        scene.finish();
    });
}

/// Explores commands that wait for the end of an interrupt-off section, while another CPU adds its own: those
/// of one CPU take effect in their order, or the newest alone does.
fn commands_keep_their_order<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| {
                let _irq_off = cpu.irq_save();
                assert_eq!(scene.start_at(cpu, 3), Ok(()));
                assert_eq!(scene.start_at(cpu, 4), Ok(()));
            },
            |scene, cpu| assert_eq!(scene.set(cpu, 1), Ok(())),
        );
        assert_eq!(scene.due_ns(), 4, "the later start did not replace the earlier one");
        scene.finish();
    });
}

/// Explores an `irq_work` that reads a command while others are written: it executes one of them, whole. A
/// start at a point in time mixed with one in some time from now would be due at neither.
fn command_is_read_whole<C: AsyncCell<Loom>>(make: Make) {
    command_is_read_while_written::<C>(make, 1);
}

/// Explores the same where the very slot that is read gets its next command but one.
fn command_is_read_whole_of_three<C: AsyncCell<Loom>>(make: Make) {
    command_is_read_while_written::<C>(make, 2);
}

fn command_is_read_while_written<C: AsyncCell<Loom>>(make: Make, writes: usize) {
    explore::<C>(PREEMPTIONS_OF_MANY_STEPS, move || {
        let scene = Scene::<C>::ready(make, 2);
        let cpu = scene.cpu(0);
        let irq_off = cpu.irq_save();
        // In NMI, from which every design goes through its `irq_work`.
        assert_eq!(cpu.nmi(|nmi| scene.start_at(nmi, 3)), Ok(()));
        let theirs = Arc::clone(&scene);
        let thread = loom::thread::spawn(move || {
            let cpu = theirs.cpu(1);
            let _irq_off = cpu.irq_save();
            for _ in 0..writes {
                may_lose(theirs.cell.start(&cpu, Start::after_ns(7)));
            }
        });
        // The interrupt arrives.
        drop(irq_off);
        thread.join().expect("loom ends the execution at a panic");
        drop(cpu);
        let due_ns = scene.due_ns();
        assert!([3, NOW_NS + 7].contains(&due_ns), "due at {due_ns}, which nobody asked for");
        scene.finish();
    });
}

/// Explores the overwriting of an old command: none is executed that was replaced before the execution began.
fn replaced_commands_stay_replaced<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        {
            let cpu = scene.cpu(0);
            assert_eq!(scene.start_at(&cpu, 3), Ok(()));
            assert_eq!(scene.start_at(&cpu, 4), Ok(()));
        }
        at_once(
            &scene,
            |scene, cpu| may_lose(scene.start_at(cpu, 5)),
            |scene, cpu| may_lose(scene.start_at(cpu, 6)),
        );
        let due_ns = scene.due_ns();
        assert!([5, 6].contains(&due_ns), "due at {due_ns}, which was replaced before");
        scene.finish();
    });
}

/// Explores how often commands are executed: as many callbacks run as starts succeeded, at most.
fn commands_run_once<C: AsyncCell<Loom>>(make: Make) {
    explore::<C>(PREEMPTIONS, move || {
        let scene = Scene::<C>::ready(make, 2);
        at_once(
            &scene,
            |scene, cpu| {
                // EPERM: the callback runs.
                let outcome = scene.cell.cancel_async(cpu);
                assert!(matches!(outcome, Ok(_) | Err(Errno::EBUSY | Errno::EPERM)), "{outcome:?}");
                scene.fire(cpu);
            },
            |scene, cpu| {
                may_lose(scene.start(cpu));
                scene.fire(cpu);
            },
        );
        scene.fire(&scene.cpu(0));
        assert!(scene.runs() <= 1, "{} runs of one start", scene.runs());
        scene.finish();
    });
}

macro_rules! stories {
    ($($design:ident: $timer:ty, $wq:ty;)*) => {$(
        mod $design {
            use super::*;

            stories! { @tests $timer;
                set_meets_set set_in_nmi_meets_free start_meets_free start_meets_free_in_nmi
                fire_meets_free_in_nmi start_meets_start_in_nmi cancel_async_meets_fire
                commands_keep_their_order command_is_read_whole command_is_read_whole_of_three
                replaced_commands_stay_replaced commands_run_once
            }

            mod wq {
                use super::*;

                stories! { @tests $wq;
                    set_in_nmi_meets_free start_meets_free start_meets_free_in_nmi
                    fire_meets_free_in_nmi start_meets_start_in_nmi
                }
            }
        }
    )*};
    (@tests $cell:ty; $($story:ident)*) => {$(
        #[test]
        fn $story() {
            crate::$story::<$cell>(sound);
        }
    )*};
}

stories! {
    mpmc: MpmcCell<Loom, Timer>, MpmcCell<Loom, Wq>;
    latch: SeqLatch<Loom, Timer>, SeqLatch<Loom, Wq>;
    queue: Repaired<Loom, Timer>, Repaired<Loom, Wq>;
}

/// Each planted bug is found by a story that the sound design passes. Those of the buffers' slots
/// are not here: loom leaves out the interleaving that shows them, and `proof` finds them under
/// all schedules with two preemptions.
#[cfg(feature = "planted")]
mod planted {
    use super::*;
    use cellbench_impls::planted::Bug;

    macro_rules! finds {
        ($($name:ident: $bug:ident in $story:ident::<$design:ident>;)*) => {$(
            #[test]
            #[should_panic]
            fn $name() {
                $story::<$design<Loom, Timer>>(|config| Machine::with_bug(config, Bug::$bug));
            }
        )*};
    }

    finds! {
        stored_callback_queue: CallbackStored in set_meets_set::<Repaired>;
        no_second_cancel_mpmc: FreedWithoutSecondCancel in start_meets_free::<MpmcCell>;
        no_second_cancel_latch: FreedWithoutSecondCancel in start_meets_free::<SeqLatch>;
        no_second_cancel_queue: FreedWithoutSecondCancel in start_meets_free::<Repaired>;
        commands_not_reversed: CommandsNotReversed in commands_keep_their_order::<Repaired>;
        relaxed_commit_mpmc: RelaxedCommit in replaced_commands_stay_replaced::<MpmcCell>;
        relaxed_commit_latch: RelaxedCommit in command_is_read_whole::<SeqLatch>;
        not_claimed_mpmc: CommandNotClaimed in commands_run_once::<MpmcCell>;
        not_claimed_latch: CommandNotClaimed in commands_run_once::<SeqLatch>;
    }
}
