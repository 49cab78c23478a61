//! One operation at a time, each worker on a cell, programs and cache lines of its own: the cost
//! of an operation that nobody disturbs.

use core::marker::PhantomData;
use std::sync::Arc;

use cellbench_impls::cell::{InitFlags, Start as StartArgs};
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, EVERY_KIND, Trial, Violation, Workload};
use crate::worker::Worker;

/// Far enough away that no timer fires during a run, in nanoseconds.
pub(crate) const FAR: StartArgs = StartArgs { ns: 3_600_000_000_000, flags: 0 };

/// Programs of each worker, used in turn.
const PROGRAMS: usize = 2;

/// What a worker does with its own cell.
pub(crate) trait SoloStep: Send + Sync + 'static {
    const ID: &'static str;
    const ABOUT: &'static str;
    const KINDS: &'static [&'static str] = EVERY_KIND;

    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker);
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
}

impl<S: SoloStep> CellWorkload for Solo<S> {
    const KINDS: &'static [&'static str] = S::KINDS;

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
        for _ in 0..steps {
            S::step(&own, worker);
        }
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

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        own.cell.cancel_and_free(own.cpu);
        worker.tally.count_ok(Op::Free, 1);
        let outcome = own.cell.init(own.cpu, own.field.map(), InitFlags::NONE);
        worker.tally.count(Op::Init, &outcome);
    }
}

/// `set_callback` that changes the program.
pub(crate) struct SetCallback;

impl SoloStep for SetCallback {
    const ID: &'static str = "solo-set";
    const ABOUT: &'static str = "own cell: set_callback with two programs in turn";

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        let turn = (worker.step & 1) as usize;
        worker.step += 1;
        let (program, callback) = own.field.callback(own.first_program + turn, 0);
        let outcome = own.cell.set_callback(own.cpu, program, callback);
        worker.tally.count(Op::SetCallback, &outcome);
    }
}

/// `set_callback` that keeps the program.
pub(crate) struct SetSame;

impl SoloStep for SetSame {
    const ID: &'static str = "solo-set-same";
    const ABOUT: &'static str = "own cell: set_callback with two callbacks of one program in turn";

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        let turn = (worker.step & 1) as usize;
        worker.step += 1;
        let (program, callback) = own.field.callback(own.first_program, turn);
        let outcome = own.cell.set_callback(own.cpu, program, callback);
        worker.tally.count(Op::SetCallback, &outcome);
    }
}

/// `start` of a cell that is ready.
pub(crate) struct Start;

impl SoloStep for Start {
    const ID: &'static str = "solo-start";
    const ABOUT: &'static str = "own cell: start";

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        let outcome = own.cell.start(own.cpu, FAR);
        worker.tally.count(Op::Start, &outcome);
    }
}

/// `cancel` of a timer that is not armed.
pub(crate) struct Cancel;

impl SoloStep for Cancel {
    const ID: &'static str = "solo-cancel";
    const ABOUT: &'static str = "own cell: cancel of a timer that is not armed";
    const KINDS: &'static [&'static str] = &["timer"];

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        let outcome = own.cell.cancel(own.cpu);
        worker.tally.count(Op::Cancel, &outcome);
    }
}

/// `set_callback`, `start`, `cancel`: a timer's whole round.
pub(crate) struct Cycle;

impl SoloStep for Cycle {
    const ID: &'static str = "solo-cycle";
    const ABOUT: &'static str = "own cell: set_callback, start, cancel";
    const KINDS: &'static [&'static str] = &["timer"];

    #[inline(always)]
    fn step<P: Platform, C: AsyncCell<P>>(own: &Own<'_, P, C>, worker: &mut Worker) {
        SetCallback::step(own, worker);
        Start::step(own, worker);
        Cancel::step(own, worker);
    }
}
