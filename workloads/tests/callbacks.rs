//! Callbacks that cancel: their own timer, which would wait for itself, and each other's, which
//! would wait for ever. EDEADLK, never a hang, in every design of a timer.

use core::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::{Memory, NativeAudit};
use cellbench_impls::program::{Callback, Program};
use cellbench_impls::registry::{CELLS, CellVisitor, visit_cell};
use cellbench_impls::{AsyncCell, CellKind, Cpu, CpuId, Errno, Machine};

type P = NativeAudit;

/// State that the callbacks share, by its address.
struct Scene<C> {
    cells: [C; 2],
    /// Cell that each callback cancels, as an index.
    victims: [usize; 2],
    /// The callbacks run at the same time.
    both_run: Option<Barrier>,
    outcomes: Mutex<Vec<Result<bool, Errno>>>,
    ran: AtomicU32,
}

fn cancel_victim<C: AsyncCell<P>>(cpu: &Cpu<'_, P>, callback: &Callback<P>, value: *const ()) {
    // SAFETY: the address of the scene, which outlives the callbacks.
    let scene = unsafe { &*ptr::with_exposed_provenance::<Scene<C>>(callback.data) };
    let own = usize::from(ptr::eq(ptr::from_ref(&scene.cells[1]).cast(), value));
    if let Some(both_run) = &scene.both_run {
        both_run.wait();
    }
    let outcome = scene.cells[scene.victims[own]].cancel(cpu);
    scene.outcomes.lock().unwrap().push(outcome);
    scene.ran.fetch_add(1, Ordering::Release);
}

/// Starts `timers` cells, each on a CPU of its own, and returns what their callbacks' cancels got.
fn outcomes<C: AsyncCell<P>>(timers: u32, victims: [usize; 2]) -> Vec<Result<bool, Errno>> {
    let machine = Machine::<P>::new(MachineConfig::new(timers));
    let map = Map::new();
    // SAFETY: used with this machine alone, which is settled below, before the cells go.
    let cells = unsafe { [C::new(), C::new()] };
    let scene = Scene {
        cells,
        victims,
        both_run: (timers == 2).then(|| Barrier::new(2)),
        outcomes: Mutex::new(Vec::new()),
        ran: AtomicU32::new(0),
    };
    let address = ptr::from_ref(&scene).expose_provenance();
    let program = Program::<P>::new([(cancel_victim::<C> as _, address)]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..timers {
            let (machine, map, program, scene, over) = (&machine, &map, &program, &scene, &over);
            scope.spawn(move || {
                let cpu = machine.cpu(CpuId(number));
                let cell = &scene.cells[number as usize];
                cell.init(&cpu, map, InitFlags::NONE).expect("init");
                cell.set_callback(&cpu, program, program.callback(0)).expect("set_callback");
                cell.start(&cpu, Start::after_ns(0)).expect("start");
                while !over.load(Ordering::Acquire) {
                    machine.engine().run_timers(&cpu, number, P::now_ns());
                    if scene.ran.load(Ordering::Acquire) == timers {
                        over.store(true, Ordering::Release);
                    }
                    cpu.quiescent();
                    thread::yield_now();
                }
            });
        }
    });
    let cpu = machine.cpu(CpuId(0));
    scene.cells.iter().for_each(|cell| cell.cancel_and_free(&cpu));
    machine.settle(&cpu);
    assert_eq!(program.refs(), 1, "{}: program references", C::ID);
    scene.outcomes.into_inner().unwrap()
}

struct SelfCancel;

impl CellVisitor<P> for SelfCancel {
    type Output = ();
    fn visit<C: AsyncCell<P>>(self) {
        assert_eq!(outcomes::<C>(1, [0, 0]), [Err(Errno::EDEADLK)], "{}", C::ID);
    }
}

struct MutualCancel;

impl CellVisitor<P> for MutualCancel {
    type Output = ();
    fn visit<C: AsyncCell<P>>(self) {
        for _ in 0..20 {
            let outcomes = outcomes::<C>(2, [1, 0]);
            assert_eq!(outcomes.len(), 2, "{}", C::ID);
            assert!(
                outcomes.contains(&Err(Errno::EDEADLK)),
                "{}: both waited, or neither: {outcomes:?}",
                C::ID
            );
        }
    }
}

#[test]
fn a_callback_that_cancels_its_own_timer_gets_edeadlk() {
    for cell in CELLS.iter().filter(|cell| cell.kind == CellKind::Timer) {
        visit_cell::<P, _>(cell.id, cell.kind, SelfCancel).expect("listed");
    }
}

#[test]
fn callbacks_that_cancel_each_other_come_apart() {
    for cell in CELLS.iter().filter(|cell| cell.kind == CellKind::Timer) {
        visit_cell::<P, _>(cell.id, cell.kind, MutualCancel).expect("listed");
    }
}
