//! Reports by command: what `compare` tells a script of two runs whose difference is known, and that
//! the page of the kept runs is made by the command that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cellbench_record::{Kind, OK, Round, Run, RunWriter, Series, Source};

fn cellbench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cellbench"))
}

/// Writes a run of twelve rounds in which `cmd-queue` does `ok` operations a round, the baseline
/// always the same; the rounds differ a little.
fn run(out: &Path, ok: u64, violation: Option<&str>) -> PathBuf {
    let mut run = Run::new("0.1.0", 1);
    run.baseline = "spin-queued".into();
    let mut writer = RunWriter::create(out, run).unwrap();
    for number in 0..12 {
        for (cell, ok) in [("spin-queued", 1_000_000), ("cmd-queue", ok)] {
            let series = Series::new(cell, Kind::Timer, "same-cell", 2, "compact", Source::Model);
            let mut round = Round::new(series, number, 0.01);
            round.count("start", OK, ok + u64::from(number % 3) * 100);
            round.invariants.violations.extend(violation.map(str::to_owned));
            writer.append(&round).unwrap();
        }
    }
    writer.dir().to_owned()
}

fn compare(a: &Path, b: &Path, more: &[&str]) -> Output {
    cellbench().arg("compare").args([a, b]).args(more).output().unwrap()
}

#[test]
fn fail_on_decides_the_exit_status() {
    let out = tempfile::tempdir().unwrap();
    let before = run(&out.path().join("before"), 1_000_000, None);
    let slower = run(&out.path().join("slower"), 900_000, None);
    let status = |a: &Path, b: &Path, more: &[&str]| compare(a, b, more).status.code();

    // Without the flag a comparison is no test.
    assert_eq!(status(&before, &slower, &[]), Some(0));
    let failed = compare(&before, &slower, &["--fail-on", "slower"]);
    assert_eq!(failed.status.code(), Some(1));
    let why = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(why.trim_end(), "cellbench: --fail-on: 1 slower");
    assert!(String::from_utf8(failed.stdout).unwrap().contains("1 slower"), "the table is shown");

    assert_eq!(status(&slower, &before, &["--fail-on", "slower"]), Some(0));
    assert_eq!(status(&slower, &before, &["--fail-on", "slower,faster"]), Some(1));
    assert_eq!(status(&before, &before, &["--fail-on", "slower,faster"]), Some(0));
    // 10 % do not matter where 20 % is the threshold.
    let tolerant = ["--fail-on", "slower", "--threshold", "20"];
    assert_eq!(status(&before, &slower, &tolerant), Some(0));
}

#[test]
fn what_one_build_decides_is_not_decided_where_builds_disagree() {
    let out = tempfile::tempdir().unwrap();
    // Ratios of twelve builds: the place of the code moves them by 2 %, and 5 % are a difference.
    let moved = |of: u64, build: u64| run(&out.path().join(build.to_string()), of, None);
    let placed = |ok: u64| -> Vec<PathBuf> {
        (0..12).map(|build| moved(ok - 20_000 + build * 4_000, ok + build)).collect()
    };
    let builds = |runs: &[PathBuf], more: &[&str]| {
        let output = cellbench().arg("builds").args(runs).args(more).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        (output.status.code(), words.join(" "))
    };
    let same = placed(998_000);
    assert_eq!(compare_cells(&same[0]), "slower", "one build alone has a narrow interval");
    let (status, text) = builds(&same, &["--fail-on-slower"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains("12 builds: 0 faster, 0 slower, 0 same (within 1 %), 1 undecided"),
        "{text}"
    );

    let (status, text) = builds(&placed(950_000), &["--fail-on-slower"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("same-cell x2 0.952 0.9"), "{text}");
    assert!(text.contains("12 builds: 0 faster, 1 slower"), "{text}");

    // Few builds decide nothing, however narrow each is.
    let (status, text) = builds(&same[..3], &["--pairs", "cmd-queue/spin-queued"]);
    assert_eq!(status, Some(0));
    assert!(text.contains("1 with too few builds: 6 are needed for 1 comparison"), "{text}");
}

/// Returns the verdict on `cmd-queue` of one run alone.
fn compare_cells(run: &Path) -> String {
    let output = cellbench().arg("report").arg(run).arg("--json").output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = summary["entries"].as_array().unwrap().iter();
    let verdict = entries.filter_map(|entry| entry["verdict"].as_str()).next();
    verdict.unwrap_or("none").to_owned()
}

#[test]
fn pairs_that_cannot_be_are_refused_in_one_line() {
    let out = tempfile::tempdir().unwrap();
    let run = run(out.path(), 1_000_000, None);
    for (pairs, said) in [
        ("cmd-queue", "two cells with a slash between"),
        ("cmd-queue/cmd-queue", "two cells with a slash between"),
        ("cmd-queue/spin-qeued", "no run has the cell `spin-qeued`"),
    ] {
        let output = cellbench().arg("builds").arg(&run).args(["--pairs", pairs]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{pairs}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(said) && error.trim_end().lines().count() <= 2, "{error}");
    }
}

#[test]
fn what_cannot_be_compared_fails_as_well() {
    let out = tempfile::tempdir().unwrap();
    let good = run(&out.path().join("good"), 1_000_000, None);
    let wrong = run(&out.path().join("wrong"), 1_000_000, Some("2 references leaked"));
    let empty = RunWriter::create(&out.path().join("empty"), Run::new("0.1.0", 1)).unwrap();
    for (b, reason) in [(wrong.as_path(), "2 with a broken invariant"), (empty.dir(), "no row")] {
        let failed = compare(&good, b, &["--fail-on", "slower"]);
        assert_eq!(failed.status.code(), Some(1));
        let why = String::from_utf8(failed.stderr).unwrap();
        assert!(why.contains(reason), "{why}");
    }
    let unknown = compare(&good, &good, &["--fail-on", "louder"]);
    assert_eq!(unknown.status.code(), Some(2));
    let why = String::from_utf8(unknown.stderr).unwrap();
    assert!(why.contains("louder") && why.contains("slower"), "{why}");
}

/// The status tells a script whether there is anything to read.
#[test]
fn a_run_in_which_nothing_was_measured_has_a_status_of_its_own() {
    let out = tempfile::tempdir().unwrap();
    let report = |run: &Path| cellbench().arg("report").arg(run).output().unwrap();
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let empty = RunWriter::create(&out.path().join("empty"), Run::new("0.1.0", 1)).unwrap();
    let reported = report(empty.dir());
    assert_eq!(reported.status.code(), Some(3));
    assert!(said(&reported).contains("This run measured nothing"), "{}", said(&reported));
    // Killed after some rounds: what there is can be read.
    let reported = report(&run(&out.path().join("killed"), 1_000_000, None));
    assert_eq!(reported.status.code(), Some(0));
    assert!(
        said(&reported).contains("The run did not finish: it holds 12 rounds."),
        "{}",
        said(&reported)
    );
}

/// The command in the page's second line, run elsewhere, makes the page.
#[test]
fn the_page_of_the_kept_runs_is_made_by_its_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("RESULTS.md")).unwrap();
    let command = page.split('`').nth(3).unwrap();
    let args = command.strip_prefix("cargo run --release -p cellbench -- ").unwrap();
    assert_eq!(args, "report results --page RESULTS.md");

    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["results", "VERIFICATION.md"] {
        let target = root.canonicalize().unwrap().join(name);
        std::os::unix::fs::symlink(target, elsewhere.path().join(name)).unwrap();
    }
    let made = cellbench().args(args.split(' ')).current_dir(elsewhere.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = fs::read_to_string(elsewhere.path().join("RESULTS.md")).unwrap();
    assert!(again == page, "RESULTS.md is not what `{command}` makes; run it");
}

/// Not every build can draw pictures: one that cannot says in one line how to get one that can.
#[cfg(not(feature = "png"))]
#[test]
fn a_build_without_png_says_how_to_get_one() {
    for asked in [&["--png"][..], &["--only", "png"]] {
        let output = cellbench().args(["report", "x"]).args(asked).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--features png") && said.lines().count() == 1, "{said}");
    }
}

/// A run has its own rows; a use that it has no row of is not known from it.
#[test]
fn advice_names_its_source_and_what_is_ruled_out() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/model");
    let advise = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cellbench"))
            .args(["advise", "--run", kept])
            .args(args)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (status, said, _) = advise(&["--readers", "99", "--contexts", "task,nmi"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.starts_with("start-mostly-99 with 2 threads,\nmeasured on "), "{said}");
    assert!(said.contains("Ruled out:\n") && said.contains("spin-queued"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let (status, _, why) = advise(&["--threads", "64"]);
    assert_eq!(status, Some(2));
    assert!(why.contains("not known") && why.contains("cellbench run --kinds lock"), "{why}");
    let (status, _, why) = advise(&["--contexts", "moon"]);
    assert_eq!(status, Some(2));
    assert!(why.contains("task, softirq, hardirq, nmi") && why.lines().count() == 1, "{why}");
}
