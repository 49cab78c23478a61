//! Charges arrive in full, and where they belong: on the simulated platform, where time is exact to an instruction.
//! Two machines that differ in one charge differ by that charge for each operation, in every lock and
//! cell, or the charge overlapped with something or was left out.

#![cfg(feature = "sim")]

use std::cell::Cell;
use std::rc::Rc;

use cellbench_impls::cell::{CellKind, InitFlags, Start};
use cellbench_impls::machine::{Charges, MachineConfig};
use cellbench_impls::map::Map;
use cellbench_impls::platform::{Memory as _, Sim};
use cellbench_impls::program::{Program, count_only};
use cellbench_impls::registry::{CELLS, CellVisitor, LOCKS, LockVisitor, visit_cell, visit_lock};
use cellbench_impls::{AsyncCell, CpuId, Lock, Machine};
use cellbench_sim::{MachineModel, Simulation, now_ns};

/// Operations that are timed.
const TIMED: u32 = 50;
/// Operations before them, after which each costs the same.
const WARM: u32 = 200;
/// A charge in nanoseconds, which a turn takes in the simulator.
const CHARGE_NS: u32 = 8;
/// Far away, in nanoseconds.
const FAR: Start = Start { ns: 3_600_000_000_000, flags: 0 };

fn charged(of: impl FnOnce(&mut Charges)) -> MachineConfig {
    let mut charges = Charges::default();
    of(&mut charges);
    MachineConfig { charges, ..MachineConfig::new(1) }
}

/// Returns the nanoseconds that [`TIMED`] calls of the closure take on a simulated core, where it is made.
fn simulate<F: FnMut()>(make: impl FnOnce() -> F + 'static) -> f64 {
    let elapsed = Rc::new(Cell::new(0.0));
    let taken = Rc::clone(&elapsed);
    let model = MachineModel::preset("desktop").expect("a preset");
    let mut simulation = Simulation::new(&model, 1);
    let spawned = simulation.spawn(0, move || {
        let mut step = make();
        (0..WARM).for_each(|_| step());
        let began = now_ns();
        (0..TIMED).for_each(|_| step());
        taken.set(now_ns() - began);
    });
    spawned.expect("a free core");
    simulation.run().expect("the code ends");
    elapsed.get()
}

struct Masked(Charges);

impl LockVisitor<Sim> for Masked {
    type Output = f64;
    fn visit<L: Lock<Sim>>(self) -> f64 {
        simulate(move || {
            let config = MachineConfig { charges: self.0, ..MachineConfig::new(1) };
            // Leaked: the simulated core's code borrows them, and ends with the test.
            let machine: &'static Machine<Sim> = Box::leak(Box::new(Machine::new(config)));
            let (cpu, lock) = (machine.cpu(CpuId(0)), L::new());
            move || {
                // Between two pairs: a queued lock that is taken again at once waits until the byte
                // store of its release has left the store buffer, and a charge in between hides
                // that wait.
                Sim::fence();
                let _irq_off = cpu.irq_save();
                lock.with(&cpu, || ()).expect("nobody else takes it");
            }
        })
    }
}

#[test]
fn masking_costs_what_is_charged_in_every_lock() {
    let charges = charged(|charges| charges.irq_save = CHARGE_NS).charges;
    for lock in LOCKS {
        let time = |charges| visit_lock::<Sim, _>(lock.id, Masked(charges)).expect("listed");
        let more = time(charges) - time(Charges::default());
        assert!(is_a_charge_each(more), "{}: {more} ns", lock.id);
    }
}

/// How a cell is started.
#[derive(Clone, Copy)]
enum From {
    Task,
    Nmi,
}

struct Started(Charges, From);

impl CellVisitor<Sim> for Started {
    type Output = f64;
    fn visit<C: AsyncCell<Sim>>(self) -> f64 {
        let Self(charges, from) = self;
        simulate(move || {
            let config = MachineConfig { charges, ..MachineConfig::new(1) };
            // Leaked, all three: as above.
            let machine: &'static Machine<Sim> = Box::leak(Box::new(Machine::new(config)));
            let map: &'static Map<Sim> = Box::leak(Box::new(Map::new()));
            let program: &'static Program<Sim> = Box::leak(Program::new([(count_only as _, 0)]));
            // SAFETY: used with this machine, and never freed.
            let cell: &'static C = Box::leak(Box::new(unsafe { C::new() }));
            let cpu = machine.cpu(CpuId(0));
            C::reserve(&cpu, 1000);
            cell.init(&cpu, map, InitFlags::NONE).expect("a fresh cell");
            cell.set_callback(&cpu, program, program.callback(0)).expect("a fresh cell");
            move || match from {
                From::Task => cell.start(&cpu, FAR).expect("it is ready"),
                From::Nmi => cpu.nmi(|nmi| cell.start(nmi, FAR)).expect("it is ready"),
            }
        })
    }
}

/// Returns whether the time that [`TIMED`] operations took more is a charge for each: none missing, none
/// twice. Two simulations differ by less than one where their ends fall into an operation.
fn is_a_charge_each(more_ns: f64) -> bool {
    (more_ns - f64::from(CHARGE_NS * TIMED)).abs() < f64::from(CHARGE_NS) / 2.0
}

fn more(id: &str, kind: CellKind, from: From, charges: Charges) -> f64 {
    let time = |charges| visit_cell::<Sim, _>(id, kind, Started(charges, from)).expect("listed");
    time(charges) - time(Charges::default())
}

#[test]
fn arming_and_queueing_cost_what_is_charged_in_every_cell() {
    let arm = charged(|charges| charges.arm_timer = CHARGE_NS).charges;
    let queue = charged(|charges| charges.queue_work = CHARGE_NS).charges;
    for cell in CELLS {
        let charges = match cell.kind {
            CellKind::Timer => arm,
            CellKind::Wq => queue,
            CellKind::TaskWork => continue,
        };
        let more = more(cell.id, cell.kind, From::Task, charges);
        assert!(is_a_charge_each(more), "{} {}: {more} ns", cell.id, cell.kind);
    }
}

#[test]
fn a_command_from_nmi_costs_one_interrupt() {
    let charges = charged(|charges| charges.irq_work = CHARGE_NS).charges;
    for cell in CELLS.iter().filter(|cell| cell.kind != CellKind::TaskWork) {
        if cell.promises.start_in_nmi {
            let more = more(cell.id, cell.kind, From::Nmi, charges);
            assert!(is_a_charge_each(more), "{} {}: {more} ns", cell.id, cell.kind);
        }
    }
}

/// v4 takes the interrupt from a task as well; v6 and the merged form do not.
#[test]
fn only_v3_and_v4_interrupt_themselves_in_a_task() {
    let charges = charged(|charges| charges.irq_work = CHARGE_NS).charges;
    for cell in CELLS.iter().filter(|cell| cell.kind == CellKind::Timer) {
        let interrupts = ["mpmc-cell", "seq-latch-v4"].contains(&cell.id);
        let more = more(cell.id, cell.kind, From::Task, charges);
        assert!(
            if interrupts { is_a_charge_each(more) } else { more == 0.0 },
            "{}: {more}",
            cell.id
        );
    }
}
