//! Operations from callbacks on the cells that they belong to, and on each other's.

use std::ptr;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use cellbench_impls::cell::InitFlags;
use cellbench_impls::program::{Callback, Program};
use cellbench_impls::{AsyncCell, Cpu, Errno};

use crate::scene::{Cancel, CancelAsync, END_NS, FAR, Init, P, Scene, Seen, StartOp};

/// Starts its cell again and then frees it, as a callback.
fn start_and_free<C: AsyncCell<P>>(cpu: &Cpu<'_, P>, callback: &Callback<P>, _: *const ()) {
    // SAFETY: the test exposed the cell's address, and the cell outlives the callback.
    let cell = unsafe { &*ptr::with_exposed_provenance::<C>(callback.data) };
    let _ = cell.start(cpu, FAR);
    cell.cancel_and_free(cpu);
}

/// Checks that the timer which a callback armed before it freed its own cell does not fire on freed memory.
pub(crate) fn frees_itself<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let data = ptr::from_ref(&scene.cell).expose_provenance();
    let program = Program::new([(start_and_free::<C> as _, data)]);
    assert_eq!(scene.perform(&cpu, Init), Ok(true));
    assert_eq!(scene.cell.set_callback(&cpu, &program, program.callback(0)), Ok(()));
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert!(scene.fire(&cpu) >= 1);
    assert!(!scene.cell.inspect().initialised);
    scene.rest(&cpu);
    let runs = program.callback(0).runs();
    assert_eq!(scene.fire(&cpu), 0);
    assert_eq!((program.callback(0).runs(), program.refs()), (runs, 1));
}

/// Data of a callback, which has its address.
struct Inside<'a, C> {
    scene: &'a Scene<'a, C>,
    /// The cell to cancel from the callback.
    target: &'a C,
    barrier: Option<&'a Barrier>,
    result: Mutex<Option<Result<bool, Errno>>>,
}

impl<C: AsyncCell<P>> Inside<'_, C> {
    fn program(&self) -> Box<Program<P>> {
        let data = ptr::from_ref(self).expose_provenance();
        Program::new([(cancel_inside::<C> as _, data)])
    }

    fn result(&self) -> Result<bool, Errno> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).expect("the callback ran")
    }
}

/// Cancels the target, as a callback.
fn cancel_inside<C: AsyncCell<P>>(cpu: &Cpu<'_, P>, callback: &Callback<P>, _: *const ()) {
    // SAFETY: the test exposed this address, and outlives the callback.
    let inside = unsafe { &*ptr::with_exposed_provenance::<Inside<'_, C>>(callback.data) };
    if let Some(barrier) = inside.barrier {
        barrier.wait();
    }
    if C::CANCELS_ASYNC && inside.barrier.is_none() {
        // It does not wait, and says that the callback runs where it can know.
        let at_once = inside.scene.seen.note(CancelAsync, inside.target.cancel_async(cpu));
        let knows = C::PROMISES.async_reports;
        assert_eq!(at_once, if knows { Err(Errno::EPERM) } else { Ok(false) });
    }
    let result = inside.scene.seen.note(Cancel, inside.target.cancel(cpu));
    *inside.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
}

/// Checks that a callback which cancels its own timer is refused, as it would wait for itself.
pub(crate) fn self_cancel<C: AsyncCell<P>>(seen: &Seen) {
    let scene = Scene::<C>::new(seen);
    let cpu = scene.cpu(0);
    let inside =
        Inside { scene: &scene, target: &scene.cell, barrier: None, result: Mutex::new(None) };
    let program = inside.program();
    assert_eq!(scene.perform(&cpu, Init), Ok(true));
    assert_eq!(scene.cell.set_callback(&cpu, &program, program.callback(0)), Ok(()));
    assert_eq!(scene.perform(&cpu, StartOp), Ok(true));
    assert_eq!(scene.fire(&cpu), 1);
    assert_eq!(inside.result(), Err(Errno::EDEADLK));
    assert!(!scene.cell.inspect().callback.is_null(), "a refused cancel changes nothing");
    scene.rest(&cpu);
    assert_eq!(program.refs(), 1);
}

/// Checks two callbacks that cancel each other: each finds the other running, and at least one is told that
/// it must not wait.
pub(crate) fn mutual_cancel<C: AsyncCell<P>>(seen: &Seen) {
    const ROUNDS: usize = 50;
    let scene = Scene::<C>::new(seen);
    // SAFETY: as the scene's own cell; freed below.
    let second = unsafe { C::new() };
    for _ in 0..ROUNDS {
        let barrier = Barrier::new(2);
        let inside = |target| Inside {
            scene: &scene,
            target,
            barrier: Some(&barrier),
            result: Mutex::new(None),
        };
        let insides = [inside(&second), inside(&scene.cell)];
        let programs = insides.each_ref().map(Inside::program);
        for (number, cell) in [&scene.cell, &second].into_iter().enumerate() {
            // Each on the base of a CPU of its own.
            let cpu = scene.cpu(number as u32);
            let program = &programs[number];
            assert_eq!(cell.init(&cpu, &scene.map, InitFlags::NONE), Ok(()));
            assert_eq!(cell.set_callback(&cpu, program, program.callback(0)), Ok(()));
            assert_eq!(cell.start(&cpu, FAR), Ok(()));
        }
        thread::scope(|scope| {
            for number in 0..2 {
                let scene = &scene;
                scope.spawn(move || {
                    let engine = scene.machine.engine();
                    assert_eq!(engine.run_timers(&scene.cpu(number), number, END_NS), 1);
                });
            }
        });
        let results = insides.each_ref().map(Inside::result);
        assert!(results.contains(&Err(Errno::EDEADLK)), "{results:?}");
        for result in results {
            assert!(matches!(result, Ok(false) | Err(Errno::EDEADLK)), "{result:?}");
        }
        let cpu = scene.cpu(0);
        second.cancel_and_free(&cpu);
        scene.rest(&cpu);
        assert_eq!(programs.map(|program| program.refs()), [1, 1]);
    }
}
