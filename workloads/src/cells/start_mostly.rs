//! Workloads as real programs have them: start the one timer again and again, and seldom change its callback.

use std::sync::Arc;

use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// 99 starts to one update.
pub(crate) struct Mostly99;
/// 9 starts to one update.
pub(crate) struct Mostly90;

impl Workload for Mostly99 {
    const ID: &'static str = "start-mostly-99";
    const ABOUT: &'static str = "one cell: 99 % start, 1 % set_callback";
}

impl Workload for Mostly90 {
    const ID: &'static str = "start-mostly-90";
    const ABOUT: &'static str = "one cell: 90 % start, 10 % set_callback";
}

impl CellWorkload for Mostly99 {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(StartMostly::<P, C, 99>::new(params))
    }
}

impl CellWorkload for Mostly90 {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(StartMostly::<P, C, 90>::new(params))
    }
}

struct StartMostly<P: Platform, C, const START_PERCENT: u64> {
    field: Field<P, C>,
}

impl<P: Platform, C: AsyncCell<P>, const START_PERCENT: u64> StartMostly<P, C, START_PERCENT> {
    fn new(params: &Params) -> Self {
        Self { field: Field::new(params, Layout::Padded, 1, 2) }
    }
}

impl<P: Platform, C: AsyncCell<P>, const START_PERCENT: u64> Trial<P>
    for StartMostly<P, C, START_PERCENT>
{
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        if worker.index == 0 {
            self.field.make_ready(cpu, 0, 0);
        }
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let cell = self.field.cell(0);
        for _ in 0..steps {
            if worker.percent(START_PERCENT) {
                let outcome = cell.start(cpu, FAR);
                worker.tally.count(Op::Start, &outcome);
            } else {
                let (program, callback) = self.field.callback((worker.step & 1) as usize, 0);
                worker.step += 1;
                let outcome = cell.set_callback(cpu, program, callback);
                worker.tally.count(Op::SetCallback, &outcome);
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
