//! `cellbench sim` as a user meets it: the same seed gives the same bytes, another seed others;
//! rows are those of the simulated machine; wrong names are one line.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use cellbench_record::{Round, RunReader, Source};

fn cellbench(args: &[&str], host_threads: usize) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cellbench"))
        .args(args)
        .env("RAYON_NUM_THREADS", host_threads.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Returns the one line of an error with status 2.
fn error(args: &[&str]) -> String {
    let output = cellbench(args, 1);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    stderr
}

/// Cells with and without locks, memory that is allocated, and a lock alone, on enough cores that
/// simulations are handed from one host thread to another.
const SMALL: &[&str] = &[
    "sim",
    "--cells",
    "rqspin,cmpxchg-state",
    "--workloads",
    "same-cell,churn,map-zipf,lock-0ns",
    "--threads",
    "1,3,24",
    "--rounds",
    "2",
];

/// Simulates and returns the run's directory.
fn simulate(out: &Path, seed: &str, host_threads: usize) -> PathBuf {
    let out = out.to_str().expect("UTF-8");
    let args: Vec<&str> = SMALL.iter().copied().chain(["--seed", seed, "--out", out]).collect();
    let output = cellbench(&args, host_threads);
    assert!(output.status.success(), "{}", text(&output.stderr));
    fs::canonicalize(Path::new(out).join("latest")).expect("a run")
}

/// A run that several tests look at, which stays until the next time.
static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli_sim");
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", dir.display()),
        _ => simulate(&dir, "5", 1),
    }
});

fn rounds(run: &Path) -> Vec<Round> {
    let reader = RunReader::open(run).expect("a run");
    reader.rounds().expect("rounds").map(|round| round.expect("whole")).collect()
}

#[test]
fn a_seed_gives_the_same_bytes_on_any_number_of_host_threads_and_another_seed_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |run: &Path| fs::read_to_string(run.join("rounds.jsonl")).expect("rounds");
    let first = read(&RUN);
    let again = read(&simulate(dir.path(), "5", 3));
    for (first, again) in first.lines().zip(again.lines()) {
        assert_eq!(first, again);
    }
    assert_eq!(first, again);
    let other = read(&simulate(dir.path(), "6", 3));
    assert_eq!(first.lines().count(), other.lines().count());
    let same = first.lines().zip(other.lines()).filter(|(one, other)| one == other).count();
    assert_eq!(same, 0, "rounds that do not depend on the seed");
}

#[test]
fn rows_are_those_of_the_simulated_machine() {
    let run = &*RUN;
    let rounds = rounds(run);
    for round in &rounds {
        let series = &round.series;
        assert_eq!(series.source, Source::Sim);
        assert_eq!(series.machine.as_deref(), Some("xeon-spr-2s"));
        assert!(round.is_usable() && round.ok() > 0, "{series}: {:?}", round.invariants);
        assert_eq!(round.cpus.len(), series.threads as usize);
        assert!(!round.latency.is_empty(), "{series}");
        let moved: u64 = round.line_transfers.values().sum();
        // A cell that all update is in one cache at a time; who finds it busy may find it there.
        if series.threads > 1 && series.workload == "same-cell" {
            assert!(moved * 2 > round.ok(), "{series}: {:?}", round.line_transfers);
        } else if series.threads == 1 {
            assert_eq!(moved, 0, "{series}: {:?}", round.line_transfers);
        }
    }
    let threads = |count| rounds.iter().filter(|round| round.series.threads == count).count();
    assert_eq!((threads(1), threads(3)), (threads(24), threads(24)));
    for report in ["summary.json", "report/index.html", "report/mail.txt"] {
        assert!(run.join(report).is_file(), "{report}");
    }
}

#[test]
fn wrong_names_are_one_line_that_lists_the_known_ones() {
    let line = error(&["sim", "--machine", "vax"]);
    assert!(line.contains("`vax`") && line.contains("xeon-spr-2s"), "{line}");
    let line = error(&["sim", "--machine", "/no/such/machine.toml"]);
    assert!(line.contains("/no/such/machine.toml"), "{line}");
    let line = error(&["sim", "--threads", "100000"]);
    assert!(line.contains("--threads 100000") && line.contains("1 to 224"), "{line}");
    let line = error(&["sim", "--workloads", "churn-live"]);
    assert!(line.contains("churn-live"), "{line}");
    let line = error(&["sim", "--cells", "rqspin", "--against", "spin-queued"]);
    assert!(line.contains("--against spin-queued"), "{line}");
}

#[test]
fn machines_are_listed_with_their_size() {
    let output = cellbench(&["sim", "--list"], 1);
    let listed = text(&output.stdout);
    assert!(output.status.success());
    for machine in ["desktop", "epyc-genoa-2s", "graviton3", "xeon-spr-2s"] {
        assert!(listed.lines().any(|line| line.starts_with(machine)), "{listed}");
    }
    assert!(listed.contains(" 224 hardware threads"), "{listed}");
}

/// Returns a `validation.json` in which the ticket lock takes the given time, in nanoseconds.
fn measured(ticket_lock_ns: f64) -> String {
    let row = |subject: &str, kind: &str, workload: &str, ns: f64| {
        serde_json::json!({
            "subject": subject, "kind": kind, "workload": workload,
            "median_ns": ns, "lower_ns": ns, "upper_ns": ns,
        })
    };
    let between = |ns: f64| serde_json::json!([[null, ns], [ns, null]]);
    serde_json::json!({ "measured": {
        "passes": 9,
        "kept": 9,
        "microbenchmarks": {
            "cpu_model": "AMD of the test",
            "cpus": [0, 1],
            "places": [{"core": 0, "llc": 0, "socket": 0}, {"core": 1, "llc": 0, "socket": 0}],
            "alone": {
                "load_ns": 0.3, "store_ns": 0.2, "atomic_ns": 2.1, "fence_ns": 1.9,
                "partial_store_ns": 4.0, "pause_ns": 24.0, "clock_ns": 25.0, "mispredict_ns": 4.5,
                "operation_ns": 1.0, "turn_ns": 0.28,
            },
            "compare_exchange_ns": between(26.0),
            "read_write_ns": between(54.0),
            "one_line_ns": 27.0,
            "chain_ns": 29.0,
            "disturbed_ns": 52.0,
        },
        "rows": [
            row("ticket", "lock", "lock-0ns", ticket_lock_ns),
            row("spin-tas", "lock", "lock-50ns", 65.0),
        ],
    }})
    .to_string()
}

#[test]
fn a_validation_says_by_its_status_whether_the_model_holds_and_can_be_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_str().expect("UTF-8");
    let file = dir.path().join("measured.json");
    let validate = |ticket_lock_ns| {
        fs::write(&file, measured(ticket_lock_ns)).expect("a file");
        let given = file.to_str().expect("UTF-8");
        cellbench(&["sim", "--validate", "--measured", given, "--json", "--out", out], 1)
    };
    // A lock that takes a tenth of what any model says.
    let missed = validate(1.0);
    assert_eq!(missed.status.code(), Some(1), "{}", text(&missed.stderr));
    let found: serde_json::Value = serde_json::from_slice(&missed.stdout).expect("JSON");
    let predicted_ns = found["rows"][0]["predicted_ns"].as_f64().expect("a number");
    assert!(found["rows"][0]["error"].as_f64().expect("a number") > 5.0);
    let held = validate(predicted_ns);
    let again: serde_json::Value = serde_json::from_slice(&held.stdout).expect("JSON");
    assert_eq!(again["rows"][0]["error"].as_f64(), Some(0.0));
    assert_eq!(again["machine"], found["machine"]);
    let written = fs::read_dir(out).expect("the directory").flatten();
    let runs: Vec<_> = written.filter(|entry| entry.path().is_dir()).collect();
    for name in ["validation.json", "validation.md", "host.toml"] {
        assert!(runs.iter().all(|run| run.path().join(name).is_file()), "{name}");
    }
    // The machine it was predicted with is one to simulate on.
    let machine = runs[0].path().join("host.toml");
    let machine = machine.to_str().expect("UTF-8");
    let output = cellbench(
        &[
            "sim",
            "--machine",
            machine,
            "--cells",
            "spin-tas",
            "--workloads",
            "lock-0ns",
            "--threads",
            "2",
            "--rounds",
            "1",
            "--out",
            out,
        ],
        1,
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Runs a validation that nothing counts in and returns its one line.
fn nothing(args: &[&str]) -> String {
    let output = cellbench(args, 1);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    stderr
}

#[test]
fn where_nothing_counts_one_line_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("out");
    let out = out.to_str().expect("UTF-8");
    let file = dir.path().join("measured.json");
    let given = file.to_str().expect("UTF-8");
    let mut figures: serde_json::Value = serde_json::from_str(&measured(35.0)).expect("JSON");
    let rows = figures["measured"]["rows"].take();
    let mut validate = |rows: serde_json::Value| {
        figures["measured"]["rows"] = rows;
        fs::write(&file, figures.to_string()).expect("a file");
        nothing(&["sim", "--validate", "--measured", given, "--out", out])
    };
    let line = validate(serde_json::json!([]));
    assert!(line.contains("measured.json") && line.contains("no row was measured"), "{line}");
    let mut row = rows[0].clone();
    row["upper_ns"] = serde_json::json!(350.0);
    let line = validate(serde_json::json!([row]));
    assert!(line.contains("none of 1 rows counts"), "{line}");
    let folder = dir.path().join("truth");
    fs::create_dir(&folder).expect("a directory");
    let folder = folder.to_str().expect("UTF-8");
    let line = nothing(&["sim", "--validate", "--against", folder, "--out", out]);
    assert!(line.contains(folder) && line.contains("no row was measured"), "{line}");
}

#[test]
fn all_ground_truth_is_compared_by_data_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("truth");
    fs::create_dir_all(folder.join("hosts")).expect("a directory");
    fs::write(folder.join("hosts/test-host.json"), measured(35.0)).expect("a file");
    let additions =
        "# host: a c6g.metal\nprimitive,threads,ns_per_op\nAtomicInt64,1,7.6\nAtomicInt64,2,14.0\n";
    fs::write(folder.join("additions.csv"), additions).expect("a file");
    let out = dir.path().join("out");
    let (given, out) = (folder.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    let output = cellbench(&["sim", "--validate", "--against", given, "--out", out], 2);
    let table = text(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    for set in ["| additions/c6g.metal | 1 |", "| hosts/test-host | 2 |"] {
        assert!(table.contains(set), "{table}");
    }
    let run = fs::read_dir(out).expect("a run").flatten().next().expect("one").path();
    for name in ["ground-truth.json", "ground-truth.md", "ground-truth.svg"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    fs::write(folder.join("additions.csv"), "fruit,price\n").expect("a file");
    let line = error(&["sim", "--validate", "--against", given, "--out", out]);
    assert!(line.contains("additions.csv: line 1"), "{line}");
}

#[test]
fn what_cannot_be_validated_or_moved_is_one_line() {
    let line = error(&["sim", "--validate", "--measured", "/no/such/file.json"]);
    assert!(line.contains("/no/such/file.json"), "{line}");
    let line = error(&["sim", "--validate", "--no-charges"]);
    assert!(line.contains("--validate") && line.contains("--no-charges"), "{line}");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("measured.json");
    fs::write(&file, "{}").expect("a file");
    let line = error(&["sim", "--validate", "--measured", file.to_str().expect("UTF-8")]);
    assert!(line.contains("not the validation.json"), "{line}");
    let out = dir.path().to_str().expect("UTF-8");
    let line = error(&[
        "sim",
        "--cells",
        "spin-tas",
        "--workloads",
        "lock-0ns",
        "--threads",
        "2",
        "--rounds",
        "1",
        "--own-line",
        "no.field",
        "--out",
        out,
    ]);
    assert!(line.contains("--own-line no.field"), "{line}");
}
