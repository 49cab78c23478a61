//! Holds the access scripts of the designs (`impls/scripts`), written from the published source, to the
//! traces of the kernels that have the design: the same locked instructions, stores and full barriers on
//! the same words, in the same order.
//!
//! The traces are those kept in `results/trace`, and those in the directory that `CELLBENCH_TRACES`
//! names. What a script calls `engine`, `slab`, `task` or `rcu` is passed over in both, as are loads, which
//! a compiler may merge and move, and the running of an irq_work around its handler, where a trace of the
//! handler has not begun or has ended.

use std::path::{Path, PathBuf};

use cellbench_kernel::trace::figures::{Act, Touch};
use cellbench_kernel::trace::report::{RowTrace, Trace};

/// A path of a script, and the operations of a row that take it.
struct Pair {
    script: &'static str,
    path: &'static str,
    /// Name of the cell in the row.
    cell: &'static str,
    row: &'static str,
    functions: &'static [&'static str],
    /// Parts that are not compared, and why.
    without: Without,
}

#[derive(Clone, Copy, PartialEq)]
enum Without {
    /// Everything is compared.
    Nothing,
    /// Stores: those into a block that is being made are in no script.
    Stores,
    /// Barriers: those of readers of RCU tasks trace, from 7.0 on.
    Barriers,
    /// Words outside the cell's own objects: those of the workqueue.
    Others,
}

const fn pair(
    (script, path): (&'static str, &'static str),
    cell: &'static str,
    row: &'static str,
    functions: &'static [&'static str],
) -> Pair {
    Pair { script, path, cell, row, functions, without: Without::Nothing }
}

const fn but(pair: Pair, without: Without) -> Pair {
    Pair { without, ..pair }
}

const LOCKED: &str = "locked";
const MERGED: &str = "cmd-queue";
const TASK_WORK: &str = "task-work";

const PAIRS: &[Pair] = &[
    but(
        pair(
            ("timer/spin-queued/init", "an empty cell"),
            LOCKED,
            "timer-init-free",
            &["bpf_timer_init"],
        ),
        Without::Stores,
    ),
    pair(
        ("timer/spin-queued/set_callback", "the first program"),
        LOCKED,
        "timer-start-cancel",
        &["bpf_timer_set_callback"],
    ),
    pair(
        ("timer/spin-queued/set_callback", "another callback of the program"),
        LOCKED,
        "timer-set_callback",
        &["bpf_timer_set_callback"],
    ),
    pair(
        ("timer/spin-queued/start", "with a program"),
        LOCKED,
        "timer-start-cancel",
        &["bpf_timer_start"],
    ),
    pair(
        ("timer/spin-queued/cancel", "armed"),
        LOCKED,
        "timer-start-cancel",
        &["bpf_timer_cancel"],
    ),
    pair(
        ("timer/spin-queued/cancel", "without a program"),
        LOCKED,
        "timer-cancel",
        &["bpf_timer_cancel"],
    ),
    pair(
        ("timer/spin-queued/set_callback", "another callback of the program"),
        LOCKED,
        "wq-set_callback",
        &["bpf_wq_set_callback"],
    ),
    but(
        pair(("wq/spin-queued/start", "with a program"), LOCKED, "wq-start", &["bpf_wq_start"]),
        Without::Others,
    ),
    but(
        pair(
            ("timer/cmd-queue/init", "an empty cell"),
            MERGED,
            "timer-init-free",
            &["bpf_timer_init"],
        ),
        Without::Stores,
    ),
    pair(
        ("timer/cmd-queue/set_callback", "the first program"),
        MERGED,
        "timer-start-cancel",
        &["bpf_timer_set_callback"],
    ),
    pair(
        ("timer/cmd-queue/set_callback", "another program"),
        MERGED,
        "timer-set_callback",
        &["bpf_timer_set_callback"],
    ),
    pair(
        ("timer/cmd-queue/set_callback", "another program"),
        MERGED,
        "timer-set_callback@nmi",
        &["bpf_timer_set_callback"],
    ),
    pair(
        ("timer/cmd-queue/start", "in a task"),
        MERGED,
        "timer-start-cancel",
        &["bpf_timer_start"],
    ),
    pair(
        ("timer/cmd-queue/start", "in NMI"),
        MERGED,
        "timer-start@nmi",
        &["bpf_timer_start", "bpf_async_irq_worker"],
    ),
    pair(
        ("timer/cmd-queue/start", "in NMI"),
        MERGED,
        "timer-start@hardirq",
        &["bpf_timer_start", "bpf_async_irq_worker"],
    ),
    pair(("timer/cmd-queue/cancel", "armed"), MERGED, "timer-start-cancel", &["bpf_timer_cancel"]),
    pair(
        ("timer/cmd-queue/cancel_async", "armed"),
        MERGED,
        "timer-start-cancel_async",
        &["bpf_timer_cancel_async"],
    ),
    pair(
        ("timer/cmd-queue/cancel_async", "in NMI"),
        MERGED,
        "timer-cancel_async@nmi",
        &["bpf_timer_cancel_async", "bpf_async_irq_worker"],
    ),
    pair(
        ("timer/cmd-queue/set_callback", "another program"),
        MERGED,
        "wq-set_callback",
        &["bpf_wq_set_callback"],
    ),
    but(
        pair(("timer/cmd-queue/start", "in a task"), MERGED, "wq-start", &["bpf_wq_start"]),
        Without::Others,
    ),
    but(
        pair(
            ("task_work/task-work/schedule", "the next call"),
            TASK_WORK,
            "task_work-schedule",
            &["bpf_task_work_schedule_signal", "bpf_task_work_irq"],
        ),
        Without::Barriers,
    ),
    but(
        pair(
            ("task_work/task-work/schedule", "the next call"),
            TASK_WORK,
            "task_work-schedule@nmi",
            &["bpf_task_work_schedule_signal", "bpf_task_work_irq"],
        ),
        Without::Barriers,
    ),
    but(
        pair(
            ("task_work/task-work/callback", "scheduled"),
            TASK_WORK,
            "task_work-schedule",
            &["bpf_task_work_callback"],
        ),
        Without::Barriers,
    ),
    pair(
        ("lock/spin-queued", "nobody has it"),
        "bpf_spin_lock",
        "bpf_spin_lock",
        &["bpf_spin_lock", "bpf_spin_unlock"],
    ),
    pair(
        ("lock/rqspin", "nobody has it"),
        "bpf_res_spin_lock",
        "bpf_res_spin_lock",
        &["bpf_res_spin_lock", "bpf_res_spin_unlock"],
    ),
    pair(
        ("lock/rqspin", "nobody has it"),
        "bpf_res_spin_lock_irqsave",
        "bpf_res_spin_lock_irqsave",
        &["bpf_res_spin_lock_irqsave", "bpf_res_spin_unlock_irqrestore"],
    ),
];

/// A step that both have: `X block.refs`, `W block.callback`, `F`, `lock`, `unlock`.
type Steps = Vec<String>;

/// Returns whether a trace of one operation cannot have a word of scripts, as those of the CPU itself, and
/// those of an object that the kernel's types do not name.
fn is_passed_over(word: &str) -> bool {
    ["command.", "held.", "cpu.running", "cpu.executing", "irq_work.next"]
        .iter()
        .any(|start| word.starts_with(start))
}

/// Reads a path of a script, as published.
fn published(text: &str, path: &str) -> Option<Steps> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let of_path = lines
        .skip_while(|line| line.strip_prefix("path ") != Some(path))
        .skip(1)
        .take_while(|line| !line.starts_with("path "));
    let mut steps = Vec::new();
    let mut found = false;
    // Inside the running of an irq_work, up to its handler.
    let mut running = false;
    let mut has_run = false;
    let mut locks = 0;
    for line in of_path {
        found = true;
        let words: Vec<&str> = line.trim_start_matches("- ").split_whitespace().collect();
        match words.as_slice() {
            ["fence", "full"] if running => running = false,
            _ if running => {}
            ["fence", "full"] => steps.push("F".to_owned()),
            ["call", "lock"] => {
                locks += 1;
                steps.push(if locks % 2 == 1 { "lock" } else { "unlock" }.to_owned());
            }
            ["cpu.irq_works", "xchg", _] => (running, has_run) = (true, true),
            ["irq_work.flags", "cmpxchg", _] if has_run => {}
            [word, operation, _] if word.contains('.') && !is_passed_over(word) => {
                let act = match *operation {
                    operation if operation.starts_with("load") => continue,
                    operation if operation.starts_with("store") => 'W',
                    _ => 'X',
                };
                steps.push(format!("{act} {word}"));
            }
            _ => {}
        }
    }
    found.then_some(steps)
}

/// Returns the scripts' name of a field of a trace.
fn word(object: &str, field: &str) -> Option<&'static str> {
    Some(match (object, field) {
        ("cell", "cb" | "ctx") => "cell.block",
        ("cell", "+0") => "lock.value",
        ("block", "cb.prog" | "prog") => "block.program",
        ("block", "cb.callback_fn" | "callback_fn") => "block.callback",
        ("block", "cb.refcnt.refs.counter" | "refcnt.refs.counter") => "block.refs",
        ("block", "cb.async_cmds.first") => "block.commands",
        ("block", "cb.worker.node.u_flags" | "irq_work.node.u_flags") => "irq_work.flags",
        ("block", "state") => "block.state",
        ("block", "task") => "block.task",
        ("task", "rcu_users.refs.counter") => "task.refs",
        ("per-CPU", "raised_list") => "cpu.irq_works",
        _ => return None,
    })
}

/// Reads the operations of a row in the same form; none if the kernel has not all of them.
fn traced(trace: &Trace, pair: &Pair) -> Option<Steps> {
    let mut steps = Vec::new();
    for name in pair.functions {
        let of = trace.operation_like(pair.row, name)?;
        for touch in of.script.iter().filter_map(|line| Touch::parse(line)) {
            let object = touch.line.split('#').next().unwrap_or_default();
            let step = match (touch.act, object) {
                (Act::Barrier, _) => "F".to_owned(),
                (Act::Lock, "cell") if touch.field == "lock.val" => "lock".to_owned(),
                (Act::Unlock, "cell") if touch.field == "lock.val" => "unlock".to_owned(),
                // The only counter on the heap that these operations lock.
                (Act::Locked, "heap") if pair.without != Without::Others => {
                    "X program.refs".to_owned()
                }
                (Act::Locked | Act::Lock, object) => match word(object, &touch.field) {
                    Some(word) => format!("X {word}"),
                    None => continue,
                },
                (Act::Store | Act::Unlock, object) => match word(object, &touch.field) {
                    Some(word) => format!("W {word}"),
                    None => continue,
                },
                (Act::Load, _) => continue,
            };
            steps.push(step);
        }
    }
    Some(steps)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn traces() -> Vec<Trace> {
    let given = std::env::var_os("CELLBENCH_TRACES").map(PathBuf::from);
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in [Some(root().join("results/trace")), given].into_iter().flatten() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        files.extend(entries.map(|entry| entry.expect("readable").path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().map(|file| Trace::read(file).expect("kept whole")).collect()
}

/// Compares a pair; none if the kernel has not the design or the operation.
fn compare(trace: &Trace, pair: &Pair) -> Option<Result<(), String>> {
    let has = |row: &&RowTrace| row.name == pair.row && row.cell == pair.cell;
    trace.rows.iter().find(has)?;
    let mut kernel = traced(trace, pair)?;
    let file = root().join("impls/scripts").join(format!("{}.txt", pair.script));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut script = published(&text, pair.path)
        .unwrap_or_else(|| panic!("{}: no path {}", file.display(), pair.path));
    for steps in [&mut kernel, &mut script] {
        steps.retain(|step| match pair.without {
            Without::Stores => !step.starts_with('W'),
            Without::Barriers => step != "F",
            Without::Nothing | Without::Others => true,
        });
    }
    Some(if kernel == script {
        Ok(())
    } else {
        let functions = pair.functions.join(", ");
        Err(format!(
            "Linux {} {functions} ({}) against {}, {}:\n  kernel {kernel:?}\n  script {script:?}",
            trace.release, pair.row, pair.script, pair.path
        ))
    })
}

#[test]
fn kernels_do_what_the_scripts_say() {
    let mut wrong = Vec::new();
    let mut compared = vec![0; PAIRS.len()];
    for trace in traces() {
        for (pair, count) in PAIRS.iter().zip(&mut compared) {
            if let Some(outcome) = compare(&trace, pair) {
                *count += 1;
                wrong.extend(outcome.err());
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let never: Vec<_> = PAIRS.iter().zip(&compared).filter(|(_, count)| **count == 0).collect();
    assert!(never.is_empty(), "no kept trace has {}", never[0].0.row);
}

#[test]
fn a_step_less_a_step_more_and_another_order_are_found() {
    let pair = PAIRS.iter().find(|pair| pair.script == "timer/cmd-queue/set_callback");
    let pair = pair.expect("in the table");
    let of_kernel = |trace: &Trace| compare(trace, pair).is_some();
    let whole = traces().into_iter().find(of_kernel).expect("a kept trace");
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut trace = whole.clone();
        let row = trace.rows.iter_mut().find(|row| row.name == pair.row).expect("compared");
        let of = row.operations.iter_mut().find(|of| of.name == pair.functions[0]);
        change(&mut of.expect("compared").script);
        compare(&trace, pair).expect("still there")
    };
    assert_eq!(changed(&|_| ()), Ok(()));
    let at = |script: &[String], start: &str| {
        script.iter().position(|line| line.starts_with(start)).expect("in the script")
    };
    let program = "X block#0 cb.prog";
    let callback = "W block#0 cb.callback_fn";
    changed(&|script| drop(script.remove(at(script, program)))).expect_err("one less");
    changed(&|script| script.push(program.to_owned())).expect_err("one more");
    changed(&|script| {
        let (program, callback) = (at(script, program), at(script, callback));
        script.swap(program, callback);
    })
    .expect_err("the other way round");
}
