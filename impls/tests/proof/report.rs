//! What each test explored, collected for the table at the end of a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What one test explored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Explored {
    /// Executions: interleavings, schedules or interruptions.
    pub(crate) executions: u64,
    /// Time spent, in seconds.
    pub(crate) seconds: f64,
    /// A limit on executions ended it.
    pub(crate) cut_short: bool,
}

/// What a row of the table adds up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowKey {
    /// The tool, as `loom`.
    pub(crate) tool: &'static str,
    /// What was checked, as `timer/spin-tas`.
    pub(crate) subject: String,
    /// In which way, as `pairs, armed`.
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

/// Prints the table of all that was added.
pub(crate) fn print() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    if rows.is_empty() {
        return;
    }
    println!("| tool | subject | property | tests | executions | seconds |");
    println!("|---|---|---|--:|--:|--:|");
    for (key, row) in &*rows {
        let cut = if row.cut_short > 0 {
            format!(" ({} cut short)", row.cut_short)
        } else {
            String::new()
        };
        println!(
            "| {} | {} | {} | {}{cut} | {} | {:.1} |",
            key.tool,
            key.subject,
            key.property,
            row.tests,
            row.explored.executions,
            row.explored.seconds
        );
    }
}
