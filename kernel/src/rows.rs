//! Rows: operations in a context, and which of them a kernel has.

use std::fmt;

use cellbench_record::Kind;

use crate::info::KernelInfo;
use crate::operations::{Callbacks, OPERATIONS, Operation, Source};

/// Where an operation is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// A system call: interrupts on, may be preempted.
    Task,
    /// The callback of a BPF timer.
    Softirq,
    /// A software perf event's timer interrupt.
    Hardirq,
    /// A hardware perf event's overflow.
    Nmi,
}

impl Context {
    /// Every context, in the order of rows.
    pub const ALL: [Self; 4] = [Self::Task, Self::Softirq, Self::Hardirq, Self::Nmi];

    /// Returns the name as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Softirq => "softirq",
            Self::Hardirq => "hardirq",
            Self::Nmi => "nmi",
        }
    }
}

/// How the cells lie, and who uses which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// All threads on one cell.
    Same,
    /// A cell for each thread, 128 bytes apart.
    OwnPadded,
    /// A cell for each thread, side by side: neighbours share a cache line.
    OwnPacked,
    /// Many cells side by side, chosen with Zipf-distributed probability.
    Zipf {
        /// Number of cells.
        cells: u32,
        /// Exponent: the k-th cell has a share proportional to `1 / k^exponent`.
        exponent: f64,
    },
}

impl Layout {
    /// 64 cells with exponent 0.99, that of the Yahoo cloud serving benchmark. No more cells,
    /// because
    /// `init` allocates without waiting and, where the memory controller accounts for it (Linux
    /// 6.17
    /// and 6.18), only from slabs that other allocations already prepared: some 150 cells on an
    /// idle
    /// host, then ENOMEM for good.
    pub const ZIPF: Self = Self::Zipf { cells: 64, exponent: 0.99 };

    /// Returns the name as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same-cell",
            Self::OwnPadded => "own-cell-padded",
            Self::OwnPacked => "own-cell-packed",
            Self::Zipf { .. } => "map-zipf",
        }
    }
}

/// An operation in a context, on the kernel it was made for.
#[derive(Clone, Debug)]
pub struct Row {
    pub(crate) operation: &'static Operation,
    /// Where it is called from.
    pub context: Context,
    /// Name of what is measured, as records have it: the generation (`locked`, `cmd-queue`), for
    /// locks
    /// the lock.
    pub cell: String,
    /// Why this kernel cannot run it; none if it can, as far as its type description tells.
    pub skipped: Option<String>,
}

impl Row {
    /// Returns the name, unique among rows: `timer-set_callback`, `timer-set_callback@hardirq`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.context {
            Context::Task => self.operation.name.to_owned(),
            context => format!("{}@{}", self.operation.name, context.name()),
        }
    }

    /// Returns one line on what it does.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.operation.about
    }

    /// Returns timer, work queue, task work or lock.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.operation.kind.clone()
    }

    /// Returns the layouts it can be measured in.
    #[must_use]
    pub fn layouts(&self) -> &'static [Layout] {
        match self.context {
            Context::Task => self.operation.layouts,
            // An interrupt's CPU is its own; contention comes from the same cell alone.
            Context::Softirq | Context::Hardirq | Context::Nmi => &[Layout::Same],
        }
    }

    /// Returns the least number of threads it makes sense with.
    #[must_use]
    pub fn threads_min(&self) -> u32 {
        self.operation.threads_min
    }

    /// Returns whether the row's threads share their CPUs with the kernel's workers, which run the works
    /// that the row starts.
    #[must_use]
    pub fn shares_cpus(&self) -> bool {
        self.operation.source == Source::Wq && self.operation.callbacks != Callbacks::None
    }

    /// Returns the row of the same object that does nothing: its loop and its clock are this row's.
    #[cfg(feature = "bpf")]
    pub(crate) fn empty_of_same_source(&self) -> Self {
        let empty = OPERATIONS
            .iter()
            .find(|o| o.source == self.operation.source && o.program == "empty_row");
        Self {
            operation: empty.unwrap_or(self.operation),
            context: Context::Task,
            cell: self.cell.clone(),
            skipped: self.skipped.clone(),
        }
    }

    /// Returns the model's workload that does the same to its cells, and whose figures this row's
    /// may stand
    /// beside; none if there is no such workload.
    #[must_use]
    pub fn model_workload(&self, layout: Layout, threads: u32) -> Option<&'static str> {
        if self.context != Context::Task {
            return None;
        }
        match (self.operation.program, layout, threads) {
            ("empty_row", ..) => Some("empty"),
            ("set_callback", Layout::Same, 1) => Some("solo-set-same"),
            ("start", Layout::Same, 1) => Some("solo-start"),
            ("cancel", Layout::Same, 1) => Some("solo-cancel"),
            ("start_cancel", Layout::Same, 1) => Some("solo-cycle"),
            ("init_free", Layout::Same, 1) => Some("solo-init"),
            ("set_callback", Layout::Same | Layout::OwnPadded | Layout::OwnPacked, _) => {
                Some(layout.name())
            }
            ("lock_pair", Layout::Same, _) if self.operation.source == Source::ResLock => {
                Some("lock-0ns")
            }
            // `bpf_spin_lock` masks interrupts.
            ("lock_pair" | "lock_pair_irqsave", Layout::Same, _) => Some("lock-irqsave"),
            _ => None,
        }
    }

    /// Returns the name of the workload in records: the model's where there is one, else
    /// `operation/layout`.
    #[must_use]
    pub fn workload(&self, layout: Layout, threads: u32) -> String {
        self.model_workload(layout, threads)
            .map_or_else(|| format!("{}/{}", self.name(), layout.name()), str::to_owned)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn cell_name(operation: &Operation, info: &KernelInfo) -> String {
    let generation = match operation.source {
        Source::Timer => info.cells.timer,
        Source::Wq => info.cells.wq,
        Source::TaskWork => return "task-work".to_owned(),
        Source::IrqWork => return "irq_work".to_owned(),
        Source::SpinLock | Source::ResLock => {
            // `bpf_res_spin_lock-aa` is a workload of `bpf_res_spin_lock`.
            let name = operation.name;
            return name.split_once('-').map_or(name, |(lock, _)| lock).to_owned();
        }
    };
    generation.map_or("none", |g| g.name()).to_owned()
}

fn skip_reason(operation: &Operation, context: Context, info: &KernelInfo) -> Option<String> {
    // A timer enters the program there.
    let entry = (context == Context::Softirq).then_some("bpf_timer_init");
    let needs = operation.needs.iter().copied();
    let entry = entry.filter(|name| !operation.needs.contains(name));
    let lacking: Vec<String> = needs
        .chain(entry)
        .filter(|any_of| !any_of.split('|').any(|name| info.has(name)))
        .map(|any_of| any_of.replace('|', " or "))
        .collect();
    (!lacking.is_empty())
        .then(|| format!("Linux {} has no {}", info.release, lacking.join(", no ")))
}

/// Returns every row there is, each with the reason why this kernel cannot run it, if so.
///
/// A row in an interrupt context may still turn out to be refused by the verifier, or to lack a
/// hardware counter; [`Error::Unsupported`](crate::Error::Unsupported) then says so when it is
/// opened.
#[must_use]
pub fn rows(info: &KernelInfo) -> Vec<Row> {
    OPERATIONS
        .iter()
        .flat_map(|operation| Context::ALL.map(|context| (operation, context)))
        .filter(|(operation, context)| *context == Context::Task || operation.any_context)
        .map(|(operation, context)| Row {
            operation,
            context,
            cell: cell_name(operation, info),
            skipped: skip_reason(operation, context, info),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generation::{CellGenerations, Generation};
    use crate::info::KERNEL_FUNCTIONS;

    fn info(generation: Generation, functions: &[&str]) -> KernelInfo {
        KernelInfo {
            release: "6.9".to_owned(),
            cells: CellGenerations {
                timer: Some(generation),
                wq: Some(generation),
                task_work: true,
                evidence: Vec::new(),
            },
            functions: functions.iter().map(|f| (*f).to_owned()).collect(),
            missing_capabilities: Vec::new(),
            emulator: None,
            jit: Some(true),
        }
    }

    #[test]
    fn names_are_unique() {
        let rows = rows(&info(Generation::Locked, &KERNEL_FUNCTIONS));
        let names: BTreeSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
    }

    #[test]
    fn every_function_needed_is_looked_for() {
        for operation in OPERATIONS {
            for name in operation.needs.iter().flat_map(|any_of| any_of.split('|')) {
                assert!(KERNEL_FUNCTIONS.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn a_kernel_with_everything_skips_nothing() {
        let rows = rows(&info(Generation::CmdQueue, &KERNEL_FUNCTIONS));
        assert!(rows.iter().all(|row| row.skipped.is_none()));
        let cell = |name: &str| &rows.iter().find(|row| row.name() == name).unwrap().cell;
        assert_eq!(cell("timer-set_callback"), "cmd-queue");
        assert_eq!(cell("bpf_res_spin_lock-aa"), "bpf_res_spin_lock");
        assert_eq!(cell("bpf_res_spin_lock_irqsave"), "bpf_res_spin_lock_irqsave");
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let old = ["bpf_timer_init", "bpf_loop", "bpf_spin_lock"];
        let rows = rows(&info(Generation::Locked, &old));
        let reason = |name: &str| rows.iter().find(|r| r.name() == name).unwrap().skipped.clone();
        assert_eq!(reason("timer-start"), None);
        assert_eq!(reason("bpf_spin_lock"), None);
        assert_eq!(reason("bpf_res_spin_lock").unwrap(), "Linux 6.9 has no bpf_res_spin_lock");
        assert_eq!(
            reason("wq-start").unwrap(),
            "Linux 6.9 has no bpf_wq_init, no bpf_wq_start, no bpf_wq_set_callback or \
             bpf_wq_set_callback_impl"
        );
        assert_eq!(
            reason("timer-cancel_async").unwrap(),
            "Linux 6.9 has no bpf_timer_cancel_async"
        );
    }

    #[test]
    fn a_row_in_softirq_needs_the_timer_that_enters_it() {
        let rows = rows(&info(Generation::Locked, &["bpf_res_spin_lock", "bpf_loop"]));
        let reason = |name: &str| rows.iter().find(|r| r.name() == name).unwrap().skipped.clone();
        assert_eq!(reason("bpf_res_spin_lock@hardirq"), None);
        assert_eq!(reason("bpf_res_spin_lock@softirq").unwrap(), "Linux 6.9 has no bpf_timer_init");
    }

    #[test]
    fn either_name_of_a_function_does() {
        let newer = ["bpf_wq_init", "bpf_wq_start", "bpf_wq_set_callback", "bpf_loop"];
        let older = ["bpf_wq_init", "bpf_wq_start", "bpf_wq_set_callback_impl", "bpf_loop"];
        for functions in [newer, older] {
            let rows = rows(&info(Generation::Locked, &functions));
            let row = rows.iter().find(|row| row.name() == "wq-start").unwrap();
            assert_eq!(row.skipped, None);
        }
    }

    #[test]
    fn only_alike_workloads_share_the_models_name() {
        let rows = rows(&info(Generation::Locked, &KERNEL_FUNCTIONS));
        let row = |name: &str| rows.iter().find(|row| row.name() == name).unwrap();
        assert_eq!(row("timer-set_callback").workload(Layout::Same, 2), "same-cell");
        assert_eq!(row("timer-set_callback").workload(Layout::Same, 1), "solo-set-same");
        assert_eq!(row("timer-start").workload(Layout::Same, 2), "timer-start/same-cell");
        assert_eq!(
            row("timer-set_callback@hardirq").workload(Layout::Same, 2),
            "timer-set_callback@hardirq/same-cell"
        );
    }
}
