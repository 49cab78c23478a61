//! The one list of workloads. A new workload is its file and its line here.

use std::sync::Arc;

use cellbench_impls::cell::CellKind;
use cellbench_impls::cell::outlined::Outlined;
use cellbench_impls::engine::Engine;
use cellbench_impls::lock::Lock;
use cellbench_impls::platform::Native;
use cellbench_impls::rcu::Reclaim;
use cellbench_impls::registry::{CellVisitor, HasPeers, LockVisitor, visit_cell, visit_lock};
use cellbench_impls::{AsyncCell, Platform};

use crate::cells::{
    callback_storm, churn, empty, free_vs_start, map, nmi, own_cell, reader_share, recycled,
    same_cell, solo, stalled, start_mostly, task_work,
};
use crate::locks;
use crate::params::Params;
use crate::primitives::Shared;
use crate::trial::{
    CellWorkload, EngineNeed, LockWorkload, Needs, Serves, Subject, Trial, Workload,
};

/// A workload, for lists and reports.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name in reports.
    pub id: &'static str,
    /// Description of the workload, in a line.
    pub about: &'static str,
    /// Subjects that the workload runs on.
    pub serves: Serves,
    /// Which engine it needs.
    pub engine: EngineNeed,
    /// Whether it is offered with epochs in place of RCU.
    pub with_epochs: bool,
    /// Further needs of the workload.
    pub needs: Needs,
    /// Only for locks that can fail: the others would hang.
    pub fallible_only: bool,
}

impl Entry {
    /// Returns whether it runs on cells of this kind, or on locks.
    pub const fn serves(&self, subject: Subject) -> bool {
        self.serves.serves(subject)
    }

    /// Returns whether it runs on the cell or lock of that name.
    pub fn suits(&self, id: &str, subject: Subject) -> bool {
        let can_fail = || visit_lock::<Native, _>(id, IsFallible).unwrap_or(false);
        self.serves(subject) && (!self.fallible_only || can_fail())
    }
}

/// Whether the lock of that name can fail.
struct IsFallible;

impl<P: Platform> LockVisitor<P> for IsFallible {
    type Output = bool;

    fn visit<L: Lock<P>>(self) -> bool {
        L::FALLIBLE
    }
}

macro_rules! workloads {
    (
        cells { $($cell:ty,)* }
        locks { $($lock:ty,)* }
        primitives { $($primitive:ty,)* }
    ) => {
        /// Every workload.
        pub const WORKLOADS: &[Entry] = &[
            $(Entry {
                id: <$cell as Workload>::ID,
                about: <$cell as Workload>::ABOUT,
                serves: Serves::Cells(<$cell as CellWorkload>::KINDS),
                engine: <$cell as Workload>::ENGINE,
                with_epochs: <$cell as Workload>::WITH_EPOCHS,
                needs: <$cell as Workload>::NEEDS,
                fallible_only: false,
            },)*
            $(Entry {
                id: <$lock as Workload>::ID,
                about: <$lock as Workload>::ABOUT,
                serves: Serves::Locks,
                engine: <$lock as Workload>::ENGINE,
                with_epochs: <$lock as Workload>::WITH_EPOCHS,
                needs: <$lock as Workload>::NEEDS,
                fallible_only: <$lock as LockWorkload>::FALLIBLE_ONLY,
            },)*
            $(Entry {
                id: <$primitive as Workload>::ID,
                about: <$primitive as Workload>::ABOUT,
                serves: Serves::Primitives,
                engine: <$primitive as Workload>::ENGINE,
                with_epochs: <$primitive as Workload>::WITH_EPOCHS,
                needs: <$primitive as Workload>::NEEDS,
                fallible_only: false,
            },)*
        ];

        fn primitive<P: Platform, const INTERRUPTED: bool>(
            id: &str,
            build: &Build<'_, INTERRUPTED>,
        ) -> Option<Arc<dyn Trial<P>>> {
            // As below.
            $(if const { is_served::<P, $primitive, INTERRUPTED>() }
                && build.workload == <$primitive as Workload>::ID
            {
                return <$primitive>::trial::<P>(id, build.params);
            })*
            None
        }

        impl<P: Platform, const INTERRUPTED: bool> CellVisitor<P> for Build<'_, INTERRUPTED> {
            type Output = Option<Arc<dyn Trial<P>>>;

            fn visit<C: AsyncCell<P>>(self) -> Self::Output {
                // Constant conditions: a combination that is not offered is not compiled.
                $(if const { is_offered::<P, $cell, INTERRUPTED>(C::KIND) }
                    && self.workload == <$cell as Workload>::ID
                {
                    return Some(if const { P::TIMED } {
                        <$cell as CellWorkload>::trial::<P, C>(self.params)
                    } else {
                        <$cell as CellWorkload>::trial::<P, Outlined<C>>(self.params)
                    });
                })*
                None
            }
        }

        impl<P: Platform, const INTERRUPTED: bool> LockVisitor<P> for Build<'_, INTERRUPTED> {
            type Output = Option<Arc<dyn Trial<P>>>;

            fn visit<L: Lock<P>>(self) -> Self::Output {
                // As above.
                $(if const {
                    is_served::<P, $lock, INTERRUPTED>()
                        && (!<$lock as LockWorkload>::FALLIBLE_ONLY || L::FALLIBLE)
                } && self.workload == <$lock as Workload>::ID
                {
                    return Some(<$lock as LockWorkload>::trial::<P, L>(self.params));
                })*
                None
            }
        }
    };
}

/// Returns whether a workload is built for cells of this kind on platform `P`.
const fn is_offered<P: Platform, W: CellWorkload, const INTERRUPTED: bool>(kind: CellKind) -> bool {
    kind.is_in(W::KINDS) && is_served::<P, W, INTERRUPTED>()
}

/// Returns whether a workload is built on platform `P`: design, workload and platform multiply,
/// and each
/// combination is compiled. `INTERRUPTED`: only workloads that are interrupted, without callbacks.
const fn is_served<P: Platform, W: Workload, const INTERRUPTED: bool>() -> bool {
    let runs = <P::Engine as Engine<P>>::RUNS;
    // An engine that runs callbacks serves the other workloads too where it is there to be
    // checked; where it is there to be measured, those have the counting engine.
    let engine = match W::ENGINE {
        EngineNeed::Live => runs,
        EngineNeed::Count => !runs || P::POISON || P::QUARANTINE,
    };
    let reclaim = W::WITH_EPOCHS || !<P::Reclaim as Reclaim<P>>::READERS_PAY;
    let counts = matches!(W::ENGINE, EngineNeed::Count);
    let interrupted = !INTERRUPTED || counts && !W::NEEDS.interrupts.is_empty();
    engine && reclaim && interrupted
}

/// Builds a trial of the design that is visited; `INTERRUPTED` as [`is_served`] has it.
struct Build<'a, const INTERRUPTED: bool> {
    workload: &'a str,
    params: &'a Params,
}

/// Builds a trial of `workload` on the cell, lock or primitive of that name. `None` if
/// one of the names is unknown, the workload does not serve the kind, or the platform does not
/// serve the workload: see [`Entry::engine`] and [`Entry::with_epochs`].
pub fn trial<P: Platform>(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<P>>> {
    build::<P, false>(id, subject, Build { workload, params })
}

/// Builds as [`trial`] does, of the workloads that are interrupted and run no callbacks. `None` for the others.
pub fn interrupted_trial<P: Platform>(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<P>>> {
    build::<P, true>(id, subject, Build { workload, params })
}

fn build<P: Platform, const INTERRUPTED: bool>(
    id: &str,
    subject: Subject,
    build: Build<'_, INTERRUPTED>,
) -> Option<Arc<dyn Trial<P>>> {
    match subject {
        Subject::Lock => visit_lock::<P, _>(id, build).flatten(),
        Subject::Cell(kind) => visit_cell::<P, _>(id, kind, build).flatten(),
        Subject::Primitive => primitive(id, &build),
    }
}

/// Builds as [`trial`] does, for the locks of others, which exist on real cores only.
pub fn peer_trial<P>(lock: &str, workload: &str, params: &Params) -> Option<Arc<dyn Trial<P>>>
where
    P: HasPeers,
{
    P::visit_peer(lock, Build::<false> { workload, params }).flatten()
}

/// Builds as [`trial`] does, for cells, locks and peers alike: a platform of real cores has them all.
pub fn any_trial<P: HasPeers>(
    id: &str,
    subject: Subject,
    workload: &str,
    params: &Params,
) -> Option<Arc<dyn Trial<P>>> {
    let peer = || (subject == Subject::Lock).then(|| peer_trial(id, workload, params)).flatten();
    trial(id, subject, workload, params).or_else(peer)
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
        reader_share::Reads<1>,
        reader_share::Reads<10>,
        reader_share::Reads<100>,
        reader_share::Reads<1000>,
        churn::Churn,
        churn::ChurnLive,
        map::MapZipf,
        recycled::Recycled,
        free_vs_start::FreeVsStart,
        callback_storm::Storm,
        task_work::Shared,
        task_work::Own,
        task_work::Racing,
        nmi::Mix,
        nmi::Stress,
        nmi::SameCell,
        stalled::Stalled,
        same_cell::Oversubscribed,
    }
    locks {
        locks::Section<0>,
        locks::Section<50>,
        locks::Section<500>,
        locks::IrqSaved,
        locks::Oversubscribed,
        locks::cycle::Cycle<1>,
        locks::cycle::Cycle<2>,
        locks::cycle::Cycle<3>,
        locks::rings::Rings,
        locks::stalled::Stalled,
        locks::pattern::Pattern<0>,
        locks::pattern::Pattern<1>,
        locks::pattern::Pattern<2>,
        locks::pattern::Pattern<3>,
        locks::pattern::Pattern<4>,
        locks::pattern::Pattern<5>,
        locks::pattern::Pattern<6>,
        locks::pattern::Pattern<7>,
        locks::pattern::Sweep<0, 0, 1>,
        locks::pattern::Sweep<0, 500, 1>,
        locks::pattern::Sweep<0, 5000, 1>,
        locks::pattern::Sweep<200, 0, 1>,
        locks::pattern::Sweep<200, 500, 1>,
        locks::pattern::Sweep<200, 5000, 1>,
        locks::pattern::Sweep<2000, 0, 1>,
        locks::pattern::Sweep<2000, 500, 1>,
        locks::pattern::Sweep<2000, 5000, 1>,
        locks::pattern::Sweep<0, 0, 8>,
        locks::pattern::Sweep<0, 500, 8>,
        locks::pattern::Sweep<0, 5000, 8>,
        locks::pattern::Sweep<200, 0, 8>,
        locks::pattern::Sweep<200, 500, 8>,
        locks::pattern::Sweep<200, 5000, 8>,
        locks::pattern::Sweep<2000, 0, 8>,
        locks::pattern::Sweep<2000, 500, 8>,
        locks::pattern::Sweep<2000, 5000, 8>,
    }
    primitives {
        Shared<0>,
        Shared<100>,
    }
}
