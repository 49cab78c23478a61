//! One operation at a time, each worker on a cell, programs and cache lines of its own: the cost
//! of an operation that nobody disturbs.

use core::marker::PhantomData;
use std::sync::Arc;

use cellbench_impls::cell::{CellKind, InitFlags, Start as StartArgs, TWO_STEP_KINDS};
use cellbench_impls::{AsyncCell, Cpu, Machine, Outcome, Platform};

use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// Far enough away that no timer fires during a run, in nanoseconds.
pub(crate) const FAR: StartArgs = StartArgs { ns: 3_600_000_000_000, flags: 0 };

/// Programs of each worker, used in turn.
const PROGRAMS: usize = 2;

/// Step of a worker on its own cell.
pub(crate) trait SoloStep: Send + Sync + 'static {
    const ID: &'static str;
    const ABOUT: &'static str;
    const KINDS: &'static [CellKind] = TWO_STEP_KINDS;
    /// Operation that the step's outcome is counted as.
    const OP: Op;

    /// Takes the step with number `turn`; operations beside [`OP`](Self::OP) are counted by
    /// [`count_others`](Self::count_others).
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, turn: u64) -> Outcome;

    /// Counts what `steps` steps did beside [`OP`](Self::OP): operations that always succeed.
    fn count_others(tally: &mut Tally, steps: u64) {
        let _ = (tally, steps);
    }
}

/// A worker's own cell and programs.
pub(crate) struct Own<'a, P: Platform, C> {
    cpu: &'a Cpu<'a, P>,
    field: &'a Field<P, C>,
    cell: &'a C,
    first_program: usize,
}

/// A solo workload.
pub(crate) struct Solo<S>(PhantomData<S>);

impl<S: SoloStep> Workload for Solo<S> {
    const ID: &'static str = S::ID;
    const ABOUT: &'static str = S::ABOUT;
    const WITH_EPOCHS: bool = true;
}

impl<S: SoloStep> CellWorkload for Solo<S> {
    const KINDS: &'static [CellKind] = S::KINDS;

    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let threads = params.threads as usize;
        let field = Field::<P, C>::new(params, Layout::Padded, threads, threads * PROGRAMS);
        Arc::new(SoloTrial::<P, C, S> { field, step: PhantomData })
    }
}

struct SoloTrial<P: Platform, C, S> {
    field: Field<P, C>,
    step: PhantomData<S>,
}

impl<P: Platform, C: AsyncCell<P>, S: SoloStep> Trial<P> for SoloTrial<P, C, S> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let own = worker.index as usize;
        self.field.make_ready(cpu, own, own * PROGRAMS);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let index = worker.index as usize;
        let own = Own {
            cpu,
            field: &self.field,
            cell: self.field.cell(index),
            first_program: index * PROGRAMS,
        };
        let Worker { tally, step, .. } = worker;
        tally.repeat(S::OP, steps, || {
            *step += 1;
            S::step(&own, *step)
        });
        S::count_others(tally, u64::from(steps));
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}

/// `cancel_and_free`, then `init` again.
pub(crate) struct Init;

impl SoloStep for Init {
    const ID: &'static str = "solo-init";
    const ABOUT: &'static str = "own cell: cancel_and_free and init in turn";

    const OP: Op = Op::Init;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, _: u64) -> Outcome {
        own.cell.cancel_and_free(own.cpu);
        own.cell.init(own.cpu, own.field.map(), InitFlags::NONE)
    }

    fn count_others(tally: &mut Tally, steps: u64) {
        tally.count_ok(Op::Free, steps);
    }
}

/// `set_callback` that changes the program.
pub(crate) struct SetCallback;

impl SoloStep for SetCallback {
    const ID: &'static str = "solo-set";
    const ABOUT: &'static str = "own cell: set_callback with two programs in turn";

    const OP: Op = Op::SetCallback;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, turn: u64) -> Outcome {
        let program = own.first_program + (turn & 1) as usize;
        let (program, callback) = own.field.callback(program, 0);
        own.cell.set_callback(own.cpu, program, callback)
    }
}

/// `set_callback` that keeps the program.
pub(crate) struct SetSame;

impl SoloStep for SetSame {
    const ID: &'static str = "solo-set-same";
    const ABOUT: &'static str = "own cell: set_callback with two callbacks of one program in turn";

    const OP: Op = Op::SetCallback;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, turn: u64) -> Outcome {
        let (program, callback) = own.field.callback(own.first_program, (turn & 1) as usize);
        own.cell.set_callback(own.cpu, program, callback)
    }
}

/// `start` of a cell that is ready.
pub(crate) struct Start;

impl SoloStep for Start {
    const ID: &'static str = "solo-start";
    const ABOUT: &'static str = "own cell: start";

    const OP: Op = Op::Start;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, _: u64) -> Outcome {
        own.cell.start(own.cpu, FAR)
    }
}

/// `cancel` of a timer that is not armed.
pub(crate) struct Cancel;

impl SoloStep for Cancel {
    const ID: &'static str = "solo-cancel";
    const ABOUT: &'static str = "own cell: cancel of a timer that is not armed";
    const KINDS: &'static [CellKind] = &[CellKind::Timer];

    const OP: Op = Op::Cancel;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, _: u64) -> Outcome {
        own.cell.cancel(own.cpu).map(|_| ())
    }
}

/// `set_callback`, `start`, `cancel`: a timer's whole round.
pub(crate) struct Cycle;

impl SoloStep for Cycle {
    const ID: &'static str = "solo-cycle";
    const ABOUT: &'static str = "own cell: set_callback, start, cancel";
    const KINDS: &'static [CellKind] = &[CellKind::Timer];

    const OP: Op = Op::Cancel;

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, turn: u64) -> Outcome {
        // The worker is alone on its cell: what fails here is a fault, and shows as the outcome.
        SetCallback::step(own, turn)?;
        Start::step(own, turn)?;
        Cancel::step(own, turn)
    }

    fn count_others(tally: &mut Tally, steps: u64) {
        tally.count_ok(Op::SetCallback, steps);
        tally.count_ok(Op::Start, steps);
    }
}
