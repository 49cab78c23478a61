//! Changes between two kernels, operation by operation: a table, and text for a mail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::figures::Figures;
use super::report::{OperationTrace, Trace, clip};

/// Width of mail text.
const MAIL: usize = 72;

/// A change of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Row by its name.
    pub row: String,
    /// Kernel function, as the second kernel has it; the first one's if only that has it.
    pub operation: String,
    /// Figures that changed: name, before, after. Empty if only one kernel has the operation.
    pub figures: Vec<(String, u32, u32)>,
    /// Fields that are accessed only after, or locked more often.
    pub added: Vec<String>,
    /// Fields that are accessed only before, or locked less often.
    pub removed: Vec<String>,
    /// The only kernel that has the operation; none if both do.
    pub only: Option<Side>,
}

/// One of the two kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first.
    Before,
    /// The second.
    After,
}

/// Two traces compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Release of the first kernel.
    pub before: String,
    /// Release of the second kernel.
    pub after: String,
    /// Operations that both have and that execute the same.
    pub same: u32,
    /// The others.
    pub changes: Vec<Change>,
}

type Pick = fn(&Figures) -> u32;

const FIGURES: &[(&str, Pick)] = &[
    ("instructions", |f| f.instructions),
    ("locked", Figures::all_locked),
    ("barriers", |f| f.barriers),
    ("pushf", |f| f.pushf),
    ("cli", |f| f.cli),
    ("popf or sti", |f| f.popf + f.sti),
    ("lines read", |f| f.lines_read),
    ("lines written", |f| f.lines_written),
    ("under a lock", |f| f.instructions_under_lock),
];

/// Returns names that a function had in different releases.
pub(crate) fn canonical(name: &str) -> String {
    let (base, nth) = name.split_once('#').unwrap_or((name, ""));
    let base = match base {
        "bpf_wq_set_callback_impl" => "bpf_wq_set_callback",
        "bpf_task_work_schedule_signal_impl" => "bpf_task_work_schedule_signal",
        "bpf_task_work_schedule_resume_impl" => "bpf_task_work_schedule_resume",
        other => other,
    };
    if nth.is_empty() { base.to_owned() } else { format!("{base}#{nth}") }
}

/// Returns locked accesses and mere accesses to fields of the cell's own objects.
fn shared_fields(figures: &Figures) -> BTreeMap<&str, [u32; 3]> {
    let own = |name: &str| ["cell.", "block.", "prog.", "map."].iter().any(|o| name.starts_with(o));
    figures.fields.iter().filter(|(name, _)| own(name)).map(|(n, c)| (n.as_str(), *c)).collect()
}

fn describe(counts: [u32; 3]) -> &'static str {
    match counts {
        [_, _, locked] if locked > 0 => "locked ",
        [_, written, _] if written > 0 => "written ",
        _ => "read ",
    }
}

fn compare(row: &str, before: &OperationTrace, after: &OperationTrace) -> Change {
    let mut figures: Vec<(String, u32, u32)> = FIGURES
        .iter()
        .map(|(name, of)| ((*name).to_owned(), of(&before.warm), of(&after.warm)))
        .collect();
    let parts: BTreeSet<&String> =
        before.warm.calls.keys().chain(after.warm.calls.keys()).collect();
    for part in parts {
        let of = |f: &Figures| f.calls.get(part).copied().unwrap_or(0);
        figures.push((format!("{part} calls"), of(&before.warm), of(&after.warm)));
    }
    figures.retain(|(_, old, new)| old != new);
    let (old, new) = (shared_fields(&before.warm), shared_fields(&after.warm));
    let missing = |from: &BTreeMap<&str, [u32; 3]>, to: &BTreeMap<&str, [u32; 3]>| -> Vec<String> {
        from.iter()
            .filter(|(name, counts)| to.get(*name).is_none_or(|there| counts[2] > there[2]))
            .map(|(name, counts)| format!("{}{name}", describe(*counts)))
            .collect()
    };
    Change {
        row: row.to_owned(),
        operation: after.name.clone(),
        figures,
        added: missing(&new, &old),
        removed: missing(&old, &new),
        only: None,
    }
}

/// Returns whether two calls executed the same, however long they waited for another processor.
fn is_like(new: &Figures, old: &Figures) -> bool {
    *new == Figures { waits: new.waits, ..old.clone() }
}

/// Compares two traces, warm call with warm call.
#[must_use]
pub fn difference(before: &Trace, after: &Trace) -> Difference {
    let mut found = Difference {
        before: before.release.clone(),
        after: after.release.clone(),
        same: 0,
        changes: Vec::new(),
    };
    let one_sided = |row: &str, of: &OperationTrace, only| Change {
        row: row.to_owned(),
        operation: of.name.clone(),
        figures: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        only: Some(only),
    };
    for (row, old) in before.operations() {
        match after.operation_like(&row.name, &old.name) {
            None => found.changes.push(one_sided(&row.name, old, Side::Before)),
            Some(new) if is_like(&new.warm, &old.warm) => found.same += 1,
            Some(new) => found.changes.push(compare(&row.name, old, new)),
        }
    }
    for (row, new) in after.operations() {
        if before.operation_like(&row.name, &new.name).is_none() {
            found.changes.push(one_sided(&row.name, new, Side::After));
        }
    }
    found
}

/// Breaks text at spaces so that no line but one without a space is longer than a mail's.
fn wrap(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_first = lines.len() == 1;
        let last = lines.last_mut().filter(|l| l.is_empty() || l.len() + 1 + word.len() <= MAIL);
        match last {
            Some(line) if line.is_empty() && is_first => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(format!("{indent}{word}")),
        }
    }
    lines.join("\n")
}

impl Change {
    /// Writes a sentence of a mail, in lines of at most 72 columns.
    #[must_use]
    pub fn mail(&self) -> String {
        let what = format!("{} ({})", self.operation, self.row);
        if let Some(only) = self.only {
            let when = if only == Side::Before { "gone" } else { "new" };
            return wrap(&format!("{what}: {when}"), "  ");
        }
        let mut parts: Vec<String> =
            self.figures.iter().map(|(name, old, new)| format!("{old} -> {new} {name}")).collect();
        let same_figures = parts.is_empty();
        parts.extend(self.removed.iter().map(|field| format!("no longer {field}")));
        parts.extend(self.added.iter().map(|field| format!("now {field}")));
        if same_figures && self.removed.is_empty() && self.added.is_empty() {
            parts.push("same figures, other fields outside the cell".to_owned());
        }
        wrap(&format!("{what}: {}", parts.join(", ")), "  ")
    }
}

impl Difference {
    /// Returns whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the text for a mail, in lines of at most 72 columns.
    #[must_use]
    pub fn mail(&self) -> String {
        let mut text = wrap(
            &format!(
                "Linux {} -> {}, warm calls, read off the images under emulation:",
                self.before, self.after
            ),
            "",
        );
        text.push_str("\n\n");
        for change in &self.changes {
            text.push_str(&change.mail());
            text.push('\n');
        }
        if self.changes.is_empty() {
            text.push_str("no operation changed\n");
        }
        let _ = writeln!(text, "\n{} operations are the same.", self.same);
        text
    }

    /// Writes the table of the figures that changed, 80 columns wide.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{} -> {}\n\n", self.before, self.after);
        let _ = writeln!(
            text,
            "{:<32} {:>11} {:>8} {:>6} {:>7} {:>11}",
            "", "insn", "locked", "read", "written", "under lock"
        );
        let mut row = "";
        for change in &self.changes {
            if change.row != row {
                row = &change.row;
                let _ = writeln!(text, "{row}");
            }
            let cell = |name: &str| {
                let found = change.figures.iter().find(|(n, ..)| n == name);
                found.map_or("=".to_owned(), |(_, old, new)| format!("{old}>{new}"))
            };
            let operation = clip(&change.operation, 31);
            let _ = match change.only {
                Some(Side::Before) => writeln!(text, " {operation:<31} gone"),
                Some(Side::After) => writeln!(text, " {operation:<31} new"),
                None => writeln!(
                    text,
                    " {operation:<31} {:>11} {:>8} {:>6} {:>7} {:>11}",
                    cell("instructions"),
                    cell("locked"),
                    cell("lines read"),
                    cell("lines written"),
                    cell("under a lock"),
                ),
            };
        }
        let _ = writeln!(text, "\n{} changed, {} the same", self.changes.len(), self.same);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::report::RowTrace;

    fn trace(release: &str, instructions: u32, locked: u32, field: &str) -> Trace {
        let warm = Figures {
            instructions,
            locked,
            fields: BTreeMap::from([(field.to_owned(), [0, 0, locked])]),
            ..Figures::default()
        };
        let operation = OperationTrace {
            name: "bpf_timer_set_callback".to_owned(),
            warm,
            ..OperationTrace::default()
        };
        let name = "timer-set_callback".to_owned();
        let row = RowTrace { name, operations: vec![operation], ..RowTrace::default() };
        Trace { release: release.to_owned(), rows: vec![row], ..Trace::default() }
    }

    #[test]
    fn equal_traces_do_not_differ() {
        let one = trace("6.18", 214, 6, "cell.lock");
        let found = difference(&one, &one);
        assert!(found.is_empty());
        assert_eq!(found.same, 1);
        assert!(found.mail().contains("no operation changed"));
    }

    #[test]
    fn a_longer_wait_is_no_change() {
        let (before, mut after) = (trace("6.18", 1, 0, ""), trace("7.0", 1, 0, ""));
        after.rows[0].operations[0].warm.waits = 3;
        assert!(difference(&before, &after).is_empty());
    }

    #[test]
    fn a_change_is_told_in_words() {
        let (before, after) =
            (trace("6.18", 214, 6, "cell.lock"), trace("7.0", 181, 5, "block.cb.refcnt"));
        let found = difference(&before, &after);
        let mail = found.mail();
        let joined = mail.replace("\n  ", " ");
        assert!(
            joined.contains(
                "bpf_timer_set_callback (timer-set_callback): 214 -> 181 instructions, 6 -> 5 \
                 locked, no longer locked cell.lock, now locked block.cb.refcnt"
            ),
            "{mail}"
        );
        assert!(mail.lines().all(|line| line.len() <= MAIL), "{mail}");
        let table = found.table();
        assert!(table.contains("214>181") && table.lines().all(|line| line.len() <= 80), "{table}");
    }

    #[test]
    fn an_operation_of_one_kernel_only_is_named() {
        let mut after = trace("7.0", 1, 0, "");
        after.rows[0].operations[0].name = "bpf_timer_cancel_async".to_owned();
        let found = difference(&trace("6.18", 1, 0, ""), &after);
        let only: Vec<_> = found.changes.iter().map(|change| change.only).collect();
        assert_eq!(only, [Some(Side::Before), Some(Side::After)]);
    }

    #[test]
    fn names_of_older_releases_are_the_same_function() {
        let (mut before, mut after) = (trace("6.18", 1, 0, ""), trace("7.0", 1, 0, ""));
        before.rows[0].operations[0].name = "bpf_wq_set_callback_impl".to_owned();
        after.rows[0].operations[0].name = "bpf_wq_set_callback".to_owned();
        assert!(difference(&before, &after).is_empty());
    }
}
