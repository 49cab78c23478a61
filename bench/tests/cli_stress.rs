//! `cellbench stress` as a user meets it: a short run over all cells is sound and counted, whatever
//! goes wrong in a slice makes it fail, Ctrl-C ends it with its summary, and bad input is one line.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn stress(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellbench"));
    command.arg("stress").args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    stress(args).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr))
    })
}

fn start(args: &[&str]) -> Child {
    let mut command = stress(args);
    // SAFETY: async-signal-safe. A test that runs in the background of a shell inherits an ignored
    // SIGINT, which the command would rightly leave ignored.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

/// Waits until a run has a slice, its only child, and returns the slice's process ID.
fn slice_of(run: &Child) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", run.id());
    loop {
        let children = fs::read_to_string(&path).expect("the run is alive");
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().expect("a number");
        }
        std::thread::yield_now();
    }
}

fn send(process: i32, signal: i32) {
    // SAFETY: touches no memory of this process.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

#[test]
fn a_short_run_is_sound_and_its_record_says_what_was_done() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let output = run(&[
        "--cells",
        "rqspin,cmd-queue",
        "--kinds",
        "timer,task_work",
        "--workloads",
        "stress",
        "--interrupts",
        "50",
        "--threads",
        "2",
        "--slice",
        "20ms",
        "--seed",
        "9",
        "--json",
        "--out",
        dir,
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(report["seed"], 9);
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    let cells = report["cells"].as_array().unwrap();
    let mut names: Vec<_> = cells.iter().map(|cell| format!("{}", cell["cell"])).collect();
    names.sort();
    assert_eq!(names, ["\"cmd-queue\"", "\"rqspin\"", "\"rqspin\""]);
    for cell in cells {
        assert!(cell["operations"].as_u64() > Some(0), "{cell}");
        assert!(cell["interruptions"].as_u64() >= Some(50), "{cell}");
        assert!(cell["objects"].as_u64() > Some(0), "{cell}");
        assert_eq!((&cell["leaks"], &cell["violations"]), (&0.into(), &0.into()), "{cell}");
        // In which context is a matter of chance: on a busy host the handlers may have had it all.
        let contexts = cell["counts"].as_object().unwrap();
        assert!(contexts.values().any(|ops| ops.as_object().is_some_and(|ops| !ops.is_empty())));
    }
    let recorded = fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    let recorded = fs::read_to_string(recorded.join("stress.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&recorded).unwrap(), report);
}

/// All is well with what ran, and the status tells that some did not.
#[test]
fn a_run_too_short_for_all_rows_says_how_long_they_take_and_has_a_status_of_its_own() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let rows = "--cells rqspin,cmd-queue --kinds timer --workloads churn --threads 1";
    let time = "--slice 1s --seconds 1s --out";
    let args: Vec<&str> = rows.split(' ').chain(time.split(' ')).chain([dir]).collect();
    let output = run(&args);
    let (said, noted) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{said}{noted}");
    assert!(noted.contains("each of its workloads takes 3 s; this run has 1 s"), "{noted}");
    assert!(said.contains("NOT RUN for lack of time: ") && !said.contains("VIOLATION"), "{said}");
}

/// A slice that dies, as one that a wrong cell crashes.
#[test]
fn a_slice_that_dies_is_a_violation_and_the_run_goes_on() {
    let out = tempfile::tempdir().unwrap();
    let args = ["--cells", "cmd-queue", "--kinds", "wq", "--workloads", "churn", "--slice", "1h"];
    let more = ["--threads", "1", "--fail-fast", "--out", out.path().to_str().unwrap()];
    let run = start(&[&args[..], &more[..]].concat());
    send(slice_of(&run), libc::SIGSEGV);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("1 violations"), "{said}");
    let line = "VIOLATION cmd-queue (wq) under churn: the process was ended by signal 11";
    assert!(said.contains(line), "{said}");
    assert!(said.contains("again: cellbench stress --order '{\"cell\":\"cmd-queue\""), "{said}");
}

/// A slice that the kernel kills for want of memory says nothing about its cell.
#[test]
fn a_slice_that_is_killed_from_outside_is_an_error_and_no_violation() {
    let out = tempfile::tempdir().unwrap();
    let args = ["--cells", "cmd-queue", "--kinds", "wq", "--workloads", "churn", "--slice", "1h"];
    let more = ["--threads", "1", "--out", out.path().to_str().unwrap()];
    let run = start(&[&args[..], &more[..]].concat());
    send(slice_of(&run), libc::SIGKILL);
    let output = run.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: ") && said.contains("from outside, by signal 9"), "{said}");
    assert!(!text(&output.stdout).contains("VIOLATION"), "{}", text(&output.stdout));
}

#[test]
fn the_user_ends_it_with_its_summary() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().to_str().unwrap();
    let args = ["--cells", "spin-tas", "--kinds", "lock", "--slice", "20ms", "--seconds", "1h"];
    let run = start(&[&args[..], &["--json", "--out", dir]].concat());
    // By then it handles the signal: the first slice comes after.
    slice_of(&run);
    send(run.id() as i32, libc::SIGINT);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!(
        (&report["interrupted"], &report["cells"][0]["cell"]),
        (&true.into(), &"spin-tas".into())
    );
}

#[test]
fn bad_input_is_one_line_and_status_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let not_a_dir = file.path().join("x");
    let order = r#"{"cell":"nope","kind":"timer","workload":"stress","cpus":[0],"window_ms":1,"seed":1,"interrupt_rate_hz":null}"#;
    let bad: &[(&[&str], &str)] = &[
        (&["--cells", "nope"], "unknown cell `nope`; known are spin-tas"),
        (&["--cells", "cmd-queue+epoch"], "leave out `+epoch`"),
        (&["--kinds", "nope"], "unknown kind `nope`; known are timer"),
        (&["--workloads", "nope"], "unknown workload `nope`; known are empty"),
        (&["--seconds", "x"], "`x` is no time"),
        (&["--slice", "2h"], "1ms to 1h"),
        (&["--threads", "0"], "0 is not in 1..=1024"),
        (
            &["--interrupts", "5", "--workloads", "churn"],
            "no chosen cell runs under a chosen workload",
        ),
        (&["--order", "{"], "--order"),
        (&["--order", order], "nope (timer) under stress: no such combination"),
        (&["--order", order, "--seed", "1"], "cannot be used with"),
        (&["--seconds", "1", "--out", not_a_dir.to_str().unwrap()], "--out"),
    ];
    for (args, expected) in bad {
        let output = run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(
            said.starts_with("cellbench: error: ") && said.contains(expected),
            "{args:?}: {said}"
        );
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    assert!(!Path::new("stress.json").exists());
}

/// Bugs that a reviewer found by reading, switched on: real threads find them as well.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found() {
    let out = tempfile::tempdir().unwrap();
    let found = |bug: &str, cell: &str, kind: &str, workload: &str| {
        let chosen = ["--cells", cell, "--kinds", kind, "--workloads", workload];
        let dir = out.path().to_str().unwrap();
        let how =
            ["--planted", bug, "--seconds", "30", "--slice", "50ms", "--out", dir, "--fail-fast"];
        let output = run(&[&chosen[..], &how[..]].concat());
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{bug}: {said} {}", text(&output.stderr));
        said
    };
    let said = found("OldProgramKept", "cmpxchg-state", "timer", "churn");
    assert!(said.contains("references"), "{said}");
    let said = found("OldProgramPutTwice", "spin-queued", "wq", "churn");
    assert!(said.contains("VIOLATION"), "{said}");
    let said = found("LoserKeepsBlock", "cmd-queue", "timer", "churn");
    assert!(said.contains("leak"), "{said}");
}
