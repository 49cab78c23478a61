//! The one list of workloads. A new workload is its file and its line here.

use std::sync::Arc;

use cellbench_impls::lock::Lock;
use cellbench_impls::registry::{CellVisitor, HasPeers, LockVisitor, visit_cell, visit_lock};
use cellbench_impls::{AsyncCell, Platform};

use crate::cells::{churn, empty, map, own_cell, same_cell, solo, start_mostly};
use crate::locks;
use crate::params::Params;
use crate::trial::{CellWorkload, EngineNeed, LockWorkload, Needs, Subject, Trial, Workload};

/// A workload, for lists and reports.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in reports.
    pub id: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it runs on.
    pub subject: Subject,
    /// Which engine it needs.
    pub engine: EngineNeed,
    /// What else it needs.
    pub needs: Needs,
}

impl Entry {
    /// Whether it runs on cells of this kind, or on locks (`"lock"`).
    pub fn serves(&self, kind: &str) -> bool {
        match self.subject {
            Subject::Cells(kinds) => kinds.contains(&kind),
            Subject::Locks => kind == "lock",
        }
    }
}

macro_rules! workloads {
    (cells { $($cell:ty,)* } locks { $($lock:ty,)* }) => {
        /// Every workload.
        pub const WORKLOADS: &[Entry] = &[
            $(Entry {
                id: <$cell as Workload>::ID,
                about: <$cell as Workload>::ABOUT,
                subject: Subject::Cells(<$cell as CellWorkload>::KINDS),
                engine: <$cell as Workload>::ENGINE,
                needs: <$cell as Workload>::NEEDS,
            },)*
            $(Entry {
                id: <$lock as Workload>::ID,
                about: <$lock as Workload>::ABOUT,
                subject: Subject::Locks,
                engine: <$lock as Workload>::ENGINE,
                needs: <$lock as Workload>::NEEDS,
            },)*
        ];

        impl<P: Platform> CellVisitor<P> for Build<'_> {
            type Output = Option<Arc<dyn Trial<P>>>;

            fn visit<C: AsyncCell<P>>(self) -> Self::Output {
                $(if self.workload == <$cell as Workload>::ID {
                    return <$cell as CellWorkload>::KINDS
                        .contains(&C::KIND)
                        .then(|| <$cell as CellWorkload>::trial::<P, C>(self.params));
                })*
                None
            }
        }

        impl<P: Platform> LockVisitor<P> for Build<'_> {
            type Output = Option<Arc<dyn Trial<P>>>;

            fn visit<L: Lock<P>>(self) -> Self::Output {
                $(if self.workload == <$lock as Workload>::ID {
                    return Some(<$lock as LockWorkload>::trial::<P, L>(self.params));
                })*
                None
            }
        }
    };
}

struct Build<'a> {
    workload: &'a str,
    params: &'a Params,
}

/// Builds a trial of `workload` on the cell (or lock, with kind `"lock"`) of that name. `None` if
/// one of the names is unknown, or the workload does not serve the kind.
pub fn trial<P: Platform>(
    cell: &str,
    kind: &str,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<P>>> {
    let build = Build { workload, params };
    if kind == "lock" {
        visit_lock::<P, _>(cell, build).flatten()
    } else {
        visit_cell::<P, _>(cell, kind, build).flatten()
    }
}

/// As [`trial`], for the locks of others, which exist on real cores only.
pub fn peer_trial<P>(lock: &str, workload: &str, params: &Params) -> Option<Arc<dyn Trial<P>>>
where
    P: HasPeers,
{
    P::visit_peer(lock, Build { workload, params }).flatten()
}

workloads! {
    cells {
        empty::Empty,
        solo::Solo<solo::Init>,
        solo::Solo<solo::SetCallback>,
        solo::Solo<solo::SetSame>,
        solo::Solo<solo::Start>,
        solo::Solo<solo::Cancel>,
        solo::Solo<solo::Cycle>,
        same_cell::SameCell,
        same_cell::SameCellRetry,
        own_cell::Padded,
        own_cell::Packed,
        start_mostly::Mostly99,
        start_mostly::Mostly90,
        churn::Churn,
        churn::ChurnLive,
        map::MapZipf,
    }
    locks {
        locks::Section<0>,
        locks::Section<50>,
        locks::Section<500>,
    }
}
