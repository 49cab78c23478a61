//! Explorations of the tests, collected for the table at the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Exploration of one test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Explored {
    /// Executions: interleavings, schedules or interruptions.
    pub(crate) executions: u64,
    /// Time spent, in seconds.
    pub(crate) seconds: f64,
    /// A limit on executions ended it.
    pub(crate) cut_short: bool,
}

/// Key of the tests that a row of the table adds up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    /// The tool, as `loom`.
    pub(crate) tool: &'static str,
    /// Subject of the check, as `timer/spin-tas`.
    pub(crate) subject: String,
    /// In which way, as `pairs`.
    pub(crate) property: String,
}

#[derive(Default)]
struct Row {
    tests: u64,
    explored: Explored,
    cut_short: u64,
}

static ROWS: Mutex<BTreeMap<RowKey, Row>> = Mutex::new(BTreeMap::new());

/// Adds a finished test to its row.
pub(crate) fn add(key: RowKey, explored: Explored) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let row = rows.entry(key).or_default();
    row.tests += 1;
    row.explored.executions += explored.executions;
    row.explored.seconds += explored.seconds;
    row.cut_short += u64::from(explored.cut_short);
}

/// Prints the tables of all that was added: a row for each cell, with a column for each tool and
/// property; a row for each property of a lock; a row for each planted bug.
pub(crate) fn print() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let (planted, sound): (Vec<_>, Vec<_>) =
        rows.iter().partition(|(key, _)| key.subject.starts_with("planted/"));
    let (published, sound): (Vec<_>, Vec<_>) =
        sound.into_iter().partition(|(key, _)| key.subject.starts_with("published/"));
    let (locks, cells): (Vec<_>, Vec<_>) =
        sound.into_iter().partition(|(key, _)| key.subject.starts_with("lock/"));
    print_cells(&cells);
    print_list("lock", &locks);
    print_list("bug", &planted);
    print_list("fault as published", &published);
}

/// Prints a row for each subject, with a column for each tool and property.
fn print_cells(rows: &[(&RowKey, &Row)]) {
    if rows.is_empty() {
        return;
    }
    let column = |key: &RowKey| (key.tool, key.property.clone());
    let columns: BTreeSet<_> = rows.iter().map(|(key, _)| column(key)).collect();
    let subjects: BTreeSet<&str> = rows.iter().map(|(key, _)| &*key.subject).collect();
    let heads: Vec<String> =
        columns.iter().map(|(tool, property)| format!("{tool}: {property}")).collect();
    println!("\n| cell | {} | tests | seconds |", heads.join(" | "));
    println!("|---|{}--:|--:|", "--:|".repeat(columns.len()));
    for subject in subjects {
        let of_subject = || rows.iter().filter(|(key, _)| key.subject == subject);
        let cells: Vec<String> = columns
            .iter()
            .map(|wanted| of_subject().find(|(key, _)| column(key) == *wanted))
            .map(|found| found.map_or_else(String::new, |(_, row)| row.executions()))
            .collect();
        let tests: u64 = of_subject().map(|(_, row)| row.tests).sum();
        let seconds: f64 = of_subject().map(|(_, row)| row.explored.seconds).sum();
        println!("| {subject} | {} | {tests} | {seconds:.1} |", cells.join(" | "));
    }
}

/// Prints a row for each subject and property.
fn print_list(head: &str, rows: &[(&RowKey, &Row)]) {
    if rows.is_empty() {
        return;
    }
    println!("\n| {head} | property | tool | executions | seconds |");
    println!("|---|---|---|--:|--:|");
    for (key, row) in rows {
        let (_, name) = key.subject.split_once('/').unwrap_or(("", &key.subject));
        let RowKey { tool, property, .. } = key;
        let seconds = row.explored.seconds;
        println!("| {name} | {property} | {tool} | {} | {seconds:.1} |", row.executions());
    }
}

impl Row {
    /// Executions, with a mark where a limit ended some of the tests.
    fn executions(&self) -> String {
        let mark =
            if self.cut_short > 0 { format!(" ({} cut)", self.cut_short) } else { String::new() };
        format!("{}{mark}", self.explored.executions)
    }
}
