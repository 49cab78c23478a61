//! Which way of synchronising the async cell a kernel has, told from its type description alone.
//!
//! A release number would not do: distributions backport, and the question is often about a patched
//! kernel whose number says nothing. The structures say it: a lock in `bpf_async_kern`, or what
//! replaced it in `bpf_async_cb`.

use crate::btf::{Btf, Member};

/// How the cells of timers and work queues are synchronised, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Generation {
    /// An irq-saving spinlock in the cell.
    Locked,
    /// The same under a resilient queued spinlock, which can fail.
    Resilient,
    /// READY / BUSY / FREED word moved by cmpxchg, and a reference count.
    CmpxchgState,
    /// Two-slot command buffer with a writer bit.
    MpmcCell,
    /// One-writer flag and a sequence latch over two command slots.
    SeqLatch,
    /// Lock-free list of commands, drained by irq_work.
    CmdQueue,
    /// None of these; the members that were found stand in the evidence.
    Unknown,
}

impl Generation {
    /// Returns the name of the generation, as reports show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Resilient => "rqspin",
            Self::CmpxchgState => "cmpxchg-state",
            Self::MpmcCell => "mpmc-cell",
            Self::SeqLatch => "seq-latch",
            Self::CmdQueue => "cmd-queue",
            Self::Unknown => "unknown",
        }
    }
}

/// Async cells that a type description shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellGenerations {
    /// Timers; none if the kernel has none (before 5.15).
    pub timer: Option<Generation>,
    /// Work queues; none if the kernel has none (before 6.10).
    pub wq: Option<Generation>,
    /// Whether there are task works (6.18).
    pub task_work: bool,
    /// The members that decided, for whoever doubts it: `bpf_async_kern: ..., lock`.
    pub evidence: Vec<String>,
}

fn has(members: &[Member], name: &str) -> bool {
    members.iter().any(|m| m.name == name)
}

fn has_type_like(members: &[Member], part: &str) -> bool {
    members.iter().any(|m| m.type_name.contains(part))
}

fn generation(cell: &[Member], control_block: &[Member]) -> Generation {
    if let Some(lock) = cell.iter().find(|m| m.name == "lock") {
        return if lock.type_name.contains("rqspinlock") || lock.type_name.contains("res_spin_lock")
        {
            Generation::Resilient
        } else {
            Generation::Locked
        };
    }
    // Later generations kept `refcnt`, so that the newest mark is looked for first.
    if has(control_block, "async_cmds") {
        Generation::CmdQueue
    } else if has(control_block, "latch") || has_type_like(control_block, "latch") {
        Generation::SeqLatch
    } else if has(control_block, "mpmc_cell") || has_type_like(control_block, "mpmc") {
        Generation::MpmcCell
    } else if has(control_block, "state") {
        Generation::CmpxchgState
    } else {
        Generation::Unknown
    }
}

fn line(structure: &str, members: &[Member]) -> String {
    let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
    format!("{structure}: {}", names.join(", "))
}

/// Names the generations of a kernel.
#[must_use]
pub fn detect(btf: &Btf) -> CellGenerations {
    // Before work queues existed (6.10) the timer's cell had a structure of its own.
    let cells = ["bpf_async_kern", "bpf_timer_kern"];
    let cell = cells.iter().find_map(|name| Some((*name, btf.members(name)?)));
    let control_blocks = ["bpf_async_cb", "bpf_hrtimer"];
    let block = control_blocks.iter().find_map(|name| Some((*name, btf.members(name)?)));

    let mut evidence = Vec::new();
    let mut found = None;
    if let Some((name, members)) = &cell {
        evidence.push(line(name, members));
        let none = Vec::new();
        let block_members = block.as_ref().map_or(&none, |(_, members)| members);
        found = Some(generation(members, block_members));
    }
    if let Some((name, members)) = &block {
        evidence.push(line(name, members));
    }
    if let Some(members) = btf.members("bpf_task_work_ctx") {
        evidence.push(line("bpf_task_work_ctx", &members));
    }
    let task_work = ["bpf_task_work_schedule_signal", "bpf_task_work_schedule_signal_impl"]
        .iter()
        .any(|name| btf.has_function(name));
    CellGenerations {
        timer: found.filter(|_| btf.has_function("bpf_timer_init")),
        wq: found.filter(|_| btf.has_function("bpf_wq_init")),
        task_work,
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::synthetic::Builder;

    /// Returns a kernel with timers and work queues, whose cell and control block have these members.
    fn kernel(cell: &[(&str, &str)], block: &[(&str, &str)]) -> Btf {
        let mut b = Builder::new();
        let mut structure = |name: &str, members: &[(&str, &str)]| {
            let members: Vec<(&str, u32)> = members
                .iter()
                .map(|(member, of)| (*member, if of.is_empty() { 1 } else { b.structure(of, &[]) }))
                .collect();
            b.structure(name, &members);
        };
        structure("bpf_async_kern", cell);
        structure("bpf_async_cb", block);
        b.function("bpf_timer_init", &[]);
        b.function("bpf_wq_init", &[]);
        Btf::parse(&b.bytes()).unwrap()
    }

    fn generation_of(cell: &[(&str, &str)], block: &[(&str, &str)]) -> &'static str {
        let found = detect(&kernel(cell, block));
        assert_eq!(found.timer, found.wq);
        found.timer.unwrap().name()
    }

    #[test]
    fn every_generation_is_named() {
        let lock = [("cb", ""), ("lock", "bpf_spin_lock")];
        let old_block = [("map", ""), ("prog", ""), ("callback_fn", "")];
        assert_eq!(generation_of(&lock, &old_block), "locked");
        let resilient = [("cb", ""), ("lock", "rqspinlock")];
        assert_eq!(generation_of(&resilient, &old_block), "rqspin");
        let bare = [("cb", "")];
        assert_eq!(generation_of(&bare, &[("refcnt", ""), ("state", "")]), "cmpxchg-state");
        assert_eq!(
            generation_of(&bare, &[("refcnt", ""), ("ctl", "bpf_mpmc_cell_ctl")]),
            "mpmc-cell"
        );
        let latch = [("refcnt", ""), ("latch", "seqcount_latch"), ("last_seq", ""), ("cmd", "")];
        assert_eq!(generation_of(&bare, &latch), "seq-latch");
        let queue = [("worker", "irq_work"), ("refcnt", "refcount_struct"), ("async_cmds", "")];
        assert_eq!(generation_of(&bare, &queue), "cmd-queue");
    }

    #[test]
    fn an_unheard_of_kernel_is_unknown_with_evidence() {
        let found = detect(&kernel(&[("cb", "")], &[("refcnt", ""), ("magic", "")]));
        assert_eq!(found.timer, Some(Generation::Unknown));
        assert_eq!(found.evidence, ["bpf_async_kern: cb", "bpf_async_cb: refcnt, magic"]);
    }

    #[test]
    fn a_kernel_without_work_queues_has_locked_timers() {
        let mut b = Builder::new();
        b.structure("bpf_timer_kern", &[("timer", 1), ("lock", 1)]);
        b.structure("bpf_hrtimer", &[("timer", 1), ("map", 1)]);
        b.function("bpf_timer_init", &[]);
        let found = detect(&Btf::parse(&b.bytes()).unwrap());
        assert_eq!((found.timer, found.wq), (Some(Generation::Locked), None));
        assert!(!found.task_work);
    }

    #[test]
    fn a_kernel_before_timers_has_nothing() {
        let found = detect(&Btf::parse(&Builder::new().bytes()).unwrap());
        assert_eq!((found.timer, found.wq, found.task_work), (None, None, false));
        assert_eq!(found.evidence, Vec::<String>::new());
    }

    #[test]
    fn task_work_is_found_by_either_name() {
        for name in ["bpf_task_work_schedule_signal", "bpf_task_work_schedule_signal_impl"] {
            let mut b = Builder::new();
            b.function(name, &[]);
            assert!(detect(&Btf::parse(&b.bytes()).unwrap()).task_work, "{name}");
        }
    }
}
