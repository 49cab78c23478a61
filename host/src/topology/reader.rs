//! Reader of `/sys` for the topology: lists, masks where lists are missing, and folders where both
//! are missing, as saved trees and old kernels have them.

use std::collections::BTreeMap;

use super::{CoreKind, Cpu, TopologyError};
use crate::cpu_model::CpuModel;
use crate::cpus::{CpuId, CpuSet, ParseCpuSetError};
use crate::roots::Roots;

const CPU_DIR: &str = "devices/system/cpu";

/// Reader of the tree below `roots.sys`.
pub(super) struct Reader<'a> {
    pub(super) roots: &'a Roots,
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
    /// Returns every online CPU with its groups.
    pub(super) fn cpus(&self, online: &CpuSet) -> Result<Vec<Cpu>, TopologyError> {
        let nodes = self.nodes()?;
        let kinds = self.kinds(online)?;
        let llcs = self.llcs(online)?;
        let (mut packages, mut dies, mut llc_numbers, mut cores) =
            (Numbering::new(), Numbering::new(), Numbering::new(), Numbering::new());
        let mut cpus = Vec::with_capacity(online.len());
        for id in online.iter() {
            let siblings = self.siblings(id, online)?.unwrap_or_else(|| CpuSet::from_iter([id]));
            let package = self.package(id, online)?;
            let die = self.die(id, online)?.or_else(|| package.clone());
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

    /// Returns the CPUs of the core of `id`.
    fn siblings(&self, id: CpuId, online: &CpuSet) -> Result<Option<CpuSet>, TopologyError> {
        self.group(id, &["core_cpus", "thread_siblings"], online)
    }

    /// Returns the package of `id` as a set. A `physical_package_id` of -1 says that firmware does
    /// not tell; the sibling list next to it is then the kernel's filler.
    fn package(&self, id: CpuId, online: &CpuSet) -> Result<Option<CpuSet>, TopologyError> {
        match self.topology_id(id, "physical_package_id") {
            Some(0..) => self.group(id, &["package_cpus", "core_siblings"], online),
            _ => Ok(None),
        }
    }

    /// Returns the die of `id` as a set, or `None` where the package is the die: before Linux 5.3
    /// there was no die, and a `die_id` of -1 stands beside a list that names the CPU alone.
    fn die(&self, id: CpuId, online: &CpuSet) -> Result<Option<CpuSet>, TopologyError> {
        match self.topology_id(id, "die_id") {
            Some(..=-1) => Ok(None),
            _ => self.group(id, &["die_cpus"], online),
        }
    }

    fn topology_id(&self, id: CpuId, name: &str) -> Option<i64> {
        self.roots.sys_value(&format!("{CPU_DIR}/cpu{id}/topology/{name}"))
    }

    /// Returns the first of `groups` in the topology directory of `id`, restricted to online CPUs.
    fn group(
        &self,
        id: CpuId,
        groups: &[&str],
        online: &CpuSet,
    ) -> Result<Option<CpuSet>, TopologyError> {
        for group in groups {
            let stem = format!("{CPU_DIR}/cpu{id}/topology/{group}");
            if let Some(set) = self.list_or_mask(&format!("{stem}_list"), &stem)? {
                let set = set.intersection(online);
                // A list that leaves out its own CPU describes nothing.
                return Ok(set.contains(id).then_some(set));
            }
        }
        Ok(None)
    }

    /// Returns the last-level cache groups: the CPUs that share each CPU's cache of the highest level.
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
                let shared =
                    self.list_or_mask(&file("shared_cpu_list"), &file("shared_cpu_map"))?;
                let Some(cpus) = shared else { continue };
                if highest.as_ref().is_none_or(|(best, _)| level > *best) {
                    highest = Some((level, cpus.intersection(online)));
                }
            }
            let Some((level, cpus)) = highest else { continue };
            let core = self.siblings(id, online)?;
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
            let dir = format!("devices/system/node/{name}");
            if let Some(cpus) =
                self.list_or_mask(&format!("{dir}/cpulist"), &format!("{dir}/cpumap"))?
            {
                nodes.extend(cpus.iter().map(|cpu| (cpu, node)));
            }
        }
        Ok(nodes)
    }

    /// Returns the slower CPUs of a hybrid machine. x86 lists the CPUs of each sort with the sort's
    /// PMU; Arm and RISC-V give each CPU a capacity, of which the fastest has the largest.
    fn kinds(&self, online: &CpuSet) -> Result<BTreeMap<CpuId, CoreKind>, TopologyError> {
        let mut kinds = BTreeMap::new();
        for slow in ["cpu_atom", "cpu_lowpower"] {
            // Trees saved without `/sys/bus` have the PMU below `devices` alone.
            for dir in ["bus/event_source/devices", "devices"] {
                if let Some(cpus) = self.list(&format!("{dir}/{slow}/cpus"))? {
                    kinds.extend(cpus.iter().map(|cpu| (cpu, CoreKind::Efficiency)));
                }
            }
        }
        kinds.extend(
            self.slow_by_capacity(online).into_iter().map(|cpu| (cpu, CoreKind::Efficiency)),
        );
        Ok(kinds)
    }

    /// Returns the CPUs whose sort of core is clearly slower than the fastest.
    ///
    /// Capacities differ a little between cores of one sort, since firmware derives them from each
    /// core's highest frequency. So a sort (cores of one model) is as fast as its fastest core, and
    /// a few per cent below the fastest is not another sort. Without models a CPU is its own sort.
    fn slow_by_capacity(&self, online: &CpuSet) -> Vec<CpuId> {
        /// Share of the largest capacity from which on a core counts as fast.
        const FAST: f64 = 0.95;
        let capacity = |cpu: CpuId| -> Option<f64> {
            self.roots.sys_value(&format!("{CPU_DIR}/cpu{cpu}/cpu_capacity"))
        };
        /// A model, or a CPU without one.
        type Sort = (Option<u32>, Option<CpuId>);
        let mut sorts: BTreeMap<Sort, (f64, Vec<CpuId>)> = BTreeMap::new();
        for cpu in online.iter() {
            let Some(capacity) = capacity(cpu) else { continue };
            let model = CpuModel::of_exactly(self.roots, cpu).map(|model| model.model);
            let alone = model.is_none().then_some(cpu);
            let sort = sorts.entry((model, alone)).or_insert((0.0, Vec::new()));
            sort.0 = sort.0.max(capacity);
            sort.1.push(cpu);
        }
        let fastest = sorts.values().map(|&(capacity, _)| capacity).fold(0.0, f64::max);
        sorts
            .into_values()
            .filter(|&(capacity, _)| capacity < FAST * fastest)
            .flat_map(|(_, cpus)| cpus)
            .collect()
    }

    /// Returns the online CPUs: the kernel's list or, in trees without one, the CPUs that have a
    /// folder and are not switched off in it.
    pub(super) fn online(&self) -> Result<CpuSet, TopologyError> {
        let path = format!("{CPU_DIR}/online");
        let online = match self.list(&path)? {
            Some(online) => online,
            None => self
                .folders()
                .filter(|cpu| {
                    self.roots.sys_value::<u32>(&format!("{CPU_DIR}/cpu{cpu}/online")) != Some(0)
                })
                .collect(),
        };
        if online.is_empty() {
            return Err(TopologyError::NoCpuList { path: self.roots.sys.join(path) });
        }
        Ok(online)
    }

    /// Returns the CPUs that are in the machine, online or not.
    pub(super) fn present(&self) -> Result<CpuSet, TopologyError> {
        let listed = self.list(&format!("{CPU_DIR}/present"))?;
        Ok(listed.unwrap_or_else(|| self.folders().collect()))
    }

    /// Returns the CPUs that have a folder.
    fn folders(&self) -> impl Iterator<Item = CpuId> {
        let names = self.roots.sys_names(CPU_DIR);
        names.into_iter().filter_map(|name| Some(CpuId(name.strip_prefix("cpu")?.parse().ok()?)))
    }

    /// Returns a list of CPUs, or the same set from its mask where the list is missing.
    fn list_or_mask(&self, list: &str, mask: &str) -> Result<Option<CpuSet>, TopologyError> {
        if let Some(set) = self.list(list)? {
            return Ok(Some(set));
        }
        self.parse(mask, CpuSet::from_mask)
    }

    fn list(&self, path: &str) -> Result<Option<CpuSet>, TopologyError> {
        self.parse(path, str::parse)
    }

    fn parse(
        &self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<CpuSet, ParseCpuSetError>,
    ) -> Result<Option<CpuSet>, TopologyError> {
        self.roots
            .sys(path)
            .map(|text| parse(&text))
            .transpose()
            .map_err(|source| TopologyError::BadList { path: self.roots.sys.join(path), source })
    }
}
