//! One cell that some read and few write: a start reads the cell, `set_callback` writes it, in shares
//! from 1:1 to 1000:1. Readers that count themselves in the cell's block meet there; those that do
//! not share its lines until a writer comes.

use std::sync::Arc;

use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// So many starts to one update, on average.
pub(crate) struct Reads<const PER_UPDATE: u32>;

macro_rules! reads {
    ($($per_update:literal $id:literal;)*) => {
        $(impl Workload for Reads<$per_update> {
            const ID: &'static str = $id;
            const ABOUT: &'static str =
                concat!("one cell: ", stringify!($per_update), " start to one set_callback");
        })*
    };
}

reads! {
    1 "reads-1-1";
    10 "reads-10-1";
    100 "reads-100-1";
    1000 "reads-1000-1";
}

impl<const PER_UPDATE: u32> CellWorkload for Reads<PER_UPDATE>
where
    Self: Workload,
{
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let field = Field::<P, C>::new(params, Layout::Padded, 1, 2);
        Arc::new(Shared { field, of: u64::from(PER_UPDATE) + 1 })
    }
}

/// One type for all shares, so that a design is compiled once.
struct Shared<P: Platform, C> {
    field: Field<P, C>,
    /// One in so many operations is an update.
    of: u64,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for Shared<P, C> {
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
            if worker.below(self.of) > 0 {
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
