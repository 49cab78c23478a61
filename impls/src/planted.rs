//! Known bugs, each of them once a race that a reviewer found by reading, or the slip that the
//! design invites. Compiled only for the tests that show that the checkers find them; a machine
//! carries at most one ([`Machine::with_bug`](crate::machine::Machine::with_bug)).

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A known bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$name,)*];

            /// Its name, as a report shows it.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$name => stringify!($name),)* }
            }
        }
    };
}

bugs! {
    /// Resilient lock: a failed acquire leaves its entry in the table of held locks.
    HeldEntryLeft,
    /// Resilient lock: a pending waiter that times out leaves the pending bit set.
    PendingLeft,
    /// Resilient lock: a queue head that fails leaves without telling its successor.
    SuccessorNotTold,
    /// Resilient lock, as in 6.19 to 7.1: a head that finds a deadlock waits for somebody to hand the
    /// queue to, who may not exist (7a3c0289c3c8).
    LoneHeadWaits,
    /// Resilient test-and-set lock: the slow path makes an entry of its own, which nobody removes
    /// (82f3b142c99c).
    TasEntryTwice,
    /// `cmpxchg-state`: `start` arms without taking a reference (the reviewed race of RFC v1).
    StartWithoutReference,
    /// `cmpxchg-state`: the end of an update stores READY over FREED.
    ReadyOverFreed,
    /// An update exchanges the program and does not put the old one.
    OldProgramKept,
    /// An update puts the old program twice.
    OldProgramPutTwice,
    /// The loser of an initialisation race does not free its block.
    LoserKeepsBlock,
    /// `init` reads the map's user count before it publishes the block.
    UsercntBeforePublish,
    /// Locked wq cells: no second cancel after the grace period, as published: a start that takes
    /// neither lock nor reference can queue the work after the only cancel.
    NoSecondCancel,
    /// A block is published without release.
    RelaxedPublish,
    /// `cmd-queue-xchg`: the callback is stored, as in `cmd-queue`, and not exchanged. The store may
    /// become visible after the check that follows it, and stay beside another's program.
    CallbackStored,
    /// `mpmc-cell`, as published: the result of queueing the `irq_work` is ignored, and the reference
    /// that it was given leaks where it was queued already (A. Nakryiko's review of v3).
    QueueResultIgnored,
    /// `mpmc-cell`, as published: the result of queueing the `irq_work` is ignored when the cell is freed
    /// (the same review): the map's reference is never put, and the block never freed.
    FreeLost,
    /// Counted designs: a block is freed although its callback runs (81502d7f20bf).
    FreedUnderCallback,
    /// Task work, as merged: the late irq step of a round that has ended finds FREED and cancels on
    /// the task, which is null by then.
    LateIrqStepCancels,
    /// Task work, as merged first (Linux 6.18, `bpf_mem_free`): the block is freed without a grace
    /// period, while a schedule may be between finding it and taking its reference.
    FreedAtOnce,
    /// `cmd-queue`: commands are executed newest first.
    CommandsNotReversed,
    /// `mpmc-cell` and `seq-latch`: an `irq_work` does not claim the command that it executes.
    CommandNotClaimed,
    /// `mpmc-cell` and `seq-latch`: a command is published without release.
    RelaxedCommit,
    /// `mpmc-cell`: a reader does not look at the sequence again after it copied the slot.
    SlotNotReread,
    /// `seq-latch`: slot 1 is written while the counter is odd, slot 0 while it is even.
    LatchSlotsSwapped,
    /// Designs that free by grace periods: no second cancel after the first grace period, so that
    /// what a start armed after the first cancel fires on freed memory.
    FreedWithoutSecondCancel,
    /// Task work: the callback does not know that it may run before the irq step wrote SCHEDULED.
    CallbackMissesScheduling,
    /// Task work: the map's user count is read without order against publishing the block (the
    /// open point of the review).
    TaskUsercntUnordered,
    /// Task work: `cancel_and_free` frees whatever the state was, and so does the party that finds
    /// FREED.
    FreedByTwo,
    /// Task work: an irq step whose task took no work does not expect that the late irq step of an
    /// earlier round wrote SCHEDULED (as published).
    LateIrqStep,
    /// Ticket lock: a number is drawn by a load and a store.
    TicketDrawnTwice,
    /// Ticket lock: a release shows the number after the next.
    TicketSkipped,
    /// Ticket lock: a release shows the next number without release order.
    TicketShownRelaxed,
    /// `twa`: a release does not touch the place of the one that comes near.
    FarWaiterNotTold,
    /// `twa`: a waiter reads its place after the number, and does not look at the number again.
    PlaceReadAfterNumber,
    /// `mcs`: a release that sees nobody behind clears the pointer by a store.
    QueueClosedUnseen,
    /// `mcs`: a release does not wait for a newcomer that has not announced itself.
    LateNewcomerForgotten,
    /// `mcs`: the lock is handed on without release order.
    TurnGivenRelaxed,
    /// `clh`: a CPU goes on with its own node, which its successor looks at.
    ReleasedNodeReused,
    /// `hemlock`: a waiter does not clear the word that named the lock.
    GrantNotAnswered,
    /// `hemlock`: a release does not wait for the answer.
    GrantReusedUnanswered,
    /// `hapax`: every acquire draws the same number.
    NumberDrawnTwice,
    /// `hapax`: a release touches the waiter's place before it departs.
    ToldBeforeDeparture,
    /// `reciprocating`: the bottom of a lot is not known by its mark.
    BottomNotSeen,
    /// `reciprocating`: a release that sees nobody come frees the lock by a store.
    ArrivalsOverwritten,
    /// `reciprocating`: taking a lot off leaves the lock free.
    LotLeavesNoMark,
    /// `cna`: the last waiter of the queue is moved.
    LastWaiterMoved,
    /// `cna`: when the queue is empty nobody tells the second one.
    SecondQueueForgotten,
    /// `cna`: a handover within the NUMA node forgets the second queue.
    SecondQueueDropped,
    /// `hmcs`: the queue of the NUMA node goes on before the node has left the upper queue.
    NodeLeavesLast,
    /// `hmcs`: the next of a NUMA node is not told that the node has to queue again.
    NodeLeftNotSaid,
    /// `hmcs`: the lock is handed on within the NUMA node without release order.
    LocalTurnRelaxed,
    /// `shfllock`: the head does not tell the next one.
    NextHeadNotTold,
    /// `shfllock`: the last waiter of the queue is moved.
    LastWaiterShuffled,
    /// `shfllock`: a head that sees nobody behind clears the pointer by a store.
    QueueDroppedUnseen,
    /// `mcs-abortable`: the holder does not mark the link that it follows.
    LinkNotTaken,
    /// `mcs-abortable`: waiters that give up do not take turns.
    LeavingTogether,
    /// `mcs-abortable`: the last waiter leaves although somebody has come behind it.
    NewcomerLost,
    /// `guard-try`: the lock is taken by a load and a store.
    LockLookedAtOnly,
    /// `guard-try`: a failed attempt leaves the guard taken.
    GuardLeftTaken,
    /// `guard-try`: the lock is released without release order.
    GuardReleasedRelaxed,
    /// `futex-mutex`: a release wakes nobody.
    SleeperNotWoken,
    /// `futex-mutex`: a woken waiter takes the lock as if nobody else slept.
    WokenTakesUnmarked,
    /// `futex-mutex`: a waiter sleeps without a look at the word.
    SleepsWithoutLook,
    /// `flat-combining`: a poster does not try to become the combiner.
    PosterNeverCombines,
    /// `flat-combining`: a poster is told before its section has run.
    ToldBeforeRun,
    /// `flat-combining`: what is posted is run after the lock was released.
    CombinesAfterRelease,
    /// `ccsynch`: a caller whose section was run is made the front.
    ServedMadeFront,
    /// `ccsynch`: the front that ran sections of others makes nobody the front.
    FrontNotPassed,
    /// `ccsynch`: the next one is made the front without release order.
    FrontPassedRelaxed,
}
