//! The command as a user meets it: every bad input is one clear line and status 2, a small run
//! leaves what a run leaves, an interrupted one keeps what it had.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cellbench_record::RunReader;
use serde_json::Value;

fn cellbench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cellbench"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Returns the one line of an error, after checking that it is one line and the status 2.
fn error(args: &[&str]) -> String {
    let output = cellbench(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    let line = stderr.trim_end().strip_prefix("cellbench: error: ");
    line.unwrap_or_else(|| panic!("{args:?}: {stderr}")).to_owned()
}

fn cpus() -> usize {
    std::thread::available_parallelism().expect("known on Linux").get()
}

const ROUNDS: &str = "2";
/// A run of two rounds; the arguments say where it goes and what is measured.
const SMALL: &[&str] = &[
    "run",
    "--time-budget",
    "60s",
    "--rounds",
    ROUNDS,
    "--window",
    "2ms",
    "--threads",
    "1",
    "--seed",
    "7",
    "--cells",
    "spin-queued,cmpxchg-state",
    "--kinds",
    "timer",
    "--workloads",
    "same-cell,empty",
];

fn small(out: &Path, more: &[&str]) -> Output {
    let out = out.to_str().expect("UTF-8");
    let args: Vec<&str> = SMALL.iter().chain(&["--out", out]).chain(more).copied().collect();
    cellbench(&args)
}

/// Tells whether a command did its work. Status 3 says that every round was disturbed, as may be on a busy
/// host.
fn ran(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 3))
}

#[test]
fn unknown_names_list_the_known_ones() {
    let line = error(&["run", "--cells", "spin-quued"]);
    assert!(line.contains("`spin-quued`") && line.contains("spin-queued, rqspin"), "{line}");
    let line = error(&["run", "--workloads", "same-cel"]);
    assert!(line.contains("`same-cel`") && line.contains("same-cell, same-cell-retry"), "{line}");
    let line = error(&["run", "--kinds", "tmier"]);
    assert!(line.contains("`tmier`") && line.contains("timer, wq"), "{line}");
    let line = error(&["run", "--placement", "near"]);
    assert!(line.contains("`near`") && line.contains("compact, spread and smt"), "{line}");
    let line = error(&["run", "--against", "nothing"]);
    assert!(line.contains("`nothing`") && line.contains("spin-queued"), "{line}");
    let line = error(&["run", "--cells", "rqspin", "--against", "spin-queued"]);
    assert!(line.contains("--against spin-queued") && line.contains("--cells"), "{line}");
}

#[test]
fn impossible_numbers_of_threads_say_how_many_there_are() {
    let cpus = cpus();
    let line = error(&["run", "--threads", "0"]);
    assert!(line.contains("--threads 0") && line.contains(&format!("1 to {cpus}")), "{line}");
    let line = error(&["run", "--threads", "999999"]);
    assert!(line.contains("999999") && line.contains(&format!("1 to {cpus}")), "{line}");
    let line = error(&["doctor", "--threads", "0"]);
    assert!(line.contains(&format!("1 to {cpus}")), "{line}");
    let line = error(&["topology", "--threads", "999999"]);
    assert!(line.contains(&format!("1 to {cpus}")), "{line}");
    let line = error(&["run", "--threads", "two"]);
    assert!(line.contains("two") && line.contains("--threads"), "{line}");
}

#[test]
fn what_cannot_be_parsed_is_named_with_its_flag() {
    for (args, expected) in [
        (&["run", "--time-budget", "soon"][..], "`soon` is no time"),
        (&["run", "--time-budget", "0s"], "--time-budget"),
        (&["run", "--window", "1h"], "1ms to 10s"),
        (&["run", "--threshold", "200"], "--threshold"),
        (&["run", "--rounds", "0"], "--rounds"),
        (&["run", "--rates", "0"], "--rates"),
        (&["run", "--rates", "1000000000001"], "--rates"),
        (&["run", "--quick", "--full"], "--full"),
        (&["run", "--colour"], "--colour"),
        (&["measure"], "measure"),
        (&["compare", "one"], "<B>"),
    ] {
        let line = error(args);
        assert!(line.contains(expected), "{args:?}: {line}");
    }
}

#[test]
fn a_selection_without_anything_in_it_says_so() {
    let line = error(&["run", "--kinds", "lock", "--workloads", "same-cell"]);
    assert!(line.contains("nothing to measure") && line.contains("same-cell"), "{line}");
    let line = error(&["run", "--retry", "--workloads", "solo-set"]);
    assert!(line.contains("--retry") && line.contains("solo-set"), "{line}");
}

#[test]
fn runs_that_are_not_there_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no-run");
    let missing = missing.to_str().unwrap();
    for args in [&["report", missing][..], &["compare", missing, missing], &["merge", missing]] {
        let line = error(args);
        assert!(line.contains(missing), "{args:?}: {line}");
    }
    let line = error(&["topology", "--sysfs", missing]);
    assert!(line.contains(missing) && line.contains("--sysfs"), "{line}");
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let out = file.join("runs");
    let mut args = SMALL.to_vec();
    args.extend(["--out", out.to_str().unwrap()]);
    let line = error(&args);
    assert!(line.contains(out.to_str().unwrap()), "{line}");
}

/// Help and version are results: where they cannot be written, that is an error like any other.
#[test]
fn help_and_version_that_cannot_be_written_are_errors() {
    for args in [&["--version"][..], &["--help"], &["help"], &["help", "run"], &["run", "--help"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellbench"));
        let output = command.args(args).stdout(full).output().expect("the binary starts");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("cellbench: error: standard output: "), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        let output = cellbench(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
}

/// Whoever asks for help on help gets it.
#[test]
fn there_is_help_for_help() {
    for args in [&["help", "--help"][..], &["help", "-h"], &["help", "help"]] {
        let output = cellbench(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stdout).contains("Usage: cellbench help"), "{args:?}");
    }
}

/// Returns the directory of the newest run below `out`, ended or not.
fn newest(out: &Path) -> Option<PathBuf> {
    let runs = fs::read_dir(out).ok()?.flatten().filter(|entry| entry.file_name() != "latest");
    // Names are times, and a number behind those of one second.
    let key = |path: &PathBuf| (path.as_os_str().len(), path.clone());
    runs.map(|entry| entry.path()).filter(|path| path.is_dir()).max_by_key(key)
}

/// `/dev/full` stands for a full disk: a file that can be opened and never written.
#[test]
fn a_full_disk_is_named_and_earlier_runs_stay_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ran(&small(dir.path(), &[])));
    let run = fs::canonicalize(dir.path().join("latest")).unwrap();
    let before = fs::read(run.join("rounds.jsonl")).unwrap();
    let report = run.join("report");
    fs::remove_dir_all(&report).unwrap();
    // A limit on the size of files, set in the child, is what a user without a full disk can have.
    let script = format!(
        "ulimit -f 1; exec {} run --out {} --time-budget 2s --threads 1 --kinds timer --workloads empty,same-cell",
        env!("CARGO_BIN_EXE_cellbench"),
        dir.path().display()
    );
    let output =
        Command::new("sh").args(["-c", &format!("trap '' XFSZ; {script}")]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("cellbench: error: ") && stderr.lines().count() == 1, "{stderr}");
    assert_eq!(fs::read(run.join("rounds.jsonl")).unwrap(), before);
    let latest = fs::canonicalize(dir.path().join("latest")).unwrap();
    assert_eq!(latest, run, "a run that did not end is not the latest");
    assert_ne!(newest(dir.path()).unwrap(), run);
}

/// The cause is part of the message, and is not said again behind it.
#[test]
fn too_many_threads_are_refused_once() {
    let line = error(&["run", "--threads", "4096"]);
    assert_eq!(line.matches("asked for 4096 CPUs").count(), 1, "{line}");
}

/// The self-test has a run of its own, which does not become the latest.
#[test]
fn a_self_test_is_written_into_the_latest_run_and_leaves_it_the_latest() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ran(&small(dir.path(), &[])));
    let latest = dir.path().join("latest");
    let run = fs::canonicalize(&latest).unwrap();
    let out = dir.path().to_str().unwrap();
    let short = "--time-budget 1s --rounds 6 --a-a-rounds 6 --tries 1 --seed 1".split(' ');
    let into = latest.to_str().unwrap();
    let args: Vec<&str> =
        ["selftest", "--out", out, "--into", into].into_iter().chain(short).collect();
    let output = cellbench(&args);
    // So short, it need not pass.
    assert!(
        [Some(0), Some(1), Some(3)].contains(&output.status.code()),
        "{}",
        text(&output.stderr)
    );
    let read = |dir: &Path| -> Value {
        serde_json::from_slice(&fs::read(dir.join("run.json")).unwrap()).unwrap()
    };
    assert_eq!(fs::canonicalize(&latest).unwrap(), run);
    let (run, own) = (read(&run), read(&newest(dir.path()).unwrap()));
    assert_eq!(run["self_test"], own["self_test"]);
    assert!(run["self_test"].is_object());
    let command = |run: &Value| run["command_line"].as_str().unwrap().to_owned();
    assert!(command(&run).contains(" run ") && command(&own).contains(" selftest "));
}

/// A slow-down that was not tried is not called "found in 0 of 0 tries".
#[test]
fn a_self_test_without_time_says_that_it_did_not_finish() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let output = cellbench(&["selftest", "--time-budget", "1s", "--seed", "1", "--out", out]);
    let (said, noted) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{said}{noted}");
    assert!(said.contains("planted  not tried") && said.ends_with("NOT FINISHED\n"), "{said}");
    assert!(!said.contains("0 of 0"), "{said}");
    assert!(noted.contains("--time-budget"), "{noted}");
}

#[test]
fn a_small_run_leaves_everything_a_run_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let output = small(dir.path(), &["--json"]);
    assert!(ran(&output), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert_eq!(summary["baseline"], "spin-queued");
    let entries = summary["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "two cells under two workloads");
    for entry in entries {
        for field in [
            "cell",
            "kind",
            "workload",
            "threads",
            "placement",
            "source",
            "goodput_ops_s",
            "attempts_ops_s",
            "failure_share",
            "outcomes",
            "p50_ns",
            "p99_ns",
            "p999_ns",
            "max_ns",
            "fairness_jain",
            "counters_per_op",
            "ratio",
            "ratio_low",
            "ratio_high",
            "p_adjusted",
            "verdict",
        ] {
            assert!(entry.get(field).is_some(), "{field} is missing in {entry}");
        }
        let rounds =
            entry["rounds"].as_u64().unwrap() + entry["rounds_disturbed"].as_u64().unwrap();
        assert!(rounds >= 1, "{entry}");
        assert_eq!(entry["source"], "model");
        assert!(entry.get("violations").is_none(), "{entry}");
    }

    let run_dir = dir.path().join("latest");
    for file in ["run.json", "rounds.jsonl", "summary.json", "report/mail.txt", "report/RESULTS.md"]
    {
        assert!(run_dir.join(file).is_file(), "{file}");
    }
    let reader = RunReader::open(&run_dir).unwrap();
    let run = reader.run();
    assert_eq!(run.seed, 7);
    assert!(
        run.command_line.starts_with("cellbench run --time-budget 60s"),
        "{}",
        run.command_line
    );
    assert!(run.finished_unix_s.is_some());
    let calibration = &run.calibration;
    for measured in
        [calibration.timestamp_ns, calibration.empty_op_ns, calibration.uncontended_atomic_ns]
    {
        assert!(measured.is_some_and(|ns| ns > 0.0), "{calibration:?}");
    }
    assert!(calibration.sampling_cost_share.is_some());
    for round in reader.rounds().unwrap() {
        let round = round.expect("whole");
        assert_eq!(round.per_thread.len(), 1);
        assert_eq!(round.cpus.len(), 1);
        assert_eq!(round.invariants.checked, 1);
        let per_thread: u64 = round.per_thread.iter().map(|thread| thread.attempts).sum();
        assert_eq!(per_thread, round.attempts());
        if round.attempts() == 0 {
            // Other load took the CPU for the whole window, of two milliseconds: so it must be marked.
            assert!(!round.disturbed.is_empty(), "{}", round.series);
            continue;
        }
        let hlog = round.latency.values().next().and_then(|latency| latency.hlog.clone());
        assert!(run_dir.join(hlog.expect("a latency log")).is_file());
    }
}

/// However short the time, something is measured, and what is left out is said.
#[test]
fn a_run_of_a_second_measures_what_fits() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let output = cellbench(&["run", "--time-budget", "1s", "--json", "--out", out]);
    assert!(ran(&output), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    assert!(!summary["entries"].as_array().unwrap().is_empty());
    let reader = RunReader::open(&dir.path().join("latest")).unwrap();
    assert!(reader.run().notes.iter().any(|note| note.contains("--time-budget")));
}

#[test]
fn callbacks_run_and_open_loops_offer_their_rate() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let output = cellbench(&[
        "run",
        "--time-budget",
        "2s",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--cells",
        "cmpxchg-state",
        "--workloads",
        "churn-live",
        "--rates",
        "1000",
        "--window",
        "50ms",
        "--out",
        out,
    ]);
    assert!(ran(&output), "{}", text(&output.stderr));
    let reader = RunReader::open(&dir.path().join("latest")).unwrap();
    let rounds: Vec<_> = reader.rounds().unwrap().map(|round| round.expect("whole")).collect();
    assert!(!rounds.is_empty());
    for round in rounds {
        assert_eq!(round.series.engine, "live");
        assert_eq!(round.series.offered_ops_s, Some(1000));
        assert!(round.invariants.violations.is_empty(), "{:?}", round.invariants);
        assert!(round.unserved.is_some());
    }
}

/// Handlers run on top of operations, by real signals, in each context that the workload names. Every design is
/// interrupted in `trials/stress/tests/interrupted.rs`.
#[test]
fn interruptions_are_counted_by_context() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let output = cellbench(&[
        "run",
        "--time-budget",
        "60s",
        "--rounds",
        "1",
        "--threads",
        "1",
        "--cells",
        "spin-queued,rqspin,cmpxchg-state-nmi,cmd-queue",
        "--kinds",
        "timer",
        "--workloads",
        "nmi,nmi-same-cell",
        "--interrupt-rate",
        "20000",
        "--window",
        "50ms",
        "--out",
        out,
    ]);
    assert!(ran(&output), "{}", text(&output.stderr));
    let reader = RunReader::open(&dir.path().join("latest")).unwrap();
    let rounds: Vec<_> = reader.rounds().unwrap().map(|round| round.expect("whole")).collect();
    assert_eq!(rounds.len(), 8);
    for round in rounds {
        assert!(round.invariants.violations.is_empty(), "{}: {:?}", round.series, round.invariants);
        let contexts: &[&str] = if round.series.workload == "nmi" {
            &["task", "hardirq", "nmi"]
        } else {
            &["task", "nmi"]
        };
        for context in contexts {
            let outcomes = round.contexts.get(*context).unwrap_or_else(|| panic!("{context}"));
            assert!(outcomes.values().sum::<u64>() > 0, "{} in {context}", round.series);
        }
        let latencies = round.latency.keys().filter(|op| op.ends_with("@nmi")).count();
        assert!(latencies > 0, "{}", round.series);
    }
}

#[test]
fn an_interrupted_run_keeps_its_rounds_and_reports_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellbench"));
    command
        .args([
            "run",
            "--time-budget",
            "10m",
            "--threads",
            "1",
            "--kinds",
            "timer",
            "--workloads",
            "empty",
        ])
        .args(["--window", "1ms", "--out", dir.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: async-signal-safe. A test that runs in the background of a shell inherits an ignored
    // SIGINT, which the command would rightly leave ignored.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    let mut child = command.spawn().expect("the binary starts");
    let rounds = || newest(dir.path()).map(|run| run.join("rounds.jsonl"));
    // Once a round is on disk.
    while rounds().and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len()) == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: no memory is touched; the process is this test's child, which is not reaped yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("empty"), "the table is shown");
    let reader = RunReader::open(&dir.path().join("latest")).unwrap();
    assert!(reader.damage().is_empty());
    assert!(reader.run().finished_unix_s.is_some());
    assert!(reader.run().notes.iter().any(|note| note.contains("interrupted")));
    assert!(reader.rounds().unwrap().all(|round| round.is_ok()));
    assert!(dir.path().join("latest/summary.json").is_file());
    let again = cellbench(&["report", dir.path().join("latest").to_str().unwrap()]);
    // 3: this host disturbed each of the few rounds there are, and the report says so.
    assert!(matches!(again.status.code(), Some(0 | 3)), "{}", text(&again.stderr));
}

/// `nohup`, and a shell for what it starts in the background, have a signal ignored.
#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cellbench")])
        .args(SMALL.iter().map(|arg| if *arg == ROUNDS { "60" } else { *arg }))
        .args(["--out", dir.path().to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let rounds = || newest(dir.path()).map(|run| run.join("rounds.jsonl"));
    while rounds().and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len()) == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::yield_now();
    }
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: no memory is touched; the process is this test's child, which is not reaped yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGHUP) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reader = RunReader::open(&dir.path().join("latest")).unwrap();
    assert!(!reader.run().notes.iter().any(|note| note.contains("interrupted")));
}

#[test]
fn arguments_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(OsStr::from_bytes(b"\xff"));
    let output = Command::new(env!("CARGO_BIN_EXE_cellbench"))
        .args(SMALL)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let reader = RunReader::open(&out.join("latest")).unwrap();
    assert!(reader.run().command_line.contains(r"\xff'"), "{}", reader.run().command_line);
    // Where nothing can be written, the others say so in a line.
    for command in ["sim", "selftest", "stress"] {
        let output = Command::new(env!("CARGO_BIN_EXE_cellbench"))
            .args([command, "--out"])
            .arg(OsStr::from_bytes(b"/dev/null/\xff"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        let line = said.lines().last().unwrap_or_default();
        assert!(line.starts_with("cellbench: error: ") && line.contains("/dev/null"), "{said}");
    }
}

/// Runs the command where no thread can be started, as at a limit on processes: `clone` says EAGAIN.
fn without_threads(args: &[&str]) -> Output {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellbench"));
    command.args(args).stdin(Stdio::null());
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    let (clone, clone3) = (number(libc::SYS_clone), number(libc::SYS_clone3));
    let deny = move || {
        let (load, jump, answer) = (0x20, 0x15, 0x06);
        let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut filter = [
            // The number of the system call is the first word.
            statement(load, 0, 0, 0),
            statement(jump, 1, 0, clone),
            statement(jump, 0, 1, clone3),
            statement(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32),
            statement(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: both calls concern the calling thread alone; `program` and the filter it points to
        // outlive the call, which copies them.
        let denied = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0
        };
        if denied { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(deny) };
    command.output().expect("the binary starts")
}

#[test]
fn a_thread_that_cannot_be_started_is_one_line_and_nobody_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let run: Vec<&str> =
        SMALL.iter().copied().chain(["--out", dir.path().to_str().unwrap()]).collect();
    for args in [&["topology"][..], &run[..], &["sim", "--machine", "host"], &["selftest"]] {
        let output = without_threads(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        let line = said.lines().last().unwrap_or_default();
        assert!(line.starts_with("cellbench: error: ") && line.contains("ulimit -u"), "{said}");
    }
    // Reports need no others.
    assert!(ran(&small(dir.path(), &[])));
    let latest = dir.path().join("latest");
    let latest = latest.to_str().unwrap();
    let (merged, simulated) = (dir.path().join("merged"), dir.path().join("simulated"));
    let (merged, simulated) = (merged.to_str().unwrap(), simulated.to_str().unwrap());
    let small = "--cells spin-queued --workloads same-cell --threads 1,3 --rounds 1 --seed 1";
    let sim: Vec<&str> = ["sim", "--machine", "desktop", "--out", simulated]
        .into_iter()
        .chain(small.split(' '))
        .collect();
    for args in [
        &["report", latest][..],
        &["compare", latest, latest],
        &["merge", latest, "--out", merged],
        &sim,
    ] {
        let output = without_threads(args);
        assert!(ran(&output), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn lists_name_everything_that_can_be_chosen() {
    let list: Value = serde_json::from_slice(&cellbench(&["list", "--json"]).stdout).unwrap();
    for cell in list["cells"].as_array().unwrap() {
        assert!(
            cell["cell_bytes"].as_u64().unwrap() <= 16,
            "a map value reserves 16 bytes: {cell}"
        );
        assert!(cell["block_bytes"].as_u64().unwrap() > 0, "{cell}");
        assert!(!cell["lines"].as_object().unwrap().is_empty(), "{cell}");
    }
    let plain = text(&cellbench(&["list"]).stdout);
    for (what, name) in
        [("cells", "cell"), ("locks", "lock"), ("workloads", "workload"), ("machines", "machine")]
    {
        for entry in list[what].as_array().unwrap() {
            let name = entry[name].as_str().unwrap();
            assert!(plain.contains(name), "{name}");
        }
    }
}

#[test]
fn the_doctors_status_is_its_verdict() {
    let output = cellbench(&["doctor", "--json", "--watch", "10ms"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = match said["fitness"].as_str().unwrap() {
        "fit" => 0,
        "fit with warnings" => 3,
        "unfit" => 4,
        other => panic!("{other}"),
    };
    assert_eq!(output.status.code(), Some(expected));
}

#[test]
fn a_saved_machine_is_shown_and_not_measured() {
    let output = cellbench(&["topology", "--no-latency", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["cpus_usable"].as_u64().unwrap() as usize, cpus());
    assert_eq!(shown["order"].as_array().unwrap().len(), cpus());
    assert_eq!(shown["core_to_core"].as_array().unwrap().len(), 0);
}

#[test]
fn two_runs_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ran(&small(&dir.path().join("a"), &[])));
    assert!(ran(&small(&dir.path().join("b"), &[])));
    let (a, b) = (dir.path().join("a/latest"), dir.path().join("b/latest"));
    let output = cellbench(&["compare", a.to_str().unwrap(), b.to_str().unwrap(), "--json"]);
    assert!(ran(&output), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["rows"].as_array().unwrap().len(), 4);
    let merged = dir.path().join("merged");
    let output = cellbench(&[
        "merge",
        a.to_str().unwrap(),
        b.to_str().unwrap(),
        "--out",
        merged.to_str().unwrap(),
    ]);
    assert!(ran(&output), "{}", text(&output.stderr));
    assert!(merged.join("latest/summary.json").is_file());
}

#[test]
fn two_binaries_are_two_cells_of_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let (binary, out) = (env!("CARGO_BIN_EXE_cellbench"), dir.path().to_str().unwrap());
    let mut args = vec!["ab", binary, binary, "--out", out, "--json"];
    args.extend("--cells spin-tas --workloads solo-start --kinds timer --threads 1".split(' '));
    args.extend("--rounds 3 --window 1ms".split(' '));
    let output = cellbench(&args);
    assert!(ran(&output), "{}", text(&output.stderr));
    let run = dir.path().join("latest/run.json");
    let run: Value = serde_json::from_str(&std::fs::read_to_string(run).unwrap()).unwrap();
    assert_eq!(run["baseline"], "cellbench");
    let rounds = std::fs::read_to_string(dir.path().join("latest/rounds.jsonl")).unwrap();
    let cells: Vec<String> = rounds
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["cell"].as_str().unwrap().into())
        .collect();
    let of = |name: &str| cells.iter().filter(|cell| *cell == name).count();
    assert_eq!((of("cellbench"), of("cellbench+twin")), (3, 3));
}
