//! A map with many cells under one program: keys are Zipf-distributed, so some cells are hot, and
//! the program's reference count is a line that all of them share.

use std::sync::Arc;

use cellbench_impls::cell::InitFlags;
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};

use super::solo::FAR;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;
use crate::zipf::Zipf;

/// Elements of the map.
const CELLS: usize = 1024;
/// Exponent of the distribution, as in the Yahoo cloud serving benchmark.
const EXPONENT: f64 = 0.99;
/// Of a hundred steps: updates of the callback, and of the element, which frees its cell. The
/// others start.
const SET_PERCENT: u64 = 50;
const ELEMENT_PERCENT: u64 = 10;

/// See the module.
pub(crate) struct MapZipf;

impl Workload for MapZipf {
    const ID: &'static str = "map-zipf";
    const ABOUT: &'static str =
        "1024 cells, Zipf keys, one program: 50 % set_callback, 40 % start, 10 % element update";
}

impl CellWorkload for MapZipf {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Map::<P, C> {
            field: Field::new(params, Layout::Packed, CELLS, 1),
            keys: Zipf::new(CELLS, EXPONENT),
        })
    }
}

struct Map<P: Platform, C> {
    field: Field<P, C>,
    keys: Zipf,
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for Map<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        if worker.index == 0 {
            (0..CELLS).for_each(|cell| self.field.make_ready(cpu, cell, 0));
        }
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            let key = self.keys.key(worker.random());
            let cell = self.field.cell(key);
            match worker.below(100) {
                chance if chance < SET_PERCENT => {
                    let (program, callback) = self.field.callback(0, (worker.step & 1) as usize);
                    worker.step += 1;
                    let outcome = cell.set_callback(cpu, program, callback);
                    worker.tally.count(Op::SetCallback, &outcome);
                }
                chance if chance < SET_PERCENT + ELEMENT_PERCENT => {
                    cell.cancel_and_free(cpu);
                    worker.tally.count_ok(Op::Free, 1);
                    let outcome = cell.init(cpu, self.field.map(), InitFlags::NONE);
                    worker.tally.count(Op::Init, &outcome);
                }
                _ => {
                    let outcome = cell.start(cpu, FAR);
                    worker.tally.count(Op::Start, &outcome);
                }
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
