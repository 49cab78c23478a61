//! From a plan to tasks, and to the jobs that hold them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::{Kernels, Measure, Plan, Scheduling, Simulate};
use crate::{Check, FleetError};

/// Most tasks of one job array: Slurm's own limit, unless a site raised it.
const MOST_IN_ARRAY: usize = 1000;
/// Options of a task that has its node for itself.
const WHOLE_NODE: [&str; 2] = ["--exclusive", "--mem=0"];

/// One `cellbench` command on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Number in the fleet, from 0.
    pub number: u32,
    /// Entry of the plan.
    pub entry: String,
    /// Which part of the entry.
    pub work: Work,
    /// Arguments of the command, but for where it writes.
    pub args: Vec<String>,
}

/// Which part of an entry a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Measures a host.
    Measure {
        /// Also if the host is unfit.
        unfit: bool,
    },
    /// Measures the kernel of a host.
    Kernel {
        /// Also if the host is unfit.
        unfit: bool,
    },
    /// Measures kernels that the site boots on a host, in turns.
    Kernels {
        /// Also if the host is unfit.
        unfit: bool,
        /// Command of the site that boots a kernel and runs a command in it.
        boot: PathBuf,
        /// Names of the kernels.
        kernels: Vec<String>,
        /// Times that each is booted.
        turns: u32,
    },
    /// Simulates a part of a run.
    Simulate {
        /// Machine, as the plan names it.
        machine: String,
        /// Seed of every random choice.
        seed: u64,
        /// Part, from 1.
        shard: u32,
        /// Number of parts.
        of: u32,
    },
}

/// A job array: tasks that ask the scheduler for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Name of its script below `jobs/`, without suffix.
    pub script: String,
    /// Number of the first task; the array's index 0 stands for it.
    pub first: u32,
    /// Number of tasks.
    pub count: u32,
    /// Options of `sbatch` that this job has beside those of all.
    pub options: Vec<String>,
    /// Another `cellbench` than the fleet's.
    pub cellbench: Option<PathBuf>,
}

impl Job {
    /// Returns the numbers of the tasks.
    #[must_use]
    pub fn tasks(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }
}

/// Works out the tasks of a plan and the jobs that they are in, each task in one.
///
/// # Errors
/// [`FleetError::Refused`] with what `check` says of an entry.
pub fn expand(plan: &Plan, check: Check<'_>) -> Result<(Vec<Task>, Vec<Job>), FleetError> {
    let mut tasks = Vec::new();
    let mut jobs = Vec::new();
    for measure in &plan.measure {
        let entry = measure.scheduling();
        let args = measured(measure);
        check(&args).map_err(|what| refused(&entry, what))?;
        let work = Work::Measure { unfit: measure.unfit };
        add_nodes(&mut tasks, &mut jobs, &measure.nodes, plan, &entry, (work, args));
    }
    for kernel in &plan.kernel {
        let entry = kernel.scheduling();
        let args = of_kernel(kernel);
        check(&args).map_err(|what| refused(&entry, what))?;
        let unfit = kernel.unfit;
        let work = match kernel.boot.clone() {
            None => Work::Kernel { unfit },
            Some(boot) => {
                let (kernels, turns) = (kernel.kernels.clone(), kernel.turns);
                Work::Kernels { unfit, boot, kernels, turns }
            }
        };
        add_nodes(&mut tasks, &mut jobs, &kernel.nodes, plan, &entry, (work, args));
    }
    for simulate in &plan.simulate {
        let entry = simulate.scheduling();
        let mut options = match simulate.cpus {
            Some(cpus) => vec![format!("--cpus-per-task={cpus}")],
            None => WHOLE_NODE.map(str::to_owned).to_vec(),
        };
        options.extend(asked(plan, &entry));
        let mut tasks_of_job = Vec::new();
        for machine in &simulate.machines {
            let configurations =
                check(&simulated(simulate, machine, None)).map_err(|what| refused(&entry, what))?;
            let of = simulate.shards;
            if of as usize > configurations {
                let why = format!("{of} shards of {configurations} configurations; write fewer");
                return Err(refused(&entry, why));
            }
            for &seed in &simulate.seeds {
                for shard in 1..=of {
                    let args = simulated(simulate, machine, Some((seed, shard, of)));
                    let work = Work::Simulate { machine: machine.clone(), seed, shard, of };
                    tasks_of_job.push((work, args));
                }
            }
        }
        add(&mut tasks, &mut jobs, &entry, (simulate.name.clone(), options), tasks_of_job);
    }
    have_scripts(&tasks, &jobs)?;
    Ok((tasks, jobs))
}

/// Checks that each job has a script of its own: `a` on the node `b-c` and `a-b` on the node `c` would
/// have one, and one of the two jobs would do the work of the other.
fn have_scripts(tasks: &[Task], jobs: &[Job]) -> Result<(), FleetError> {
    let mut scripts = BTreeMap::new();
    for job in jobs {
        let (script, entry) = (&job.script, &tasks[job.first as usize].entry);
        if let Some(other) = scripts.insert(script, entry) {
            return Err(FleetError::Refused(format!(
                "`{other}` and `{entry}` would both have the script `{script}.sh`; rename one of them"
            )));
        }
    }
    Ok(())
}

fn refused(entry: &Scheduling<'_>, what: String) -> FleetError {
    FleetError::Refused(entry.at(what))
}

fn add(
    tasks: &mut Vec<Task>,
    jobs: &mut Vec<Job>,
    entry: &Scheduling<'_>,
    (name, options): (String, Vec<String>),
    new: Vec<(Work, Vec<String>)>,
) {
    for (place, part) in new.chunks(MOST_IN_ARRAY).enumerate() {
        let script = if place == 0 { name.clone() } else { format!("{name}.{}", place + 1) };
        let (first, count) = (tasks.len() as u32, part.len() as u32);
        let (options, cellbench) = (options.clone(), entry.cellbench.map(Path::to_owned));
        jobs.push(Job { script, first, count, options, cellbench });
        for (work, args) in part {
            let (number, entry) = (tasks.len() as u32, entry.name.to_owned());
            tasks.push(Task { number, entry, work: work.clone(), args: args.clone() });
        }
    }
}

/// Adds a job for each node, so that each is measured once; without nodes one job, on a node of the
/// scheduler's choice. A measurement has its node for itself.
fn add_nodes(
    tasks: &mut Vec<Task>,
    jobs: &mut Vec<Job>,
    nodes: &[String],
    plan: &Plan,
    entry: &Scheduling<'_>,
    work: (Work, Vec<String>),
) {
    let mut places: Vec<Option<&String>> = nodes.iter().map(Some).collect();
    if places.is_empty() {
        places.push(None);
    }
    for node in places {
        let mut options = WHOLE_NODE.map(str::to_owned).to_vec();
        options.extend(node.map(|node| format!("--nodelist={node}")));
        options.extend(asked(plan, entry));
        let name = entry.name;
        let name = node.map_or(name.to_owned(), |node| format!("{name}-{node}"));
        add(tasks, jobs, entry, (name, options), vec![work.clone()]);
    }
}

/// Returns the options of `sbatch` for what an entry, and the plan for every entry, ask for.
fn asked(plan: &Plan, entry: &Scheduling<'_>) -> Vec<String> {
    let options = [
        ("constraint", entry.constraint),
        ("time", entry.time_limit),
        ("partition", entry.partition.or(plan.partition.as_deref())),
        ("account", plan.account.as_deref()),
        ("qos", plan.qos.as_deref()),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some((option, value?)));
    given.map(|(option, value)| format!("--{option}={value}")).collect()
}

/// Flags as the command line takes them.
#[derive(Default)]
struct Flags(Vec<String>);

impl Flags {
    /// Adds a flag and its value in one word, so that a value with `-` in front is no flag.
    fn one(&mut self, flag: &str, value: Option<&impl Display>) {
        self.0.extend(value.map(|value| format!("--{flag}={value}")));
    }

    fn list(&mut self, flag: &str, values: &[impl ToString]) {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.one(flag, Some(&values.join(",")).filter(|_| !values.is_empty()));
    }

    /// Returns the flag of the matrix, or none for the one that is taken without.
    fn matrix(&mut self, name: Option<&String>) {
        self.0.extend(name.filter(|name| *name != "headline").map(|name| format!("--{name}")));
    }
}

fn measured(measure: &Measure) -> Vec<String> {
    let mut flags = Flags(vec!["run".to_owned()]);
    flags.matrix(measure.matrix.as_ref());
    flags.list("cells", &measure.cells);
    flags.list("workloads", &measure.workloads);
    flags.list("kinds", &measure.kinds);
    flags.list("threads", &measure.threads);
    flags.list("placement", &measure.placement);
    flags.list("rates", &measure.rates);
    flags.one("against", measure.against.as_ref());
    flags.one("threshold", measure.threshold.as_ref());
    flags.one("time-budget", measure.time_budget.as_ref());
    flags.one("window", measure.window.as_ref());
    flags.one("rounds", measure.rounds.as_ref());
    flags.one("seed", measure.seed.as_ref());
    flags.0
}

fn of_kernel(kernel: &Kernels) -> Vec<String> {
    let mut flags = Flags(vec!["kernel".to_owned()]);
    flags.one("vm", kernel.vm.as_ref());
    flags.one("against", kernel.against.as_ref());
    flags.one("program", kernel.program.as_ref().map(|path| path.display()).as_ref());
    if kernel.instructions {
        flags.0.push("--instructions".to_owned());
    }
    flags.list("workloads", &kernel.workloads);
    flags.list("kinds", &kernel.kinds);
    flags.list("threads", &kernel.threads);
    flags.one("placement", kernel.placement.as_ref());
    flags.one("threshold", kernel.threshold.as_ref());
    flags.one("time-budget", kernel.time_budget.as_ref());
    flags.one("window", kernel.window.as_ref());
    flags.one("rounds", kernel.rounds.as_ref());
    flags.one("seed", kernel.seed.as_ref());
    flags.0
}

fn simulated(simulate: &Simulate, machine: &String, part: Option<(u64, u32, u32)>) -> Vec<String> {
    let mut flags = Flags(vec!["sim".to_owned()]);
    flags.one("machine", Some(machine));
    flags.matrix(simulate.matrix.as_ref());
    flags.list("cells", &simulate.cells);
    flags.list("workloads", &simulate.workloads);
    flags.list("kinds", &simulate.kinds);
    flags.list("threads", &simulate.threads);
    flags.list("placement", &simulate.placement);
    flags.one("against", simulate.against.as_ref());
    flags.one("threshold", simulate.threshold.as_ref());
    flags.one("rounds", simulate.rounds.as_ref());
    if let Some((seed, shard, of)) = part {
        flags.one("seed", Some(&seed));
        flags.one("shard", Some(&format!("{shard}/{of}")));
    }
    flags.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::parse(Path::new("/tmp/plan.toml"), text).unwrap()
    }

    const PLAN: &str = r#"
        name = "x"
        partition = "bench"
        [[measure]]
        name = "genoa"
        constraint = "genoa"
        workloads = ["same-cell"]
        threads = [1, 2]
        [[measure]]
        name = "spr"
        nodes = ["n1", "n2"]
        partition = "other"
        [[simulate]]
        name = "sim"
        machines = ["desktop", "graviton3"]
        seeds = [1, 7]
        shards = 3
        cpus = 2
    "#;

    #[test]
    fn a_task_for_each_class_node_and_shard() {
        let (tasks, jobs) = expand(&plan(PLAN), &|_| Ok(10)).unwrap();
        assert_eq!(tasks.len(), 1 + 2 + 2 * 2 * 3);
        assert!(tasks.iter().enumerate().all(|(index, task)| task.number as usize == index));
        assert_eq!(tasks[0].args.join(" "), "run --workloads=same-cell --threads=1,2");
        assert_eq!(tasks[14].args.join(" "), "sim --machine=graviton3 --seed=7 --shard=3/3");
        let scripts: Vec<&str> = jobs.iter().map(|job| job.script.as_str()).collect();
        assert_eq!(scripts, ["genoa", "spr-n1", "spr-n2", "sim"]);
        let options = |index: usize| jobs[index].options.join(" ");
        assert_eq!(options(0), "--exclusive --mem=0 --constraint=genoa --partition=bench");
        assert_eq!(options(2), "--exclusive --mem=0 --nodelist=n2 --partition=other");
        assert_eq!(options(3), "--cpus-per-task=2 --partition=bench");
        // Every task is in one job.
        let held: Vec<u32> = jobs.iter().flat_map(Job::tasks).collect();
        assert_eq!(held, (0..tasks.len() as u32).collect::<Vec<_>>());
    }

    #[test]
    fn kernels_are_tasks_of_whole_nodes() {
        let text = "name = \"x\"\n[[kernel]]\nname = \"own\"\nnodes = [\"n1\", \"n2\"]\nrounds = 3\n\
            vm = \"new\"\nagainst = \"old\"\nprogram = \"/bin/sh\"\ninstructions = true\n\
            [[kernel]]\nname = \"pair\"\nboot = \"/bin/sh\"\nkernels = [\"old\", \"new\"]\n";
        let (tasks, jobs) = expand(&plan(text), &|_| Ok(1)).unwrap();
        let scripts: Vec<&str> = jobs.iter().map(|job| job.script.as_str()).collect();
        assert_eq!(scripts, ["own-n1", "own-n2", "pair"]);
        assert!(jobs.iter().all(|job| job.options[0] == "--exclusive"));
        let flags = "kernel --vm=new --against=old --program=/bin/sh --instructions --rounds=3";
        assert_eq!(tasks[0].args.join(" "), flags);
        let pair = Work::Kernels {
            unfit: false,
            boot: "/bin/sh".into(),
            kernels: vec!["old".into(), "new".into()],
            turns: 2,
        };
        assert_eq!((&tasks[1].work, &tasks[2].work), (&Work::Kernel { unfit: false }, &pair));
    }

    #[test]
    fn long_arrays_are_divided() {
        let text = "name = \"x\"\n[[simulate]]\nname = \"s\"\nmachines = [\"m\"]\nshards = 2500\n";
        let (tasks, jobs) = expand(&plan(text), &|_| Ok(5000)).unwrap();
        assert_eq!(tasks.len(), 2500);
        let parts: Vec<_> = jobs.iter().map(|job| (job.script.as_str(), job.tasks())).collect();
        assert_eq!(parts, [("s", 0..1000), ("s.2", 1000..2000), ("s.3", 2000..2500)]);
    }

    #[test]
    fn two_jobs_of_one_script_are_refused() {
        let node = "[[measure]]\nname = \"a-b\"\nnodes = [\"c\"]\n";
        let cases = [
            format!("{node}[[measure]]\nname = \"a\"\nnodes = [\"b-c\"]\n"),
            format!("{node}[[measure]]\nname = \"a-b-c\"\n"),
            format!("{node}[[simulate]]\nname = \"a-b-c\"\nmachines = [\"m\"]\n"),
        ];
        for entries in cases {
            let error = expand(&plan(&format!("name = \"x\"\n{entries}")), &|_| Ok(1));
            let line = error.expect_err("one script of two jobs").to_string();
            assert!(line.contains("`a-b-c.sh`; rename one of them"), "{line}");
        }
    }

    #[test]
    fn what_the_command_would_refuse_is_refused_before_anything_runs() {
        let refuse = |args: &[String]| match args[0].as_str() {
            "run" => Ok(1),
            _ => Err("unknown machine `desktop`".to_owned()),
        };
        let error = expand(&plan(PLAN), &refuse).unwrap_err().to_string();
        assert_eq!(error, "[[simulate]] sim: unknown machine `desktop`");
        let error = expand(&plan(PLAN), &|_| Ok(2)).unwrap_err().to_string();
        assert_eq!(error, "[[simulate]] sim: 3 shards of 2 configurations; write fewer");
    }
}
