//! The trials that run on simulated cores, compiled: see `cellbench-trials-native` for why they have
//! a crate of their own.

use std::sync::Arc;

use cellbench_impls::Cpu;
use cellbench_impls::cell::{AsyncCell, CellKind};
use cellbench_impls::platform::Sim;
use cellbench_impls::registry::{CellVisitor, visit_cell};
use cellbench_workloads::registry;
use cellbench_workloads::{Params, Subject, Trial};

/// Builds a trial of `workload` on the cell or lock of that name. `None` as
/// [`registry::trial`].
#[must_use]
pub fn trial(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<Sim>>> {
    registry::trial(id, subject, workload, params)
}

/// Keeps memory ready on `cpu` for `objects` objects of each size that the cell of that name
/// allocates. A name that is no cell's needs none.
pub fn reserve(cell: &str, kind: CellKind, cpu: &Cpu<'_, Sim>, objects: usize) {
    visit_cell::<Sim, _>(cell, kind, Reserve { cpu, objects });
}

/// Reserves memory for the cell that is visited.
struct Reserve<'a, 'm> {
    cpu: &'a Cpu<'m, Sim>,
    objects: usize,
}

impl CellVisitor<Sim> for Reserve<'_, '_> {
    type Output = ();

    fn visit<C: AsyncCell<Sim>>(self) {
        C::reserve(self.cpu, self.objects);
    }
}
