//! `cellbench sim` as a user meets it: the same seed gives the same bytes, another seed others;
//! rows are those of the simulated machine; wrong names are one line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cellbench_record::{Round, RunReader, Source};

fn cellbench(args: &[&str], host_threads: usize) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("cellbench"))
        .args(args)
        .env("RAYON_NUM_THREADS", host_threads.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The one line of an error with status 2.
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
    "spin-queued,rqspin,cmpxchg-state",
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

fn rounds(run: &Path) -> Vec<Round> {
    let reader = RunReader::open(run).expect("a run");
    reader.rounds().expect("rounds").map(|round| round.expect("whole")).collect()
}

#[test]
fn a_seed_gives_the_same_bytes_on_any_number_of_host_threads_and_another_seed_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |seed, host_threads| {
        let run = simulate(dir.path(), seed, host_threads);
        fs::read_to_string(run.join("rounds.jsonl")).expect("rounds")
    };
    let first = read("5", 1);
    let again = read("5", 3);
    for (first, again) in first.lines().zip(again.lines()) {
        assert_eq!(first, again);
    }
    assert_eq!(first, again);
    let other = read("6", 3);
    assert_eq!(first.lines().count(), other.lines().count());
    let same = first.lines().zip(other.lines()).filter(|(one, other)| one == other).count();
    assert_eq!(same, 0, "rounds that do not depend on the seed");
}

#[test]
fn rows_are_those_of_the_simulated_machine() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = simulate(dir.path(), "1", 2);
    let rounds = rounds(&run);
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
