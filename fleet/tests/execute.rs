//! One task with a stand-in for the `cellbench` command: what it makes of each way that the command
//! can end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cellbench_fleet::execute::{Ended, execute};
use cellbench_fleet::store::{Fleet, Outcome};
use cellbench_fleet::{Job, Store, Task, Tool, Work};

fn tool() -> Tool {
    Tool {
        version: "1".into(),
        revision: Some("abc".into()),
        architecture: "x86_64".into(),
        build: "1".into(),
    }
}

/// Makes a fleet of one measured task.
fn fleet(dir: &Path, unfit: bool) -> Store {
    let task = Task {
        number: 0,
        entry: "host".into(),
        work: Work::Measure { unfit },
        args: vec!["run".into(), "--rounds".into(), "1".into()],
    };
    let job =
        Job { script: "host".into(), first: 0, count: 1, options: Vec::new(), cellbench: None };
    Store::create(dir, Fleet::new(tool(), vec![task], vec![job])).expect("a fleet")
}

/// Writes a command whose `doctor` and `run` end as the shell lines say. `$out` is where a run goes.
fn command(dir: &Path, doctor: &str, run: &str) -> PathBuf {
    let path = dir.join("cellbench");
    let text = format!(
        "#!/bin/sh\n\
         for word in \"$@\"; do out=$word; done\n\
         if [ \"$1\" = doctor ]; then {doctor}; else {run}; fi\n"
    );
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    path
}

const FIT: &str = "echo '{\"findings\":[]}'; exit 0";
const UNFIT: &str = "echo '{\"findings\":[\
    {\"id\":\"load\",\"severity\":\"unfit\",\"text\":\"others run\"},\
    {\"id\":\"smt\",\"severity\":\"warning\",\"text\":\"siblings\"}]}'; exit 4";
const WHOLE: &str = "mkdir \"$out/r1\"; ln -s r1 \"$out/latest\"; \
    echo '{\"schema\":\"1.0\",\"finished_unix_s\":5}' > \"$out/r1/run.json\"; \
    echo '{}' > \"$out/r1/rounds.jsonl\"";

/// Returns the outcome of the only attempt.
fn outcome(store: &Store) -> Outcome {
    let mut attempts = store.attempts(0).expect("attempts");
    assert_eq!(attempts.len(), 1);
    attempts.remove(0).outcome
}

fn reason(store: &Store) -> String {
    match outcome(store) {
        Outcome::Incomplete(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_run_is_complete_and_is_not_run_again() {
    let home = tempfile::tempdir().expect("a directory");
    let store = fleet(home.path(), false);
    let command = command(home.path(), FIT, WHOLE);
    let execute = || execute(home.path(), 0, &command, &tool());
    assert_eq!(execute().expect("it runs"), Ended::Complete);
    match outcome(&store) {
        Outcome::Complete(complete) => {
            assert_eq!((complete.run.as_str(), complete.rounds_bytes), ("r1", 3));
            assert!(!complete.violations && !complete.node.is_empty());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(execute().expect("it was run"), Ended::WasComplete);
    outcome(&store); // Still one attempt.
}

#[test]
fn a_wrong_cell_is_a_whole_run() {
    let home = tempfile::tempdir().expect("a directory");
    let store = fleet(home.path(), false);
    let command = command(home.path(), FIT, &format!("{WHOLE}; exit 1"));
    assert_eq!(execute(home.path(), 0, &command, &tool()).expect("it runs"), Ended::Complete);
    assert!(matches!(outcome(&store), Outcome::Complete(complete) if complete.violations));
}

#[test]
fn an_unfit_host_is_not_measured_unless_the_plan_says_so() {
    let home = tempfile::tempdir().expect("a directory");
    let store = fleet(home.path(), false);
    let path = command(home.path(), UNFIT, "touch \"$out/measured\"");
    let ended = execute(home.path(), 0, &path, &tool()).expect("it runs");
    assert_eq!(ended, Ended::Unfit("others run".into()));
    assert!(matches!(outcome(&store), Outcome::Unfit(why) if why.ends_with(": others run")));
    let attempt = store.attempts(0).expect("attempts").remove(0).dir;
    assert!(!attempt.join("measured").exists());

    let other = tempfile::tempdir().expect("a directory");
    fleet(other.path(), true);
    let path = command(other.path(), UNFIT, WHOLE);
    assert_eq!(execute(other.path(), 0, &path, &tool()).expect("it runs"), Ended::Complete);
}

#[test]
fn whatever_ends_a_run_leaves_its_reason() {
    let cases = [
        (
            "echo 'cellbench: error: /x: no space left' >&2; exit 2",
            "exit status 2: /x: no space left",
        ),
        (
            "echo 'cellbench: 40 rows, about 19 rounds' >&2; exit 3",
            "exit status 3: no round can be judged",
        ),
        ("kill -9 $$", "killed by signal 9"),
        ("mkdir \"$out/r1\"", "latest: cannot read it"),
        // A run that was begun and not ended has no end in its record.
        (
            "mkdir \"$out/r1\"; ln -s r1 \"$out/latest\"; echo '{\"schema\":\"1.0\"}' > \"$out/r1/run.json\"",
            "the run did not end",
        ),
    ];
    for (run, expected) in cases {
        let home = tempfile::tempdir().expect("a directory");
        let store = fleet(home.path(), false);
        let command = command(home.path(), FIT, run);
        let error = execute(home.path(), 0, &command, &tool()).expect_err(run).to_string();
        assert!(error.contains(expected), "{run}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert_eq!(reason(&store), error);
    }
}

#[test]
fn another_version_does_not_measure() {
    let home = tempfile::tempdir().expect("a directory");
    let store = fleet(home.path(), false);
    let command = command(home.path(), FIT, WHOLE);
    let other = Tool { version: "2".into(), ..tool() };
    let error = execute(home.path(), 0, &command, &other).expect_err("refused").to_string();
    assert!(
        error.contains("this is cellbench 2 (abc") && error.contains("cellbench 1 (abc"),
        "{error}"
    );
    assert_eq!(reason(&store), error);
    let error = execute(home.path(), 7, &command, &tool()).expect_err("refused").to_string();
    assert!(error.contains("no task 7; there are 1"), "{error}");
}

/// Kernels that the site boots, in the place of hosts: turns follow one another as further rounds, and
/// the order is reversed from turn to turn.
#[test]
fn kernels_take_turns_and_are_one_run() {
    let home = tempfile::tempdir().expect("a directory");
    let boot = home.path().join("boot");
    let task = Task {
        number: 0,
        entry: "pair".into(),
        work: Work::Kernels {
            unfit: false,
            boot: boot.clone(),
            kernels: vec!["old".into(), "new".into()],
            turns: 2,
        },
        args: vec!["kernel".into(), "--rounds".into(), "1".into()],
    };
    let job =
        Job { script: "pair".into(), first: 0, count: 1, options: Vec::new(), cellbench: None };
    let store = Store::create(home.path(), Fleet::new(tool(), vec![task], vec![job]));
    let store = store.expect("a fleet");
    let cellbench = command(home.path(), FIT, "exit 9");
    let line = r#"{"source":"kernel","kind":"lock","workload":"w","placement":"compact","threads":1,"cell":"c","round":0,"start_s":0.0,"duration_s":0.1}"#;
    let script = |ends: &str| {
        let text = format!(
            "#!/bin/sh\necho \"$1 $3 $4 $5\" >> {}/order\nfor word in \"$@\"; do out=$word; done\n\
             mkdir \"$out/r1\" || exit 2\nln -s r1 \"$out/latest\"\n\
             echo '{{\"schema\":\"1.0\",\"finished_unix_s\":5}}' > \"$out/r1/run.json\"\n\
             echo '{line}' > \"$out/r1/rounds.jsonl\"\n{ends}\n",
            home.path().display()
        );
        fs::write(&boot, text).expect("a script");
        fs::set_permissions(&boot, fs::Permissions::from_mode(0o755)).expect("a program");
    };
    script("[ $1 = new ] && { echo 'no such kernel' >&2; exit 7; }; exit 0");
    let error = execute(home.path(), 0, &cellbench, &tool()).expect_err("a kernel fails");
    let expected = "kernel new, turn 1: cellbench kernel on ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(error.to_string().contains("no such kernel"), "{error}");

    fs::remove_file(home.path().join("order")).expect("the file");
    script("exit 0");
    assert_eq!(execute(home.path(), 0, &cellbench, &tool()).expect("it runs"), Ended::Complete);
    let order = fs::read_to_string(home.path().join("order")).expect("the order");
    let words = "kernel --rounds 1";
    assert_eq!(order, format!("old {words}\nnew {words}\nnew {words}\nold {words}\n"));
    let (dir, marker) = store.complete(0).expect("attempts").expect("a complete one");
    let rounds = fs::read_to_string(dir.join(marker.run).join("rounds.jsonl")).expect("rounds");
    let of = |host: &str, round: u32| {
        let (host, round) = (format!("\"host\":\"{host}\""), format!("\"round\":{round}"));
        rounds.lines().filter(|line| line.contains(&host) && line.contains(&round)).count()
    };
    assert_eq!([of("old", 0), of("old", 1), of("new", 0), of("new", 1)], [1; 4], "{rounds}");
}
