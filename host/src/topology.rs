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

use super::affinity;
use super::cpus::{CpuId, CpuSet};
use super::quota::CpuQuota;
use super::roots::Roots;

const CPU_DIR: &str = "devices/system/cpu";

/// What sort of core a CPU belongs to.
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
    /// Die.
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
    /// CPUs the kernel knows of (`possible`) that are not online.
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
        /// What is wrong with it.
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
    /// This machine, as this process may use it.
    ///
    /// # Errors
    /// [`TopologyError`] if sysfs lists no CPUs or none may be used.
    pub fn read() -> Result<Self, TopologyError> {
        let allowed = affinity::current().map_err(TopologyError::Affinity)?;
        Self::read_with(&Roots::live(), Some(&allowed))
    }

    /// A saved tree laid out as `/sys`: every online CPU counts as usable.
    ///
    /// # Errors
    /// [`TopologyError`] if the tree lists no CPUs.
    pub fn from_sysfs(dir: &Path) -> Result<Self, TopologyError> {
        // A path that cannot exist below any tree: a saved `/sys` says nothing about cgroups.
        Self::read_with(&Roots::at(dir, dir.join("no-proc")), None)
    }

    /// The machine below `roots`, restricted to `allowed` if given.
    ///
    /// # Errors
    /// [`TopologyError`] if sysfs lists no CPUs or none may be used.
    pub fn read_with(roots: &Roots, allowed: Option<&CpuSet>) -> Result<Self, TopologyError> {
        let reader = Reader { roots };
        let online = reader.required_list("online")?;
        let possible = reader.list(&format!("{CPU_DIR}/possible"))?.unwrap_or_default();
        let usable = allowed.map_or_else(|| online.clone(), |allowed| online.intersection(allowed));
        if usable.is_empty() {
            let allowed = allowed.cloned().unwrap_or_default();
            return Err(TopologyError::NoneUsable { online, allowed });
        }
        Ok(Self {
            cpus: reader.cpus(&online)?,
            offline: possible.difference(&online),
            usable,
            quota: CpuQuota::read(roots),
        })
    }

    /// Numbers of all online CPUs.
    #[must_use]
    pub fn online(&self) -> CpuSet {
        self.cpus.iter().map(|cpu| cpu.id).collect()
    }

    /// The online CPU with this number.
    #[must_use]
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&id, |cpu| cpu.id).ok().map(|index| &self.cpus[index])
    }

    /// The online CPUs that may be used, ascending.
    pub fn usable_cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| self.usable.contains(cpu.id))
    }

    /// Number of packages; 0 if the host does not say.
    #[must_use]
    pub fn packages(&self) -> usize {
        count(self.cpus.iter().filter_map(|cpu| cpu.package))
    }

    /// Number of dies; 0 if the host does not say.
    #[must_use]
    pub fn dies(&self) -> usize {
        count(self.cpus.iter().filter_map(|cpu| cpu.die))
    }

    /// Number of last-level caches; 0 if the host does not say.
    #[must_use]
    pub fn llc_groups(&self) -> usize {
        count(self.cpus.iter().filter_map(|cpu| cpu.llc))
    }

    /// Number of physical cores with a CPU online.
    #[must_use]
    pub fn cores(&self) -> usize {
        count(self.cpus.iter().map(|cpu| cpu.core))
    }

    /// Number of NUMA nodes with a CPU online; 0 if the host does not say.
    #[must_use]
    pub fn numa_nodes(&self) -> usize {
        count(self.cpus.iter().filter_map(|cpu| cpu.numa_node))
    }

    /// Most CPUs online on one core: 1 without SMT.
    #[must_use]
    pub fn smt_width(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.smt_index as usize + 1).max().unwrap_or(1)
    }

    /// Whether `cpus` mix fast and slow cores, which makes their throughputs incomparable.
    #[must_use]
    pub fn mixes_core_kinds(&self, cpus: &[CpuId]) -> bool {
        count(cpus.iter().filter_map(|&id| self.cpu(id)).map(|cpu| cpu.kind)) > 1
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |count: usize| if count == 0 { "?".to_owned() } else { count.to_string() };
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

/// Reads the tree below `roots.sys`.
struct Reader<'a> {
    roots: &'a Roots,
}

/// Numbers groups in order of appearance, telling them apart by a key.
struct Numbering<K>(BTreeMap<K, u32>);

impl<K: Ord> Numbering<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn of(&mut self, key: K) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(key).or_insert(next)
    }
}

impl Reader<'_> {
    fn cpus(&self, online: &CpuSet) -> Result<Vec<Cpu>, TopologyError> {
        let nodes = self.nodes()?;
        let kinds = self.kinds(online)?;
        let llcs = self.llcs(online)?;
        let (mut packages, mut dies, mut llc_numbers, mut cores) =
            (Numbering::new(), Numbering::new(), Numbering::new(), Numbering::new());
        let mut cpus = Vec::with_capacity(online.len());
        for id in online.iter() {
            let siblings = self
                .group(id, &["core_cpus_list", "thread_siblings_list"], online)?
                .unwrap_or_else(|| CpuSet::from_iter([id]));
            let package = self.package(id, online)?;
            // Before Linux 5.3 there was no die; then a package is one.
            let die = self.group(id, &["die_cpus_list"], online)?.or_else(|| package.clone());
            let smt_index = siblings.iter().take_while(|&sibling| sibling < id).count() as u32;
            cpus.push(Cpu {
                id,
                package: package.map(|set| packages.of(set)),
                die: die.map(|set| dies.of(set)),
                llc: llcs.get(&id).map(|set| llc_numbers.of(set.clone())),
                core: cores.of(siblings),
                smt_index,
                numa_node: nodes.get(&id).copied(),
                kind: kinds.get(&id).copied().unwrap_or(CoreKind::Performance),
            });
        }
        Ok(cpus)
    }

    /// The package of `id` as a set. A `physical_package_id` of -1 says that firmware does not
    /// tell; the sibling list next to it is then the kernel's filler.
    fn package(&self, id: CpuId, online: &CpuSet) -> Result<Option<CpuSet>, TopologyError> {
        let number: Option<i64> =
            self.roots.sys_value(&format!("{CPU_DIR}/cpu{id}/topology/physical_package_id"));
        match number {
            Some(0..) => self.group(id, &["package_cpus_list", "core_siblings_list"], online),
            _ => Ok(None),
        }
    }

    /// The first of `files` in the topology directory of `id`, restricted to online CPUs.
    fn group(
        &self,
        id: CpuId,
        files: &[&str],
        online: &CpuSet,
    ) -> Result<Option<CpuSet>, TopologyError> {
        for file in files {
            if let Some(set) = self.list(&format!("{CPU_DIR}/cpu{id}/topology/{file}"))? {
                let set = set.intersection(online);
                // A list that leaves out its own CPU describes nothing.
                return Ok(set.contains(id).then_some(set));
            }
        }
        Ok(None)
    }

    /// Last-level cache groups: the CPUs that share each CPU's cache of the highest level.
    ///
    /// A cache of level 2 or below that no second core shares anywhere on a host of several cores
    /// is not the last level; firmware leaves the real one (a system-level cache) out.
    fn llcs(&self, online: &CpuSet) -> Result<BTreeMap<CpuId, CpuSet>, TopologyError> {
        let mut found = BTreeMap::new();
        let mut shared_or_l3 = online.len() == 1;
        for id in online.iter() {
            let mut highest: Option<(u32, CpuSet)> = None;
            let dir = format!("{CPU_DIR}/cpu{id}/cache");
            for index in self.roots.sys_names(&dir) {
                let file = |name: &str| format!("{dir}/{index}/{name}");
                let level: Option<u32> = self.roots.sys_value(&file("level"));
                let Some(level) = level else { continue };
                let Some(cpus) = self.list(&file("shared_cpu_list"))? else { continue };
                if highest.as_ref().is_none_or(|(best, _)| level > *best) {
                    highest = Some((level, cpus.intersection(online)));
                }
            }
            let Some((level, cpus)) = highest else { continue };
            let core = self.group(id, &["core_cpus_list", "thread_siblings_list"], online)?;
            shared_or_l3 |= level >= 3 || cpus.len() > core.map_or(1, |core| core.len());
            if cpus.contains(id) {
                found.insert(id, cpus);
            }
        }
        Ok(if shared_or_l3 { found } else { BTreeMap::new() })
    }

    fn nodes(&self) -> Result<BTreeMap<CpuId, u32>, TopologyError> {
        let mut nodes = BTreeMap::new();
        for name in self.roots.sys_names("devices/system/node") {
            let Some(node) = name.strip_prefix("node").and_then(|n| n.parse().ok()) else {
                continue;
            };
            if let Some(cpus) = self.list(&format!("devices/system/node/{name}/cpulist"))? {
                nodes.extend(cpus.iter().map(|cpu| (cpu, node)));
            }
        }
        Ok(nodes)
    }

    /// Hybrid CPUs: x86 lists the CPUs of each sort with the sort's PMU, ARM and RISC-V give each
    /// CPU a capacity (the fastest has the largest).
    fn kinds(&self, online: &CpuSet) -> Result<BTreeMap<CpuId, CoreKind>, TopologyError> {
        let mut kinds = BTreeMap::new();
        for slow in ["cpu_atom", "cpu_lowpower"] {
            if let Some(cpus) = self.list(&format!("bus/event_source/devices/{slow}/cpus"))? {
                kinds.extend(cpus.iter().map(|cpu| (cpu, CoreKind::Efficiency)));
            }
        }
        let capacity = |cpu: CpuId| -> Option<u32> {
            self.roots.sys_value(&format!("{CPU_DIR}/cpu{cpu}/cpu_capacity"))
        };
        let capacities: Vec<(CpuId, u32)> =
            online.iter().filter_map(|cpu| Some((cpu, capacity(cpu)?))).collect();
        let fastest = capacities.iter().map(|&(_, capacity)| capacity).max();
        kinds.extend(
            capacities
                .iter()
                .filter(|&&(_, capacity)| Some(capacity) < fastest)
                .map(|&(cpu, _)| (cpu, CoreKind::Efficiency)),
        );
        Ok(kinds)
    }

    fn required_list(&self, name: &str) -> Result<CpuSet, TopologyError> {
        let path = format!("{CPU_DIR}/{name}");
        match self.list(&path)? {
            Some(set) if !set.is_empty() => Ok(set),
            _ => Err(TopologyError::NoCpuList { path: self.roots.sys.join(path) }),
        }
    }

    fn list(&self, path: &str) -> Result<Option<CpuSet>, TopologyError> {
        self.roots
            .sys(path)
            .map(|text| text.parse())
            .transpose()
            .map_err(|source| TopologyError::BadList { path: self.roots.sys.join(path), source })
    }
}
