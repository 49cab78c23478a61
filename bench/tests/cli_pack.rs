//! `cellbench pack` and what reads its files: the contents are said before anything is written, nothing is
//! overwritten, and a packed run is merged and checked like any other.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn cellbench(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cellbench"))
        .args(args)
        .current_dir(home)
        .env("USER", "alice")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Returns standard output and error of a command that ends with `status`.
fn says(status: i32, home: &Path, args: &[&str]) -> [String; 2] {
    let output = cellbench(home, args);
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8"));
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text:?}");
    text
}

#[test]
fn a_run_is_packed_merged_and_checked() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let simulated = [
        "sim",
        "--machine",
        "desktop",
        "--rounds",
        "2",
        "--cells",
        "spin-queued,cmpxchg-state",
        "--kinds",
        "timer",
        "--workloads",
        "same-cell",
        "--threads",
        "2",
        "--out",
        "runs-of-alice",
    ];
    says(0, home, &simulated);
    let run = "runs-of-alice/latest";
    let [said, _] = says(0, home, &["pack", run, "--dry-run", "--to", "one.cellbench"]);
    assert!(said.contains("2 rows with 4 rounds") && said.contains("rounds.jsonl, "), "{said}");
    assert!(!said.contains("alice") && !said.contains("written"), "{said}");
    assert!(!home.join("one.cellbench").exists());
    let [said, _] = says(0, home, &["pack", run, "--to", "one.cellbench", "--label", "mine"]);
    assert!(said.ends_with("written   one.cellbench\n"), "{said}");
    let [_, line] = says(2, home, &["pack", run, "--to", "one.cellbench"]);
    assert!(line.contains("one.cellbench: is there already"), "{line}");
    let [_, line] = says(2, home, &["pack", "nowhere"]);
    assert!(line.contains("nowhere: not a run") && line.lines().count() == 1, "{line}");

    let [said, _] = says(0, home, &["merge", "one.cellbench", run, "--out", "merged"]);
    assert!(said.contains("desktop"), "{said}");
    let merged = fs::read_to_string(home.join("merged/latest/rounds.jsonl")).expect("rounds");
    assert_eq!(merged.matches("\"host\":\"mine\"").count(), 4, "{merged}");
    assert_eq!(merged.lines().count(), 8);

    fs::create_dir(home.join("hosts")).expect("a directory");
    fs::rename(home.join("one.cellbench"), home.join("hosts/one.cellbench")).expect("moved");
    let [_, line] = says(1, home, &["hosts", "hosts", "--page", "HOSTS.md"]);
    assert!(line.contains("rejected: hosts/one.cellbench: not measured on a host"), "{line}");
    assert!(!home.join("HOSTS.md").exists());
    let [_, line] = says(2, home, &["hosts", "nowhere"]);
    assert!(line.contains("nowhere: cannot list the packed runs in it"), "{line}");
}
