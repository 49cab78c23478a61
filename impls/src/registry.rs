//! The one list of cells and locks. A new design is its file and its line here.
//!
//! A caller that wants to do something with a design whose type it does not know hands in a
//! visitor; the visitor is compiled for every design.

use crate::cell::task_work::{TaskWork, locked::LockedWork, lockless};
use crate::cell::{
    AsyncCell, CellKind, Promises, Timer, Wq,
    direct::Direct,
    latch::{SeqLatch, SeqLatchV4, SeqLatchV6},
    life_hazard::HazardRef,
    life_percpu::PercpuRef,
    life_rcu::RcuAlone,
    locked::Locked,
    mpmc::MpmcCell,
    pair_rcu::RcuPair,
    pair_seqlock::SeqlockPair,
    pair_wide::WidePair,
    queue::CmdQueue,
    state::State,
};
#[cfg(feature = "peers")]
use crate::engine::EngineKind;
// Each lock is a module, of which its line in `locks!` names the type.
use crate::lock::*;
use crate::platform::Platform;
#[cfg(feature = "peers")]
use crate::platform::World;
#[cfg(feature = "peers")]
use crate::rcu::ReclaimKind;
use crate::selection;
use crate::source::{self, Source};

#[cfg(feature = "peers")]
const _: () = selection::assert_known([CELL_IDS, LOCK_IDS, PEER_IDS]);
#[cfg(not(feature = "peers"))]
const _: () = selection::assert_known([CELL_IDS, LOCK_IDS, &[]]);

pub use crate::footprint::footprints;

/// Does something with a cell type.
pub trait CellVisitor<P: Platform> {
    /// Result of the visit.
    type Output;
    /// Receives the type that was asked for.
    fn visit<C: AsyncCell<P>>(self) -> Self::Output;
}

/// Does something with a lock type.
pub trait LockVisitor<P: Platform> {
    /// Result of the visit.
    type Output;
    /// Receives the type that was asked for.
    fn visit<L: Lock<P>>(self) -> Self::Output;
}

/// The family of a design: designs of one family have one colour in charts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// A spinlock that waits for ever.
    Spinlock,
    /// A spinlock that can fail.
    Resilient,
    /// A state word that refuses those who meet another.
    StateWord,
    /// The newest command in a buffer.
    Buffer,
    /// A list of commands.
    Commands,
    /// Program and callback that are replaced as one.
    Pair,
    /// Blocks kept by something else than a count.
    Lifetime,
    /// Task work without a lock.
    TaskWork,
    /// A lock of others.
    Peer,
}

impl Group {
    /// Returns the name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spinlock => "spinlock",
            Self::Resilient => "resilient",
            Self::StateWord => "state-word",
            Self::Buffer => "buffer",
            Self::Commands => "commands",
            Self::Pair => "pair",
            Self::Lifetime => "lifetime",
            Self::TaskWork => "task-work",
            Self::Peer => "peer",
        }
    }

    /// Returns whether its designs are counter-proposals of ours, and no published generation or its
    /// repair.
    pub const fn is_proposal(self) -> bool {
        matches!(self, Self::Pair | Self::Lifetime)
    }
}

/// A cell of the registry, for lists and reports. Reports show cells in the registry's order: the
/// history of the kernel, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellEntry {
    /// Name in reports, as `spin-queued`.
    pub id: &'static str,
    /// Kind of work that the cell runs later.
    pub kind: CellKind,
    /// Its generation in a few words, for legends.
    pub label: &'static str,
    /// Its family.
    pub group: Group,
    /// Where it was published.
    pub source: Source,
    /// Promises of the cell's operations.
    pub promises: Promises,
    /// Description of the design, in a line.
    pub about: &'static str,
}

/// A lock of the registry, for lists and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockEntry {
    /// Name in reports, as `spin-queued`.
    pub id: &'static str,
    /// Its family.
    pub group: Group,
    /// Where it was published.
    pub source: Source,
    /// Description of the design, in a line.
    pub about: &'static str,
}

/// Returns the promises of a cell's type.
const fn promises<P: Platform, C: AsyncCell<P>>() -> Promises {
    C::PROMISES
}

/// A platform on which the locks of others run: real cores.
pub trait HasPeers: Platform {
    /// Visits the peer with the given name; `None` if there is none.
    fn visit_peer<V: LockVisitor<Self>>(id: &str, visitor: V) -> Option<V::Output>;
}

macro_rules! cells {
    ($($id:literal $kind:ident $group:ident $source:ident $about:literal => $cell:ty;)*) => {
        /// Every cell: one entry for each design and kind, in the order of reports.
        pub const CELLS: &[CellEntry] = &selection::keep::<_, { selection::count(CELL_IDS) }>(
            &[$(CellEntry {
                id: $id,
                kind: CellKind::$kind,
                label: source::$source.label,
                group: Group::$group,
                source: source::$source,
                promises: {
                    type P = crate::platform::Native;
                    promises::<P, $cell>()
                },
                about: $about,
            },)*],
            CELL_IDS,
        );
        const CELL_IDS: &[&str] = &[$($id,)*];

        /// Visits the cell with the given name and kind; `None` if there is none.
        pub fn visit_cell<P: Platform, V: CellVisitor<P>>(
            id: &str,
            kind: CellKind,
            visitor: V,
        ) -> Option<V::Output> {
            match (id, kind) {
                // A constant condition: what is not built is not compiled.
                $(($id, CellKind::$kind) => if const { selection::is_built($id) } {
                    Some(visitor.visit::<$cell>())
                } else {
                    None
                },)*
                _ => None,
            }
        }
    };
}

macro_rules! locks {
    (any { $($id:literal $group:ident $source:ident $about:literal => $lock:ty;)* }
     native { $($(#[$when:meta])* $nid:literal $nsource:ident $nabout:literal => $nlock:ty;)* }) => {
        /// Locks that run on every platform, in the order of reports.
        pub const LOCKS: &[LockEntry] = &selection::keep::<_, { selection::count(LOCK_IDS) }>(
            &[$(LockEntry {
                id: $id,
                group: Group::$group,
                source: source::$source,
                about: $about,
            },)*],
            LOCK_IDS,
        );
        const LOCK_IDS: &[&str] = &[$($id,)*];
        /// Locks of others, native only.
        #[cfg(feature = "peers")]
        pub const PEERS: &[LockEntry] = &selection::keep::<_, { selection::count(PEER_IDS) }>(
            &[$($(#[$when])* LockEntry {
                id: $nid,
                group: Group::Peer,
                source: source::$nsource,
                about: $nabout,
            },)*],
            PEER_IDS,
        );
        #[cfg(feature = "peers")]
        const PEER_IDS: &[&str] = &[$($(#[$when])* $nid,)*];
        /// Locks of others: none without the feature `peers`.
        #[cfg(not(feature = "peers"))]
        pub const PEERS: &[LockEntry] = &[];

        /// Visits the lock with the given name; `None` if there is none on every platform.
        pub fn visit_lock<P: Platform, V: LockVisitor<P>>(id: &str, visitor: V) -> Option<V::Output> {
            match id {
                $($id => if const { selection::is_built($id) } {
                    Some(visitor.visit::<$lock>())
                } else {
                    None
                },)*
                _ => None,
            }
        }

        #[cfg(feature = "peers")]
        impl<M: peers::RealCores, R: ReclaimKind, E: EngineKind> HasPeers for World<M, R, E> {
            fn visit_peer<V: LockVisitor<Self>>(id: &str, visitor: V) -> Option<V::Output> {
                match id {
                    $($(#[$when])* $nid => if const { selection::is_built($nid) } {
                        Some(visitor.visit::<$nlock>())
                    } else {
                        None
                    },)*
                    _ => None,
                }
            }
        }
    };
}

cells! {
    "spin-tas" Timer Spinlock LOCKED "irq-saving test-and-set spinlock in the cell" => Locked<P, Timer, tas::Tas<P>>;
    "spin-queued" Timer Spinlock LOCKED "irq-saving queued spinlock in the cell" => Locked<P, Timer, queued::Queued<P>>;
    "rqspin" Timer Resilient LOCKED_RESILIENT "resilient queued spinlock in the cell" => Locked<P, Timer, resilient::Resilient<P>>;
    "cmpxchg-state" Timer StateWord RFC_V1 "RFC v1: READY/BUSY/FREED state word, refcount, RCU" => State<P, Timer, false>;
    "cmpxchg-state-nmi" Timer StateWord RFC_V1_NMI "RFC v1 with updates allowed in NMI" => State<P, Timer, true>;
    "mpmc-cell" Timer Buffer V3 "v3: newest command in two slots under a sequence word, irq_work" => MpmcCell<P, Timer>;
    "seq-latch-v4" Timer Buffer V4 "v4, v5: newest command under a latch sequence counter, always through irq_work" => SeqLatchV4<P, Timer>;
    "seq-latch-v6" Timer Buffer V6 "v6 to v8: the same, irq_work in NMI only" => SeqLatchV6<P, Timer>;
    "seq-latch" Timer Buffer V6_REPAIRED "v6 to v8, repaired: a command runs once" => SeqLatch<P, Timer>;
    "cmd-queue" Timer Commands MERGED "merged: refcount, exchanged program, stored callback, commands through irq_work" => CmdQueue<P, Timer, false>;
    "cmd-queue-xchg" Timer Commands MERGED_REPAIRED "merged, repaired: the callback is exchanged as well" => CmdQueue<P, Timer, true>;
    "rcu-pair" Timer Pair RCU_PAIR "counter-proposal: immutable pair behind one pointer, freed by RCU" => Direct<P, Timer, RcuPair>;
    "cas16-pair" Timer Pair CAS16_PAIR "counter-proposal: pair in 16 bytes, one compare-exchange" => Direct<P, Timer, WidePair>;
    "seqlock-pair" Timer Pair SEQLOCK_PAIR "counter-proposal: pair under a sequence lock, read without it" => Direct<P, Timer, SeqlockPair>;
    "rcu-alone" Timer Lifetime RCU_ALONE "counter-proposal: no refcount, RCU and a second cancel" => Direct<P, Timer, RcuAlone>;
    "hazard-ref" Timer Lifetime HAZARD_REF "counter-proposal: hazard pointers in place of the refcount" => Direct<P, Timer, HazardRef>;
    "percpu-ref" Timer Lifetime PERCPU_REF "counter-proposal: refcount on each CPU, summed to free" => Direct<P, Timer, PercpuRef>;
    "spin-tas" Wq Spinlock LOCKED "irq-saving test-and-set spinlock in the cell" => Locked<P, Wq, tas::Tas<P>>;
    "spin-queued" Wq Spinlock LOCKED "irq-saving queued spinlock in the cell" => Locked<P, Wq, queued::Queued<P>>;
    "rqspin" Wq Resilient LOCKED_RESILIENT "resilient queued spinlock in the cell" => Locked<P, Wq, resilient::Resilient<P>>;
    "cmpxchg-state" Wq StateWord RFC_V1 "RFC v1: READY/BUSY/FREED state word, refcount, RCU" => State<P, Wq, false>;
    "cmpxchg-state-nmi" Wq StateWord RFC_V1_NMI "RFC v1 with updates allowed in NMI" => State<P, Wq, true>;
    "mpmc-cell" Wq Buffer V3 "v3: newest command in two slots under a sequence word, irq_work" => MpmcCell<P, Wq>;
    "seq-latch-v4" Wq Buffer V4 "v4, v5: newest command under a latch sequence counter, always through irq_work" => SeqLatchV4<P, Wq>;
    "seq-latch-v6" Wq Buffer V6 "v6 to v8: the same, irq_work in NMI only" => SeqLatchV6<P, Wq>;
    "seq-latch" Wq Buffer V6_REPAIRED "v6 to v8, repaired: a command runs once" => SeqLatch<P, Wq>;
    "cmd-queue" Wq Commands MERGED "merged: refcount, exchanged program, stored callback, commands through irq_work" => CmdQueue<P, Wq, false>;
    "cmd-queue-xchg" Wq Commands MERGED_REPAIRED "merged, repaired: the callback is exchanged as well" => CmdQueue<P, Wq, true>;
    "rcu-pair" Wq Pair RCU_PAIR "counter-proposal: immutable pair behind one pointer, freed by RCU" => Direct<P, Wq, RcuPair>;
    "cas16-pair" Wq Pair CAS16_PAIR "counter-proposal: pair in 16 bytes, one compare-exchange" => Direct<P, Wq, WidePair>;
    "seqlock-pair" Wq Pair SEQLOCK_PAIR "counter-proposal: pair under a sequence lock, read without it" => Direct<P, Wq, SeqlockPair>;
    "rcu-alone" Wq Lifetime RCU_ALONE "counter-proposal: no refcount, RCU and a second cancel" => Direct<P, Wq, RcuAlone>;
    "hazard-ref" Wq Lifetime HAZARD_REF "counter-proposal: hazard pointers in place of the refcount" => Direct<P, Wq, HazardRef>;
    "percpu-ref" Wq Lifetime PERCPU_REF "counter-proposal: refcount on each CPU, summed to free" => Direct<P, Wq, PercpuRef>;
    "task-work" TaskWork TaskWork TASK_WORK_MERGED "merged: six states, refcount, cancel from irq_work" => TaskWork<P, lockless::Lockless<P, lockless::Merged>>;
    "task-work-cancel-now" TaskWork TaskWork TASK_WORK_SEED "six states, freed by the party that finds FREED, cancel at once" => TaskWork<P, lockless::Lockless<P, lockless::CancelNow>>;
    "task-work-cancel-irq" TaskWork TaskWork TASK_WORK_SEED_IRQ "six states, freed by the party that finds FREED, cancel from irq_work" => TaskWork<P, lockless::Lockless<P, lockless::CancelIrq>>;
    "task-work-no-cancel" TaskWork TaskWork TASK_WORK_SEED_REVIEW "six states, freed by the party that finds FREED, never cancelled" => TaskWork<P, lockless::Lockless<P, lockless::NoCancel>>;
    "spin-tas" TaskWork Spinlock TASK_WORK_LOCKED "the six states under an irq-saving test-and-set spinlock" => TaskWork<P, LockedWork<P, tas::Tas<P>>>;
    "spin-queued" TaskWork Spinlock TASK_WORK_LOCKED "the six states under an irq-saving queued spinlock" => TaskWork<P, LockedWork<P, queued::Queued<P>>>;
    "rqspin" TaskWork Resilient TASK_WORK_LOCKED "the six states under a resilient queued spinlock" => TaskWork<P, LockedWork<P, resilient::Resilient<P>>>;
}

locks! {
    any {
        "spin-tas" Spinlock TAS "test, then test-and-set" => tas::Tas<P>;
        "ttas" Spinlock TTAS "test-and-test-and-set, by an exchange of the word" => tas::Tas<P, true>;
        "spin-queued" Spinlock QSPINLOCK "queued spinlock: locked byte, pending bit, per-CPU nodes" => queued::Queued<P>;
        "spin-queued-byte" Spinlock QSPINLOCK_BYTE "queued spinlock with a byte-wide fast path" => queued::Queued<P, queued::ByteForm>;
        "spin-queued-pv" Spinlock QSPINLOCK_PV "queued spinlock as in a guest: newcomers may pass the queue" => paravirt::Paravirt<P>;
        "rqspin" Resilient RQSPINLOCK "resilient queued spinlock: deadlock detection, timeouts" => resilient::Resilient<P>;
        "rqspin-6.15" Resilient RQSPINLOCK_615 "resilient queued spinlock of 6.15 to 6.18: a deadlock ends the queue" => resilient::Of<P, resilient::V615>;
        "rqspin-byte" Resilient RQSPINLOCK_BYTE "resilient queued spinlock with a byte-wide fast path" => resilient::Resilient<P, queued::ByteForm>;
        "rqspin-tas" Resilient RQSPINLOCK "resilient test-and-set spinlock" => resilient::ResilientTas<P>;
        "ticket" Spinlock TICKET "ticket lock" => ticket::Ticket<P>;
        "ticket-backoff" Spinlock TICKET_BACKOFF "ticket lock with proportional backoff" => ticket::Ticket<P, true>;
        "twa" Spinlock TWA "ticket lock with a waiting array for far waiters" => twa::Twa<P>;
        "mcs" Spinlock MCS "MCS: queue of nodes, each waiter spins on its own" => mcs::Mcs<P>;
        "clh" Spinlock CLH "CLH: queue of nodes, each waiter spins on the one in front" => clh::Clh<P>;
        "hemlock" Spinlock HEMLOCK "Hemlock: queue with one word per CPU" => hemlock::Hemlock<P>;
        "hapax" Spinlock HAPAX "Hapax: queue of values, no nodes" => hapax::Hapax<P>;
        "reciprocating" Spinlock RECIPROCATING "reciprocating lock: lots served last come first" => reciprocating::Reciprocating<P>;
        "cna" Spinlock CNA "queued spinlock that prefers the NUMA node of the head" => cna::Cna<P>;
        "hmcs" Spinlock HMCS "MCS of MCS locks, one per NUMA node" => hmcs::Hmcs<P>;
        "shfllock" Spinlock SHFLLOCK "ShflLock: waiters sort the queue by NUMA node" => shfl::Shfl<P>;
        "mcs-abortable" Resilient MCS_ABORTABLE "MCS whose waiters can time out" => abortable::AbortableMcs<P>;
        "guard-try" Resilient GUARD_TRY "one attempt behind a guard per CPU: EBUSY" => guard::Guard<P>;
        "futex-mutex" Spinlock FUTEX "mutex whose waiters sleep" => futex::FutexMutex<P>;
        "flat-combining" Spinlock FLAT_COMBINING "the holder runs the sections that others posted" => combining::FlatCombining<P>;
        "ccsynch" Spinlock CCSYNCH "CC-Synch: sections delegated along a queue" => ccsynch::CcSynch<P>;
    }
    native {
        "std-mutex" STD "std::sync::Mutex" => peers::StdMutex;
        "parking-lot" CRATE "parking_lot::RawMutex" => peers::ParkingLot;
        "spin-crate" CRATE "spin::Mutex" => peers::Spin;
        "spin-ticket" CRATE "spin::TicketMutex" => peers::SpinTicket;
        "mcs-crate" CRATE "mcslock: MCS queue lock" => peers::McsLock;
        #[cfg(feature = "ck")] "ck-fas" CK "ck_spinlock_fas" => ck::Fas;
        #[cfg(feature = "ck")] "ck-ticket" CK "ck_spinlock_ticket" => ck::Ticket;
        #[cfg(feature = "ck")] "ck-ticket-pb" CK "ck_spinlock_ticket with proportional backoff" => ck::TicketBackoff;
        #[cfg(feature = "ck")] "ck-mcs" CK "ck_spinlock_mcs" => ck::Mcs;
        #[cfg(feature = "ck")] "ck-clh" CK "ck_spinlock_clh" => ck::Clh;
    }
}
