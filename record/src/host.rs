//! The host as a run found it: what a reader must know to believe or repeat a number.
//!
//! Every field may be unknown: a host does not tell everything, and an unknown is never a guess.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Extra;

/// Hardware, kernel and settings of the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Name of the host, where the user allows it into a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// CPU model as the CPU names itself.
    pub cpu_model: Option<String>,
    /// `x86_64`, `aarch64`, ...
    pub architecture: String,
    /// Microcode revision.
    pub microcode: Option<String>,
    /// Kernel release and version.
    pub kernel: Option<String>,
    /// Frequency governor of the CPUs used.
    pub governor: Option<String>,
    /// Frequency boost: on or off.
    pub boost: Option<bool>,
    /// Simultaneous multithreading: `on`, `off`, `notsupported`, ... as sysfs says it.
    pub smt: Option<String>,
    /// CPUs taken from the scheduler (isolcpus, nohz_full), as the kernel lists them; empty for none.
    pub isolation: Option<String>,
    /// Hypervisor or container; `none` on bare metal that is proved to be; absent where it cannot be
    /// told.
    pub virtualisation: Option<String>,
    /// How the kernel's own spinlocks wait: see [`Spinlocks`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spinlocks: Option<Spinlocks>,
    /// Preemption model of the kernel.
    pub preemption: Option<String>,
    /// Clock source of the kernel.
    pub clock_source: Option<String>,
    /// Memory of the host.
    pub memory_bytes: Option<u64>,
    /// CPUs and caches.
    pub topology: Topology,
    /// Fields of a newer writer.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Forms of a kernel's queued spinlocks. A guest's kernel chooses one when it boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spinlocks {
    /// As on bare metal.
    Queued,
    /// Waiters can halt; newcomers may pass the queue; a release is a read-modify-write.
    Paravirt,
    /// All waiters try to set the word.
    TestAndSet,
    /// A form of a newer writer.
    #[serde(other)]
    Other,
}

/// Counts and places of the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// CPUs online that the run may use.
    pub cpus_online: u32,
    /// Packages (sockets); none: the host does not say.
    #[serde(deserialize_with = "known")]
    pub packages: Option<u32>,
    /// Groups of CPUs that share a last-level cache; none: the host does not say.
    #[serde(deserialize_with = "known")]
    pub llc_groups: Option<u32>,
    /// Physical cores.
    pub cores: u32,
    /// NUMA nodes; none: the host does not say.
    #[serde(deserialize_with = "known")]
    pub numa_nodes: Option<u32>,
    /// Each CPU's place, in order of CPU number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<CpuPlace>,
}

/// Reads a count; records of older writers hold 0 where the host did not say.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.filter(|&count| count > 0))
}

/// Where a CPU sits. Group numbers are the host's own; absent where sysfs is silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuPlace {
    /// CPU number.
    pub cpu: u32,
    /// Physical package of the CPU.
    pub package: Option<u32>,
    /// Die within the package.
    pub die: Option<u32>,
    /// Last-level cache group.
    pub llc: Option<u32>,
    /// Physical core.
    pub core: Option<u32>,
    /// Which of the core's siblings, from 0.
    pub smt_index: Option<u32>,
    /// NUMA node.
    pub numa_node: Option<u32>,
}

/// Something about the host that bears on the results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Short stable name, such as `governor`.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// Fact that was found, in a sentence.
    pub text: String,
    /// Effect on results, in a sentence.
    #[serde(default)]
    pub effect: String,
    /// Command or setting that changes it; empty if nothing can.
    #[serde(default)]
    pub fix: String,
}

/// How much a finding matters, mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Info,
    /// Results are noisier or biased.
    Warning,
    /// Results of this host should not be used.
    Unfit,
}
