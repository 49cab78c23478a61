//! Holds the kept traces to the changes of the kernel that are known by name: each shows as
//! `results/trace/upstream.toml` says, or does not show for the reason given there.

use std::path::{Path, PathBuf};

use cellbench_kernel::trace::figures::{Act, Touch};
use cellbench_kernel::trace::report::{OperationTrace, Trace};
use serde::Deserialize;

/// A change and how it shows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    /// Abbreviated hash of the commit, or of several; empty if only the change is known.
    commit: String,
    what: String,
    before: String,
    after: String,
    row: String,
    operation: String,
    new: bool,
    field: String,
    step: String,
    figure: String,
    was: u32,
    is: u32,
    /// Why it does not show.
    hidden: String,
    /// Operations, by row and name, that execute the same on their own objects before and after.
    unchanged: Vec<(String, String)>,
    /// Operation that no row of an interrupt executes.
    never: String,
}

#[derive(Debug, Deserialize)]
struct Changes {
    change: Vec<Change>,
}

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/trace")
}

fn changes() -> Vec<Change> {
    let text = std::fs::read_to_string(results().join("upstream.toml")).expect("kept");
    toml::from_str::<Changes>(&text).unwrap_or_else(|e| panic!("{e}")).change
}

fn traces() -> Vec<Trace> {
    let entries = std::fs::read_dir(results()).expect("kept");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().map(|file| Trace::read(file).expect("kept whole")).collect()
}

/// Returns a figure of an operation by the name that a comparison gives it.
fn figure(of: &OperationTrace, name: &str) -> Option<u32> {
    let figures = &of.warm;
    Some(match name {
        "instructions" => figures.instructions,
        "locked" => figures.all_locked(),
        "barriers" => figures.barriers,
        "pushf" => figures.pushf,
        "under a lock" => figures.instructions_under_lock,
        _ => {
            // Of the first and the last call the one with more: who begins a grace period calls for
            // all that come while it lasts, and a last call may be one of these.
            let part = name.strip_suffix(" calls")?;
            let calls = of.first.iter().chain([figures]).map(|call| call.calls.get(part));
            calls.max()?.copied().unwrap_or(0)
        }
    })
}

/// Returns the changes of an operation to its cell, and to the words of the block that are the cell's own.
fn own(of: &OperationTrace) -> Vec<String> {
    let is_own = |touch: &Touch| {
        touch.line.starts_with("cell#")
            || touch.line.starts_with("block#") && touch.field.starts_with("cb.")
    };
    let touches = of.script.iter().filter_map(|line| Touch::parse(line));
    let changing = touches.filter(|touch| is_own(touch) && touch.act != Act::Load);
    changing.map(|touch| touch.to_string()).collect()
}

/// Says what is wrong with a change, if anything.
fn judge(change: &Change, before: &Trace, after: &Trace) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{} ({}): {what}", change.what, change.commit));
    if !change.hidden.is_empty() {
        for (row, operation) in &change.unchanged {
            let of = |trace: &Trace| trace.operation_like(row, operation).map(own);
            match (of(before), of(after)) {
                (Some(old), Some(new)) if old == new && !old.is_empty() => {}
                (old, new) => return wrong(format!("{operation} ({row}): {old:?}, then {new:?}")),
            }
        }
        let in_interrupts = after.operations().find(|(row, of)| {
            row.name.contains('@') && !change.never.is_empty() && of.name == change.never
        });
        return match in_interrupts {
            Some((row, of)) => wrong(format!("{} executes {}", row.name, of.name)),
            None => Ok(()),
        };
    }
    let (row, name) = (&change.row, &change.operation);
    let (old, new) = (before.operation_like(row, name), after.operation_like(row, name));
    let Some(new) = new else { return wrong(format!("no {name} ({row})")) };
    let shows = |of: &OperationTrace| {
        if change.new {
            true
        } else if !change.field.is_empty() {
            of.warm.fields.contains_key(&change.field)
        } else {
            of.script.contains(&change.step)
        }
    };
    if !change.figure.is_empty() {
        let of = |of: Option<&OperationTrace>| of.and_then(|of| figure(of, &change.figure));
        return match (of(old), of(Some(new))) {
            (Some(was), Some(is)) if (was, is) == (change.was, change.is) && was != is => Ok(()),
            (was, is) => wrong(format!("{name} ({row}): {} {was:?}, then {is:?}", change.figure)),
        };
    }
    match (old.is_some_and(shows), shows(new)) {
        (false, true) => Ok(()),
        (was, is) => wrong(format!("{name} ({row}): shows before {was}, after {is}")),
    }
}

#[test]
fn changes_known_by_name_show_or_it_is_said_why_not() {
    let traces = traces();
    let of = |release: &str| {
        let found = traces.iter().find(|trace| trace.release.starts_with(release));
        found.unwrap_or_else(|| panic!("no kept trace of Linux {release}"))
    };
    let changes = changes();
    let judged = changes.iter().map(|change| judge(change, of(&change.before), of(&change.after)));
    let wrong: Vec<String> = judged.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // Between any two neighbours something shows, and something is hidden.
    for after in ["7.0", "7.1", "7.2"] {
        let shown = changes.iter().filter(|c| c.after == after && c.hidden.is_empty()).count();
        assert!(shown >= 2, "{after}: {shown}");
    }
    assert!(changes.iter().any(|change| !change.hidden.is_empty()));
}

#[test]
fn a_change_that_does_not_show_as_said_is_found() {
    let traces = traces();
    let of = |release: &str| traces.iter().find(|t| t.release.starts_with(release)).expect("kept");
    let (before, after) = (of("7.0"), of("7.1"));
    let shown = Change {
        row: "timer-start".to_owned(),
        operation: "bpf_timer_start".to_owned(),
        field: "block.timer.node.node.next".to_owned(),
        ..Change::default()
    };
    assert_eq!(judge(&shown, before, after), Ok(()));
    judge(&shown, after, after).expect_err("in both");
    judge(&shown, before, before).expect_err("in neither");
    let figure = Change { figure: "instructions".to_owned(), ..shown.clone() };
    judge(&figure, before, after).expect_err("other figures");
    let hidden = Change {
        hidden: "said to be the same".to_owned(),
        unchanged: vec![("timer-set_callback".to_owned(), "bpf_timer_set_callback".to_owned())],
        ..Change::default()
    };
    assert_eq!(judge(&hidden, before, after), Ok(()));
    judge(&hidden, of("6.18"), after).expect_err("another protocol");
    let never = Change { never: "bpf_timer_start".to_owned(), ..hidden };
    judge(&never, before, after).expect_err("some row does");
}
