//! Where each design was published: the revision that a row of the registry stands for.

/// A published revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The revision in a few words, for legends.
    pub label: &'static str,
    /// The day of the mail, merge or release, as `2026-01-20`; empty for what is ours.
    pub date: &'static str,
    /// A Message-ID, a commit, a release with the file, or a paper.
    pub reference: &'static str,
}

macro_rules! sources {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $date:literal, $reference:literal;)*) => {
        $($(#[$doc])*
        pub const $name: Source =
            Source { label: $label, date: $date, reference: $reference };)*

        /// All of them, for the test that looks at their form.
        #[cfg(test)]
        const ALL: &[(&str, Source)] = &[$((stringify!($name), $name),)*];
    };
}

sources! {
    /// The async cell under a lock, as long as it had one.
    LOCKED = "locked, to 6.18", "2025-11-30", "Linux 6.18, kernel/bpf/helpers.c";
    /// The same under a lock that can fail: proposed in review, not published as code.
    LOCKED_RESILIENT = "locked, resilient", "", "ours: the locked cell of Linux 6.18 over rqspinlock";
    /// The first patch that removes the lock.
    RFC_V1 = "RFC v1", "2025-10-31", "20251031-timer_nolock-v1-5-bf8266d2fb20@meta.com";
    /// The same with updates in NMI.
    RFC_V1_NMI = "RFC v1, NMI", "", "ours: RFC v1 without its refusal of NMI";
    /// Command buffer under a sequence word.
    V3 = "v3", "2026-01-07", "20260107-timer_nolock-v3-0-740d3ec3e5f9@meta.com";
    /// Latch, always through irq_work.
    V4 = "v4", "2026-01-14", "20260114-timer_nolock-v4-3-fa6355f51fa7@meta.com";
    /// Latch, irq_work in NMI only.
    V6 = "v6", "2026-01-20", "20260120-timer_nolock-v6-0-670ffdd787b4@meta.com";
    /// The same with one number for both values that the counter takes for one command.
    V6_REPAIRED = "v6, repaired", "", "ours: v6 with the latch sequence halved";
    /// As merged, with an exchanged callback.
    MERGED_REPAIRED = "merged, repaired", "", "ours: the merged form with the callback exchanged";
    /// As merged, with the fixes up to 7.0.
    MERGED = "merged, 7.0", "2026-02-04", "1bfbc267ec91, a7e172aa4ca2, 7d49635e3775, 64873307e888, 81502d7f20bf, 5000a097f82c, 1ace9bac1ad2";
    /// McKenney's way, proposed here.
    RCU_PAIR = "RCU pair", "", "ours: the pair behind one RCU-protected pointer (McKenney and Slingwine, 1998)";
    /// SLUB's way, proposed here.
    CAS16_PAIR = "16-byte pair", "", "ours: the pair changed as SLUB changes freelist and counters (system_has_cmpxchg128())";
    /// A sequence lock, proposed here.
    SEQLOCK_PAIR = "sequence lock", "", "ours: the pair under a seqlock_t (Linux, include/linux/seqlock.h)";
    /// No count, proposed here.
    RCU_ALONE = "RCU alone", "", "ours: cmd-queue-xchg in tasks, its count replaced by the RCU section of a start";
    /// Hazard pointers, proposed here.
    HAZARD_REF = "hazard pointers", "", "ours: cmd-queue-xchg in tasks with hazard pointers (Michael, TPDS 2004; hazptr RFCs, 2024)";
    /// A count on each CPU, proposed here.
    PERCPU_REF = "per-CPU ref", "", "ours: cmd-queue-xchg in tasks with percpu_ref (215e262f2aeb)";
    /// Task work as first posted.
    TASK_WORK_SEED = "seed", "2025-08-15", "bpf_task_work_schedule kfuncs, mail of 2025-08-15";
    /// Its author's way out of the review's finding.
    TASK_WORK_SEED_IRQ = "seed, irq cancel", "2025-08-19", "its author's answer in review, 2025-08-19";
    /// The reviewer's way out.
    TASK_WORK_SEED_REVIEW = "seed, no cancel", "2025-08-19", "its reviewer's proposal, 2025-08-19";
    /// Task work as merged, in its newest form: freed by RCU, through irq_work with interrupts off.
    TASK_WORK_MERGED = "merged, newest", "2026", "Linux 7.0 or later, kernel/bpf/helpers.c with bpf_task_work_destroy()";
    /// Task work under a lock: asked for in review, not published as code.
    TASK_WORK_LOCKED = "locked", "", "ours: the six states under one lock, as asked for in review 2025-08-19";
    /// Test, then test-and-set.
    TAS = "test-and-set", "2015", "Linux 4.2 and later, virt_spin_lock(), arch/x86/include/asm/qspinlock.h";
    /// The test-and-test-and-set lock.
    TTAS = "test-and-test-and-set", "1984", "Rudolph and Segall, ISCA 1984";
    /// The kernel's queued spinlock.
    QSPINLOCK = "qspinlock", "2015-05-08", "a33fda35e3a7; Linux, kernel/locking/qspinlock.c";
    /// The same with a byte-wide fast path.
    QSPINLOCK_BYTE = "qspinlock, byte", "", "ours: qspinlock with a byte-wide fast path";
    /// The same under a hypervisor.
    QSPINLOCK_PV = "qspinlock, pv", "2015-05-08", "a23db284fe0d; Linux, kernel/locking/qspinlock_paravirt.h";
    /// The resilient queued spinlock, in its newest generation.
    RQSPINLOCK = "rqspinlock, 7.2", "2026-08-06", "6ffb9017e932 with 7bd6e5ce5be6, beb7021a6003, 5860f5ce479f, 81d5a6a43859, 30dc2f7025fe, 087849cca31d, 82f3b142c99c, 7a3c0289c3c8; Linux 7.2, kernel/bpf/rqspinlock.c";
    /// Its first generation.
    RQSPINLOCK_615 = "rqspinlock, 6.15", "2025-03-19", "6ffb9017e932 with 0d80e7f951be; Linux 6.18, kernel/bpf/rqspinlock.c";
    /// The same with a byte-wide fast path.
    RQSPINLOCK_BYTE = "rqspinlock, byte", "", "ours: rqspinlock with a byte-wide fast path";
    /// Numbers drawn and shown.
    TICKET = "ticket", "1991", "Mellor-Crummey and Scott, TOCS 9(1), 1991; Linux, asm-generic/ticket_spinlock.h";
    /// The same, with waiters that stay away in proportion to their distance.
    TICKET_BACKOFF = "ticket, backoff", "1991", "Mellor-Crummey and Scott, TOCS 9(1), 1991, section 2.2";
    /// A ticket lock with a waiting array.
    TWA = "TWA", "2019", "Dice and Kogan, EuroPar 2019, arXiv 1810.01573";
    /// A queue of nodes.
    MCS = "MCS", "1991", "Mellor-Crummey and Scott, TOCS 9(1), 1991";
    /// A queue of nodes, each watched by the one behind.
    CLH = "CLH", "1994", "Craig, TR 93-02-02, 1993; Magnusson, Landin and Hagersten, IPPS 1994";
    /// A queue with one word for each thread.
    HEMLOCK = "Hemlock", "2021", "Dice and Kogan, SPAA 2021, arXiv 2102.03863";
    /// A queue of values.
    HAPAX = "Hapax", "2025", "Dice and Kogan, arXiv 2511.14608";
    /// Lots served backwards.
    RECIPROCATING = "Reciprocating", "2025", "Dice and Kogan, PPoPP 2025, arXiv 2501.02380";
    /// The queued spinlock with two queues.
    CNA = "CNA", "2021", "Dice and Kogan, EuroSys 2019; Kogan, patch series v15, 2021";
    /// Queues of queues.
    HMCS = "HMCS", "2015", "Chabbi, Fagan and Mellor-Crummey, PPoPP 2015";
    /// A queue sorted by its waiters.
    SHFLLOCK = "ShflLock", "2019", "Kashyap, Calciu, Cheng, Min and Kim, SOSP 2019";
    /// A queue that can be left.
    MCS_ABORTABLE = "MCS, timeout", "2001", "after Scott and Scherer, PPoPP 2001";
    /// One attempt behind a guard per CPU.
    GUARD_TRY = "guard, try", "2020-10-30", "20b6cc34ea74, Linux kernel/bpf/hashtab.c; local_trylock_t, Linux 6.15";
    /// A mutex that sleeps.
    FUTEX = "futex mutex", "2011", "Drepper, Futexes are tricky, 2011, mutex 3";
    /// The holder runs the sections of others.
    FLAT_COMBINING = "flat combining", "2010", "Hendler, Incze, Shavit and Tzafrir, SPAA 2010";
    /// Sections delegated along a queue.
    CCSYNCH = "CC-Synch", "2012", "Fatourou and Kallimanis, PPoPP 2012";
    /// The standard library's mutex.
    STD = "std", "", "the Rust standard library of the toolchain";
    /// A crate from the registry.
    CRATE = "crate", "", "the crate of the version in Cargo.lock";
    /// A C library, as the host has it.
    CK = "Concurrency Kit", "", "Concurrency Kit, ck_spinlock.h as installed (Debian: libck-dev)";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn a_source_is_dated_or_says_that_it_is_ours() {
        for (name, source) in ALL {
            let undated =
                ["STD", "CRATE", "CK"].contains(name) || source.reference.starts_with("ours:");
            assert_eq!(source.date.is_empty(), undated, "{name}");
            let digits = source.date.chars().all(|char| char.is_ascii_digit() || char == '-');
            assert!(digits && matches!(source.date.len(), 0 | 4 | 10), "{name}: {}", source.date);
            assert!(!source.label.is_empty() && !source.reference.is_empty(), "{name}");
        }
    }
}
