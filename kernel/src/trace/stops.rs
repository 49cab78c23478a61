//! Chooses where in an operation the second processor is stopped, from the trace of the operation alone:
//! behind the step that shuts others out, or the first one that they can see.

use std::collections::BTreeMap;

use super::decode::Classes;
use super::figures::{Act, Touch, count};
use super::log::{Log, ToldRow};
use super::objects::Objects;
use super::path::follow;
use super::raw::Window;

/// Rows of which there is a contended case.
pub(crate) const ROWS: &[&str] = &[
    "timer-set_callback",
    "timer-start",
    "timer-cancel",
    "wq-set_callback",
    "wq-start",
    "task_work-schedule",
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
];

/// Where the second processor is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Address of the instruction that is not executed yet.
    pub(crate) at: u64,
    /// Function and step, in words.
    pub(crate) what: String,
}

/// Steps to stop behind, the best first.
const STEPS: &[fn(&Touch) -> bool] = &[
    // The lock of the cell, or a lock that is a row of its own.
    |touch| is_taken(touch) && touch.line.starts_with("cell#"),
    // Between the two stores of program and callback.
    |touch| touch.act == Act::Locked && touch.field.ends_with("prog"),
    // The bit that says that a work is pending.
    |touch| touch.act == Act::Locked && touch.field.starts_with("work.data"),
    // The lock of the CPU's timers.
    |touch| is_taken(touch) && touch.field.starts_with("hrtimer_bases"),
    // The state of a task work.
    |touch| touch.act == Act::Locked && touch.line.starts_with("block#") && touch.field == "state",
];

fn is_taken(touch: &Touch) -> bool {
    matches!(touch.act, Act::Lock | Act::Locked)
}

/// Returns the stops of those rows of a boot that have one.
pub(crate) fn stops(log: &Log, windows: &[Window]) -> BTreeMap<String, Stop> {
    let rows = log.rows.iter().filter(|row| ROWS.contains(&row.name.as_str()));
    rows.filter_map(|row| Some((row.name.clone(), stop(row, log, windows)?))).collect()
}

/// Returns the stop of a row, found in its last call.
fn stop(row: &ToldRow, log: &Log, windows: &[Window]) -> Option<Stop> {
    let (number, told) = row.windows.last_key_value()?;
    let window = windows.iter().find(|window| window.number == *number)?;
    let path = follow(window, &log.symbols, &mut Classes::default());
    let mut objects = Objects::new(log, &row.name, told, &path, window);
    let at_once = path.operations.iter().filter(|operation| !operation.later);
    let counted: Vec<_> = at_once
        .map(|operation| (operation, count(operation, window, &log.symbols, &mut objects)))
        .collect();
    STEPS.iter().find_map(|is_it| {
        counted.iter().find_map(|(operation, counted)| {
            let step = counted.script.iter().position(is_it)?;
            let at = window.steps.get((*counted.next.get(step)?)?)?.pc;
            let Touch { act, line, field } = &counted.script[step];
            let object = line.split('#').next().unwrap_or(line);
            let what = format!("{}, behind {} {object} {field}", operation.name, act.letter());
            Some(Stop { at, what })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::raw;

    const RAW: &[u8] = include_bytes!("../../tests/data/timer-start-cancel.trace");
    const TOLD: &str = include_str!("../../tests/data/timer-start-cancel.guest");

    #[test]
    fn a_stop_lies_behind_the_lock_that_was_taken() {
        let (log, windows) = (Log::parse(TOLD).unwrap(), raw::read(RAW).unwrap());
        let stop = stop(&log.rows[0], &log, &windows).unwrap();
        assert_eq!(stop.what, "bpf_timer_set_callback, behind L cell lock.val");
        // The address is executed, and the instruction before it is locked.
        let steps = &windows.last().unwrap().steps;
        let at = steps.iter().position(|step| step.pc == stop.at).unwrap();
        assert!(Classes::default().of(steps[at - 1].pc, &steps[at - 1].code).locked);
        // Of this row there is no contended case.
        assert!(stops(&log, &windows).is_empty());
    }
}
