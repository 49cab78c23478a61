//! Damaged plans: no panic, one line that names the file, and a plan that is accepted keeps what its
//! names promise, in its tasks and scripts too.

mod fields;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use cellbench_fleet::plan::Plan;
use cellbench_fleet::script::script;
use cellbench_fleet::{Job, Task, task};
use cellbench_mutations::input::{hold_made, input};

/// Files beside the plan, which its paths may name.
const FILES: [&str; 3] = ["boot", "proof", "cellbench"];

const WHOLE: &str = r#"name = "spr-and-genoa"
directory = "shared"
partition = "bench"

[[measure]]
name = "genoa"
constraint = "genoa"
workloads = ["same-cell", "churn"]
time_budget = "10m"

[[measure]]
name = "spr"
nodes = ["n01", "n02"]

[[kernel]]
name = "fedora"
nodes = ["n01"]

[[kernel]]
name = "booted"
boot = "boot"
kernels = ["6.18", "6.18-patched"]
turns = 4

[[simulate]]
name = "sim"
machines = ["xeon-spr-2s", "epyc-genoa-2s"]
seeds = [1, 2]
shards = 4
"#;

/// A plan with fields that the other one lacks.
const MORE: &str = r#"name = "more"
account = "physics"
qos = "high"

[[measure]]
name = "a"
nodes = ["b-c"]
unfit = true
cells = ["spin-queued"]
kinds = ["timer"]
threads = [1, 2, 4]
placement = ["compact", "smt"]
rates = [1000]
matrix = "quick"
against = "spin-tas"
threshold = 3.0
window = "20ms"
rounds = 9
seed = 42
partition = "other"
time_limit = "1:00:00"
cellbench = "cellbench"

[[kernel]]
name = "patch"
vm = "linux-image-amd64"
against = "running"
program = "proof"
instructions = true
placement = "compact"

[[simulate]]
name = "sim"
machines = ["desktop", "my.toml"]
cpus = 2
cells = ["all"]
matrix = "full"
"#;

const WORDS: &str = "[[measure]] [[kernel]] [[simulate]] name=\"a\" nodes seeds shards turns vm \
                     against program \"n[1-4]\" \"../x\" \"a_b\" cellbench time_limit";

/// Configurations that each command stands for.
const CONFIGURATIONS: usize = 12;

/// Checks what an accepted plan becomes.
fn becomes_tasks(plan: &Plan) {
    let check = |args: &[String]| {
        assert!(args.iter().all(|arg| !arg.is_empty()), "{args:?}");
        Ok(CONFIGURATIONS)
    };
    let (tasks, jobs) = match task::expand(plan, &check) {
        Ok(expanded) => expanded,
        Err(error) => {
            let line = error.to_string();
            assert_eq!(line.lines().count(), 1, "{line}");
            return;
        }
    };
    let of_nodes = |nodes: &[String]| nodes.len().max(1);
    let measured: usize = plan.measure.iter().map(|it| of_nodes(&it.nodes)).sum();
    let in_kernels: usize = plan.kernel.iter().map(|it| of_nodes(&it.nodes)).sum();
    let parts =
        plan.simulate.iter().map(|it| it.machines.len() * it.seeds.len() * it.shards as usize);
    assert_eq!(tasks.len(), measured + in_kernels + parts.sum::<usize>());
    assert!(tasks.iter().zip(0..).all(|(task, number)| task.number == number));
    let held: Vec<u32> = jobs.iter().flat_map(Job::tasks).collect();
    assert!(held.into_iter().eq(0..tasks.len() as u32), "each task is in one job");
    let scripts: BTreeSet<&str> = jobs.iter().map(|job| job.script.as_str()).collect();
    assert_eq!(scripts.len(), jobs.len(), "each job has its script: {jobs:?}");
    for (index, job) in jobs.iter().enumerate() {
        assert!(!job.script.contains('/') && !job.script.starts_with('.'), "{job:?}");
        can_be_read(&script(&plan.directory, &format!("cellbench-1.{index}"), job), job);
    }
    let text = serde_json::to_string(&tasks).expect("tasks can be written");
    assert_eq!(serde_json::from_str::<Vec<Task>>(&text).expect("and read"), tasks);
}

/// Checks that the plan's words put no line, no blank and nothing that a shell expands into a script.
fn can_be_read(script: &str, job: &Job) {
    let lines: Vec<&str> = script.lines().collect();
    assert_eq!(lines.len(), 12 + job.options.len(), "{script}");
    let (options, last) = lines[3..].split_at(lines.len() - 5);
    for option in options {
        let word = option.strip_prefix("#SBATCH --").expect("an option");
        assert!(word.bytes().all(|byte| byte.is_ascii_graphic()), "{option}");
    }
    let command = last[1].split_once(" $((").expect("the number of the task").0;
    let plain = |c: char| c.is_ascii_alphanumeric() || " /._+-".contains(c);
    assert!(last[0] == "export SLURM_CPU_BIND=none" && command.chars().all(plain), "{script}");
}

#[test]
fn plans() {
    let home = tempfile::tempdir().expect("a temporary directory");
    for file in FILES {
        fs::write(home.path().join(file), "").expect("a file");
    }
    let path = home.path().join("PLAN.toml");
    for whole in [WHOLE, MORE] {
        becomes_tasks(&Plan::parse(&path, whole).expect("a whole plan"));
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/plan");
    let seeds = [WHOLE, MORE].map(|whole| whole.as_bytes().to_vec());
    // A quarter is damaged as a text.
    let make = |number| match number % 4 {
        0 => input(number, &seeds, WORDS),
        _ => fields::plan(number, &[WHOLE, MORE]),
    };
    // Relaxed: counts only, read when the reader has ended.
    let accepted = AtomicU64::new(0);
    let (given, parsed) = hold_made(&corpus, make, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match Plan::parse(&path, &text) {
            Ok(plan) => {
                let mut names = BTreeSet::new();
                let measured = plan.measure.iter().map(|measure| &measure.name);
                let others = plan.kernel.iter().map(|kernel| &kernel.name);
                let others = others.chain(plan.simulate.iter().map(|simulate| &simulate.name));
                assert!(measured.chain(others).all(|name| names.insert(name)), "{plan:?}");
                assert!(!names.is_empty() && plan.directory.is_absolute(), "{plan:?}");
                becomes_tasks(&plan);
                accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let line = error.to_string();
                assert!(line.lines().count() == 1 && line.contains("PLAN.toml"), "{line}");
            }
        }
        toml::from_str::<Plan>(&text).is_ok()
    });
    let accepted = accepted.into_inner();
    println!("{parsed} of {given} plans pass the parser, {accepted} the checks");
    assert!(2 * parsed >= given, "{parsed} of {given} pass the parser");
    assert!(10 * accepted >= given, "{accepted} of {given} are accepted");
}

/// Returns the fields that the parser knows, as it lists them where it meets another one.
fn known(text: &str) -> BTreeSet<String> {
    let error = toml::from_str::<Plan>(text).expect_err("an unknown field").to_string();
    let (_, list) = error.split_once("expected one of ").expect("a list of fields");
    let list = list.lines().next().unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_field_of_a_plan_is_changed() {
    let names = |fields: &[(&str, fields::Type)]| -> BTreeSet<String> {
        fields.iter().map(|(name, _)| (*name).to_owned()).collect()
    };
    let mut of_plan = names(fields::OF_PLAN);
    of_plan.extend(fields::SECTIONS.map(str::to_owned));
    assert_eq!(known("name = \"x\"\nnone = 1\n"), of_plan);
    for section in fields::SECTIONS {
        let text = format!("name = \"x\"\n[[{section}]]\nname = \"a\"\nnone = 1\n");
        assert_eq!(known(&text), names(&fields::of_section(section)), "{section}");
    }
}
