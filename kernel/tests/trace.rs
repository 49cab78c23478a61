//! From what the plugin and the guest wrote to tables, text and pictures, on two kept calls of the row
//! timer-start-cancel of Linux 6.18.15 (`tests/data`): no QEMU is needed.

use cellbench_kernel::trace::diagram::draw;
use cellbench_kernel::trace::diff::difference;
use cellbench_kernel::trace::figures::Touch;
use cellbench_kernel::trace::log::Log;
use cellbench_kernel::trace::raw;
use cellbench_kernel::trace::report::{OperationTrace, Trace};

const RAW: &[u8] = include_bytes!("data/timer-start-cancel.trace");
const TOLD: &str = include_str!("data/timer-start-cancel.guest");

fn trace() -> Trace {
    let windows = raw::read(RAW).expect("kept whole");
    Trace::new(&Log::parse(TOLD).expect("kept whole"), windows)
}

fn operation<'t>(trace: &'t Trace, name: &str) -> &'t OperationTrace {
    trace.operation("timer-start-cancel", name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_operations_of_a_row_are_found_in_their_order() {
    let trace = trace();
    let names: Vec<&str> = trace.operations().map(|(_, of)| of.name.as_str()).collect();
    assert_eq!(names, ["bpf_timer_set_callback", "bpf_timer_start", "bpf_timer_cancel"]);
    assert!(trace.operations().all(|(_, of)| of.calls == 2 && of.steady && !of.later));
}

#[test]
fn an_update_of_the_locked_cell_is_counted_as_its_source_reads() {
    let trace = trace();
    let update = &operation(&trace, "bpf_timer_set_callback").warm;
    assert_eq!(update.instructions, 86);
    // The lock is taken, and the program's reference count is incremented.
    assert_eq!((update.locked, update.implicitly_locked, update.barriers), (2, 0, 0));
    assert_eq!((update.pushf, update.cli, update.sti + update.popf), (1, 1, 1));
    assert_eq!(update.fields["cell.lock.val"], [0, 1, 1]);
    assert_eq!(update.fields["block.cb.prog"][1], 1);
    assert_eq!(update.fields["block.cb.callback_fn"][1], 1);
    assert_eq!(update.lock_sections.keys().collect::<Vec<_>>(), ["cell.lock.val"]);
    assert_eq!(update.instructions_under_lock, 43);
}

#[test]
fn a_start_arms_the_hrtimer_under_the_lock_of_the_cell_and_of_its_base() {
    let trace = trace();
    let start = operation(&trace, "bpf_timer_start");
    assert_eq!(start.warm.calls["hrtimer"], 1);
    assert_eq!(start.warm.lock_sections.len(), 2);
    assert!(start.warm.fields.keys().any(|name| name.starts_with("per-CPU.hrtimer_bases")));
    assert!(start.script.iter().all(|line| Touch::parse(line).is_some()));
    assert!(start.script.iter().any(|line| line == "L cell#0 lock.val"));
}

#[test]
fn data_comes_back_as_it_was_kept_and_equal_every_time() {
    let trace = trace();
    let text = trace.text();
    assert_eq!(serde_json::from_str::<Trace>(&text).expect("JSON"), trace);
    assert_eq!(self::trace().text(), text);
    assert!(difference(&trace, &trace).is_empty());
}

#[test]
fn a_newer_format_is_refused() {
    let mut newer = trace();
    newer.version += 1;
    let file = std::env::temp_dir().join(format!("cellbench-newer-{}.json", std::process::id()));
    newer.write(&file).expect("temporary directory");
    let error = Trace::read(&file).expect_err("newer").to_string();
    std::fs::remove_file(&file).expect("just written");
    assert!(error.contains("newer"), "{error}");
}

#[test]
fn a_trace_in_which_an_operation_stands_twice_is_refused() {
    let mut twice = trace();
    let operation = twice.rows[0].operations[0].clone();
    twice.rows[0].operations.push(operation);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("twice.json");
    twice.write(&file).expect("written");
    let error = Trace::read(&file).expect_err("twice").to_string();
    assert!(error.contains("bpf_timer_set_callback stands twice"), "{error}");
}

#[test]
fn the_table_fits_a_terminal() {
    let table = trace().table();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("bpf_timer_set_callback"));
}

#[test]
fn a_picture_shows_both_sides() {
    let trace = trace();
    let of = operation(&trace, "bpf_timer_start");
    let svg = draw("timer-start-cancel", &[("6.18", of), ("7.1", of)]);
    assert_eq!(svg.matches("bpf_timer_start (timer-start-cancel)").count(), 2);
    assert!(svg.contains("cell#0") && svg.contains("block#0"));
}

/// Reads a trace kept in `results/trace`.
fn kept(release: &str) -> Trace {
    let results = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/trace/");
    Trace::read(format!("{results}{release}+deb13-cloud-amd64.json").as_ref()).expect("kept")
}

fn locked(trace: &Trace, row: &str, name: &str) -> u32 {
    trace.operation_like(row, name).expect("traced").warm.all_locked()
}

#[test]
fn the_kept_generations_differ_as_their_sources_do() {
    let (before, after) = (kept("6.18.15"), kept("7.1.13"));
    // One lock; an inc, another inc, an exchange, and two puts.
    let (row, name) = ("timer-set_callback", "bpf_timer_set_callback");
    assert_eq!((locked(&before, row, name), locked(&after, row, name)), (1, 5));
    // The cell's lock and the base's; a reference taken and put, and the base's.
    let (row, name) = ("timer-start", "bpf_timer_start");
    assert_eq!((locked(&before, row, name), locked(&after, row, name)), (2, 3));
    let under_cell_lock = |trace: &Trace| {
        let sections = &trace.operation_like(row, name).expect("traced").warm.lock_sections;
        sections.get("cell.lock.val").copied()
    };
    assert!(under_cell_lock(&before).is_some_and(|instructions| instructions > 300));
    assert_eq!(under_cell_lock(&after), None);
    // Where the verifier lets programs in, a start in NMI is handed to irq_work.
    let nmi = after.operation("timer-start@nmi", name).expect("traced");
    assert!(nmi.warm.calls.contains_key("irq_work") && !nmi.later);
    assert!(after.operation("timer-start@nmi", "bpf_async_irq_worker").is_some_and(|of| of.later));
    assert!(before.operation("timer-start@nmi", name).is_none());
    // Nothing changed in an uncontended resilient lock.
    for name in ["bpf_res_spin_lock", "bpf_res_spin_unlock"] {
        let of = |trace: &Trace| trace.operation("bpf_res_spin_lock", name).cloned();
        assert_eq!(
            of(&before).map(|o| o.warm.instructions),
            of(&after).map(|o| o.warm.instructions)
        );
    }
    let mail = difference(&before, &after).mail();
    assert!(mail.lines().all(|line| line.len() <= 72), "{mail}");
}

#[test]
fn a_start_runs_at_once_in_a_task_and_in_softirq_and_later_in_an_interrupt() {
    let name = "bpf_timer_start";
    let trace = kept("7.1.13");
    for row in ["timer-start", "timer-start@softirq"] {
        let calls = &trace.operation(row, name).expect(row).warm.calls;
        assert!(calls.contains_key("hrtimer") && !calls.contains_key("irq_work"), "{row}");
        assert!(trace.operation(row, "bpf_async_irq_worker").is_none(), "{row}");
    }
    for row in ["timer-start@hardirq", "timer-start@nmi"] {
        let calls = &trace.operation(row, name).expect(row).warm.calls;
        assert!(!calls.contains_key("hrtimer") && calls.contains_key("irq_work"), "{row}");
        let later = trace.operation(row, "bpf_async_irq_worker").expect(row);
        assert!(later.later && later.warm.calls.contains_key("hrtimer"), "{row}");
    }
    // A task work is never done at once.
    for context in ["", "@softirq", "@hardirq", "@nmi"] {
        let row = format!("task_work-schedule{context}");
        for (name, later) in [
            ("bpf_task_work_schedule_signal", false),
            ("bpf_task_work_irq", true),
            ("bpf_task_work_callback", true),
        ] {
            assert_eq!(trace.operation_like(&row, name).expect(&row).later, later, "{row}");
        }
    }
    // The verifier of the locked generation lets timers into softirq, not into perf events.
    let before = kept("6.18.15");
    let sections =
        &before.operation("timer-start@softirq", name).expect("traced").warm.lock_sections;
    assert!(sections.contains_key("cell.lock.val"));
    assert!(before.operation("timer-start@hardirq", name).is_none());
}

#[test]
fn a_call_that_finds_a_lock_held_waits_and_one_that_finds_none_does_not() {
    let (before, after) = (kept("6.18.15"), kept("7.1.13"));
    let warm = |trace: &Trace, row: &str, name: &str| {
        trace.operation_like(row, name).unwrap_or_else(|| panic!("{row}: no {name}")).warm.clone()
    };
    let contended = |row: &str| format!("{row}-contended");
    let waits = |trace: &Trace, row: &str, name: &str| {
        let (alone, held) = (warm(trace, row, name), warm(trace, &contended(row), name));
        assert!(held.all_locked() > alone.all_locked(), "{row}: {held:?}");
        assert!(held.instructions > alone.instructions, "{row}: {held:?}");
        assert_eq!(alone.waits, 0);
    };
    // In 6.18 the stop of the second processor held for this row and for the one of task work.
    waits(&before, "bpf_spin_lock", "bpf_spin_lock");
    for name in ["bpf_spin_lock", "bpf_res_spin_lock", "bpf_res_spin_lock_irqsave"] {
        waits(&after, name, name);
    }
    // Both meet at the lock of the timer base.
    waits(&after, "timer-start", "bpf_timer_start");
    // Between the other processor's exchange of the program and its store of the callback.
    for (row, name) in [
        ("timer-set_callback", "bpf_timer_set_callback"),
        ("wq-set_callback", "bpf_wq_set_callback"),
    ] {
        let held = warm(&after, &contended(row), name);
        assert_eq!(held.instructions, warm(&after, row, name).instructions, "{row}");
        assert_eq!(held.waits, 0, "{row}");
    }
    for row in after.rows.iter().filter(|row| row.name.ends_with("-contended")) {
        assert!(row.held.is_some() && row.skipped.is_none(), "{}: {:?}", row.name, row.skipped);
    }
}
