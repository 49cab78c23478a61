//! Results and effects of an operation when nobody is in its way.

use std::ptr;

use cellbench_impls::cell::{CellKind, InitFlags, Start};
use cellbench_impls::map::Map;
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::{AsyncCell, Context, Cpu, Errno};

use crate::scene::{
    Cancel, CancelAsync, FAR, Free, Init, P, Scene, Schedule, Seen, SetCallback, StartOp,
};

/// Checks the results that depend on the state of cell, map and program.
pub(crate) fn state_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = C::PROMISES;
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let no_cancel = Err(if C::CANCELS { Errno::EINVAL } else { Errno::EOPNOTSUPP });
    let no_async = Err(if C::CANCELS_ASYNC { Errno::EINVAL } else { Errno::EOPNOTSUPP });

    // Not initialised.
    assert_eq!(scene.perform(&cpu, SetCallback), Err(Errno::EINVAL));
    assert_eq!(scene.perform(&cpu, StartOp), Err(Errno::EINVAL));
    assert_eq!(scene.perform(&cpu, Cancel), no_cancel);
    assert_eq!(scene.perform(&cpu, CancelAsync), no_async);
    scene.cell.cancel_and_free(&cpu);

    // Bad flags change nothing.
    let bad = InitFlags(99);
    let outcome = scene.cell.init(&cpu, &scene.map, bad).map(|()| true);
    assert_eq!(seen.note(Init, outcome), Err(Errno::EINVAL));
    assert!(!scene.cell.inspect().initialised);

    // Initialised twice; without a program.
    assert_eq!(scene.perform(&cpu, Init), Ok(true));
    assert_eq!(scene.perform(&cpu, Init), Err(Errno::EBUSY));
    let refused = promise.start_needs_program || C::KIND == CellKind::Wq;
    let expected = if refused { Err(Errno::EINVAL) } else { Ok(true) };
    assert_eq!(scene.perform(&cpu, StartOp), expected);
    assert_eq!(scene.fire(&cpu), usize::from(!refused));
    assert_eq!(scene.runs(), 0, "without a callback nothing runs");

    // A program on its way out is not taken, and what was set stays.
    assert_eq!(scene.perform(&cpu, SetCallback), Ok(true));
    let program_set = || scene.cell.inspect().program;
    let before = program_set();
    let dying = Program::<P>::new([(count_only as _, 0)]);
    dying.put();
    let outcome = scene.cell.set_callback(&cpu, &dying, dying.callback(0)).map(|()| true);
    assert_eq!(seen.note(SetCallback, outcome), Err(Errno::ENOENT));
    assert!(ptr::eq(program_set(), before) && !before.is_null());
    assert_eq!(dying.refs(), 0);

    // Unknown flags.
    let bad = Start { flags: 1 << 7, ..FAR };
    assert_eq!(scene.cell.start(&cpu, bad), Err(Errno::EINVAL));
    assert_eq!(scene.fire(&cpu), 0);

    // The map was abandoned: by now, and before `init`.
    scene.map.put_user::<C>(&cpu, []);
    let expected = if promise.update_needs_user { Err(Errno::EPERM) } else { Ok(true) };
    assert_eq!(scene.perform(&cpu, SetCallback), expected);
    scene.cell.cancel_and_free(&cpu);
    assert_eq!(scene.perform(&cpu, Init), Err(Errno::EPERM));
    assert!(!scene.cell.inspect().initialised);
    scene.rest(&cpu);
}

/// Checks the effects of a start.
pub(crate) fn life_rows<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    scene.make_ready(&cpu);

    // It fires once, however often it was started.
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!((scene.fire(&cpu), scene.fire(&cpu), scene.runs()), (1, 0, 1));

    // Freed, it does not fire, and the cell can be initialised again.
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    scene.cell.cancel_and_free(&cpu);
    scene.machine.settle(&cpu);
    assert_eq!((scene.fire(&cpu), scene.runs()), (0, 1));
    scene.make_ready(&cpu);

    if C::CANCELS {
        // Cancelled, it does not fire, and the callback is gone.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert_eq!(scene.perform(&cpu, Cancel), Ok(true), "it was pending");
        assert_eq!(scene.perform(&cpu, Cancel), Ok(false), "it was not");
        assert_eq!((scene.fire(&cpu), scene.runs()), (0, 1));
        assert!(scene.cell.inspect().callback.is_null());
        assert!(scene.cell.inspect().program.is_null());
        assert_eq!(scene.perform(&cpu, SetCallback), Ok(true));
        // Absolute time and pinning.
        let exact = Start { ns: 77, flags: Start::ABSOLUTE | Start::CPU_PIN };
        assert_eq!(scene.cell.start(&cpu, exact), Ok(()));
        assert_eq!(scene.machine.engine().next_expiry_ns(0), 77);
        assert_eq!((scene.fire(&cpu), scene.runs()), (1, 2));
    }
    if C::CANCELS_ASYNC {
        // Without waiting: the callback stays.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert!(scene.perform(&cpu, CancelAsync).is_ok());
        assert_eq!((scene.fire(&cpu), scene.runs()), (0, 2));
        assert!(!scene.cell.inspect().callback.is_null());
    }
    scene.rest(&cpu);
}

/// Checks the results that depend on the context alone: nobody is interrupted in the middle of anything.
pub(crate) fn context_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = C::PROMISES;
    let refused = |allowed: bool| if allowed { Ok(true) } else { Err(Errno::EOPNOTSUPP) };
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    C::reserve(&cpu, 8);
    let in_nmi = |op| cpu.nmi(|nmi| scene.perform(nmi, op));

    assert_eq!(C::FREES_IN_NMI, promise.start_in_nmi, "both take the engine's locks or neither");
    assert_eq!(in_nmi(Init), refused(promise.init_in_nmi));
    scene.cell.cancel_and_free(&cpu);
    scene.machine.settle(&cpu);
    scene.make_ready(&cpu);
    assert_eq!(in_nmi(SetCallback), refused(promise.update_in_nmi));
    assert_eq!(in_nmi(StartOp), refused(promise.start_in_nmi));
    assert_eq!(scene.fire(&cpu), usize::from(promise.start_in_nmi), "what was started fires");
    assert_eq!(in_nmi(Cancel), Err(Errno::EOPNOTSUPP), "waiting is not possible in NMI");
    // In hardirq context, and with interrupts off.
    let cancelled = match (C::CANCELS, promise.cancel_needs_irqs) {
        (false, _) | (true, true) => Err(Errno::EOPNOTSUPP),
        (true, false) => Ok(false),
    };
    assert_eq!(scene.perform(&cpu.interrupted(Context::Hardirq), Cancel), cancelled);
    {
        let _irq_off = cpu.irq_save();
        assert_eq!(scene.perform(&cpu, Cancel), cancelled);
    }
    assert_eq!(scene.perform(&cpu, SetCallback), Ok(true), "what a cancel cleared");
    if C::CANCELS_ASYNC {
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert!(matches!(in_nmi(CancelAsync), Ok(_) | Err(Errno::ECANCELED)));
        assert_eq!(scene.fire(&cpu), 0, "what was cancelled does not fire");
    } else {
        assert_eq!(in_nmi(CancelAsync), Err(Errno::EOPNOTSUPP));
    }
    if promise.start_in_nmi {
        commands_wait_for_interrupts(&scene, &cpu);
        // Freed in NMI.
        assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
        assert_eq!(in_nmi(Free), Ok(true));
        assert_eq!(scene.fire(&cpu), 0);
    }
    scene.rest(&cpu);
}

/// Checks that, with interrupts off, commands wait for the end of the section; `cmd-queue` executes them in
/// order, the others the newest alone: the outcome is the same.
fn commands_wait_for_interrupts<C: AsyncCell<P>>(scene: &Scene<'_, C>, cpu: &Cpu<'_, P>) {
    if C::KIND != CellKind::Timer || !C::PROMISES.waits_for_irqs {
        return;
    }
    let engine = scene.machine.engine();
    let at = |ns| Start { ns, flags: Start::ABSOLUTE };
    {
        let _irq_off = cpu.irq_save();
        assert_eq!(scene.cell.start(cpu, at(5)), Ok(()));
        assert!(matches!(scene.perform(cpu, CancelAsync), Ok(_) | Err(Errno::ECANCELED)));
        assert_eq!(scene.cell.start(cpu, at(7)), Ok(()));
        assert_eq!(engine.next_expiry_ns(0), u64::MAX, "armed with interrupts off");
    }
    assert_eq!(engine.next_expiry_ns(0), 7);
    {
        let _irq_off = cpu.irq_save();
        assert_eq!(scene.cell.start(cpu, at(9)), Ok(()));
        assert!(matches!(scene.perform(cpu, CancelAsync), Ok(_) | Err(Errno::ECANCELED)));
    }
    assert_eq!(engine.next_expiry_ns(0), u64::MAX);
}

/// Checks the results of operations that need memory which the context may not take.
pub(crate) fn memory_rows<C: AsyncCell<P>>(seen: &Seen) {
    let promise = C::PROMISES;
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let hardirq = cpu.interrupted(Context::Hardirq);
    assert_eq!(scene.perform(&hardirq, Init), Err(Errno::ENOMEM));
    assert!(!scene.cell.inspect().initialised);
    if promise.update_allocates {
        // Before any update in a task, which makes room for more.
        assert_eq!(scene.perform(&cpu, Init), Ok(true));
        assert_eq!(scene.perform(&hardirq, SetCallback), Err(Errno::ENOMEM));
        assert!(scene.cell.inspect().program.is_null());
        scene.cell.cancel_and_free(&cpu);
        scene.machine.settle(&cpu);
    }
    scene.make_ready(&cpu);
    if C::PROMISES.cancel_needs_irqs {
        let memoryless = Err(Errno::ENOMEM);
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, StartOp)), memoryless);
        if C::CANCELS {
            assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, CancelAsync)), memoryless);
            assert_eq!(scene.perform(&cpu, StartOp), Ok(true), "directly, without a command");
        }
        // Without a command the last put alone cancels.
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, Free)), Ok(true));
        scene.machine.settle(&cpu);
        assert_eq!(scene.fire(&cpu), 0);
        scene.make_ready(&cpu);
    }
    C::reserve(&cpu, 1);
    if promise.start_in_nmi {
        assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, StartOp)), Ok(true));
    }
    scene.rest(&cpu);
}

/// Checks task work: one operation, and its results.
pub(crate) fn schedule_rows<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    for op in [Init, SetCallback, StartOp, Cancel, CancelAsync] {
        assert_eq!(scene.perform(&cpu, op), Err(Errno::EOPNOTSUPP), "{op:?}");
    }
    let hardirq = cpu.interrupted(Context::Hardirq);
    assert_eq!(scene.perform(&hardirq, Schedule), Err(Errno::ENOMEM));

    // Runs once; until then the cell is busy.
    assert_eq!(scene.perform(&cpu, Schedule), Ok(true));
    assert_eq!(scene.perform(&cpu, Schedule), Err(Errno::EBUSY));
    cpu.return_to_user();
    cpu.return_to_user();
    assert_eq!(scene.runs(), 1);

    // In NMI.
    let expected = if C::NMI_SAFE { Ok(true) } else { Err(Errno::EOPNOTSUPP) };
    assert_eq!(cpu.nmi(|nmi| scene.perform(nmi, Schedule)), expected);
    cpu.return_to_user();
    assert_eq!(scene.runs(), 1 + u64::from(C::NMI_SAFE));

    // A program on its way out.
    let dying = Program::<P>::new([(count_only as _, 0)]);
    dying.put();
    let callback = dying.callback(0);
    let outcome = scene.cell.schedule(&cpu, &scene.map, &dying, callback, Start::default());
    assert_eq!(seen.note(Schedule, outcome.map(|()| true)), Err(Errno::EBADF));
    assert_eq!(dying.refs(), 0);

    // Freed before it ran, it does not run.
    let runs = scene.runs();
    assert_eq!(scene.perform(&cpu, Schedule), Ok(true));
    scene.cell.cancel_and_free(&cpu);
    cpu.return_to_user();
    assert_eq!(scene.runs(), runs);
    scene.machine.settle(&cpu);

    // The map was abandoned; the task is gone.
    let map = Map::new();
    map.put_user::<C>(&cpu, []);
    let first = &scene.programs[0];
    let outcome = scene.cell.schedule(&cpu, &map, first, first.callback(0), Start::default());
    // As merged a round has begun by then, and the cell is freed.
    let merged = C::ID == "task-work";
    let expected = Err(if merged { Errno::EBUSY } else { Errno::EBADF });
    assert_eq!(seen.note(Schedule, outcome.map(|()| true)), expected);
    {
        let other = scene.cpu(1);
        other.exit_task();
        let expected = Err(if merged { Errno::EBADF } else { Errno::EPERM });
        assert_eq!(scene.perform(&other, Schedule), expected);
    }
    scene.rest(&cpu);
}
