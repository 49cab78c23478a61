//! `PLAN.toml`: what to measure on which hosts, and what to simulate.
//!
//! ```toml
//! name = "spr-and-genoa"            # letters, digits, `.`, `_`, `-`
//! directory = "/shared/cellbench"   # shared storage; the fleet gets a directory of its name below
//! partition = "bench"               # for all below that do not say otherwise; likewise account, qos
//!
//! [[measure]]                       # a host class: one task, on one node of the class
//! name = "genoa"
//! constraint = "genoa"              # features, as `sbatch --constraint` takes them
//! workloads = ["same-cell", "churn"]
//! time_budget = "10m"
//!
//! [[measure]]                       # with nodes: one task for each
//! name = "spr"
//! nodes = ["n01", "n02"]
//!
//! [[kernel]]                        # the node's own kernel, as `cellbench kernel` measures it
//! name = "fedora"
//! nodes = ["n01"]
//!
//! [[kernel]]                        # two kernels in virtual machines, their rounds interleaved
//! name = "patch"
//! vm = "/shared/new.vmlinuz"
//! against = "/shared/old.vmlinuz"
//! program = "/shared/kernelproof"
//!
//! [[kernel]]                        # kernels that the site boots on the node, in turns
//! name = "booted"
//! boot = "/site/boot"               # called as `boot KERNEL cellbench kernel ...`
//! kernels = ["6.18", "6.18-patched"]
//! turns = 4
//!
//! [[simulate]]                      # machines x seeds, each in `shards` tasks
//! name = "sim"
//! machines = ["xeon-spr-2s", "epyc-genoa-2s"]
//! seeds = [1, 2]
//! shards = 4
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FleetError;

/// A plan, as its file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the fleet, and of its directory.
    pub name: String,
    /// Directory on storage that all nodes share; relative to the plan's own.
    #[serde(default)]
    pub directory: PathBuf,
    /// Partition where an entry names none; none: the cluster's default.
    pub partition: Option<String>,
    /// Account to charge.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Host classes to measure.
    #[serde(default)]
    pub measure: Vec<Measure>,
    /// Kernels to measure.
    #[serde(default)]
    pub kernel: Vec<Kernels>,
    /// Sweeps to simulate.
    #[serde(default)]
    pub simulate: Vec<Simulate>,
}

/// Defines an entry of a plan: what every entry asks of the scheduler, and the fields of its own. One
/// struct for both, and none within another, so that TOML can name the line of an unknown field.
macro_rules! entry {
    ($(#[$about:meta])* $entry:ident, $section:literal, { $($fields:tt)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $entry {
            /// Name of the entry, in reports.
            pub name: String,
            /// Slurm partition of the tasks.
            pub partition: Option<String>,
            /// Features that the node must have.
            pub constraint: Option<String>,
            /// Longest time of a task, as Slurm writes times; none: the partition's.
            pub time_limit: Option<String>,
            /// Another `cellbench` of the same revision, for hosts of another architecture.
            pub cellbench: Option<PathBuf>,
            $($fields)*
        }

        impl $entry {
            /// Returns what the entry asks of the scheduler.
            pub(crate) fn scheduling(&self) -> Scheduling<'_> {
                Scheduling {
                    section: $section,
                    name: &self.name,
                    partition: self.partition.as_deref(),
                    constraint: self.constraint.as_deref(),
                    time_limit: self.time_limit.as_deref(),
                    cellbench: self.cellbench.as_deref(),
                }
            }
        }
    };
}

/// Fields that all entries have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scheduling<'a> {
    section: &'static str,
    /// Name of the entry.
    pub(crate) name: &'a str,
    /// Slurm partition of the tasks.
    pub(crate) partition: Option<&'a str>,
    /// Features that the node must have.
    pub(crate) constraint: Option<&'a str>,
    /// Longest time of a task.
    pub(crate) time_limit: Option<&'a str>,
    /// Another `cellbench`.
    pub(crate) cellbench: Option<&'a Path>,
}

impl Scheduling<'_> {
    /// Returns what is wrong, with the entry that it is in.
    pub(crate) fn at(&self, what: String) -> String {
        format!("[[{}]] {}: {what}", self.section, self.name)
    }

    fn check(&self) -> Result<(), String> {
        is_word("partition", self.partition)?;
        is_word("constraint", self.constraint)?;
        is_word("time_limit", self.time_limit)?;
        is_binary("cellbench", self.cellbench)
    }
}

entry! {
    /// A class of hosts: what is measured on one of them, or on each of those named.
    Measure, "measure", {
        /// Nodes by name, a task for each; none: one node of the scheduler's choice.
        #[serde(default)]
        pub nodes: Vec<String>,
        /// Measure on hosts that the doctor calls unfit, too. Their reports say so.
        #[serde(default)]
        pub unfit: bool,
        /// Cells and locks.
        #[serde(default)]
        pub cells: Vec<String>,
        /// Names of the workloads.
        #[serde(default)]
        pub workloads: Vec<String>,
        /// Kinds of cells and locks.
        #[serde(default)]
        pub kinds: Vec<String>,
        /// Numbers of threads.
        #[serde(default)]
        pub threads: Vec<u32>,
        /// Placements of threads.
        #[serde(default)]
        pub placement: Vec<String>,
        /// Rates of an open loop.
        #[serde(default)]
        pub rates: Vec<u64>,
        /// `quick`, `headline` or `full`, where no names are given.
        pub matrix: Option<String>,
        /// Cell that the others are compared with.
        pub against: Option<String>,
        /// Relative difference that matters, in percent.
        pub threshold: Option<f64>,
        /// Time for the run.
        pub time_budget: Option<String>,
        /// Length of one measurement.
        pub window: Option<String>,
        /// Most rounds.
        pub rounds: Option<u32>,
        /// Seed of every random choice.
        pub seed: Option<u64>,
    }
}

entry! {
    /// Kernels of a class of hosts: their own, or some that the site boots there in virtual machines.
    Kernels, "kernel", {
        /// Nodes by name, a task for each; none: one node of the scheduler's choice.
        #[serde(default)]
        pub nodes: Vec<String>,
        /// Measure on hosts that the doctor calls unfit, too.
        #[serde(default)]
        pub unfit: bool,
        /// Kernel to measure in a virtual machine: an image file or a Debian package.
        pub vm: Option<String>,
        /// Kernel before the patch, in a second one: rounds of both are interleaved.
        pub against: Option<String>,
        /// Program that runs in the guests, on storage that the nodes share.
        pub program: Option<PathBuf>,
        /// Emulates, and counts instructions in place of time.
        #[serde(default)]
        pub instructions: bool,
        /// Command of the site that boots a kernel on the node and runs a command in it: called with
        /// the kernel's name and the words of the command, it ends with the command's exit status. The
        /// storage is the same inside.
        pub boot: Option<PathBuf>,
        /// Names of the kernels, as `boot` knows them.
        #[serde(default)]
        pub kernels: Vec<String>,
        /// Times that each kernel is booted; kernels take turns, so that drift of the host moves all
        /// alike.
        #[serde(default = "two")]
        pub turns: u32,
        /// Names of the rows.
        #[serde(default)]
        pub workloads: Vec<String>,
        /// Kinds of the rows.
        #[serde(default)]
        pub kinds: Vec<String>,
        /// Numbers of threads.
        #[serde(default)]
        pub threads: Vec<u32>,
        /// Placement of threads.
        pub placement: Option<String>,
        /// Relative difference that matters, in percent.
        pub threshold: Option<f64>,
        /// Time for each run.
        pub time_budget: Option<String>,
        /// Length of one measurement.
        pub window: Option<String>,
        /// Most rounds of each run.
        pub rounds: Option<u32>,
        /// Seed of every random choice.
        pub seed: Option<u64>,
    }
}

entry! {
    /// Simulated machines, each with several seeds, each in several parts.
    Simulate, "simulate", {
        /// CPUs of a task, which then shares its node; none: the whole node.
        pub cpus: Option<u32>,
        /// Machines: presets, or files relative to the plan's directory.
        pub machines: Vec<String>,
        /// Seeds, each a run.
        #[serde(default = "one_seed")]
        pub seeds: Vec<u64>,
        /// Tasks that each run is divided into.
        #[serde(default = "one")]
        pub shards: u32,
        /// Rounds of each run.
        pub rounds: Option<u32>,
        /// Cells and locks.
        #[serde(default)]
        pub cells: Vec<String>,
        /// Names of the workloads.
        #[serde(default)]
        pub workloads: Vec<String>,
        /// Kinds of cells and locks.
        #[serde(default)]
        pub kinds: Vec<String>,
        /// Numbers of threads.
        #[serde(default)]
        pub threads: Vec<u32>,
        /// Placements of threads.
        #[serde(default)]
        pub placement: Vec<String>,
        /// `quick`, `headline` or `full`, where no names are given.
        pub matrix: Option<String>,
        /// Cell that the others are compared with.
        pub against: Option<String>,
        /// Relative difference that matters, in percent.
        pub threshold: Option<f64>,
    }
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

impl Plan {
    /// Reads a plan and checks what needs no knowledge of cells and machines. Paths in it become
    /// absolute.
    ///
    /// # Errors
    /// [`FleetError::Plan`] naming the line where TOML has one.
    pub fn read(path: &Path) -> Result<Self, FleetError> {
        let text = fs::read_to_string(path).map_err(|e| FleetError::io(path, "read it", e))?;
        Self::parse(path, &text)
    }

    /// Parses the text of the plan that lies at `path`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, FleetError> {
        // A name that is quoted may hold a line feed: the error stays one line.
        let wrong = |what: String| {
            let what = what.split(char::is_control).collect::<Vec<_>>().join("; ");
            FleetError::Plan { path: path.to_owned(), what }
        };
        let mut plan: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(String::new(), |span| {
                let before = text.get(..span.start).unwrap_or_default();
                format!("line {}: ", before.matches('\n').count() + 1)
            });
            wrong(format!("{line}{}", error.message()))
        })?;
        let home = path.parent().filter(|home| !home.as_os_str().is_empty());
        let home = home.unwrap_or(Path::new("."));
        let home = fs::canonicalize(home).map_err(|e| FleetError::io(home, "find it", e))?;
        plan.directory = home.join(&plan.directory);
        let others = plan.measure.iter_mut().map(|measure| &mut measure.cellbench);
        let others = others.chain(plan.simulate.iter_mut().map(|simulate| &mut simulate.cellbench));
        let of_kernels = plan
            .kernel
            .iter_mut()
            .flat_map(|it| [&mut it.cellbench, &mut it.boot, &mut it.program]);
        let others = others.chain(of_kernels);
        for cellbench in others.flatten() {
            *cellbench = home.join(&*cellbench);
        }
        // A name with a slash or a suffix is a file, any other a preset.
        for machine in plan.simulate.iter_mut().flat_map(|simulate| &mut simulate.machines) {
            if machine.contains('/') || machine.ends_with(".toml") {
                *machine = home.join(&*machine).to_string_lossy().into_owned();
            }
        }
        // Likewise a kernel: with a slash a file, else a package or the running one.
        for kernel in &mut plan.kernel {
            for image in [&mut kernel.vm, &mut kernel.against].into_iter().flatten() {
                if image.contains('/') {
                    *image = home.join(&*image).to_string_lossy().into_owned();
                }
            }
        }
        plan.check().map_err(wrong)?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), String> {
        is_name("name", &self.name)?;
        let directory = self.directory.to_string_lossy();
        if let Some(c) = directory.chars().find(|c| !is_plain(*c)) {
            return Err(format!(
                "directory `{directory}`: Slurm cannot be told of a path with `{c}`; choose another"
            ));
        }
        if self.measure.is_empty() && self.simulate.is_empty() && self.kernel.is_empty() {
            let advice = "nothing to do; add a [[measure]], a [[kernel]] or a [[simulate]]";
            return Err(advice.to_owned());
        }
        let words =
            [("partition", &self.partition), ("account", &self.account), ("qos", &self.qos)];
        for (field, word) in words {
            is_word(field, word.as_deref())?;
        }
        let mut names = BTreeSet::new();
        for (entry, of_its_own) in self.entries() {
            is_name("name", entry.name)?;
            if !names.insert(entry.name) {
                let name = entry.name;
                return Err(format!("two entries are named `{name}`; give each a name of its own"));
            }
            entry.check().and(of_its_own).map_err(|what| entry.at(what))?;
        }
        Ok(())
    }

    /// Returns each entry, and what is wrong with the fields that are its own.
    fn entries(&self) -> impl Iterator<Item = (Scheduling<'_>, Result<(), String>)> {
        let measure = self.measure.iter().map(|it| (it.scheduling(), it.check()));
        let kernel = self.kernel.iter().map(|it| (it.scheduling(), it.check()));
        let simulate = self.simulate.iter().map(|it| (it.scheduling(), it.check()));
        measure.chain(kernel).chain(simulate)
    }
}

impl Measure {
    fn check(&self) -> Result<(), String> {
        is_matrix(self.matrix.as_deref())?;
        are_threads(&self.threads)?;
        are_nodes(&self.nodes)
    }
}

impl Kernels {
    fn check(&self) -> Result<(), String> {
        is_word("vm", self.vm.as_deref())?;
        is_word("against", self.against.as_deref())?;
        are_threads(&self.threads)?;
        are_nodes(&self.nodes)?;
        let needs_vm = self.against.is_some() || self.program.is_some() || self.instructions;
        if needs_vm && self.vm.is_none() {
            return Err("against, program and instructions go with vm".to_owned());
        }
        if self.vm.is_some() && self.boot.is_some() {
            return Err("give vm or boot, not both".to_owned());
        }
        if self.vm.is_some() && self.program.is_none() {
            let why = "vm goes with program, the path of the kernelproof that runs in the guests";
            return Err(why.to_owned());
        }
        let mut kernels = BTreeSet::new();
        for kernel in &self.kernels {
            is_name("kernels", kernel)?;
            if !kernels.insert(kernel) {
                return Err(format!("kernel `{kernel}` stands twice"));
            }
        }
        if self.boot.is_some() == self.kernels.is_empty() {
            return Err("boot and kernels go together".to_owned());
        }
        if self.turns == 0 {
            return Err("turns is 1 or more".to_owned());
        }
        is_binary("boot", self.boot.as_deref())?;
        is_binary("program", self.program.as_deref())
    }
}

impl Simulate {
    fn check(&self) -> Result<(), String> {
        if self.machines.is_empty() || self.seeds.is_empty() {
            return Err("name at least one of machines and one of seeds".to_owned());
        }
        if self.machines.iter().collect::<BTreeSet<_>>().len() < self.machines.len() {
            return Err("a machine stands twice".to_owned());
        }
        if self.seeds.iter().collect::<BTreeSet<_>>().len() < self.seeds.len() {
            return Err("a seed stands twice; it would be counted twice".to_owned());
        }
        if self.shards == 0 || self.cpus == Some(0) {
            return Err("shards and cpus are 1 or more".to_owned());
        }
        is_matrix(self.matrix.as_deref())?;
        are_threads(&self.threads)
    }
}

/// Returns whether a character needs no quotes in a batch script, a path of it or a pattern of Slurm's.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._+-".contains(c)
}

fn is_name(field: &str, name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let whole = !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(fits);
    let advice = "letters, digits, `.`, `_` and `-`, and no `.` or `-` in front";
    whole.then_some(()).ok_or_else(|| format!("{field} `{name}`: write {advice}"))
}

/// Checks a value of a Slurm option: one word without quotes.
fn is_word(field: &str, word: Option<&str>) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._+-:,&|*[]()!@".contains(c);
    match word {
        Some(word) if word.is_empty() || !word.chars().all(fits) => {
            Err(format!("{field} `{word}`: not a word that Slurm takes"))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a matrix, which becomes a flag: no other word may.
fn is_matrix(name: Option<&str>) -> Result<(), String> {
    match name {
        None | Some("quick" | "headline" | "full") => Ok(()),
        Some(other) => Err(format!("unknown matrix `{other}`; write quick, headline or full")),
    }
}

/// Checks that no number of threads is 0. The most that a host has is known there alone.
fn are_threads(threads: &[u32]) -> Result<(), String> {
    let none = threads.contains(&0);
    if none { Err("threads are 1 or more".to_owned()) } else { Ok(()) }
}

fn are_nodes(names: &[String]) -> Result<(), String> {
    let mut nodes = BTreeSet::new();
    for node in names {
        is_name("nodes", node)?;
        if !nodes.insert(node) {
            return Err(format!("node `{node}` stands twice; a host counts once"));
        }
    }
    Ok(())
}

fn is_binary(field: &str, path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let text = path.to_string_lossy();
    if let Some(c) = text.chars().find(|c| !is_plain(*c)) {
        return Err(format!("{field} `{text}`: a path with `{c}`; choose another"));
    }
    path.is_file().then_some(()).ok_or_else(|| format!("{field} `{text}`: no such file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let path = std::env::temp_dir().join("plan.toml");
        let error = Plan::parse(&path, text).expect_err("a bad plan");
        let line = error.to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    }

    #[test]
    fn what_is_wrong_is_one_line_with_its_place() {
        let measure = "[[measure]]\nname = \"a\"\n";
        let cases = [
            ("name = \"x\"\n", "nothing to do"),
            ("name = \"x\"\nnmae = 1\n", "line 2: unknown field `nmae`"),
            ("name = \"x\"\n[[measure]]\nname = \"a\"\nworkload = []\n", "line 4: unknown field"),
            ("name = \"x\"\nmeasure = 3\n", "line 2:"),
            ("name = [\n", "line"),
            ("name = \"x y\"\n[[measure]]\nname = \"a\"\n", "name `x y`"),
            ("name = \"x\\ny\"\n[[measure]]\nname = \"a\"\n", "name `x; y`"),
            ("name = \"x\"\n[[simulate]]\nname = \"s\"\nmachines = []\n", "machines"),
            (
                "name = \"x\"\n[[simulate]]\nname = \"s\"\nmachines = [\"m\"]\nseeds = [1, 1]\n",
                "a seed stands twice",
            ),
            (
                "name = \"x\"\n[[simulate]]\nname = \"s\"\nmachines = [\"m\"]\nshards = 0\n",
                "shards and cpus are 1 or more",
            ),
        ];
        for (text, expected) in cases {
            let line = wrong(text);
            assert!(line.contains("plan.toml: ") && line.contains(expected), "{line}");
        }
        let line = wrong(&format!("name = \"x\"\n{measure}{measure}"));
        assert!(line.contains("two entries are named `a`"), "{line}");
        let line = wrong(&format!("name = \"x\"\n{measure}nodes = [\"n1\", \"n1\"]\n"));
        assert!(line.contains("[[measure]] a: node `n1` stands twice"), "{line}");
        let line = wrong(&format!("name = \"x\"\n{measure}partition = \"a b; rm\"\n"));
        assert!(line.contains("partition `a b; rm`"), "{line}");
        let line = wrong(&format!("name = \"x\"\ndirectory = \"/a%b\"\n{measure}"));
        assert!(line.contains("directory `/a%b`"), "{line}");
        let line = wrong(&format!("name = \"x\"\n{measure}matrix = \"dry-run\"\n"));
        assert!(line.contains("unknown matrix `dry-run`; write quick, headline or full"), "{line}");
        let line = wrong(&format!("name = \"x\"\n{measure}threads = [1, 0]\n"));
        assert!(line.contains("[[measure]] a: threads are 1 or more"), "{line}");
        let kernel = "name = \"x\"\n[[kernel]]\nname = \"k\"\n";
        let line = wrong(&format!("{kernel}kernels = [\"a\", \"b\"]\n"));
        assert!(line.contains("[[kernel]] k: boot and kernels go together"), "{line}");
        let line = wrong(&format!("{kernel}against = \"old\"\n"));
        assert!(
            line.contains("[[kernel]] k: against, program and instructions go with vm"),
            "{line}"
        );
        let line = wrong(&format!("{kernel}vm = \"running\"\n"));
        assert!(line.contains("[[kernel]] k: vm goes with program"), "{line}");
        let line = wrong(&format!("{kernel}boot = \"/no/such\"\nkernels = [\"a\"]\n"));
        assert!(line.contains("[[kernel]] k: boot `/no/such`: no such file"), "{line}");
        let line = wrong(&format!("name = \"x\"\n{measure}cellbench = \"/no/such\"\n"));
        assert!(line.contains("cellbench `/no/such`: no such file"), "{line}");
    }

    #[test]
    fn paths_are_relative_to_the_plan() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("plan.toml");
        let text = "name = \"x\"\ndirectory = \"runs\"\n[[simulate]]\nname = \"s\"\nmachines = [\"desktop\", \"my.toml\"]\n";
        let plan = Plan::parse(&path, text).unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        assert_eq!(plan.directory, home.join("runs"));
        let mine = home.join("my.toml").to_string_lossy().into_owned();
        assert_eq!(plan.simulate[0].machines, ["desktop".to_owned(), mine]);
        assert_eq!((&plan.simulate[0].seeds[..], plan.simulate[0].shards), (&[1][..], 1));
    }
}
