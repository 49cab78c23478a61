//! Which CPU this is, by the numbers that event tables are keyed on.

use std::fmt;

use crate::cpus::CpuId;
use crate::roots::Roots;

/// Vendor, family and model of a CPU, as `/proc/cpuinfo` gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    /// `GenuineIntel`, `AuthenticAMD`, or `Arm` for a core designed by Arm.
    pub vendor: String,
    /// CPU family (x86); 0 on ARM.
    pub family: u32,
    /// Model (x86) or part number from MIDR (ARM).
    pub model: u32,
    /// The CPU's name for itself, if it has one.
    pub name: Option<String>,
}

impl CpuModel {
    /// Returns the model of `cpu`; without its own entry (sandboxes show fewer) the first one.
    /// `None` if
    /// `/proc/cpuinfo` has neither x86 nor ARM numbers.
    #[must_use]
    pub fn read(roots: &Roots, cpu: CpuId) -> Option<Self> {
        let text = roots.proc("cpuinfo")?;
        let entries: Vec<&str> = text.split("\n\n").collect();
        let own = entries
            .iter()
            .find(|entry| field(entry, "processor").and_then(number) == Some(cpu.0))
            .or(entries.first())?;
        Self::x86(own).or_else(|| Self::arm(own))
    }

    /// Reads the model of `cpu` from its own entry in `/proc/cpuinfo`; `None` if it has none there:
    /// the entry of another CPU, which [`read`](Self::read) falls back on, may be another model.
    #[must_use]
    pub(crate) fn of_exactly(roots: &Roots, cpu: CpuId) -> Option<Self> {
        let text = roots.proc("cpuinfo")?;
        let own = text
            .split("\n\n")
            .find(|entry| field(entry, "processor").and_then(number) == Some(cpu.0))?;
        Self::x86(own).or_else(|| Self::arm(own))
    }

    fn x86(entry: &str) -> Option<Self> {
        Some(Self {
            vendor: field(entry, "vendor_id")?.to_owned(),
            family: field(entry, "cpu family").and_then(number)?,
            model: field(entry, "model").and_then(number)?,
            name: field(entry, "model name").map(str::to_owned),
        })
    }

    fn arm(entry: &str) -> Option<Self> {
        let implementer = field(entry, "CPU implementer").and_then(number)?;
        // As arch/arm64/include/asm/cputype.h of Linux numbers them.
        let vendor = match implementer {
            0x41 => "Arm".to_owned(),
            0x61 => "Apple".to_owned(),
            0x6d => "Microsoft".to_owned(),
            0xc0 => "Ampere".to_owned(),
            other => format!("implementer {other:#04x}"),
        };
        let model = field(entry, "CPU part").and_then(number)?;
        Some(Self { vendor, family: 0, model, name: None })
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}, ")?;
        }
        if self.family == 0 {
            write!(f, "{} part {:#x}", self.vendor, self.model)
        } else {
            write!(f, "{} family {:#x} model {:#x}", self.vendor, self.family, self.model)
        }
    }
}

/// Returns the value of `key` in an entry of lines `key : value`.
fn field<'a>(entry: &'a str, key: &str) -> Option<&'a str> {
    entry.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim())
    })
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
