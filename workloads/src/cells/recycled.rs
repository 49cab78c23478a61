//! `init` against recycled elements. Since an element that is updated or deleted gives its memory back
//! to the map at once (5263e30fffbc), a program that still has the old pointer may initialise a
//! timer in an element that is free, or that has become another key's meanwhile.
//!
//! Every worker replaces an element of its own again and again: it frees the cell, takes the one
//! beside it from its free list, initialises it, and shows it. Between two replacements it uses
//! elements of others that it looked up before: late, some of them are free by then. What it
//! initialises there, the owner finds (EBUSY), and frees when the element goes.

use std::sync::Arc;

use cellbench_impls::cell::InitFlags;
use cellbench_impls::platform::{Ordering, Word};
use cellbench_impls::{AsyncCell, Cpu, Machine, Platform};
use crossbeam_utils::CachePadded;

use super::solo::FAR;
use crate::field::{Field, Layout};
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// Elements that a worker has: one is shown, the others are free.
const EACH: u32 = 4;
/// Of so many steps one replaces the worker's element.
const STEPS_PER_REPLACEMENT: u64 = 8;

/// See the module.
pub(crate) struct Recycled;

impl Workload for Recycled {
    const ID: &'static str = "init-recycled";
    const ABOUT: &'static str =
        "elements are freed and taken again, others initialise and start cells in them late";
}

impl CellWorkload for Recycled {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let shown = |worker| CachePadded::new(P::U32::new("map.element", worker * EACH));
        let cells = (params.threads * EACH) as usize;
        Arc::new(Elements::<P, C> {
            field: Field::new(params, Layout::Packed, cells, 1),
            shown: (0..params.threads).map(shown).collect(),
        })
    }
}

struct Elements<P: Platform, C> {
    field: Field<P, C>,
    /// For each worker, the element that its key has.
    shown: Box<[CachePadded<P::U32>]>,
}

impl<P: Platform, C: AsyncCell<P>> Elements<P, C> {
    /// Replaces the worker's element by the next of its list.
    fn replace(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let shown = &self.shown[worker.index as usize];
        // Relaxed: this worker alone writes it.
        let old = shown.load(Ordering::Relaxed);
        self.field.cell(old as usize).cancel_and_free(cpu);
        worker.tally.count_ok(Op::Free, 1);
        let next = worker.index * EACH + (old + 1) % EACH;
        self.make(cpu, worker, next);
        // Release pairs with the acquire of whoever looks it up, as the map's list would.
        shown.store(next, Ordering::Release);
    }

    /// Initialises an element's cell and sets its callback.
    fn make(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, element: u32) {
        let cell = self.field.cell(element as usize);
        let outcome = cell.init(cpu, self.field.map(), InitFlags::NONE);
        worker.tally.count(Op::Init, &outcome);
        let (program, callback) = self.field.callback(0, 0);
        let outcome = cell.set_callback(cpu, program, callback);
        worker.tally.count(Op::SetCallback, &outcome);
    }
}

impl<P: Platform, C: AsyncCell<P>> Trial<P> for Elements<P, C> {
    fn machine(&self) -> &Machine<P> {
        self.field.machine()
    }

    fn enter(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        self.field.make_ready(cpu, (worker.index * EACH) as usize, 0);
        // The element that it looked up: its own, until it has looked.
        worker.step = u64::from(worker.index * EACH);
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            match worker.below(STEPS_PER_REPLACEMENT) {
                0 => self.replace(cpu, worker),
                1 => {
                    // Looks a key up, and keeps the pointer.
                    let key = worker.below(self.shown.len() as u64) as usize;
                    // Acquire pairs with the release in `replace`.
                    let element = self.shown[key].load(Ordering::Acquire);
                    worker.step = element.into();
                    let outcome = self.field.cell(element as usize).start(cpu, FAR);
                    worker.tally.count(Op::Start, &outcome);
                }
                2 => self.make(cpu, worker, worker.step as u32),
                _ => {
                    let outcome = self.field.cell(worker.step as usize).start(cpu, FAR);
                    worker.tally.count(Op::Start, &outcome);
                }
            }
        }
    }

    fn check(&self, cpu: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        self.field.check(cpu)
    }
}
