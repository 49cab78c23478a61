//! The outcome of tracing a kernel: figures and access scripts of every operation of every row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TraceError;
use super::decode::Classes;
use super::diff::canonical;
use super::figures::{Figures, count};
use super::log::{Log, ToldRow};
use super::objects::Objects;
use super::path::follow;
use super::raw::Window;

/// Version of the format of [`Trace`]; a change that old readers misread raises it.
pub const VERSION: u32 = 1;

/// Beginning of the reason where the guest itself failed in a row.
pub(crate) const GUEST: &str = "the guest ";

/// Functions that give memory back after a grace period, whatever row let go of it.
const FREES: &[&str] = &["bpf_async_cb_rcu_free", "bpf_async_cb_rcu_tasks_trace_free"];

/// Context whose programs a timer's callback enters.
const SOFTIRQ: &str = "softirq";

/// The trace of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Trace {
    /// Version of the format.
    pub version: u32,
    /// Release of the kernel.
    pub release: String,
    /// Its rows, in the order in which they were traced.
    pub rows: Vec<RowTrace>,
    /// Sizes in bytes of the structures that its cells are made of.
    pub sizes: BTreeMap<String, u32>,
}

/// A row of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RowTrace {
    /// Name, as `cellbench kernel --list` shows it.
    pub name: String,
    /// Context by name.
    pub context: String,
    /// Generation of the cell, or the lock.
    pub cell: String,
    /// Where in the operation a second processor was stopped meanwhile; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Why there is no trace, or how it ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Operations that its calls executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationTrace>,
    /// Interrupts, exceptions and reports to the user that were filtered out, by name, over all
    /// calls. Filtered from contended rows as well, and not counted there: how many come while two
    /// processors meet is not the same in every run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, u32>,
}

/// An operation of a row, in its first and its last call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct OperationTrace {
    /// Kernel function; `#2` for a second call in one round.
    pub name: String,
    /// Whether it ran later than the call that caused it.
    pub later: bool,
    /// Interrupt that it ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<String>,
    /// Calls that were traced.
    pub calls: u32,
    /// Whether the last two calls executed the same.
    pub steady: bool,
    /// The first call; none if it executed the same as the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Figures>,
    /// The last call.
    pub warm: Figures,
    /// Access script of the last call, see [`super::figures::Touch`].
    pub script: Vec<String>,
}

/// Makes the report of one row from its windows.
fn row_trace(told: &ToldRow, log: &Log, windows: &BTreeMap<u32, Window>) -> RowTrace {
    let mut classes = Classes::default();
    let mut row = RowTrace {
        name: told.name.clone(),
        context: told.context.clone(),
        cell: told.cell.clone(),
        skipped: told.skipped.clone(),
        ..RowTrace::default()
    };
    // Random choices between operations: calls of one window have no order that means anything.
    let frees = ["free", "lifecycle", "mixed"].iter().any(|part| told.name.contains(part));
    let numbered = !told.name.contains("-mixed");
    for (number, told_window) in &told.windows {
        let Some(window) = windows.get(number) else { continue };
        let path = follow(window, &log.symbols, &mut classes);
        for (entry, count) in &path.filtered {
            *row.filtered.entry(entry.clone()).or_default() += count;
        }
        let mut objects = Objects::new(log, &told.name, told_window, &path, window);
        let mut seen: BTreeMap<(u32, &str), u32> = BTreeMap::new();
        // The timer that enters the program is none of the row's.
        let is_entry = |name: &str| told.context == SOFTIRQ && name == "bpf_timer_cb";
        // What a row before this one freed.
        let is_foreign = |name: &str| FREES.contains(&name) && !frees;
        for operation in &path.operations {
            if operation.later && (is_entry(&operation.name) || is_foreign(&operation.name)) {
                *row.filtered.entry(operation.name.clone()).or_default() += 1;
                continue;
            }
            let nth = seen.entry((operation.round, &operation.name)).or_default();
            *nth += 1;
            let name = match *nth {
                n if n > 1 && numbered => format!("{}#{n}", operation.name),
                _ => operation.name.clone(),
            };
            let counted = count(operation, window, &log.symbols, &mut objects);
            let figures = counted.figures;
            let script: Vec<String> = counted.script.iter().map(ToString::to_string).collect();
            let same =
                |known: &&mut OperationTrace| known.name == name && known.later == operation.later;
            if let Some(known) = row.operations.iter_mut().find(same) {
                known.calls += 1;
                known.steady = known.warm == figures;
                known.warm = figures;
                known.script = script;
            } else {
                row.operations.push(OperationTrace {
                    name,
                    later: operation.later,
                    interrupt: operation.interrupt.clone(),
                    calls: 1,
                    steady: false,
                    first: Some(figures.clone()),
                    warm: figures,
                    script,
                });
            }
        }
    }
    for of in &mut row.operations {
        of.first = of.first.take().filter(|first| *first != of.warm);
    }
    row
}

impl Trace {
    /// Makes the report of what a guest told and the plugin wrote.
    #[must_use]
    pub fn new(log: &Log, windows: Vec<Window>) -> Self {
        let windows: BTreeMap<u32, Window> =
            windows.into_iter().map(|window| (window.number, window)).collect();
        // A row that failed before its window began has told of the next row's.
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        for (row, told) in log.rows.iter().enumerate() {
            owners.extend(told.windows.keys().map(|number| (*number, row)));
        }
        let is_own = |number: &u32, row: usize| owners.get(number) == Some(&row);
        let rows = log.rows.iter().enumerate().map(|(row, told)| {
            let mut told = told.clone();
            told.windows.retain(|number, _| is_own(number, row));
            row_trace(&told, log, &windows)
        });
        Self {
            version: VERSION,
            release: log.release.clone(),
            rows: rows.collect(),
            sizes: log.layouts.iter().map(|(name, of)| (name.clone(), of.size)).collect(),
        }
    }

    /// Reads a trace that was kept.
    ///
    /// # Errors
    /// [`TraceError::Io`] if the file cannot be read, [`TraceError::Damaged`] if it is no trace,
    /// or one
    /// of a newer format.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let io = |source| TraceError::Io { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let damaged =
            |what: String| TraceError::Damaged { what: format!("{}: {what}", path.display()) };
        let trace: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if trace.version > VERSION {
            let version = trace.version;
            return Err(damaged(format!(
                "format {version} is newer than this program's {VERSION}"
            )));
        }
        // What is compared is found by its name.
        let mut names = BTreeSet::new();
        for row in &trace.rows {
            let own = std::iter::once(row.name.clone());
            let operation = |of: &OperationTrace| format!("{}, {}", row.name, canonical(&of.name));
            for name in own.chain(row.operations.iter().map(operation)) {
                if let Some(name) = names.replace(name) {
                    return Err(damaged(format!("{name} stands twice")));
                }
            }
        }
        Ok(trace)
    }

    /// Keeps a trace: a line for each operation, so that two of them can be compared by any tool.
    ///
    /// # Errors
    /// [`TraceError::Io`] if the file cannot be written; nothing is left behind then.
    pub fn write(&self, path: &Path) -> Result<(), TraceError> {
        let io = |source| TraceError::Io { path: path.to_owned(), source };
        let written = std::fs::write(path, self.text());
        if written.is_err() {
            // A part of it is of no use.
            let _ = std::fs::remove_file(path);
        }
        written.map_err(io)
    }

    /// Writes JSON, a line for each operation.
    #[must_use]
    pub fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let operations: Vec<String> = row.operations.iter().map(json).collect();
            let bare = json(&RowTrace { operations: Vec::new(), ..row.clone() });
            match operations.is_empty() {
                true => bare,
                false => {
                    let open = bare.strip_suffix('}').unwrap_or(&bare);
                    format!("{open},\"operations\":[\n{}]}}", operations.join(",\n"))
                }
            }
        });
        let rows: Vec<String> = rows.collect();
        let head = json(&Self { rows: Vec::new(), ..self.clone() });
        let head = head.replace("\"rows\":[]", &format!("\"rows\":[\n{}]", rows.join(",\n")));
        format!("{head}\n")
    }

    /// Returns operations with their rows.
    pub fn operations(&self) -> impl Iterator<Item = (&RowTrace, &OperationTrace)> {
        self.rows.iter().flat_map(|row| row.operations.iter().map(move |of| (row, of)))
    }

    /// Returns the rows during which the guest panicked or hung, and how its console ended.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        let of = |row: &RowTrace| row.skipped.as_ref().is_some_and(|r| r.starts_with(GUEST));
        self.rows
            .iter()
            .filter(move |row| of(row))
            .map(|row| (row.name.as_str(), row.skipped.as_deref().unwrap_or_default()))
    }

    /// Returns an operation by row and name.
    #[must_use]
    pub fn operation(&self, row: &str, name: &str) -> Option<&OperationTrace> {
        self.operations().find(|(of, o)| of.name == row && o.name == name).map(|(_, o)| o)
    }

    /// Returns an operation by row and name, whichever of its function's names the kernel has.
    #[must_use]
    pub fn operation_like(&self, row: &str, name: &str) -> Option<&OperationTrace> {
        let name = canonical(name);
        self.operations()
            .find(|(of, o)| of.name == row && canonical(&o.name) == name)
            .map(|(_, o)| o)
    }

    /// Writes the table of warm calls, 80 columns wide.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Formatting into a string does not fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "Linux {}, warm calls", self.release)?;
        writeln!(text, "insn: instructions; lock: locked; xchg: locked without prefix; mb: full")?;
        writeln!(
            text,
            "barriers; irq: pushf/cli/popf or sti; rd, wr: shared lines read, written;"
        )?;
        writeln!(text, "held: instructions under a lock that is released inside; > ran later;")?;
        writeln!(text, "~ last two calls differ")?;
        writeln!(text)?;
        writeln!(
            text,
            "{:<38} {:>5} {:>4} {:>4} {:>2} {:>7} {:>3} {:>3} {:>5}",
            "", "insn", "lock", "xchg", "mb", "irq", "rd", "wr", "held"
        )?;
        for row in &self.rows {
            let about = match &row.skipped {
                Some(reason) if reason.starts_with(&row.name) => reason.clone(),
                Some(reason) => format!("{}: {reason}", row.name),
                None if row.held.is_some() => {
                    format!("{}: {}", row.name, row.held.as_deref().unwrap_or_default())
                }
                None if row.operations.is_empty() => format!("{}: no operation", row.name),
                None => row.name.clone(),
            };
            writeln!(text, "{}", clip(&about, 80))?;
            for of in &row.operations {
                let f = &of.warm;
                let mark = if of.later { ">" } else { " " };
                let unsteady = if of.steady || of.calls < 2 { "" } else { "~" };
                let irq = format!("{}/{}/{}", f.pushf, f.cli, f.popf + f.sti);
                writeln!(
                    text,
                    " {mark}{:<36} {:>5} {:>4} {:>4} {:>2} {:>7} {:>3} {:>3} {:>5}",
                    clip(&format!("{}{unsteady}", of.name), 36),
                    f.instructions,
                    f.locked,
                    f.implicitly_locked,
                    f.barriers,
                    irq,
                    f.lines_read,
                    f.lines_written,
                    f.instructions_under_lock,
                )?;
            }
        }
        let mut filtered: BTreeMap<&str, u32> = BTreeMap::new();
        for (name, count) in self.rows.iter().flat_map(|row| &row.filtered) {
            *filtered.entry(name).or_default() += count;
        }
        if !filtered.is_empty() {
            writeln!(text, "\nfiltered out, in all calls:")?;
            for (name, count) in filtered {
                writeln!(text, "  {count:>5} {name}")?;
            }
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> String {
    // Strings and numbers under string keys always have a form in JSON.
    serde_json::to_string(value).unwrap_or_default()
}

/// Cuts a line that is too long, and shows that it did.
pub(crate) fn clip(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['+']).collect(),
        false => text.to_owned(),
    }
}
