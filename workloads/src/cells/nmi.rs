//! Operations that interrupt others on the same CPU: what each design answers in task, hardirq and
//! NMI context, and whether it stays whole. Once with everything else that can happen at the same
//! time: callbacks that use and free the cells, and more workers than CPUs.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use cellbench_impls::cell::{ALL_KINDS, CellKind, Steps};
use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::{AsyncCell, Context, Cpu, Errno, Machine, Outcome, Platform};
use crossbeam_utils::CachePadded;

use super::callback_storm::{self, CELLS, PROGRAMS, Ring, SOON_NS};
use super::same_cell::WORKERS_PER_CPU;
use super::solo::FAR;
use crate::ensure;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, EngineNeed, Needs, Trial, Violation, Workload};
use crate::unexpected::Unexpected;
use crate::worker::Worker;

/// Interruptions a second: one in some hundred operations, and a share of the CPU that leaves the
/// interrupted code most of it.
const RATE_HZ: u32 = 10_000;
/// Blocks and commands that each CPU keeps ready: a handler cannot get fresh memory, and what is
/// freed comes back a grace period later.
const RESERVE: usize = 4096;

/// Errors that operations which race may return: first where a lock is waited for whose holder may not be
/// running, then in any context, then also in hardirq context, where no fresh memory can be had, and last in
/// NMI context alone.
const ERRORS: [Errno; 10] = [
    Errno::ETIMEDOUT,
    Errno::EBUSY,
    Errno::EINVAL,
    Errno::EPERM,
    Errno::ECANCELED,
    Errno::EAGAIN,
    Errno::ENOENT,
    Errno::EDEADLK,
    Errno::ENOMEM,
    Errno::EOPNOTSUPP,
];

/// Every operation in every context.
pub(crate) struct Mix;
/// The mix with callbacks that run, and use and free the cells themselves.
pub(crate) struct Stress;
/// The handler updates the very cell that its worker is updating.
pub(crate) struct SameCell;

impl Workload for Mix {
    const ID: &'static str = "nmi";
    const ABOUT: &'static str = "4 cells: every operation, from task, hardirq and NMI context";
    const NEEDS: Needs = Needs {
        interrupts: &[Context::Hardirq, Context::Nmi],
        interrupt_rate_hz: RATE_HZ,
        ..Needs::NOTHING
    };
}

impl Workload for Stress {
    const ID: &'static str = "stress";
    const ABOUT: &'static str =
        "nmi with 4 workers on each CPU and callbacks that start, cancel and free cells";
    const ENGINE: EngineNeed = EngineNeed::Live;
    const NEEDS: Needs = Needs { workers_per_cpu: WORKERS_PER_CPU, ..<Mix as Workload>::NEEDS };
}

impl Workload for SameCell {
    const ID: &'static str = "nmi-same-cell";
    const ABOUT: &'static str = "own cell: updates, interrupted by NMIs that update the same cell";
    const NEEDS: Needs =
        Needs { interrupts: &[Context::Nmi], interrupt_rate_hz: RATE_HZ, ..Needs::NOTHING };
}

impl CellWorkload for Mix {
    const KINDS: &'static [CellKind] = ALL_KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(MixTrial::<P, C> {
            field: Field::new(params, Layout::Padded, CELLS, PROGRAMS),
            ring: None,
            unexpected: Unexpected::default(),
        })
    }
}

impl CellWorkload for Stress {
    const KINDS: &'static [CellKind] = ALL_KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let (field, ring) = callback_storm::ring(params, true);
        Arc::new(MixTrial::<P, C> { field, ring: Some(ring), unexpected: Unexpected::default() })
    }
}

impl CellWorkload for SameCell {
    const KINDS: &'static [CellKind] = ALL_KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let threads = params.threads as usize;
        Arc::new(SameCellTrial::<P, C> {
            field: Field::new(params, Layout::Padded, threads, 2 * threads),
            inside: (0..threads).map(|_| CachePadded::default()).collect(),
            unexpected: Unexpected::default(),
        })
    }
}

struct MixTrial<P: Platform, C> {
    field: Field<P, C>,
    /// State that the callbacks share, where they use the cells.
    ring: Option<Arc<Ring>>,
    unexpected: Unexpected,
}

impl<P: Platform, C: AsyncCell<P>> MixTrial<P, C> {
    /// Does one random operation on a random cell.
    fn attempt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let cell = self.field.cell(worker.below(CELLS as u64) as usize);
        let program = worker.below(PROGRAMS as u64) as usize;
        let (program, callback) = self.field.callback(program, 0);
        let chance = worker.below(100);
        let start = match self.ring {
            Some(_) => Start::after_ns(worker.below(SOON_NS)),
            None => FAR,
        };
        let (op, outcome) = if C::STEPS == Steps::One {
            match chance {
                0..80 => {
                    let map = self.field.map();
                    (Op::Schedule, cell.schedule(cpu, map, program, callback, start))
                }
                _ => return self.free(cpu, cell, &mut worker.tally),
            }
        } else {
            match chance {
                0..15 => (Op::Init, cell.init(cpu, self.field.map(), InitFlags::NONE)),
                15..50 => (Op::SetCallback, cell.set_callback(cpu, program, callback)),
                50..75 => (Op::Start, cell.start(cpu, start)),
                75..83 if C::CANCELS => (Op::Cancel, cell.cancel(cpu).map(|_| ())),
                83..91 if C::CANCELS_ASYNC => (Op::CancelAsync, cell.cancel_async(cpu).map(|_| ())),
                _ => return self.free(cpu, cell, &mut worker.tally),
            }
        };
        worker.tally.count(op, &outcome);
        let first = usize::from(!C::OCCUPIES);
        let allowed = match cpu.context() {
            Context::Nmi => &ERRORS[first..],
            Context::Hardirq if op == Op::Cancel && C::PROMISES.cancel_needs_irqs => {
                &ERRORS[first..]
            }
            Context::Hardirq => &ERRORS[first..ERRORS.len() - 1],
            _ => &ERRORS[first..ERRORS.len() - 2],
        };
        self.unexpected.note(op, &outcome, allowed);
    }

    /// Frees the cell, unless the design may not in NMI context: its lock, or one of the engine
    /// that
    /// it takes, could be held by what was interrupted.
    fn free(&self, cpu: &Cpu<'_, P>, cell: &C, tally: &mut Tally) {
        if cpu.in_nmi() && !C::FREES_IN_NMI {
            tally.count::<()>(Op::Free, &Err(Errno::EOPNOTSUPP));
            return;
        }
        let deadlocks = cpu.current().deadlocks();
        cell.cancel_and_free(cpu);
        // A task work that is cancelled at once, in NMI, may want the lock that it interrupted.
        let deadlocked = cpu.in_nmi() && cpu.current().deadlocks() > deadlocks;
        tally.count(Op::Free, &if deadlocked { Err(Errno::EDEADLK) } else { Ok(()) });
    }
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for MixTrial<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, _: &mut Worker) {
        C::reserve(cpu, RESERVE);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            self.attempt(cpu, worker);
            cpu.return_to_user();
        }
    }

    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.attempt(cpu, worker);
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.ring.iter().for_each(|ring| ring.end());
        self.field.check(cpu)?;
        self.unexpected.check("an operation returns what its context allows")?;
        let restarts = self.ring.as_ref().map_or(0, |ring| ring.restarts());
        let starts = total.ok(Op::Start) + total.ok(Op::Schedule) + restarts;
        let runs = self.field.runs();
        ensure!(runs <= starts, "{runs} callbacks ran after {starts} starts");
        Ok(())
    }
}

struct SameCellTrial<P: Platform, C> {
    field: Field<P, C>,
    /// For each worker, whether it is inside an operation.
    inside: Box<[CachePadded<AtomicBool>]>,
    unexpected: Unexpected,
}

impl<P: Platform, C: AsyncCell<P>> SameCellTrial<P, C> {
    /// Makes updates and starts in turn; the handler has programs of its own.
    fn attempt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) -> (Op, Outcome) {
        let own = worker.index as usize;
        let cell = self.field.cell(own);
        let turn = worker.step;
        worker.step += 1;
        let program = 2 * own + usize::from(cpu.in_nmi());
        let (program, callback) = self.field.callback(program, ((turn / 2) & 1) as usize);
        let (op, outcome) = if C::STEPS == Steps::One {
            (Op::Schedule, cell.schedule(cpu, self.field.map(), program, callback, FAR))
        } else if turn & 1 == 0 {
            (Op::SetCallback, cell.set_callback(cpu, program, callback))
        } else {
            (Op::Start, cell.start(cpu, FAR))
        };
        worker.tally.count(op, &outcome);
        (op, outcome)
    }

    /// Returns what an NMI may get. Nobody but the interrupted worker uses the cell: it is in the
    /// way only
    /// while it is inside its operation.
    fn allowed_in_nmi(inside: bool) -> &'static [Errno] {
        match (C::NMI_SAFE, inside) {
            (false, _) => &[Errno::EOPNOTSUPP],
            // The round of task work that an NMI began is in the way until the task has run it.
            (true, false) if C::STEPS == Steps::One => &[Errno::EBUSY],
            // Starts that arm at once are refused, and a burst may exhaust the memory.
            (true, false) => &[Errno::EOPNOTSUPP, Errno::ENOMEM],
            (true, true) => {
                &[Errno::EOPNOTSUPP, Errno::ENOMEM, Errno::EBUSY, Errno::EAGAIN, Errno::EDEADLK]
            }
        }
    }
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for SameCellTrial<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        C::reserve(cpu, RESERVE);
        self.field.make_ready(cpu, worker.index as usize, 2 * worker.index as usize);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let inside = &self.inside[worker.index as usize];
        // An NMI is over when the interrupted operation goes on: it is in nobody's way, but for
        // the round of task work that it began.
        let allowed: &[Errno] = if C::STEPS == Steps::One { &[Errno::EBUSY] } else { &[] };
        for _ in 0..steps {
            // Relaxed: read by this CPU's own handler.
            inside.store(true, Ordering::Relaxed);
            let (op, outcome) = self.attempt(cpu, worker);
            // Running a task work ends its round, which is an operation on the cell as well.
            cpu.return_to_user();
            inside.store(false, Ordering::Relaxed);
            self.unexpected.note(op, &outcome, allowed);
        }
    }

    fn interrupt(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let inside = self.inside[worker.index as usize].load(Ordering::Relaxed);
        let (op, outcome) = self.attempt(cpu, worker);
        self.unexpected.note(op, &outcome, Self::allowed_in_nmi(inside));
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.unexpected.check("only what is interrupted is in the way")?;
        if C::STEPS == Steps::One {
            self.field.machine().settle(cpu);
            let (runs, scheduled) = (self.field.runs(), total.ok(Op::Schedule));
            ensure!(runs == scheduled, "{runs} callbacks ran of {scheduled} that were scheduled");
        }
        self.field.check(cpu)
    }
}
