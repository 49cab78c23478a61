//! The CPUs of a host and what they share, as sysfs tells it.
//!
//! Format: `Documentation/ABI/stable/sysfs-devices-system-cpu` and
//! `Documentation/admin-guide/cputopology.rst` of Linux. Groups are told apart by the *lists* of
//! their CPUs, not by the ids next to them: ids repeat between packages (core ids), are -1 where
//! firmware is silent (ARM without PPTT), and moved between files over the years.
//!
//! What firmware does not describe stays `None`: an ARM server whose system-level cache is not in
//! its tables has no LLC groups here, and [`placement`](super::placement) then goes by NUMA node
//! and package.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

mod reader;

use reader::Reader;

use super::affinity;
use super::cpus::{CpuId, CpuSet};
use super::quota::CpuQuota;
use super::roots::Roots;

/// Sort of core that a CPU belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CoreKind {
    /// The fast sort of a hybrid CPU, or the only sort there is.
    Performance,
    /// The slower sort of a hybrid CPU.
    Efficiency,
}

/// One online CPU and the groups it belongs to.
///
/// Group numbers count the groups of the whole host from 0 in order of their first CPU; they are
/// not the ids in sysfs. `None`: the host does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Number of the CPU.
    pub id: CpuId,
    /// Package (socket).
    pub package: Option<u32>,
    /// Die within the package.
    pub die: Option<u32>,
    /// CPUs that share the last-level cache.
    pub llc: Option<u32>,
    /// Physical core.
    pub core: u32,
    /// Position among the online siblings of the core: 0 for the first.
    pub smt_index: u32,
    /// NUMA node, by the kernel's number.
    pub numa_node: Option<u32>,
    /// Sort of core.
    pub kind: CoreKind,
}

/// The CPUs of a host and which of them may be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Online CPUs, ascending.
    pub cpus: Vec<Cpu>,
    /// CPUs that are in the machine (`present`) and not online. Numbers that are only `possible`
    /// are
    /// empty sockets or room for hot-plug, no CPUs.
    pub offline: CpuSet,
    /// Online CPUs that affinity and cpuset let this process use.
    pub usable: CpuSet,
    /// CPU bandwidth limit of the cgroup; `None`: unlimited or not readable.
    pub quota: Option<CpuQuota>,
}

/// Why a topology could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The tree has no CPU list.
    #[error("{}: cannot be read; point --sysfs at a directory laid out as /sys, with devices/system/cpu/online", path.display())]
    NoCpuList {
        /// File that is missing.
        path: PathBuf,
    },
    /// A list does not parse.
    #[error("{}: {source}", path.display())]
    BadList {
        /// File with the list.
        path: PathBuf,
        /// Error in the list.
        source: super::cpus::ParseCpuSetError,
    },
    /// No online CPU may be used.
    #[error("no usable CPU: online are {online}, affinity and cpuset allow {allowed}")]
    NoneUsable {
        /// Online CPUs.
        online: CpuSet,
        /// CPUs this process may use.
        allowed: CpuSet,
    },
    /// The kernel does not say which CPUs this process may use.
    #[error("sched_getaffinity: {0}")]
    Affinity(#[source] std::io::Error),
}

impl Topology {
    /// Reads this machine, as this process may use it.
    ///
    /// # Errors
    /// [`TopologyError`] if sysfs lists no CPUs or none may be used.
    pub fn read() -> Result<Self, TopologyError> {
        let allowed = affinity::current().map_err(TopologyError::Affinity)?;
        Self::read_with(&Roots::live(), Some(&allowed))
    }

    /// Returns a saved tree laid out as `/sys`: every online CPU counts as usable.
    ///
    /// # Errors
    /// [`TopologyError`] if the tree lists no CPUs.
    pub fn from_sysfs(dir: &Path) -> Result<Self, TopologyError> {
        // A path that cannot exist below any tree: a saved `/sys` says nothing about cgroups.
        Self::read_with(&Roots::at(dir, dir.join("no-proc")), None)
    }

    /// Returns the machine below `roots`, restricted to `allowed` if given.
    ///
    /// # Errors
    /// [`TopologyError`] if sysfs lists no CPUs or none may be used.
    pub fn read_with(roots: &Roots, allowed: Option<&CpuSet>) -> Result<Self, TopologyError> {
        let reader = Reader { roots };
        let online = reader.online()?;
        let usable = allowed.map_or_else(|| online.clone(), |allowed| online.intersection(allowed));
        if usable.is_empty() {
            let allowed = allowed.cloned().unwrap_or_default();
            return Err(TopologyError::NoneUsable { online, allowed });
        }
        Ok(Self {
            cpus: reader.cpus(&online)?,
            offline: reader.present()?.difference(&online),
            usable,
            quota: CpuQuota::read(roots),
        })
    }

    /// Returns the numbers of all online CPUs.
    #[must_use]
    pub fn online(&self) -> CpuSet {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// Returns the online CPU with this number.
    #[must_use]
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok().map(|index| &self.cpus[index])
    }

    /// Returns the online CPUs that may be used, ascending.
    pub fn usable_cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| self.usable.contains(cpu.id))
    }

    /// Returns the number of packages; `None` if the host does not say.
    #[must_use]
    pub fn packages(&self) -> Option<usize> {
        known_count(self.cpus.iter().filter_map(|cpu| cpu.package))
    }

    /// Returns the number of dies; `None` if the host does not say.
    #[must_use]
    pub fn dies(&self) -> Option<usize> {
        known_count(self.cpus.iter().filter_map(|cpu| cpu.die))
    }

    /// Returns the number of last-level caches; `None` if the host does not say.
    #[must_use]
    pub fn llc_groups(&self) -> Option<usize> {
        known_count(self.cpus.iter().filter_map(|cpu| cpu.llc))
    }

    /// Returns the number of physical cores with a CPU online.
    #[must_use]
    pub fn cores(&self) -> usize {
        count(self.cpus.iter().map(|cpu| cpu.core))
    }

    /// Returns the number of NUMA nodes with a CPU online; `None` if the host does not say.
    #[must_use]
    pub fn numa_nodes(&self) -> Option<usize> {
        known_count(self.cpus.iter().filter_map(|cpu| cpu.numa_node))
    }

    /// Returns the most CPUs online on one core: 1 without SMT.
    #[must_use]
    pub fn smt_width(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.smt_index as usize + 1).max().unwrap_or(1)
    }

    /// Returns whether `cpus` mix fast and slow cores, which makes their throughputs incomparable.
    #[must_use]
    pub fn mixes_core_kinds(&self, cpus: &[CpuId]) -> bool {
        count(cpus.iter().filter_map(|&id| self.cpu(id)).map(|cpu| cpu.kind)) > 1
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |count: Option<usize>| count.map_or("?".to_owned(), |n| n.to_string());
        writeln!(
            f,
            "{} CPUs online ({}), {} usable ({})",
            self.cpus.len(),
            self.online(),
            self.usable.len(),
            self.usable
        )?;
        writeln!(
            f,
            "packages {}, dies {}, LLC groups {}, cores {}, SMT width {}, NUMA nodes {}",
            known(self.packages()),
            known(self.dies()),
            known(self.llc_groups()),
            self.cores(),
            self.smt_width(),
            known(self.numa_nodes())
        )?;
        if !self.offline.is_empty() {
            writeln!(f, "offline: {}", self.offline)?;
        }
        if let Some(quota) = &self.quota {
            writeln!(f, "cgroup quota: {:.2} CPUs ({})", quota.cpus(), quota.source.display())?;
        }
        let mut groups: BTreeMap<_, CpuSet> = BTreeMap::new();
        for cpu in &self.cpus {
            let key = (cpu.package, cpu.numa_node, cpu.llc, cpu.kind);
            groups.entry(key).or_default().insert(cpu.id);
        }
        let hybrid = self.mixes_core_kinds(&self.online().iter().collect::<Vec<_>>());
        for ((package, node, llc, kind), cpus) in groups {
            let number = |value: Option<u32>| value.map_or("?".to_owned(), |n| n.to_string());
            write!(f, "package {} node {} LLC {}", number(package), number(node), number(llc))?;
            match kind {
                CoreKind::Performance if hybrid => write!(f, " performance cores")?,
                CoreKind::Efficiency => write!(f, " efficiency cores")?,
                CoreKind::Performance => {}
            }
            writeln!(f, ": CPUs {cpus}")?;
        }
        Ok(())
    }
}

fn count<T: Ord>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<std::collections::BTreeSet<T>>().len()
}

/// Counts distinct values; `None` if there is none at all.
fn known_count<T: Ord>(values: impl Iterator<Item = T>) -> Option<usize> {
    Some(count(values)).filter(|&count| count > 0)
}
