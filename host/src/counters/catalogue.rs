//! The tables of contention events by CPU model: data files under `host/events/`, each with its
//! source and the models it is for.
//!
//! Encodings are the vendors'; a number that is wrong counts something else without complaint, so
//! an event whose encoding on a model is not in the vendor's list is left out.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::cpu_model::CpuModel;

/// The files. To add a table, add its line here.
const FILES: [(&str, &str); 16] = [
    ("intel-haswell.toml", include_str!("../../events/intel-haswell.toml")),
    ("intel-skylake.toml", include_str!("../../events/intel-skylake.toml")),
    ("intel-icelake.toml", include_str!("../../events/intel-icelake.toml")),
    ("intel-golden-cove.toml", include_str!("../../events/intel-golden-cove.toml")),
    ("intel-lion-cove.toml", include_str!("../../events/intel-lion-cove.toml")),
    ("intel-crestmont.toml", include_str!("../../events/intel-crestmont.toml")),
    ("intel-darkmont.toml", include_str!("../../events/intel-darkmont.toml")),
    ("amd-zen1.toml", include_str!("../../events/amd-zen1.toml")),
    ("amd-zen2.toml", include_str!("../../events/amd-zen2.toml")),
    ("amd-zen3.toml", include_str!("../../events/amd-zen3.toml")),
    ("amd-zen4.toml", include_str!("../../events/amd-zen4.toml")),
    ("amd-zen5.toml", include_str!("../../events/amd-zen5.toml")),
    ("amd-zen6.toml", include_str!("../../events/amd-zen6.toml")),
    ("arm-neoverse.toml", include_str!("../../events/arm-neoverse.toml")),
    ("arm-ampereone.toml", include_str!("../../events/arm-ampereone.toml")),
    ("arm-apple.toml", include_str!("../../events/arm-apple.toml")),
];

/// Events of one generation of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Short name.
    pub name: String,
    /// The CPUs in words.
    pub title: String,
    /// Where the encodings are published.
    pub source: String,
    /// How event fields become a perf config.
    pub format: Format,
    /// The CPUs in numbers.
    #[serde(rename = "cpu")]
    pub cpus: Vec<Match>,
    /// The events.
    #[serde(rename = "event")]
    pub events: Vec<TableEvent>,
}

/// Layout of a core PMU's event selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Event 8 bits, unit mask 8 bits; offcore events take a second register.
    Intel,
    /// Event 12 bits, of which 4 at bit 32; unit mask 8 bits.
    Amd,
    /// Event 16 bits.
    Arm,
}

/// CPUs a table is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Vendor as in [`CpuModel::vendor`].
    pub vendor: String,
    /// Family as in [`CpuModel::family`].
    #[serde(default)]
    pub family: u32,
    /// Models as in [`CpuModel::model`].
    pub models: Models,
}

/// A set of model numbers, written `0x10-0x1f, 0x61`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Models(BTreeSet<u32>);

/// One event of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableEvent {
    /// Name as `perf list` has it.
    pub name: String,
    /// Meaning of the event, by one word across vendors.
    pub role: Role,
    /// Event select.
    pub event: u64,
    /// Unit mask.
    #[serde(default)]
    pub umask: u64,
    /// Offcore response mask (Intel).
    #[serde(default)]
    pub offcore_rsp: u64,
    /// Only on these of the table's models; on all if absent.
    pub models: Option<Models>,
    /// Description of the counted event, in words.
    pub meaning: String,
}

/// Meaning of a contention event, so that reports can line up vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Loads served by a modified line of another core.
    Hitm,
    /// The same from another package.
    RemoteHitm,
    /// Loads that another core forwarded.
    SnoopForward,
    /// The same from another package.
    RemoteForward,
    /// Loads that found a clean copy in another core.
    SnoopHit,
    /// Reads for ownership.
    Rfo,
    /// Reads for ownership that the core's own caches served.
    RfoHit,
    /// Reads for ownership that they did not.
    RfoMiss,
    /// Reads for ownership served by a modified line of another core.
    RfoHitm,
    /// Requests to make a held line writable.
    Upgrade,
    /// Locked instructions.
    Locked,
    /// Locked instructions without speculation.
    LockedSlow,
    /// Locked instructions that locked the bus.
    BusLock,
    /// Cycles with the cache locked.
    LockCycles,
    /// Pipeline flushes by memory ordering.
    MachineClear,
    /// Fills from the core's own L2.
    FillOwnL2,
    /// Fills from the same CCX.
    FillSameCcx,
    /// Fills from another CCX of the node.
    FillOtherCcx,
    /// Fills from a cache of another node.
    FillRemoteCache,
    /// Fills from outside the core's cluster.
    FillOutsideCluster,
    /// Accesses answered by another chip.
    RemoteAccess,
    /// Store-exclusives that failed.
    ExclusiveFail,
    /// Store-exclusives that succeeded.
    ExclusivePass,
    /// Load-exclusives that were executed.
    ExclusiveLoad,
    /// Compare-and-swap instructions done near, whatever their outcome.
    Cas,
    /// Compare-and-swap instructions done near that succeeded.
    CasPass,
    /// Lines taken away by other cores.
    Invalidation,
}

impl Models {
    /// Returns whether `model` is in the set.
    #[must_use]
    pub fn contains(&self, model: u32) -> bool {
        self.0.contains(&model)
    }

    /// Returns the models, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl TryFrom<String> for Models {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Models {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let model = |text: &str| {
            let digits = text.trim().strip_prefix("0x")?;
            u32::from_str_radix(digits, 16).ok()
        };
        let mut models = BTreeSet::new();
        for part in text.split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            match (model(low), model(high)) {
                (Some(low), Some(high)) if low <= high => models.extend(low..=high),
                _ => {
                    return Err(format!(
                        "`{part}` is not a model such as 0x6a or a range such as 0x10-0x1f"
                    ));
                }
            }
        }
        Ok(Self(models))
    }
}

impl Table {
    /// Returns whether the table is for `cpu`.
    #[must_use]
    pub fn matches(&self, cpu: &CpuModel) -> bool {
        self.cpus.iter().any(|of| {
            of.vendor == cpu.vendor && of.family == cpu.family && of.models.contains(cpu.model)
        })
    }

    /// Returns the table's events that exist on `cpu`.
    pub fn events_of<'a>(&'a self, cpu: &'a CpuModel) -> impl Iterator<Item = &'a TableEvent> {
        let on_cpu = |event: &&TableEvent| {
            event.models.as_ref().is_none_or(|models| models.contains(cpu.model))
        };
        self.events.iter().filter(on_cpu)
    }

    /// Returns perf's `config` and `config1` for one of the table's events.
    #[must_use]
    pub fn config(&self, event: &TableEvent) -> (u64, u64) {
        match self.format {
            Format::Intel => (event.event | event.umask << 8, event.offcore_rsp),
            Format::Amd => {
                (event.event & 0xff | event.umask << 8 | (event.event >> 8 & 0xf) << 32, 0)
            }
            Format::Arm => (event.event, 0),
        }
    }
}

/// Returns every table.
///
/// # Panics
/// If a file does not parse, which the tests of this crate exclude.
#[must_use]
pub fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    TABLES.get_or_init(|| {
        FILES
            .iter()
            .map(|(file, text)| {
                toml::from_str(text).unwrap_or_else(|error| panic!("host/events/{file}: {error}"))
            })
            .collect()
    })
}

/// Returns the table for `cpu`, if there is one.
#[must_use]
pub fn table_for(cpu: &CpuModel) -> Option<&'static Table> {
    tables().iter().find(|table| table.matches(cpu))
}
