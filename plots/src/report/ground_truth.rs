//! The model beside the running kernel: the time of each operation in both, how far they are apart,
//! and whether they agree on what is faster.
//!
//! Absolute times differ for reasons that are known and named below. What a model must get right is
//! the order: of the designs within a workload, and of the workloads for a design.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cellbench_record::{Entry, Kind, Run, Series, Source, Spinlocks};

use super::layout::Columns;
use super::markdown::Page;
use crate::number;

/// The kernel's workload that makes no call: its loop.
const EMPTY: &str = "empty";
/// Ratios within these are taken to agree; others get a reason.
const AGREE: std::ops::RangeInclusive<f64> = 0.8..=1.25;
/// Times closer than this are not put in an order.
const TIE_SHARE: f64 = 0.05;

/// A kernel row and the model's row of the same design.
#[derive(Debug)]
struct Pair<'a> {
    kernel: &'a Entry,
    model: &'a Entry,
    /// Time of an attempt in the kernel, without that of the loop around it.
    kernel_ns: f64,
    /// Time of an attempt in the model.
    model_ns: f64,
}

impl Pair<'_> {
    fn ratio(&self) -> f64 {
        self.kernel_ns / self.model_ns
    }
}

/// Returns the model's cell or lock that is built as the kernel's `cell` is, where its spinlocks
/// take the form
/// `form`. Resilient locks know no paravirtual form.
fn twin(cell: &str, form: Option<Spinlocks>) -> &str {
    match (cell, form) {
        ("locked" | "bpf_spin_lock", Some(Spinlocks::TestAndSet)) => "spin-tas",
        ("bpf_spin_lock", Some(Spinlocks::Paravirt)) => "spin-queued-pv",
        ("locked" | "bpf_spin_lock", _) => "spin-queued",
        ("bpf_res_spin_lock" | "bpf_res_spin_lock_irqsave", Some(Spinlocks::TestAndSet)) => {
            "rqspin-tas"
        }
        ("bpf_res_spin_lock" | "bpf_res_spin_lock_irqsave", _) => "rqspin",
        _ => cell,
    }
}

/// Returns why kernel and model are apart in a row, as far as it is known. Numbers of instructions are those
/// of `results/trace`, Linux 6.18.15.
fn reason(row: &Series) -> Option<&'static str> {
    let text = match (&row.kind, &*row.workload, row.threads) {
        (_, "solo-set-same", _) => {
            "a call of 64 instructions through a helper, whose lock takes the form of this kernel; the model's \
             is part of its loop"
        }
        (Kind::Wq, "solo-start", _) => {
            "a call that finds the work queued and leaves; the model adds a fixed time for queueing"
        }
        (_, "solo-start", _) => {
            "482 instructions, 349 of them under the cell's lock and most in the hrtimer; the model adds a \
             fixed time for that, and a call into it costs nothing"
        }
        (_, "solo-cancel", _) => {
            "104 instructions, which end in the hrtimer's own lock; the model looks at a flag"
        }
        (_, "solo-cycle", _) => {
            "744 instructions, most of them in the hrtimer, which is put into its tree and taken out again; the \
             model adds a fixed time for the first"
        }
        (_, "solo-init", _) => {
            "memory comes back after a grace period: most of the time is the thread's wait for it; the model \
             takes and returns a block of a list"
        }
        (_, "lock-0ns" | "lock-irqsave", 1) => {
            "lock and unlock are two calls of 33 to 64 instructions, and of more where the spinlock is \
             paravirtual; the model's are part of its loop"
        }
        (_, "lock-0ns" | "lock-irqsave" | "same-cell", _) => {
            "the calls before and after a section take time in which the other thread can have the lock, so \
             that the threads meet in another rhythm than in the model's short loop"
        }
        (_, "own-cell-padded" | "own-cell-packed", _) => {
            "as with one thread, a call through a helper; where cells share a line, its length also decides how \
             often the line moves"
        }
        _ => return None,
    };
    Some(text)
}

/// Returns the time of an attempt as its thread sees it.
fn attempt_ns(entry: &Entry) -> Option<f64> {
    let attempts = entry.attempts_ops_s.filter(|attempts| *attempts > 0.0)?;
    Some(f64::from(entry.series.threads) * 1e9 / attempts)
}

/// Returns the kernel's rows that the model has too, in the order of the kernel's entries.
fn pairs<'a>(entries: &[&'a Entry], form: Option<Spinlocks>) -> Vec<Pair<'a>> {
    let of = |source: &'static Source| {
        entries.iter().copied().filter(move |e| e.series.source == *source)
    };
    let loop_ns = |of_row: &Entry| {
        let row = &of_row.series;
        let is_it = |entry: &&Entry| {
            let series = &entry.series;
            series.kind == row.kind && series.workload == EMPTY && series.threads == row.threads
        };
        of(&Source::Kernel).filter(is_it).find_map(attempt_ns)
    };
    let pair = |kernel: &'a Entry| {
        let row = &kernel.series;
        let model = of(&Source::Model).find(|entry| {
            let series = &entry.series;
            series.kind == row.kind
                && series.workload == row.workload
                && series.threads == row.threads
                && series.cell == twin(&row.cell, form)
        })?;
        let kernel_ns = attempt_ns(kernel)? - loop_ns(kernel).unwrap_or(0.0);
        Some(Pair { kernel, model, kernel_ns, model_ns: attempt_ns(model)? })
    };
    of(&Source::Kernel).filter(|entry| entry.series.workload != EMPTY).filter_map(pair).collect()
}

/// Counts, of the two-by-two comparisons among `rows`, those that both sides put in the same order, and
/// all. Rows that are close on either side count as equal and are not compared.
fn agreement(rows: &[&Pair<'_>]) -> (usize, usize) {
    let order = |a: f64, b: f64| {
        let close = (a - b).abs() <= TIE_SHARE * a.max(b);
        (!close).then_some(a < b)
    };
    let (mut same, mut all) = (0, 0);
    for (index, one) in rows.iter().enumerate() {
        for other in &rows[index + 1..] {
            let kernel = order(one.kernel_ns, other.kernel_ns);
            let model = order(one.model_ns, other.model_ns);
            if let (Some(kernel), Some(model)) = (kernel, model) {
                all += 1;
                same += usize::from(kernel == model);
            }
        }
    }
    (same, all)
}

/// Writes the agreement within each group of `pairs` that share a key, as list items.
fn agreements(pairs: &[Pair<'_>], key: impl Fn(&Pair<'_>) -> String) -> String {
    let mut groups: BTreeMap<String, Vec<&Pair<'_>>> = BTreeMap::new();
    for pair in pairs {
        groups.entry(key(pair)).or_default().push(pair);
    }
    let mut text = String::new();
    for (name, rows) in groups {
        let (same, all) = agreement(&rows);
        if all > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {name}: {same} of {all}");
        }
    }
    text
}

/// Returns the time of an attempt of the kernel's, on one thread, under workloads whose names begin so.
fn alone_ns(entries: &[&Entry], cell: &str, workload: &str) -> Option<f64> {
    let is_it = |entry: &&&Entry| {
        let series = &entry.series;
        series.source == Source::Kernel
            && series.cell == cell
            && series.threads == 1
            && series.workload.starts_with(workload)
    };
    entries.iter().filter(is_it).find_map(|entry| attempt_ns(entry))
}

/// Returns the cost of masking interrupts in the kernel, in nanoseconds: the resilient lock's pair with it
/// against the one without, on one thread.
fn masking_ns(entries: &[&Entry]) -> Option<f64> {
    let pair_ns = |cell| alone_ns(entries, cell, "lock-");
    Some(pair_ns("bpf_res_spin_lock_irqsave")? - pair_ns("bpf_res_spin_lock")?)
}

/// Returns the cost of an `irq_work` in the kernel, in nanoseconds, from queueing it to the end of its
/// interrupt: draining an empty ring with it against the same without, on one thread.
fn irq_work_ns(entries: &[&Entry]) -> Option<f64> {
    let drain_ns = |workload| alone_ns(entries, "irq_work", workload);
    Some(drain_ns("irq_work-queue")? - drain_ns("irq_work-without")?)
}

/// Facts about the runs that the rows come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Background {
    /// Form of the kernel's spinlocks, where it is known.
    form: Option<Spinlocks>,
    /// Charge of the model for masking interrupts.
    charged_ns: f64,
    /// Charge of the model for the interrupt of an `irq_work`.
    irq_work_ns: f64,
}

impl Background {
    /// Returns that of `runs`, which are all from one host.
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a Run>) -> Self {
        runs.fold(Self::default(), |known, run| Self {
            form: known.form.or(run.host.spinlocks),
            charged_ns: known.charged_ns.max(run.settings.irq_save_cost_ns),
            irq_work_ns: run
                .settings
                .charges
                .map_or(known.irq_work_ns, |charges| known.irq_work_ns.max(charges.irq_work_ns)),
        })
    }
}

/// Writes the section, if model and kernel have rows in common.
pub(super) fn section(page: &mut Page, entries: &[&Entry], background: Background) {
    let Background { form, charged_ns, irq_work_ns: irq_work_charged_ns } = background;
    let pairs = pairs(entries, form);
    if pairs.is_empty() {
        return;
    }
    page.section("Model and kernel beside each other");
    page.line(
        "Time of an attempt as its thread sees it; the kernel's without its loop. The kernel's cells \
         stand beside the model's design that is built as they are.",
    );
    page.line(match form {
        Some(Spinlocks::Queued) => "This kernel's spinlocks are queued, as on bare metal.",
        Some(Spinlocks::Paravirt) => {
            "This kernel's spinlocks take their paravirtual form: newcomers may pass the queue, and a \
             release is a read-modify-write. Its resilient locks do not."
        }
        Some(Spinlocks::TestAndSet) => {
            "This kernel's spinlocks take their test-and-set form, as it runs under a hypervisor."
        }
        _ => "Which form this kernel's spinlocks take is not known; taken to be queued.",
    });
    let charged = number::significant(charged_ns);
    page.line(&match masking_ns(entries) {
        Some(masking_ns) => format!(
            "Masking interrupts costs {} ns a pair in this kernel (its resilient lock with and \
             without, one thread); the model was charged {charged} ns (`--irq-save-ns`).\n",
            number::significant(masking_ns)
        ),
        None => format!(
            "The model was charged {charged} ns for masking interrupts (`--irq-save-ns`).\n"
        ),
    });
    if let Some(irq_work_ns) = irq_work_ns(entries) {
        page.line(&format!(
            "An `irq_work` costs {} ns in this kernel, with the interrupt by which the CPU runs it at once \
             (draining an empty ring with and without, one thread); the model was charged {} ns \
             (`--irq-work-ns`).\n",
            number::significant(irq_work_ns),
            number::significant(irq_work_charged_ns)
        ));
    }
    let mut columns = Columns::new(&[
        ("kind", false),
        ("workload", false),
        ("threads", true),
        ("kernel", false),
        ("model", false),
        ("kernel, ns", true),
        ("model, ns", true),
        ("kernel/model", true),
    ]);
    for pair in &pairs {
        let row = &pair.kernel.series;
        columns.rows.push(vec![
            row.kind.to_string(),
            row.workload.clone(),
            row.threads.to_string(),
            row.cell.clone(),
            pair.model.series.cell.clone(),
            number::significant(pair.kernel_ns),
            number::significant(pair.model_ns),
            number::ratio(Some(pair.ratio())),
        ]);
    }
    page.table(&columns);
    page.line("");
    for pair in pairs.iter().filter(|pair| !AGREE.contains(&pair.ratio())) {
        let row = &pair.kernel.series;
        page.line(&format!(
            "- {} {} with {}, {}: {}",
            row.kind,
            row.workload,
            number::count(row.threads, "thread"),
            number::ratio(Some(pair.ratio())),
            reason(row).unwrap_or("not explained")
        ));
    }
    page.line("");
    let threads = |pair: &Pair<'_>| number::count(pair.kernel.series.threads, "thread");
    let designs = agreements(&pairs, |pair| {
        let row = &pair.kernel.series;
        format!("{} {}, {}", row.kind, row.workload, threads(pair))
    });
    if !designs.is_empty() {
        page.line("Designs that both put in the same order, of those both tell apart by 5 %:\n");
        page.line(&designs);
    }
    let workloads = agreements(&pairs, |pair| {
        let row = &pair.kernel.series;
        format!("{} {}, {}", row.kind, row.cell, threads(pair))
    });
    if !workloads.is_empty() {
        page.line("Workloads that both put in the same order:\n");
        page.line(&workloads);
    }
    page.line(
        "Known differences: the kernel really masks interrupts (`bpf_spin_lock` and the cells' locks \
         do, `bpf_res_spin_lock` does not), programs a real hrtimer on start and removes it on cancel, \
         queues real work, and allocates control blocks from its per-CPU caches; its calls go through \
         helpers and the verifier's checks. The model adds a fixed time for masking, arming and queueing, and does \
         none of the others.",
    );
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Entry, Kind, Series, Source, Spinlocks};

    use super::super::markdown::Page;
    use super::{Background, agreements, masking_ns, pairs, reason, section};

    fn entry(source: Source, workload: &str, cell: &str, ns: f64) -> Entry {
        let series = Series::new(cell, Kind::Lock, workload, 1, "compact", source);
        Entry { attempts_ops_s: Some(1e9 / ns), ..Entry::new(series) }
    }

    fn entries() -> Vec<Entry> {
        vec![
            entry(Source::Kernel, "empty", "bpf_spin_lock", 10.0),
            entry(Source::Kernel, "lock-irqsave", "bpf_spin_lock", 50.0),
            entry(Source::Kernel, "lock-irqsave", "bpf_res_spin_lock_irqsave", 30.0),
            entry(Source::Kernel, "lock-0ns", "bpf_res_spin_lock", 22.0),
            entry(Source::Kernel, "lock-aa", "bpf_res_spin_lock", 90.0),
            entry(Source::Model, "lock-irqsave", "spin-queued", 20.0),
            entry(Source::Model, "lock-irqsave", "spin-queued-pv", 40.0),
            entry(Source::Model, "lock-irqsave", "rqspin", 30.0),
            entry(Source::Model, "lock-irqsave", "rqspin-tas", 19.5),
            entry(Source::Model, "lock-irqsave", "spin-tas", 20.0),
        ]
    }

    #[test]
    fn a_pair_that_is_apart_has_its_reason_below_the_table() {
        let rows = [
            entry(Source::Kernel, "empty", "bpf_spin_lock", 19.0),
            entry(Source::Kernel, "lock-0ns", "bpf_res_spin_lock", 49.0),
            entry(Source::Model, "lock-0ns", "rqspin", 10.0),
            entry(Source::Kernel, "lock-new", "bpf_res_spin_lock", 49.0),
            entry(Source::Model, "lock-new", "rqspin", 10.0),
            entry(Source::Kernel, "lock-irqsave", "bpf_res_spin_lock_irqsave", 59.0),
            entry(Source::Model, "lock-irqsave", "rqspin", 40.0),
        ];
        let mut page = Page::default();
        section(&mut page, &rows.iter().collect::<Vec<_>>(), Background::default());
        let reasons: Vec<&str> =
            page.text.lines().filter(|line| line.starts_with("- lock ")).collect();
        assert!(
            reasons[0].starts_with("- lock lock-0ns with 1 thread, 3.00: lock and unlock are two")
        );
        assert_eq!(reasons[1], "- lock lock-new with 1 thread, 3.00: not explained");
        assert!(!reasons.iter().any(|line| line.contains("irqsave with")), "a ratio of 1 is none");
    }

    /// The names that `Row::model_workload` of the kernel's part gives.
    #[test]
    fn every_workload_of_both_has_a_reason() {
        for workload in [
            "solo-set-same",
            "solo-start",
            "solo-cancel",
            "solo-cycle",
            "solo-init",
            "same-cell",
            "own-cell-padded",
            "own-cell-packed",
            "lock-0ns",
            "lock-irqsave",
        ] {
            for threads in [1, 2] {
                let series =
                    Series::new("x", Kind::Lock, workload, threads, "compact", Source::Kernel);
                assert!(reason(&series).is_some(), "{workload}");
            }
        }
    }

    #[test]
    fn rows_find_the_design_they_are_built_as() {
        let entries = entries();
        let entries: Vec<&Entry> = entries.iter().collect();
        let times = |form| -> Vec<(String, f64, f64)> {
            pairs(&entries, form)
                .iter()
                .map(|pair| (pair.model.series.cell.clone(), pair.kernel_ns, pair.model_ns))
                .collect()
        };
        let expected = [("spin-queued", 40.0, 20.0), ("rqspin", 20.0, 30.0)];
        let found = times(Some(Spinlocks::Queued));
        assert_eq!(found.len(), expected.len());
        for ((cell, kernel_ns, model_ns), expected) in found.into_iter().zip(expected) {
            assert_eq!(cell, expected.0);
            assert!((kernel_ns - expected.1).abs() < 1e-9 && (model_ns - expected.2).abs() < 1e-9);
        }
        let cells = |form| -> Vec<String> {
            times(Some(form)).into_iter().map(|(cell, ..)| cell).collect()
        };
        assert_eq!(cells(Spinlocks::TestAndSet), ["spin-tas", "rqspin-tas"]);
        assert_eq!(cells(Spinlocks::Paravirt), ["spin-queued-pv", "rqspin"]);
    }

    #[test]
    fn order_counts_where_both_tell_a_difference() {
        let entries = entries();
        let entries: Vec<&Entry> = entries.iter().collect();
        let text = |form| agreements(&pairs(&entries, Some(form)), |_| "all".to_owned());
        assert_eq!(text(Spinlocks::Queued), "- all: 0 of 1\n");
        assert_eq!(text(Spinlocks::Paravirt), "- all: 1 of 1\n");
        assert_eq!(text(Spinlocks::TestAndSet), "", "19.5 and 20 are equal");
    }

    #[test]
    fn masking_is_what_the_resilient_lock_pays_for_it() {
        let entries = entries();
        let entries: Vec<&Entry> = entries.iter().collect();
        assert!((masking_ns(&entries).unwrap() - 8.0).abs() < 1e-9);
        assert!(masking_ns(&entries[..3]).is_none());
    }

    #[test]
    fn nothing_in_common_is_no_section() {
        let entries = entries();
        let kernel: Vec<&Entry> =
            entries.iter().filter(|entry| entry.series.source == Source::Kernel).collect();
        let mut page = Page::default();
        section(&mut page, &kernel, Background::default());
        assert_eq!(page.text, "");
    }
}
