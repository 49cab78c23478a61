//! The page of the kept runs is what the kept runs say: whoever changes one without the other ends
//! here, with the command that mends it.

mod fixture;

use std::fs;
use std::path::Path;

use cellbench_plots::report::{Kept, KeptError};
use cellbench_record::{Round, Source};

/// Returns the command that the page names.
fn command(page: &str) -> &str {
    page.split('`').nth(3).expect("the second thing in backquotes is the command")
}

#[test]
fn results_md_is_what_the_kept_runs_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("RESULTS.md")).unwrap();
    let verification = fs::read_to_string(root.join("VERIFICATION.md")).unwrap();
    let kept = Kept::read(&root.join("results")).unwrap();
    for (name, run) in &kept.runs {
        assert_eq!(run.damage.total, 0, "results/{name}: {:?}", run.damage.first);
        assert!(!run.run.command_line.is_empty(), "results/{name} names no command");
        let self_test = run.run.self_test.as_ref().map_or("", |test| &test.command_line);
        for command in [&run.run.command_line, self_test] {
            // It is to be repeated elsewhere.
            assert!(!command.contains(" /"), "results/{name} names a path of one host: {command}");
        }
    }
    let again = kept.page(command(&page), Some(&verification)).unwrap();
    for (path, svg) in kept.figures().unwrap() {
        let kept = fs::read_to_string(root.join(&path)).unwrap_or_default();
        let is_current = kept == svg;
        assert!(is_current, "{} is not the run's; {}", path.display(), command(&page));
        assert!(page.contains(&path.display().to_string()), "the page shows {}", path.display());
    }
    if again != page {
        let differing = again.lines().zip(page.lines()).position(|(a, b)| a != b);
        let line = differing.unwrap_or_else(|| again.lines().count().min(page.lines().count()));
        panic!(
            "RESULTS.md parts from results/ or VERIFICATION.md in line {}:\n  is      {:?}\n  \
             should be {:?}\nmake it again: {}",
            line + 1,
            page.lines().nth(line),
            again.lines().nth(line),
            command(&page)
        );
    }
}

#[test]
fn a_directory_without_runs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Kept::read(dir.path()).unwrap_err();
    assert!(matches!(&error, KeptError::Empty(path) if path == dir.path()), "{error:?}");
    assert!(error.to_string().contains("no run below it"), "{error}");
    let missing = dir.path().join("missing");
    let error = Kept::read(&missing).unwrap_err().to_string();
    assert!(error.contains("missing: cannot list its runs"), "{error}");
}

/// A simulated run that differs in where a field lies is shown beside the other, not by itself.
#[test]
fn a_line_of_its_own_is_compared_with_the_field_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let simulated = |round: &Round| round.series.source == Source::Sim;
    let mut rounds: Vec<Round> = fixture::rounds().into_iter().filter(simulated).collect();
    let keep = |name: &str, run, rounds: &[Round]| {
        let written = fixture::written(&dir.path().join("runs"), run, rounds);
        cellbench_plots::report::keep(&written, &dir.path().join("kept").join(name)).unwrap();
    };
    keep("sim", fixture::run(), &rounds);
    let mut run = fixture::run();
    run.settings.own_lines = vec!["lock".into()];
    let padded = rounds[0].series.cell.clone();
    for round in rounds.iter_mut().filter(|round| round.series.cell == padded) {
        round.duration_s /= 2.0;
    }
    keep("sim-own-line", run, &rounds);

    let page = Kept::read(&dir.path().join("kept")).unwrap().page("command", None).unwrap();
    let (_, beside) = page
        .split_once("## With a line of its own for `lock` (`results/sim-own-line`)")
        .expect("a section of its own");
    assert!(beside.contains("Against `results/sim`, at the most threads"), "{beside}");
    assert!(beside.contains("Within 5 %: 1 row."), "{beside}");
    let row = beside.lines().find(|line| line.contains(&format!("| {padded} "))).unwrap();
    assert!(row.contains("2.00"), "{row}");
    assert_eq!(page.matches("## Simulated on many cores").count(), 1, "{page}");
    // What it waited for is the base's: nine tenths for the lock.
    assert!(page.contains("`lock` 90 %, `callback` 5.0 %"), "{page}");
}

/// The main job's own text, with the ten lines that a command prints around it, ends within sixty.
#[test]
fn the_terminal_shows_the_main_job_within_sixty_lines() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/model");
    let loaded = cellbench_plots::Loaded::read(&dir, |_| {}).unwrap();
    let text = cellbench_plots::report::terminal(&loaded.report(), false);
    assert!(loaded.summary.entries.len() > 100, "the headline matrix");
    assert!(text.lines().count() <= 50, "{} lines:\n{text}", text.lines().count());
}

/// Fields that a round has wherever it was measured; others depend on the source.
const COMMON: &[&str] = &[
    "source",
    "kind",
    "workload",
    "placement",
    "threads",
    "cell",
    "round",
    "position",
    "start_s",
    "duration_s",
    "cpus",
    "ops",
    "per_thread",
    "invariants",
];
/// Settings that a run has, whatever measured it.
const COMMON_SETTINGS: &[&str] = &["window_s", "threshold_share", "latency_sample_every", "matrix"];

#[test]
fn every_source_of_rounds_leaves_the_same_fields() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    for (name, source) in [("model", "model"), ("sim", "sim"), ("kernel", "kernel")] {
        let dir = results.join(name);
        let rounds = fs::read_to_string(dir.join("rounds.jsonl")).unwrap();
        for line in rounds.lines() {
            let round: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(round["source"], source, "results/{name}");
            for field in COMMON {
                assert!(!round[field].is_null(), "results/{name}: no {field} in {line}");
            }
        }
        let run = fs::read_to_string(dir.join("run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&run).unwrap();
        for field in COMMON_SETTINGS {
            assert!(!run["settings"][field].is_null(), "results/{name}: no setting {field}");
        }
    }
}
