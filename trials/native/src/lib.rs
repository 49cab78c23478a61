//! The trials that are measured on real cores, compiled.
//!
//! Design, workload and platform multiply, and each combination is machine code of its own. They
//! are compiled in this crate, behind a function that is not generic, so that a change in the crates
//! that measure does not compile them again. The profile of this crate is that of the measured code.

use std::sync::Arc;

use cellbench_impls::platform::{Native, NativeEpoch, NativeLive};
use cellbench_impls::registry::HasPeers;
use cellbench_workloads::registry;
use cellbench_workloads::{Params, Subject, Trial};

/// A platform whose trials are compiled here.
pub trait Compiled: HasPeers {
    /// Builds a trial of `workload` on the cell, lock or peer of that name. `None`
    /// as [`registry::trial`].
    fn trial(
        id: &str,
        subject: Subject,
        workload: &str,
        params: &Params,
    ) -> Option<Arc<dyn Trial<Self>>>;
}

macro_rules! compiled {
    ($($platform:ty),*) => {
        $(impl Compiled for $platform {
            fn trial(
                id: &str,
                subject: Subject,
                workload: &str,
                params: &Params,
            ) -> Option<Arc<dyn Trial<Self>>> {
                registry::any_trial(id, subject, workload, params)
            }
        })*
    };
}

compiled!(Native, NativeEpoch, NativeLive);
