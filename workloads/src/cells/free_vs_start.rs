//! Starts race with freeing, callbacks run: the race that a reviewer found in RFC v1 without its
//! reference count, as often as it can be had.

use std::sync::Arc;

use cellbench_impls::cell::{InitFlags, Start};
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use crate::ensure;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, EngineNeed, Trial, Violation, Workload};
use crate::worker::Worker;

/// See the module.
pub(crate) struct FreeVsStart;

impl Workload for FreeVsStart {
    const ID: &'static str = "free-vs-start";
    const ABOUT: &'static str = "one cell: some CPUs start, the others free it and make it anew";
    const ENGINE: EngineNeed = EngineNeed::Live;
}

impl CellWorkload for FreeVsStart {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Racing::<P, C> {
            field: Field::new(params, Layout::Padded, 1, 1),
            threads: params.threads,
        })
    }
}

struct Racing<P: Platform, C> {
    field: Field<P, C>,
    threads: u32,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for Racing<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        let cell = self.field.cell(0);
        let (program, callback) = self.field.callback(0, 0);
        // Alone, a worker does both.
        let alone = self.threads == 1;
        for _ in 0..steps {
            worker.step += 1;
            let frees = if alone { worker.step & 1 == 1 } else { worker.index & 1 == 0 };
            if frees {
                cell.cancel_and_free(cpu);
                worker.tally.count_ok(Op::Free, 1);
                let made = cell.init(cpu, self.field.map(), InitFlags::NONE);
                worker.tally.count(Op::Init, &made);
                let set = cell.set_callback(cpu, program, callback);
                worker.tally.count(Op::SetCallback, &set);
            } else {
                // At once: the callback runs while the block is freed.
                let started = cell.start(cpu, Start::after_ns(0));
                worker.tally.count(Op::Start, &started);
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)?;
        let (runs, starts) = (self.field.runs(), total.ok(Op::Start));
        ensure!(
            C::PROMISES.may_repeat || runs <= starts,
            "{runs} callbacks ran after {starts} starts"
        );
        Ok(())
    }
}
