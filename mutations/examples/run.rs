//! Builds all checks once, with the mutations compiled in, and runs for each mutation the check that is to
//! find it; each check also without a mutation, where it must pass. Prints a table; `--write FILE` keeps
//! it. The exit status is 1 if a mutation escapes, or a check fails without one.
//!
//! `scripts/mutations.sh [--only TEXT] [--by TEXT] [--except TEXT] [--write FILE]`, from anywhere in the
//! repository: `--only` takes mutations, `--by` checks, whose names contain the text; `--except` leaves such
//! checks out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cellbench_mutations::{Check, Mutation, Suite, VARIABLE};

type Error = Box<dyn std::error::Error + Send + Sync>;
/// Outcome of a run, and its seconds.
type Ended = (Outcome, f64);

/// For one run of a check: a mutation that makes a check hang is found by this.
const LIMIT: Duration = Duration::from_secs(60);
/// Runs at a time.
const WORKERS: usize = 2;

/// Outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// It had not ended at the limit.
    Hung,
}

/// A check with a mutation, or without one.
#[derive(Clone, Copy, Debug)]
struct Job {
    suite: Suite,
    filter: &'static str,
    mutation: Option<Mutation>,
}

impl Job {
    /// Returns whether the outcome is the wanted one.
    fn is_right(self, outcome: Outcome) -> bool {
        // A hunt switches the mutation on by itself, and passes where it is found.
        let wants_pass = self.mutation.is_none() || self.suite == Suite::Hunt;
        (outcome == Outcome::Passed) == wants_pass
    }
}

/// Returns the folder that the crates are in.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of the workspace")
}

/// Builds the test binaries; returns where they are.
fn build(suites: &BTreeSet<Suite>) -> Result<BTreeMap<Suite, PathBuf>, Error> {
    // Apart, since `--lib` is for every package that is named, and not all have suites beside their code.
    let mut groups: BTreeMap<(bool, bool), BTreeSet<Suite>> = BTreeMap::new();
    for suite in suites {
        let group = groups.entry((suite.explores(), suite.test().is_none())).or_default();
        group.insert(*suite);
    }
    let mut found = BTreeMap::new();
    for ((explores, _), suites) in groups {
        found.append(&mut build_together(&suites, explores)?);
    }
    Ok(found)
}

/// Builds test binaries with one call of cargo; those that explore interleavings are optimised.
fn build_together(
    suites: &BTreeSet<Suite>,
    explores: bool,
) -> Result<BTreeMap<Suite, PathBuf>, Error> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if explores {
        command.args(["--config", "profile.dev.package.cellbench-impls.opt-level=1"]);
    }
    for package in suites.iter().map(|suite| suite.package()).collect::<BTreeSet<_>>() {
        command.args(["-p", package, "--features", &format!("{package}/planted")]);
        if package == "cellbench-impls" {
            command.args(["--features", "cellbench-impls/loom,cellbench-impls/shuttle"]);
        }
    }
    if suites.iter().any(|suite| suite.test().is_none()) {
        command.arg("--lib");
    }
    for test in suites.iter().filter_map(|suite| suite.test()) {
        command.args(["--test", test]);
    }
    let built = command.stderr(Stdio::inherit()).output()?;
    if !built.status.success() {
        return Err("the checks do not compile".into());
    }
    let mut found = BTreeMap::new();
    for line in String::from_utf8(built.stdout)?.lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(executable) = message["executable"].as_str() else { continue };
        let (target, package) = (&message["target"], &message["package_id"]);
        let is_lib = target["kind"][0] == "lib";
        let suite = suites.iter().find(|suite| match suite.test() {
            Some(test) => !is_lib && target["name"] == test,
            None => is_lib && target["name"] == suite.package().replace('-', "_"),
        });
        if let Some(suite) = suite {
            let known = found.insert(*suite, PathBuf::from(executable));
            assert!(known.is_none(), "two binaries for {suite:?}: {package}");
        }
    }
    match suites.iter().find(|suite| !found.contains_key(suite)) {
        Some(suite) => Err(format!("no binary for {suite:?}").into()),
        None => Ok(found),
    }
}

/// Runs a job; returns what came of it and its seconds. What it says is kept in `outputs`.
fn run(job: Job, binary: &Path, outputs: &Path) -> Result<(Outcome, f64), Error> {
    let name = job.mutation.map_or("none", Mutation::name);
    let file = format!("{:?}-{name}-{}", job.suite, job.filter.replace(['/', ' ', ':'], "-"));
    let path = outputs.join(file);
    let output = File::create(&path)?;
    let directory = root().join(job.suite.package().trim_start_matches("cellbench-"));
    let mut command = Command::new(binary);
    command.arg(job.filter).current_dir(directory).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output).env("RUST_BACKTRACE", "0");
    match job.mutation {
        Some(mutation) if job.suite != Suite::Hunt => command.env(VARIABLE, mutation.name()),
        _ => command.env_remove(VARIABLE),
    };
    let began = Instant::now();
    // A group of its own, so that what it has started ends with it.
    let mut child = command.process_group(0).spawn()?;
    let outcome = loop {
        if let Some(status) = child.try_wait()? {
            break if status.success() { Outcome::Passed } else { Outcome::Failed };
        }
        if began.elapsed() > LIMIT {
            let group = format!("-{}", child.id());
            Command::new("kill").args(["-KILL", "--", &group]).status()?;
            child.wait()?;
            break Outcome::Hung;
        }
        thread::sleep(Duration::from_millis(5));
    };
    if outcome == Outcome::Passed && !fs::read_to_string(&path)?.contains("test result: ok. ") {
        return Err(format!("{}: the check says nothing of a result", path.display()).into());
    }
    if outcome == Outcome::Passed
        && fs::read_to_string(&path)?.contains("test result: ok. 0 passed")
    {
        return Err(format!("{}: no test of that name", path.display()).into());
    }
    Ok((outcome, began.elapsed().as_secs_f64()))
}

/// Runs all jobs; the results are in their order.
fn run_all(
    jobs: &[Job],
    binaries: &BTreeMap<Suite, PathBuf>,
    outputs: &Path,
) -> Result<Vec<(Outcome, f64)>, Error> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Ended)>, Error> {
        let mut done = Vec::new();
        loop {
            // Relaxed: only draws numbers.
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(number) else { return Ok(done) };
            done.push((number, run(*job, &binaries[&job.suite], outputs)?));
        }
    };
    let mut all = BTreeMap::new();
    thread::scope(|scope| -> Result<(), Error> {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            all.extend(worker.join().expect("a worker does not panic")?);
        }
        Ok(())
    })?;
    Ok(all.into_values().collect())
}

fn title(suite: Suite) -> String {
    let package = suite.package().trim_start_matches("cellbench-");
    format!("{package} {}", suite.test().unwrap_or("lib"))
}

fn main() -> ExitCode {
    match checked() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutations: {error}");
            ExitCode::FAILURE
        }
    }
}

fn checked() -> Result<bool, Error> {
    let (mut only, mut by, mut write) = (String::new(), String::new(), None);
    let mut except = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--only" => only = arguments.next().ok_or("--only wants a part of a name")?,
            "--by" => by = arguments.next().ok_or("--by wants a part of a check's name")?,
            "--except" => {
                except = Some(arguments.next().ok_or("--except wants a part of a check's name")?);
            }
            "--write" => write = Some(arguments.next().ok_or("--write wants a file")?),
            _ => {
                return Err(format!(
                    "{argument}: no such option; --only TEXT, --by TEXT, --except TEXT, --write FILE"
                )
                .into());
            }
        }
    }
    let chosen = Mutation::ALL.iter().copied().filter(|mutation| mutation.name().contains(&only));
    let is_wanted = |check: &str| {
        check.contains(&by) && !except.as_ref().is_some_and(|except| check.contains(except))
    };
    let outputs = root().join("target/mutations");
    fs::create_dir_all(&outputs)?;
    let mut jobs: Vec<Job> = Vec::new();
    let mut equivalent = Vec::new();
    for mutation in chosen {
        match mutation.check() {
            Check::Equivalent(why) => equivalent.push((mutation, why)),
            Check::Found(suite, _) if !is_wanted(&title(suite)) => {}
            Check::Found(suite, filter) => {
                let without = |job: &Job| job.suite == suite && job.filter == filter;
                if suite != Suite::Hunt && !jobs.iter().any(without) {
                    jobs.push(Job { suite, filter, mutation: None });
                }
                jobs.push(Job { suite, filter, mutation: Some(mutation) });
            }
        }
    }
    let binaries = build(&jobs.iter().map(|job| job.suite).collect())?;
    let began = Instant::now();
    let outcomes = run_all(&jobs, &binaries, &outputs)?;
    let seconds = began.elapsed().as_secs_f64();

    let mut table = String::from("| mutation | change | found by | seconds |\n|---|---|---|--:|\n");
    let (mut found, mut wrong) = (0, Vec::new());
    for (job, (outcome, seconds)) in jobs.iter().zip(&outcomes) {
        let Job { suite, filter, mutation } = *job;
        if !job.is_right(*outcome) {
            let name = mutation.map_or("without a mutation", Mutation::name);
            wrong.push(format!("{name}: {}, `{filter}`: {outcome:?}", title(suite)));
        }
        let Some(mutation) = mutation else { continue };
        found += usize::from(job.is_right(*outcome));
        let by = match (job.is_right(*outcome), outcome) {
            (false, _) => "**escapes**".to_owned(),
            (true, Outcome::Hung) => format!("{}, `{filter}`, which does not end", title(suite)),
            (true, _) => format!("{}, `{filter}`", title(suite)),
        };
        let change = mutation.title();
        writeln!(table, "| {} | {change} | {by} | {seconds:.1} |", mutation.name())?;
    }
    for (mutation, why) in &equivalent {
        writeln!(table, "| {} | {} | nothing: {why} | |", mutation.name(), mutation.title())?;
    }
    print!("{table}");
    let sum = format!(
        "{found} of {} mutations found in {seconds:.0} s, {} equivalent",
        found + equivalent.len() + wrong.len(),
        equivalent.len()
    );
    println!("\n{sum}");
    wrong.iter().for_each(|line| println!("{line}"));
    if let Some(file) = write {
        let text = format!(
            "# Mutations\n\nSingle changes to the code, each compiled in and switched on alone, and the \
             check that finds it. Made by\n`scripts/mutations.sh --write docs/mutations.md`; the list is \
             in `mutations/src/list.rs`.\n\n{sum}, on two cores, without the build. *hunts* run in a \
             process of their own until\nthe first execution that fails.\n\n{table}"
        );
        fs::write(file, text)?;
    }
    Ok(wrong.is_empty())
}
