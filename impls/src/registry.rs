//! The one list of cells and locks. A new design is its file and its line here.
//!
//! A caller that wants to do something with a design whose type it does not know hands in a
//! visitor; the visitor is compiled for every design.

use crate::cell::task_work::{TaskWork, locked::LockedWork, lockless};
use crate::cell::{
    AsyncCell, Timer, Wq, latch::SeqLatch, locked::Locked, mpmc::MpmcCell, queue::CmdQueue,
    state::State,
};
use crate::engine::EngineKind;
use crate::lock::{Lock, paravirt, peers, queued, resilient, tas};
use crate::platform::{Platform, World};
use crate::rcu::ReclaimKind;

pub use crate::footprint::footprints;

/// Does something with a cell type.
pub trait CellVisitor<P: Platform> {
    /// What comes of it.
    type Output;
    /// Called with the type that was asked for.
    fn visit<C: AsyncCell<P>>(self) -> Self::Output;
}

/// Does something with a lock type.
pub trait LockVisitor<P: Platform> {
    /// What comes of it.
    type Output;
    /// Called with the type that was asked for.
    fn visit<L: Lock<P>>(self) -> Self::Output;
}

/// A design, for lists and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in reports, as `spin-queued`.
    pub id: &'static str,
    /// `timer`, `wq`, `task_work` or `lock`.
    pub kind: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
}

/// A platform on which the locks of others run: real cores.
pub trait HasPeers: Platform {
    /// Visits the peer with the given name; `None` if there is none.
    fn visit_peer<V: LockVisitor<Self>>(id: &str, visitor: V) -> Option<V::Output>;
}

macro_rules! cells {
    ($($id:literal $kind:literal $about:literal => $cell:ty;)*) => {
        /// Every cell: one entry for each design and kind.
        pub const CELLS: &[Entry] = &[$(Entry { id: $id, kind: $kind, about: $about },)*];

        /// Visits the cell with the given name and kind; `None` if there is none.
        pub fn visit_cell<P: Platform, V: CellVisitor<P>>(
            id: &str,
            kind: &str,
            visitor: V,
        ) -> Option<V::Output> {
            match (id, kind) {
                $(($id, $kind) => Some(visitor.visit::<$cell>()),)*
                _ => None,
            }
        }
    };
}

macro_rules! locks {
    (any { $($id:literal $about:literal => $lock:ty;)* }
     native { $($nid:literal $nabout:literal => $nlock:ty;)* }) => {
        /// Locks that run on every platform.
        pub const LOCKS: &[Entry] = &[$(Entry { id: $id, kind: "lock", about: $about },)*];
        /// Locks of others, native only.
        pub const PEERS: &[Entry] = &[$(Entry { id: $nid, kind: "lock", about: $nabout },)*];

        /// Visits the lock with the given name; `None` if there is none on every platform.
        pub fn visit_lock<P: Platform, V: LockVisitor<P>>(id: &str, visitor: V) -> Option<V::Output> {
            match id {
                $($id => Some(visitor.visit::<$lock>()),)*
                _ => None,
            }
        }

        impl<M: peers::RealCores, R: ReclaimKind, E: EngineKind> HasPeers for World<M, R, E> {
            fn visit_peer<V: LockVisitor<Self>>(id: &str, visitor: V) -> Option<V::Output> {
                match id {
                    $($nid => Some(visitor.visit::<$nlock>()),)*
                    _ => None,
                }
            }
        }
    };
}

cells! {
    "spin-tas" "timer" "irq-saving test-and-set spinlock in the cell" => Locked<P, Timer, tas::Tas<P>>;
    "spin-queued" "timer" "irq-saving queued spinlock in the cell" => Locked<P, Timer, queued::Queued<P>>;
    "rqspin" "timer" "resilient queued spinlock in the cell" => Locked<P, Timer, resilient::Resilient<P>>;
    "cmpxchg-state" "timer" "RFC v1: READY/BUSY/FREED state word, refcount, RCU" => State<P, Timer, false>;
    "cmpxchg-state-nmi" "timer" "RFC v1 with updates allowed in NMI" => State<P, Timer, true>;
    "mpmc-cell" "timer" "v3: newest command in two slots under a sequence word, irq_work" => MpmcCell<P, Timer>;
    "seq-latch" "timer" "v4 to v8: newest command under a latch sequence counter, irq_work" => SeqLatch<P, Timer>;
    "cmd-queue" "timer" "v9, merged: refcount, exchanged callback, commands through irq_work" => CmdQueue<P, Timer>;
    "spin-tas" "wq" "irq-saving test-and-set spinlock in the cell" => Locked<P, Wq, tas::Tas<P>>;
    "spin-queued" "wq" "irq-saving queued spinlock in the cell" => Locked<P, Wq, queued::Queued<P>>;
    "rqspin" "wq" "resilient queued spinlock in the cell" => Locked<P, Wq, resilient::Resilient<P>>;
    "cmpxchg-state" "wq" "RFC v1: READY/BUSY/FREED state word, refcount, RCU" => State<P, Wq, false>;
    "cmpxchg-state-nmi" "wq" "RFC v1 with updates allowed in NMI" => State<P, Wq, true>;
    "mpmc-cell" "wq" "v3: newest command in two slots under a sequence word, irq_work" => MpmcCell<P, Wq>;
    "seq-latch" "wq" "v4 to v8: newest command under a latch sequence counter, irq_work" => SeqLatch<P, Wq>;
    "cmd-queue" "wq" "v9, merged: refcount, exchanged callback, commands through irq_work" => CmdQueue<P, Wq>;
    "task-work" "task_work" "merged: six states, refcount, cancel from irq_work" => TaskWork<P, lockless::Lockless<P, lockless::Merged>>;
    "task-work-cancel-now" "task_work" "six states, freed by the party that finds FREED, cancel at once" => TaskWork<P, lockless::Lockless<P, lockless::CancelNow>>;
    "task-work-cancel-irq" "task_work" "six states, freed by the party that finds FREED, cancel from irq_work" => TaskWork<P, lockless::Lockless<P, lockless::CancelIrq>>;
    "task-work-no-cancel" "task_work" "six states, freed by the party that finds FREED, never cancelled" => TaskWork<P, lockless::Lockless<P, lockless::NoCancel>>;
    "spin-tas" "task_work" "the six states under an irq-saving test-and-set spinlock" => TaskWork<P, LockedWork<P, tas::Tas<P>>>;
    "spin-queued" "task_work" "the six states under an irq-saving queued spinlock" => TaskWork<P, LockedWork<P, queued::Queued<P>>>;
    "rqspin" "task_work" "the six states under a resilient queued spinlock" => TaskWork<P, LockedWork<P, resilient::Resilient<P>>>;
}

locks! {
    any {
        "spin-tas" "test, then test-and-set" => tas::Tas<P>;
        "spin-queued" "queued spinlock: locked byte, pending bit, per-CPU nodes" => queued::Queued<P>;
        "spin-queued-byte" "queued spinlock with a byte-wide fast path" => queued::Queued<P, queued::ByteForm>;
        "spin-queued-pv" "queued spinlock as in a guest: newcomers may pass the queue" => paravirt::Paravirt<P>;
        "rqspin" "resilient queued spinlock: deadlock detection, timeouts" => resilient::Resilient<P>;
        "rqspin-byte" "resilient queued spinlock with a byte-wide fast path" => resilient::Resilient<P, queued::ByteForm>;
        "rqspin-tas" "resilient test-and-set spinlock" => resilient::ResilientTas<P>;
    }
    native {
        "std-mutex" "std::sync::Mutex" => peers::StdMutex;
        "parking-lot" "parking_lot::RawMutex" => peers::ParkingLot;
        "spin-crate" "spin::Mutex" => peers::Spin;
        "mcs-crate" "mcslock: MCS queue lock" => peers::McsLock;
    }
}
