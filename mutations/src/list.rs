//! The list. A mutation is added here, with the cheapest check that finds it, and asked for at one place
//! of the code.

use crate::check::{Check, Suite};

macro_rules! mutations {
    ($($(#[doc = $doc:literal])+ $name:ident: $suite:ident $(($text:literal))?,)*) => {
        /// A single change to the code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mutation {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$name,)*];

            /// Returns its name, as a report shows it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Returns the change in words, ended by a full stop.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)* }
            }

            /// Returns what finds it.
            #[must_use]
            pub const fn check(self) -> Check {
                match self { $(Self::$name => check!($name: $suite $(($text))?),)* }
            }
        }
    };
}

/// The check of an entry.
macro_rules! check {
    ($name:ident: Hunt) => {
        Check::Found(Suite::Hunt, concat!("planted/", stringify!($name)))
    };
    ($name:ident: Equivalent($why:literal)) => {
        Check::Equivalent($why)
    };
    ($name:ident: $suite:ident($filter:literal)) => {
        Check::Found(Suite::$suite, $filter)
    };
}

mutations! {
    // Locks and cells: races that reviewers found, and slips that a design invites.
    /// Resilient lock: a failed acquire leaves its entry in the table of held locks.
    HeldEntryLeft: Hunt,
    /// Resilient lock: a pending waiter that times out leaves the pending bit set.
    PendingLeft: Hunt,
    /// Resilient lock: a queue head that fails leaves without telling its successor.
    SuccessorNotTold: Hunt,
    /// Resilient lock, as in 6.19 to 7.1: a head that finds a deadlock waits for somebody to hand the
    /// queue to, who may not exist (7a3c0289c3c8).
    LoneHeadWaits: Hunt,
    /// Resilient test-and-set lock: the slow path makes an entry of its own, which nobody removes
    /// (82f3b142c99c).
    TasEntryTwice: Hunt,
    /// `cmpxchg-state`: `start` arms without taking a reference (the reviewed race of RFC v1).
    StartWithoutReference: Hunt,
    /// `cmpxchg-state`: the end of an update stores READY over FREED.
    ReadyOverFreed: Hunt,
    /// An update exchanges the program and does not put the old one.
    OldProgramKept: Hunt,
    /// An update puts the old program twice.
    OldProgramPutTwice: Hunt,
    /// The loser of an initialisation race does not free its block.
    LoserKeepsBlock: Hunt,
    /// `init` reads the map's user count before it publishes the block.
    UsercntBeforePublish: Hunt,
    /// Locked wq cells: no second cancel after the grace period, as published: a start that takes
    /// neither lock nor reference can queue the work after the only cancel.
    NoSecondCancel: Hunt,
    /// A block is published without release.
    RelaxedPublish: Hunt,
    /// `cmd-queue-xchg`: the callback is stored, as in `cmd-queue`, and not exchanged. The store may
    /// become visible after the check that follows it, and stay beside another's program.
    CallbackStored: Hunt,
    /// `mpmc-cell`, as published: the result of queueing the `irq_work` is ignored, and the reference
    /// that it was given leaks where it was queued already (A. Nakryiko's review of v3).
    QueueResultIgnored: Hunt,
    /// `mpmc-cell`, as published: the result of queueing the `irq_work` is ignored when the cell is
    /// freed (the same review): the map's reference is never put, and the block never freed.
    FreeLost: Hunt,
    /// Counted designs: a block is freed although its callback runs (81502d7f20bf).
    FreedUnderCallback: Hunt,
    /// Task work, as merged: the late irq step of a round that has ended finds FREED and cancels on the
    /// task, which is null by then.
    LateIrqStepCancels: Hunt,
    /// Task work, as merged first (Linux 6.18, `bpf_mem_free`): the block is freed without a grace
    /// period, while a schedule may be between finding it and taking its reference.
    FreedAtOnce: Hunt,
    /// `cmd-queue`: commands are executed newest first.
    CommandsNotReversed: Hunt,
    /// `mpmc-cell` and `seq-latch`: an `irq_work` does not claim the command that it executes.
    CommandNotClaimed: Hunt,
    /// `mpmc-cell` and `seq-latch`: a command is published without release.
    RelaxedCommit: Hunt,
    /// `mpmc-cell`: a reader does not look at the sequence again after it copied the slot.
    SlotNotReread: Hunt,
    /// `seq-latch`: slot 1 is written while the counter is odd, slot 0 while it is even.
    LatchSlotsSwapped: Hunt,
    /// Designs that free by grace periods: no second cancel after the first grace period, so that what
    /// a start armed after the first cancel fires on freed memory.
    FreedWithoutSecondCancel: Hunt,
    /// Task work: the callback does not know that it may run before the irq step wrote SCHEDULED.
    CallbackMissesScheduling: Hunt,
    /// Task work: the map's user count is read without order against publishing the block (the open
    /// point of the review).
    TaskUsercntUnordered: Hunt,
    /// Task work: `cancel_and_free` frees whatever the state was, and so does the party that finds
    /// FREED.
    FreedByTwo: Hunt,
    /// Task work: an irq step whose task took no work does not expect that the late irq step of an
    /// earlier round wrote SCHEDULED (as published).
    LateIrqStep: Hunt,
    /// `rcu-pair`: a pair that was taken out is freed without a grace period.
    PairFreedAtOnce: Hunt,
    /// `rcu-pair`: a pair is published without release.
    PairPublishedRelaxed: Hunt,
    /// `rcu-pair`: a work's handler reads the pair before it opens its RCU section.
    PairReadOutside: Hunt,
    /// `cas16-pair`: the halves are exchanged one after the other.
    WideInHalves: Hunt,
    /// `cas16-pair`: a failed exchange counts as one that was done.
    WideFailureIgnored: Hunt,
    /// `cas16-pair`: the program that was seen first is put, not the one that was exchanged away.
    WideFirstSeenPut: Hunt,
    /// `seqlock-pair`: the sequence is not odd while the words are written.
    SequenceStaysEven: Hunt,
    /// `seqlock-pair`: the odd sequence is not ordered before the words.
    SequenceUnordered: Hunt,
    /// `seqlock-pair`: writers do not take the lock.
    WritersMeet: Hunt,
    /// `rcu-alone`: a start arms when its RCU section has ended.
    ArmedOutsideSection: Hunt,
    /// `rcu-alone`: the second cancel comes before the grace period.
    SecondCancelTooEarly: Hunt,
    /// `rcu-alone`: a block is freed without a grace period.
    FreedInSection: Hunt,
    /// `hazard-ref`: who has named a block does not look whether it is still there.
    HazardUnconfirmed: Hunt,
    /// `hazard-ref`: naming a block and looking for it are not ordered.
    HazardUnordered: Hunt,
    /// `hazard-ref`: who frees does not look at the names.
    HazardNotLookedFor: Hunt,
    /// `percpu-ref`: the counters are added up before a grace period has ended.
    SummedAtOnce: Hunt,
    /// `percpu-ref`: a reference on a dead block is put on the CPU's own counter.
    PutOnDeadCounter: Hunt,
    /// `percpu-ref`: the bias stays in the count.
    BiasKept: Hunt,
    /// `cmd-queue`: a command of a block whose commands this CPU executes is queued (64873307e888).
    RecursionUnguarded: Scripts("timer/cmd-queue/start: in NMI"),
    /// `cmd-queue`: with interrupts off a start is executed at once, but for NMI (7d49635e3775).
    DefersInNmiAlone: Scripts("timer/cmd-queue/start: with interrupts off"),
    /// `cmd-queue`: a last put with interrupts off calls RCU at once (1ace9bac1ad2).
    LastPutDefersAtOnce: Scripts("timer/cmd-queue/cancel_and_free: in NMI"),
    /// `cmd-queue`: a free leaves program and callback to the last put (5000a097f82c).
    CallbackKeptByFree: Scripts("timer/cmd-queue/cancel_and_free: armed"),
    /// `ttas`: the lock is taken by a load and a store.
    TtasTakenByStore: Hunt,
    /// `ttas`: the exchange that takes the lock does not acquire.
    TtasTakenRelaxed: Hunt,
    /// `ttas`: the lock is released without release order.
    TtasReleasedRelaxed: Hunt,
    /// Ticket lock: a number is drawn by a load and a store.
    TicketDrawnTwice: Hunt,
    /// Ticket lock: a release shows the number after the next.
    TicketSkipped: Hunt,
    /// Ticket lock: a release shows the next number without release order.
    TicketShownRelaxed: Hunt,
    /// `twa`: a release does not touch the place of the one that comes near.
    FarWaiterNotTold: Hunt,
    /// `twa`: a waiter reads its place after the number, and does not look at the number again.
    PlaceReadAfterNumber: Hunt,
    /// `mcs`: a release that sees nobody behind clears the pointer by a store.
    QueueClosedUnseen: Hunt,
    /// `mcs`: a release does not wait for a newcomer that has not announced itself.
    LateNewcomerForgotten: Hunt,
    /// `mcs`: the lock is handed on without release order.
    TurnGivenRelaxed: Hunt,
    /// `clh`: a CPU goes on with its own node, which its successor looks at.
    ReleasedNodeReused: Hunt,
    /// `hemlock`: a waiter does not clear the word that named the lock.
    GrantNotAnswered: Hunt,
    /// `hemlock`: a release does not wait for the answer.
    GrantReusedUnanswered: Hunt,
    /// `hapax`: every acquire draws the same number.
    NumberDrawnTwice: Hunt,
    /// `hapax`: a release touches the waiter's place before it departs.
    ToldBeforeDeparture: Hunt,
    /// `reciprocating`: the bottom of a lot is not known by its mark.
    BottomNotSeen: Hunt,
    /// `reciprocating`: a release that sees nobody come frees the lock by a store.
    ArrivalsOverwritten: Hunt,
    /// `reciprocating`: taking a lot off leaves the lock free.
    LotLeavesNoMark: Hunt,
    /// `cna`: the last waiter of the queue is moved.
    LastWaiterMoved: Hunt,
    /// `cna`: when the queue is empty nobody tells the second one.
    SecondQueueForgotten: Hunt,
    /// `cna`: a handover within the NUMA node forgets the second queue.
    SecondQueueDropped: Hunt,
    /// `hmcs`: the queue of the NUMA node goes on before the node has left the upper queue.
    NodeLeavesLast: Hunt,
    /// `hmcs`: the next of a NUMA node is not told that the node has to queue again.
    NodeLeftNotSaid: Hunt,
    /// `hmcs`: the lock is handed on within the NUMA node without release order.
    LocalTurnRelaxed: Hunt,
    /// `shfllock`: the head does not tell the next one.
    NextHeadNotTold: Hunt,
    /// `shfllock`: the last waiter of the queue is moved.
    LastWaiterShuffled: Hunt,
    /// `shfllock`: a head that sees nobody behind clears the pointer by a store.
    QueueDroppedUnseen: Hunt,
    /// `mcs-abortable`: the holder does not mark the link that it follows.
    LinkNotTaken: Hunt,
    /// `mcs-abortable`: waiters that give up do not take turns.
    LeavingTogether: Hunt,
    /// `mcs-abortable`: the last waiter leaves although somebody has come behind it.
    NewcomerLost: Hunt,
    /// `guard-try`: the lock is taken by a load and a store.
    LockLookedAtOnly: Hunt,
    /// `guard-try`: a failed attempt leaves the guard taken.
    GuardLeftTaken: Hunt,
    /// `guard-try`: the lock is released without release order.
    GuardReleasedRelaxed: Hunt,
    /// `futex-mutex`: a release wakes nobody.
    SleeperNotWoken: Hunt,
    /// `futex-mutex`: a woken waiter takes the lock as if nobody else slept.
    WokenTakesUnmarked: Hunt,
    /// `futex-mutex`: a waiter sleeps without a look at the word.
    SleepsWithoutLook: Hunt,
    /// `flat-combining`: a poster does not try to become the combiner.
    PosterNeverCombines: Hunt,
    /// `flat-combining`: a poster is told before its section has run.
    ToldBeforeRun: Hunt,
    /// `flat-combining`: what is posted is run after the lock was released.
    CombinesAfterRelease: Hunt,
    /// `ccsynch`: a caller whose section was run is made the front.
    ServedMadeFront: Hunt,
    /// `ccsynch`: the front that ran sections of others makes nobody the front.
    FrontNotPassed: Hunt,
    /// `ccsynch`: the next one is made the front without release order.
    FrontPassedRelaxed: Hunt,
    // Locks that prefer a NUMA node: bounds on how often the others are passed.
    /// `cna`: handovers that pass the second queue by are not counted.
    SecondQueueNeverFirst: Impls("cna_passes_nobody"),
    /// `hmcs`: sections of a NUMA node running are not counted.
    NodeKeepsTheLock: Impls("hmcs_serves"),
    /// `shfllock`: waiters that are brought together are not counted.
    BatchWithoutEnd: Impls("shfllock_passes"),
    // Queued locks: orders, ends of ranges, clocks.
    /// Queued lock: the fast path takes the lock without acquire order.
    TakenRelaxed: Scripts("lock/spin-queued: nobody has it"),
    /// Queued lock: the pending waiter reads the word without acquire order.
    PendingRelaxed: Scripts("lock/spin-queued: somebody has it"),
    /// Queued lock: the head of the queue reads the word without acquire order.
    HeadRelaxed: Scripts("lock/spin-queued: somebody has it and somebody waits"),
    /// Queued lock: the head of the queue takes the lock although somebody is pending.
    HeadOvertakes: Impls("queued_lock_is_first_come"),
    /// Queued lock: a newcomer takes the pending bit back although it is another one's.
    PendingOfAnotherTaken: Scripts("lock/spin-queued: somebody comes to wait first"),
    /// Queued locks: a waiter announces itself without release order.
    AnnouncedRelaxed: Scripts("lock/spin-queued: it queues behind somebody else"),
    /// Queued locks: the queue is handed on without release order: the next head reads the word from
    /// before it was locked.
    QueueTurnRelaxed: Scripts("lock/spin-queued: somebody else queues behind"),
    /// Queued locks: a waiter reads that it is the head without acquire order.
    TurnReadRelaxed: Scripts("lock/spin-queued: it queues behind somebody else"),
    /// Queued locks: the name of a node has 8 bits, which name 62 CPUs.
    TailInEightBits: Impls("every_node_has_a_name"),
    /// Queued locks: the waiter of a fifth level takes the node of the first.
    FifthWaiterWraps: Impls("beyond_the_last_level"),
    /// Table of held locks: AA is looked for in 30 of 31 entries.
    HeldTableShort: Impls("every_entry_is_found"),
    /// Table of held locks: ABBA is looked for in 30 of 31 entries.
    CycleTableShort: Impls("tables_of_every_size"),
    /// Table of held locks: the entry is written before the count, so that an NMI in between wipes it.
    HeldEntryFirst: Scripts("lock/rqspin: nobody has it"),
    /// Table of held locks: an entry is left without a barrier before the next one.
    FailedEntryUnfenced: Scripts("lock/rqspin: this CPU has it"),
    /// Resilient lock: the entry is cleared before the lock is released.
    EntryClearedFirst: Scripts("lock/rqspin: nobody has it"),
    /// Resilient lock: the interval of the search for ABBA begins anew at every look at the clock.
    CycleCheckRestarts: Impls("however_often_the_clock_is_read"),
    /// Resilient lock: no search for AA before queueing.
    QueuesBehindItself: Scripts("lock/rqspin: somebody has it and somebody waits"),
    /// Resilient lock: an NMI queues over a waiter of its own CPU.
    NmiQueues: Impls("an_nmi_over_a_waiter_does_not_queue"),
    // Cells, reference counts and tasks.
    /// `cmpxchg-state`: an update that finds FREED at its end says that all is well.
    FreedUpdateSaysOk: Scripts("timer/cmpxchg-state/set_callback: the cell is freed meanwhile"),
    /// `cmd-queue`: a command behind others has the `irq_work` queued again, without a reference.
    QueuedAgain: Scripts("timer/cmd-queue/start: with interrupts off, two commands"),
    /// `mpmc-cell` and `seq-latch`: a cancel is executed without being claimed.
    CancelNotClaimed: Scripts("timer/mpmc-cell/cancel_async: armed"),
    /// A callback raises its count and looks at the other one's without a barrier in between.
    CancellingUnfenced: Mechanisms("callbacks_that_cancel_each_other"),
    /// Reference counts: a reference is taken although the count is 0.
    TakenFromZero: Scripts("timer/cmd-queue/start: the cell is being freed"),
    /// Reference counts: a reference is taken without acquire order.
    GetRelaxed: Scripts("timer/cmd-queue/start: in a task"),
    /// Reference counts: a reference is returned without order.
    PutRelaxed: Scripts("timer/cmd-queue/start: in a task"),
    /// Task work: the irq step opens no RCU section of its own.
    IrqStepWithoutSection: Equivalent("the list of `irq_work` holds a section around every handler, since interrupts are off there"),
    /// Task work: the callback does not look for SCHEDULED after SCHEDULING.
    CallbackMissesScheduled: Scripts("task_work/task-work/callback: scheduled"),
    /// Task: an addition whose exchange failed does not look again whether the task has exited.
    ExitNotSeenAgain: Impls("meets_the_exit"),
    /// Task: works run without waiting for a cancel that saw them in the list.
    CancelNotAwaited: Mechanisms("a_cancel_looks_at"),
    // `irq_work`, allocator, grace periods, engine.
    /// `irq_work`: it is claimed without order: told "queued already", and the run does not see the
    /// command.
    IrqWorkClaimRelaxed: Mechanisms("queued_already"),
    /// `irq_work`: no barrier between clearing PENDING and the handler.
    IrqWorkRunUnfenced: Mechanisms("queued_already"),
    /// `irq_work`: BUSY stays after the handler.
    IrqWorkStaysBusy: Impls("loses_nobody_behind_it"),
    /// `irq_work`: the next item is read after the handler, which may have queued the item again.
    IrqWorkNextReadLate: Impls("loses_nobody_behind_it"),
    /// Allocator: the free list has no tag: two owners of one slot.
    FreeListUntagged: Impls("came_back_is_noticed"),
    /// Allocator: an empty heap takes memory in NMI too.
    HeapGrowsInNmi: Impls("an_empty_heap_refuses"),
    /// Allocator: a slot is taken without acquire order.
    PopRelaxed: Impls("taking_acquires"),
    /// Allocator: a slot is given back without release order.
    PushRelaxed: Impls("taking_acquires"),
    /// Allocator: all CPUs keep their books on one line.
    BooksOfOneCpu: Impls("share_no_line_of_the_allocator"),
    /// Grace periods: the first CPU is not waited for.
    PeriodSkipsFirstCpu: Impls("is_waited_for"),
    /// Grace periods: what is deferred waits for the period before.
    PeriodOfThePast: Impls("is_waited_for"),
    /// Grace periods: a CPU comes online without a barrier before it reads.
    OnlineUnfenced: Impls("coming_online"),
    /// Grace periods: a CPU goes offline without release order.
    OfflineRelaxed: Impls("coming_online"),
    /// Grace periods: no barrier between what was read and the answer.
    AnswerUnfenced: Impls("asking_and_answering"),
    /// Grace periods: no barrier between detaching and asking.
    RequestUnfenced: Impls("asking_and_answering"),
    /// Grace periods: what is deferred is published without release order.
    DeferRelaxed: Impls("asking_and_answering"),
    /// Engine: a cancel does not wait for a handler that has armed its timer again.
    RearmedNotAwaited: Mechanisms("arms_its_timer_again"),
    /// Engine: a timer whose handler runs is moved to another CPU.
    RunningItemMoved: Mechanisms("stays_where_it_is"),
    /// Engine: who waited for the lock of a base does not look whether the timer has left it.
    BaseNotLookedAt: Mechanisms("looked_for_again"),
    // Simulator.
    /// Simulator: a load that hits takes twice as long.
    LoadDoubled: SimTerms("a_hit_takes"),
    /// Simulator: a store that hits takes twice as long.
    StoreDoubled: SimTerms("a_hit_takes"),
    /// Simulator: an atomic that hits takes twice as long.
    AtomicDoubled: SimTerms("a_hit_takes"),
    /// Simulator: a fence takes twice as long.
    FenceDoubled: SimTerms("touches_no_line"),
    /// Simulator: a pause takes twice as long.
    PauseDoubled: SimTerms("touches_no_line"),
    /// Simulator: reading the clock takes twice as long.
    ClockDoubled: SimTerms("touches_no_line"),
    /// Simulator: a busy sibling does not slow a thread down.
    SiblingsIgnored: SimCores("smt_siblings"),
    /// Simulator: a line from the last-level cache takes twice as long.
    LlcFillDoubled: SimTerms("last_level_cache"),
    /// Simulator: a line from memory takes twice as long.
    MemoryFillDoubled: SimTerms("first_touch"),
    /// Simulator: memory of the other socket is as near as local.
    RemoteMemoryAsLocal: SimTerms("memory_of_the_other_socket"),
    /// Simulator: a line from the other socket costs no more than one from another cache of the same.
    SocketsAsOne: SimTerms("price_of_the_distance"),
    /// Simulator: a line from another last-level cache costs no more than one from the same.
    LlcsAsOne: SimTerms("price_of_the_distance"),
    /// Simulator: a write does not wait for the farthest copy.
    FarthestIgnored: SimTerms("farthest_of_the_copies"),
    /// Simulator: invalidations are twice as far apart.
    SnoopIssueDoubled: SimTerms("farthest_of_the_copies"),
    /// Simulator: a reader occupies the directory twice as long.
    ServiceDoubled: SimTerms("one_after_the_other"),
    /// Simulator: a restart after a surprise takes twice as long.
    RestartDoubled: SimTerms("price_of_the_distance"),
    /// Simulator: a core that lost a line which it had read ahead loses twice as much time.
    ReplayDoubled: SimRunAhead("lost_before_it_was_used"),
    /// Simulator: a core that does not wait asks for a line that it lost when it misses it, not at once.
    RunningAsksLate: SimRunAhead("asks_again_before_it_misses_it"),
    /// Simulator: an atomic locks its line at no time.
    AtomicLocksNothing: SimRunAhead("from_when_it_has_locked_it"),
    /// Simulator: a core runs ahead past an atomic that is a barrier.
    BarrierPassed: SimRunAhead("behind_a_load_and_not_behind_an_atomic"),
    /// Simulator: a line that a buffered store asked for is kept as long as any other.
    DrainedWindowWhole: SimRunAhead("has_to_leave_the_buffer_first"),
    /// Simulator: a read costs the owner twice of what it had executed ahead.
    SquashDoubled: SimRunAhead("what_it_had_executed_ahead"),
    /// Simulator: an interrupt takes twice as long.
    InterruptDoubled: SimTerms("take_their_time"),
    /// Simulator: a context switch takes twice as long.
    SwitchDoubled: SimTerms("take_their_time"),
    /// Simulator: a line does not go by its home socket.
    HomePassedBy: SimTerms("goes_by_its_home"),
    /// Simulator, MESIF: the newest reader does not become the forwarder.
    ReaderNotForwarder: SimTerms("forwards_the_line"),
    /// Simulator: migratory lines are not detected.
    MigrationUnseen: SimCoherence("migratory_line_moves_once"),
    /// Simulator: false sharing is not counted.
    FalseSharingUncounted: SimTextbook("padding_removes"),
    /// Simulator: a transfer of a clean line counts as one of a modified line.
    CleanCountedAsModified: SimCoherence("later_readers"),
    /// Simulator: a new owner does not keep its line for its window.
    WindowIgnored: SimRunAhead("windows_of_ownership"),
    /// Simulator: an owner does not hold its line for the window of the machine.
    OwnerHoldsNothing: SimTerms("keeps_its_line_for_its_window"),
    // Statistics.
    /// `compare`: no correction for the number of rows.
    CompareUncorrected: Inference("differs_alone"),
    /// `compare`: intervals are not widened by what a run drifts.
    DriftNotAdded: Inference("drifts_by"),
    /// Summary: the level of a row is that of the table.
    TableUncorrected: Inference("surprises_alone"),
    /// Summary: the corrected probability is the row's own.
    ProbabilityUnadjusted: Inference("surprises_alone"),
    /// Summary: rows that differ take part in the correction with their difference.
    TableUncentred: Stats("takes_nothing_from_the_others"),
    /// Verdicts: slower needs no interval.
    SlowerByEstimate: Stats("the_interval_alone_decides"),
    /// Verdicts: the same needs no interval.
    SameByEstimate: Stats("the_interval_alone_decides"),
    /// Signed ranks: ties count for a difference.
    TiesCountForIt: Stats("ties_and_zeros"),
    /// Signed ranks: the interval begins one average too late.
    IntervalOneShort: Stats("excludes_zero_exactly"),
    /// Rank sums: the law is too narrow.
    RankSumNarrow: Stats("intervals_cover_and_agree"),
    /// Intervals: neighbouring rounds are taken for independent.
    RoundsIndependent: Stats("drift_widens"),
    /// Intervals: the error of both tails is left to each.
    OneTailForBoth: Stats("order_statistics_of_the_sign_test"),
    /// The median of an even number of values is the upper one of two.
    UpperMedian: Stats("median_of_odd_even"),
    /// Fairness: the worst thread is a share of the sum, and not of the mean.
    WorstOfSum: Stats("ends_of_the_scale"),
    /// Scaling: coefficients may be negative.
    NegativeCoefficients: Stats("no_negative_coefficient"),
    /// Summary: a pair with a disturbed round is not counted as such.
    DisturbedUncounted: Summary("leaves_both_sides"),
    /// Summary: a round in which neither side succeeded counts as a pair.
    EmptyRoundsPaired: Summary("without_any_success_on_either_side"),
}
