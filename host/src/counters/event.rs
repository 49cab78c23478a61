//! Which events to count on a CPU, and how perf names them there.

use perf_event::Builder;
use perf_event::events::{Cache, CacheId, CacheOp, CacheResult, Hardware, Raw, Software};

use super::Unavailable;
use super::catalogue;
use crate::cpu_model::CpuModel;
use crate::cpus::{CpuId, CpuSet};
use crate::roots::Roots;

/// How many hardware events go into one group, and so are counted at the same time: the number of
/// general counters that SMT, a watchdog and a fixed-function cycle counter leave everywhere.
const GROUP_SIZE: usize = 3;

/// Form in which perf takes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counted by the kernel.
    Software(Software),
    /// A generic event that the kernel maps to the CPU's.
    Hardware(Hardware),
    /// A generic cache event: misses of loads.
    LoadMisses(CacheId),
    /// A vendor's event.
    Raw {
        /// perf's `config`.
        config: u64,
        /// perf's `config1`.
        config1: u64,
    },
}

/// An event to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventSpec {
    /// Name as `perf list` has it.
    pub name: String,
    /// Description of the counted event, in words.
    pub meaning: String,
    pub(super) kind: Kind,
}

impl EventSpec {
    fn new(name: &str, meaning: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), meaning: meaning.to_owned(), kind }
    }

    pub(super) fn is_software(&self) -> bool {
        matches!(self.kind, Kind::Software(_))
    }

    /// Returns the perf event on `pmu`. Software events include the kernel, in which switches and
    /// migrations happen: counted in user space only they would be a constant zero.
    pub(super) fn builder(&self, pmu: Option<&Pmu>) -> Builder<'static> {
        let mut builder = match self.kind {
            Kind::Software(event) => Builder::new(event),
            Kind::Hardware(event) => Builder::new(event),
            Kind::LoadMisses(which) => {
                Builder::new(Cache { which, operation: CacheOp::READ, result: CacheResult::MISS })
            }
            Kind::Raw { config, config1 } => Builder::new(Raw::new(config).config1(config1)),
        };
        builder.exclude_kernel(!self.is_software());
        if let Some(pmu) = pmu {
            let attrs = builder.attrs_mut();
            match self.kind {
                Kind::Raw { .. } => attrs.type_ = pmu.kind,
                // With several core PMUs the upper half of the config says which one is meant.
                Kind::Hardware(_) | Kind::LoadMisses(_) if pmu.is_one_of_several => {
                    attrs.config |= u64::from(pmu.kind) << 32;
                }
                _ => {}
            }
        }
        builder
    }
}

/// The core PMU of a CPU, as sysfs lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pmu {
    /// Name, such as `cpu`, `cpu_core` or `armv8_pmuv3_0`.
    pub name: String,
    /// perf's number for it.
    kind: u32,
    is_one_of_several: bool,
}

impl Pmu {
    /// Returns the PMU that counts on `cpu`; `None` if the kernel has none.
    #[must_use]
    pub fn of(roots: &Roots, cpu: CpuId) -> Option<Self> {
        let dir = "bus/event_source/devices";
        let is_core = |name: &String| {
            name == "cpu"
                || name.starts_with("cpu_")
                || name.starts_with("armv8")
                || name.starts_with("armv9")
                || (name.starts_with("apple_") && name.ends_with("_pmu"))
        };
        let cores: Vec<String> = roots.sys_names(dir).into_iter().filter(is_core).collect();
        let counts_on = |name: &&String| {
            // `cpus` of a core PMU exists only where there are several.
            let cpus = roots.sys_value::<CpuSet>(&format!("{dir}/{name}/cpus"));
            cpus.is_none_or(|cpus| cpus.contains(cpu))
        };
        let name = cores.iter().find(counts_on)?;
        let kind = roots.sys_value(&format!("{dir}/{name}/type"))?;
        Some(Self { name: name.clone(), kind, is_one_of_several: cores.len() > 1 })
    }

    /// Returns whether the event tables, which are for performance cores, apply.
    fn has_tables(&self) -> bool {
        !matches!(self.name.as_str(), "cpu_atom" | "cpu_lowpower")
    }
}

/// The events to count on one CPU, and the reasons for those that cannot be asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) groups: Vec<Vec<EventSpec>>,
    pub(super) pmu: Option<Pmu>,
    /// Events that have no encoding here, with the reason.
    pub(super) without: Vec<(String, Unavailable)>,
}

/// Name under which a record finds why there are no vendor events.
const CONTENTION: &str = "contention-events";

impl Plan {
    /// Returns everything this tool counts on `cpu`.
    #[must_use]
    pub fn full(roots: &Roots, cpu: CpuId) -> Self {
        let mut plan = Self::basic(roots, cpu);
        let model = CpuModel::read(roots, cpu);
        let unknown = |cpu: String| Unavailable::UnknownCpu { cpu };
        let table = match (&plan.pmu, &model) {
            (None, _) => Err(Unavailable::NoPmu),
            (Some(pmu), Some(model)) if pmu.has_tables() => catalogue::table_for(model)
                .map(|table| (table, model))
                .ok_or_else(|| unknown(model.to_string())),
            (Some(pmu), Some(model)) => Err(unknown(format!("{model}, PMU {}", pmu.name))),
            (Some(pmu), None) => Err(unknown(format!("not in /proc/cpuinfo, PMU {}", pmu.name))),
        };
        match table {
            Ok((table, model)) => {
                let events: Vec<EventSpec> = table
                    .events_of(model)
                    .map(|event| {
                        let (config, config1) = table.config(event);
                        EventSpec::new(&event.name, &event.meaning, Kind::Raw { config, config1 })
                    })
                    .collect();
                plan.groups.extend(events.chunks(GROUP_SIZE).map(<[EventSpec]>::to_vec));
            }
            Err(reason) => plan.without.push((CONTENTION.to_owned(), reason)),
        }
        plan
    }

    /// Returns the events every kernel and PMU have: no vendor's.
    #[must_use]
    pub fn basic(roots: &Roots, cpu: CpuId) -> Self {
        let generic = [
            EventSpec::new(
                "cycles",
                "CPU cycles in user space",
                Kind::Hardware(Hardware::CPU_CYCLES),
            ),
            EventSpec::new(
                "instructions",
                "instructions retired in user space",
                Kind::Hardware(Hardware::INSTRUCTIONS),
            ),
            EventSpec::new(
                "branch-misses",
                "mispredicted branches",
                Kind::Hardware(Hardware::BRANCH_MISSES),
            ),
            EventSpec::new(
                "L1-dcache-load-misses",
                "loads that missed L1D",
                Kind::LoadMisses(CacheId::L1D),
            ),
            EventSpec::new(
                "LLC-load-misses",
                "loads that missed the last-level cache",
                Kind::LoadMisses(CacheId::LL),
            ),
        ];
        let mut groups = vec![software_events().to_vec()];
        groups.extend(generic.chunks(GROUP_SIZE).map(<[EventSpec]>::to_vec));
        Self { groups, pmu: Pmu::of(roots, cpu), without: Vec::new() }
    }

    /// Returns the plan reduced to one event by its name.
    #[must_use]
    pub fn only(mut self, name: &str) -> Option<Self> {
        let event = self.events().find(|event| event.name == name)?.clone();
        self.groups = vec![vec![event]];
        self.without.clear();
        Some(self)
    }

    /// Returns the events, in the order they are opened.
    pub fn events(&self) -> impl Iterator<Item = &EventSpec> {
        self.groups.iter().flatten()
    }

    /// Returns the CPU's PMU, if the kernel has one.
    #[must_use]
    pub fn pmu(&self) -> Option<&Pmu> {
        self.pmu.as_ref()
    }
}

fn software_events() -> [EventSpec; 3] {
    [
        EventSpec::new(
            "context-switches",
            "times the thread left its CPU",
            Kind::Software(Software::CONTEXT_SWITCHES),
        ),
        EventSpec::new(
            "cpu-migrations",
            "times the thread changed CPU",
            Kind::Software(Software::CPU_MIGRATIONS),
        ),
        EventSpec::new(
            "page-faults",
            "page faults, minor and major",
            Kind::Software(Software::PAGE_FAULTS),
        ),
    ]
}
