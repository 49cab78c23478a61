//! `cellbench fleet` from the plan to the merged report, with stand-ins for Slurm's commands on the path: a
//! `sbatch` that runs the tasks of its array one after the other, as the script says. That a real Slurm
//! does the same is shown by scripts/fleet-check.sh.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory with a plan, shared storage and Slurm's commands.
struct Site {
    home: tempfile::TempDir,
}

/// A simulated run in three parts, and a measured host.
const PLAN: &str = r#"
name = "small"
directory = "shared"

[[measure]]
name = "here"
unfit = true
cells = ["spin-queued", "cmpxchg-state"]
kinds = ["timer"]
workloads = ["solo-set"]
threads = [1]
window = "1ms"
rounds = 2

[[simulate]]
name = "sweep"
machines = ["desktop"]
seeds = [3]
shards = 3
rounds = 2
cells = ["spin-queued", "cmpxchg-state"]
kinds = ["timer"]
workloads = ["same-cell", "solo-set"]
threads = [1, 2]
"#;
/// The simulated run of the plan, in one process.
const WHOLE: &[&str] = &[
    "sim",
    "--machine",
    "desktop",
    "--seed",
    "3",
    "--rounds",
    "2",
    "--kinds",
    "timer",
    "--cells",
    "spin-queued,cmpxchg-state",
    "--workloads",
    "same-cell,solo-set",
    "--threads",
    "1,2",
];

/// Runs the tasks of the array, but for those whose index stands in the file `skip`; notes each array.
const SBATCH: &str = r#"#!/bin/bash
for word in "$@"; do script=$word; done
case "$*" in *--test-only*) exit 0 ;; esac
indices=${2#--array=}
echo "$(basename "$script") $indices" >> "$SITE/submitted"
for part in ${indices//,/ }; do
    for index in $(seq "${part%-*}" "${part#*-}"); do
        grep -qx "$index" "$SITE/skip" 2>/dev/null && continue
        SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$index SLURMD_NODENAME=n1 \
            bash "$script" > "$SITE/task.txt" 2>&1
    done
done
echo 7
"#;

/// Read by a stand-in at its start: ends the client at the call whose number stands in `KILL_AT`, as
/// `3-before` or `3-after`, before or after the stand-in has done its work.
const TRAP: &str = r#"
echo >> "$SITE/calls"
call=$(wc -l < "$SITE/calls")
[ "$KILL_AT" != "$call-before" ] || { kill -9 $PPID; exit 1; }
[ "$KILL_AT" != "$call-after" ] || trap 'kill -9 $PPID' EXIT
"#;

/// Queues the tasks of the array, and lets them wait.
const SBATCH_QUEUES: &str = r#"#!/bin/bash
. "$SITE/trap"
for word in "$@"; do script=$word; done
case "$*" in *--test-only*) exit 0 ;; esac
indices=${2#--array=}
echo "$(basename "$script") $indices" >> "$SITE/submitted"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
for index in $(seq "${indices%-*}" "${indices#*-}"); do
    echo "$name|7|$index|PENDING||0:00|Resources" >> "$SITE/queue"
done
echo 7
"#;

impl Site {
    fn new() -> Self {
        let site = Self { home: tempfile::tempdir().expect("a directory") };
        fs::create_dir(site.path("slurm")).expect("a directory");
        site.program("sbatch", SBATCH);
        site.program("sinfo", "#!/bin/sh\necho one\n");
        site.program("squeue", "#!/bin/sh\ncat \"$SITE/queue\" 2>/dev/null; exit 0\n");
        site.program(
            "sacct",
            "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2; exit 1\n",
        );
        fs::write(site.path("plan.toml"), PLAN).expect("a plan");
        site
    }

    /// Names the command in the plan, so that it is not copied: it has a hundred megabytes here.
    fn without_copies(&self) {
        let here = self.path("cellbench");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cellbench"), here).expect("a link");
        let plan = PLAN.replace("]]\n", "]]\ncellbench = \"cellbench\"\n");
        fs::write(self.path("plan.toml"), plan).expect("a plan");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("slurm").join(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }

    fn cellbench(&self, args: &[&str]) -> Output {
        self.cellbench_killed_at("never", args)
    }

    /// Runs the command, whose call `at` of Slurm kills it.
    fn cellbench_killed_at(&self, at: &str, args: &[&str]) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(env!("CARGO_BIN_EXE_cellbench"))
            .args(args)
            .current_dir(self.home.path())
            .env("PATH", format!("{}:{path}", self.path("slurm").display()))
            .env("SITE", self.home.path())
            .env("KILL_AT", at)
            .stdin(Stdio::null())
            .output()
            .expect("the binary starts")
    }

    /// Returns the standard output of a command that ends with `status`.
    fn says(&self, status: i32, args: &[&str]) -> String {
        let output = self.cellbench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Returns the one line of a command that ends with status 2.
    fn error(&self, args: &[&str]) -> String {
        let output = self.cellbench(args);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        stderr
    }

    fn submitted(&self) -> String {
        fs::read_to_string(self.path("submitted")).unwrap_or_default()
    }

    /// Returns the path of the marker of a task's only attempt.
    fn marker(&self, task: &str) -> PathBuf {
        let task = self.path("shared/small/tasks").join(task);
        let attempt = fs::read_dir(task).expect("attempts").next().expect("one").expect("one");
        attempt.path().join("complete.json")
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).expect("a file").lines().count()
}

#[test]
fn from_a_plan_to_a_merged_report_with_what_is_missing_resumed() {
    let site = Site::new();
    let shown = site.says(0, &["fleet", "submit", "plan.toml", "--dry-run"]);
    assert!(
        shown.contains("#SBATCH --no-requeue") && shown.contains("4 tasks, none submitted"),
        "{shown}"
    );
    assert_eq!(site.submitted(), "");

    // The second part is lost, as if its node had died before it began.
    fs::write(site.path("skip"), "1\n").expect("a file");
    let shown = site.says(0, &["fleet", "submit", "plan.toml"]);
    assert!(
        shown.contains("job 7: sweep, 3 tasks") && shown.contains("fleet status --follow"),
        "{shown}"
    );
    let shown = site.says(1, &["fleet", "status", "plan.toml"]);
    assert!(shown.starts_with("3 of 4 tasks complete, 1 missing\n"), "{shown}");
    let line = site.error(&["fleet", "collect", "plan.toml"]);
    assert!(line.contains("1 of 4 tasks are not complete: 2;"), "{line}");

    // While the scheduler has it, it is not submitted again.
    let fleet = fs::read_to_string(site.path("shared/small/fleet.json")).expect("a fleet");
    let id = fleet.split('"').find(|word| word.starts_with("cellbench-")).expect("an id");
    fs::write(site.path("queue"), format!("{id}.1|7|1|PENDING||0:00|Resources\n")).expect("a file");
    assert!(
        site.says(3, &["fleet", "status", "plan.toml"])
            .contains("sweep: desktop, seed 3, 2/3: Resources")
    );
    site.says(0, &["fleet", "resume", "plan.toml"]);
    assert_eq!(site.submitted(), "here.sh 0\nsweep.sh 0-2\n");
    fs::write(site.path("queue"), format!("{id}.1|7|1|NODE_FAIL|n1|0:07|None\n")).expect("a file");
    assert!(site.says(1, &["fleet", "status", "plan.toml"]).contains("NODE_FAIL (7_1)"));

    fs::remove_file(site.path("skip")).expect("the file");
    site.says(0, &["fleet", "resume", "shared/small"]);
    assert_eq!(site.submitted(), "here.sh 0\nsweep.sh 0-2\nsweep.sh 1\n");
    assert_eq!(site.says(0, &["fleet", "status", "plan.toml"]), "4 of 4 tasks complete\n");

    let shown = site.says(0, &["fleet", "collect", "plan.toml"]);
    assert!(shown.contains("here") && shown.contains("merged"), "{shown}");
    site.says(0, &[WHOLE, &["--out", "whole"]].concat());
    let read = |run: &str| fs::read(site.path(run).join("rounds.jsonl")).expect("rounds");
    let whole = read("whole/latest");
    assert!(whole == read("shared/small/joined/sweep-desktop-seed3/latest"), "other bytes");
    let merged = site.path("shared/small/merged/latest/rounds.jsonl");
    let measured = site.path("shared/small/hosts/here/latest/rounds.jsonl");
    assert_eq!(lines(&measured), 4);
    assert_eq!(lines(&merged), 4 + lines(&site.path("whole/latest/rounds.jsonl")));
    // Collecting again counts nothing twice.
    site.says(0, &["fleet", "collect", "plan.toml"]);
    let again = site.path("shared/small/merged/latest/rounds.jsonl");
    assert_eq!(lines(&again), 4 + lines(&site.path("whole/latest/rounds.jsonl")));

    // Of another version, cut short, not there.
    let marker = site.marker("0002");
    let kept = fs::read_to_string(&marker).expect("a marker");
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    fs::write(&marker, kept.replace(&version, "\"version\": \"0.0.9\"")).expect("a marker");
    let line = site.error(&["fleet", "collect", "plan.toml"]);
    assert!(line.contains("task 2 on n1 was run with cellbench 0.0.9"), "{line}");
    fs::write(&marker, kept.replace("\"rounds_bytes\": ", "\"rounds_bytes\": 9"))
        .expect("a marker");
    let line = site.error(&["fleet", "collect", "plan.toml"]);
    assert!(line.contains("task 2: rounds.jsonl has "), "{line}");
    fs::remove_file(&marker).expect("the marker");
    let output = site.cellbench(&["fleet", "collect", "plan.toml", "--partial"]);
    let notes = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && notes.contains("2 of 3 parts, left out"), "{notes}");
}

#[test]
fn what_is_wrong_is_one_line_and_nothing_is_submitted() {
    let site = Site::new();
    let error = |plan: &str| {
        fs::write(site.path("bad.toml"), plan).expect("a plan");
        site.error(&["fleet", "submit", "bad.toml"])
    };
    let line = error("name = \"x\"\nnmae = 1\n");
    assert!(line.contains("bad.toml: line 2: unknown field `nmae`"), "{line}");
    let line = error("name = \"x\"\n[[measure]]\nname = \"a\"\ncells = [\"vax\"]\n");
    assert!(line.contains("[[measure]] a: unknown cell `vax`; known are"), "{line}");
    let line = error("name = \"x\"\n[[measure]]\nname = \"a\"\nwindow = \"9h\"\n");
    assert!(line.contains("[[measure]] a: invalid value '9h' for '--window <TIME>'"), "{line}");
    let line = error("name = \"x\"\n[[simulate]]\nname = \"s\"\nmachines = [\"vax\"]\n");
    assert!(line.contains("[[simulate]] s: ") && line.contains("`vax`"), "{line}");
    if cfg!(not(feature = "kernel")) {
        let line = error("name = \"x\"\n[[kernel]]\nname = \"k\"\n");
        assert!(line.contains("[[kernel]] k: ") && line.contains("--features kernel"), "{line}");
    }
    let line = error("name = \"x\"\n[[measure]]\nname = \"a\"\npartition = \"nowhere\"\n");
    assert!(line.contains("a: unknown partition `nowhere`; this cluster has one"), "{line}");
    site.program(
        "sbatch",
        "#!/bin/sh\necho 'sbatch: error: Invalid feature specification' >&2; exit 1\n",
    );
    let line = error("name = \"x\"\n[[measure]]\nname = \"a\"\nconstraint = \"moon\"\n");
    assert!(line.contains("a: sbatch: Invalid feature specification"), "{line}");
    assert_eq!(site.submitted(), "");
    let line = site.error(&["fleet", "submit", "no.toml"]);
    assert!(line.contains("no.toml: cannot read it"), "{line}");
    let line = site.error(&["fleet", "status", "slurm"]);
    assert!(line.contains("slurm: no fleet here"), "{line}");

    fs::remove_dir_all(site.path("slurm")).expect("the directory");
    let output = Command::new(env!("CARGO_BIN_EXE_cellbench"))
        .args(["fleet", "submit", "plan.toml"])
        .current_dir(site.home.path())
        .env("PATH", site.path("slurm"))
        .output()
        .expect("the binary starts");
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert!(line.contains("sinfo is not on this host") && line.lines().count() == 1, "{line}");
}

/// The client dies between any two of its steps: before Slurm is asked, after the plan is written and
/// nothing is submitted, after one job of two, or before it hears that a job is in.
#[test]
fn a_client_that_is_killed_at_any_call_of_slurm_loses_nothing_and_repeats_nothing() {
    let site = Site::new();
    site.without_copies();
    fs::write(site.path("trap"), TRAP).expect("a file");
    site.program("sbatch", SBATCH_QUEUES);
    site.program("sinfo", "#!/bin/bash\n. \"$SITE/trap\"\necho one\n");
    site.program(
        "squeue",
        "#!/bin/bash\n. \"$SITE/trap\"\ncat \"$SITE/queue\" 2>/dev/null; exit 0\n",
    );
    let mut kills = 0;
    for call in 1.. {
        let mut died = false;
        for side in ["before", "after"] {
            let at = format!("{call}-{side}");
            let submitted = site.cellbench_killed_at(&at, &["fleet", "submit", "plan.toml"]);
            died = submitted.status.code().is_none();
            kills += u32::from(died);
            site.says(0, &["fleet", "resume", "plan.toml"]);
            let mut jobs: Vec<String> = site.submitted().lines().map(str::to_owned).collect();
            jobs.sort();
            assert_eq!(jobs, ["here.sh 0", "sweep.sh 0-2"], "killed at {at}");
            for of_fleet in ["shared", "queue", "submitted", "calls"] {
                let path = site.path(of_fleet);
                let removed =
                    if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.unwrap_or_else(|error| panic!("{of_fleet}, killed at {at}: {error}"));
            }
        }
        if !died {
            break;
        }
    }
    // sinfo, two tests of scripts, squeue and two submissions, each from both sides.
    assert_eq!(kills, 12);
}

#[test]
fn a_plan_that_changed_after_it_was_submitted_is_refused() {
    let site = Site::new();
    site.without_copies();
    let all = "0\n1\n2\n";
    fs::write(site.path("skip"), all).expect("a file");
    site.says(0, &["fleet", "submit", "plan.toml"]);
    // The same again is a resume.
    site.says(0, &["fleet", "submit", "plan.toml"]);
    let plan = fs::read_to_string(site.path("plan.toml")).expect("a plan");
    fs::write(site.path("plan.toml"), plan.replace("shards = 3", "shards = 2")).expect("a plan");
    let line = site.error(&["fleet", "submit", "plan.toml"]);
    assert!(line.contains("another plan of this name was submitted"), "{line}");
}

#[test]
fn a_shard_without_its_baseline_is_simulated_all_the_same() {
    let site = Site::new();
    let args = [WHOLE, &["--shard", "2/8", "--out", "part"]].concat();
    site.says(0, &args);
    assert_eq!(lines(&site.path("part/latest/rounds.jsonl")), 2);
    let line = site.error(&[WHOLE, &["--shard", "1/9", "--out", "part"]].concat());
    assert!(line.contains("--shard 1/9: there are 8 configurations"), "{line}");
    let line = site.error(&[WHOLE, &["--shard", "9/8"]].concat());
    assert!(line.contains("`9/8` is no shard"), "{line}");
}
