//! The trials of stress runs, compiled: see `cellbench-trials-native` for why they have a crate of
//! their own. Nothing here is measured, so the profile optimises this crate less.

use std::sync::Arc;

use cellbench_impls::platform::NativeAudit;
use cellbench_workloads::registry;
use cellbench_workloads::stepping::Stepped;
use cellbench_workloads::{Params, Subject, Trial};

/// Builds a trial over poisoned memory of `workload` on the cell, lock or peer of
/// that name. `None` as [`registry::trial`].
#[must_use]
pub fn audited(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<NativeAudit>>> {
    registry::any_trial(id, subject, workload, params)
}

/// Builds as [`audited`] does, over memory that interrupts at a chosen access. `None` also for peers and for
/// workloads that are not interrupted.
#[must_use]
pub fn stepped(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<Stepped>>> {
    registry::interrupted_trial(id, subject, workload, params)
}
