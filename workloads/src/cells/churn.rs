//! Everything at once on a few cells: init, set_callback, start, cancel and cancel_and_free race.
//! Once with callbacks that never run, once with callbacks that do.

use std::sync::Arc;

use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::engine::Engine;
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::ensure;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, EngineNeed, Trial, Violation, Workload};
use crate::worker::Worker;

/// Few enough that operations meet.
const CELLS: usize = 4;
const PROGRAMS: usize = 2;
/// Timers that are to fire do so after up to this many nanoseconds.
const SOON_NS: u64 = 50_000;

/// Callbacks never run.
pub(crate) struct Churn;
/// Callbacks run concurrently.
pub(crate) struct ChurnLive;

impl Workload for Churn {
    const ID: &'static str = "churn";
    const ABOUT: &'static str = "4 cells: init, set_callback, start, cancel, cancel_and_free race";
    const WITH_EPOCHS: bool = true;
}

impl Workload for ChurnLive {
    const ID: &'static str = "churn-live";
    const ABOUT: &'static str = "churn with callbacks that run";
    const ENGINE: EngineNeed = EngineNeed::Live;
}

impl CellWorkload for Churn {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Racing::<P, C, false>::new(params))
    }
}

impl CellWorkload for ChurnLive {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Racing::<P, C, true>::new(params))
    }
}

struct Racing<P: Platform, C, const LIVE: bool> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>, const LIVE: bool> Racing<P, C, LIVE> {
    fn new(params: &Params) -> Self {
        Self { field: Field::new(params, Layout::Padded, CELLS, PROGRAMS) }
    }

    fn step(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let cell = self.field.cell(worker.below(CELLS as u64) as usize);
        match worker.below(100) {
            0..15 => {
                let outcome = cell.init(cpu, self.field.map(), InitFlags::NONE);
                worker.tally.count(Op::Init, &outcome);
            }
            15..50 => {
                let program = worker.below(PROGRAMS as u64) as usize;
                let (program, callback) = self.field.callback(program, 0);
                let outcome = cell.set_callback(cpu, program, callback);
                worker.tally.count(Op::SetCallback, &outcome);
            }
            50..80 => {
                let start = if LIVE { Start::after_ns(worker.below(SOON_NS)) } else { FAR };
                let outcome = cell.start(cpu, start);
                worker.tally.count(Op::Start, &outcome);
            }
            80..90 if C::CANCELS => {
                let outcome = cell.cancel(cpu);
                worker.tally.count(Op::Cancel, &outcome);
            }
            _ => {
                cell.cancel_and_free(cpu);
                worker.tally.count_ok(Op::Free, 1);
            }
        }
    }
}

impl<P: Platform, C: AsyncCell<P>, const LIVE: bool> Trial<P> for Racing<P, C, LIVE> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            self.step(cpu, worker);
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)?;
        let runs = self.field.runs();
        let starts = total.ok(Op::Start);
        ensure!(
            C::PROMISES.may_repeat || runs <= starts,
            "{runs} callbacks ran after {starts} starts"
        );
        ensure!(
            <P::Engine as Engine<P>>::RUNS || runs == 0,
            "{runs} callbacks ran under an engine that runs none"
        );
        Ok(())
    }
}
