//! Settings of the host that a record states and the doctor judges: read here, once, for both.

use std::collections::BTreeSet;
use std::fmt;

use super::cpus::{CpuId, CpuSet};
use super::roots::Roots;

/// Frequency governors of `cpus`; empty if frequency is not in the kernel's hands.
#[must_use]
pub fn governors(roots: &Roots, cpus: impl Iterator<Item = CpuId>) -> BTreeSet<String> {
    cpus.filter_map(|cpu| {
        roots.sys(&format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
    })
    .collect()
}

/// Whether frequency boost is on; `None` if the host does not say.
#[must_use]
pub fn boosts(roots: &Roots) -> Option<bool> {
    let dir = "devices/system/cpu";
    let boost = roots.sys_value::<u8>(&format!("{dir}/cpufreq/boost")).map(|boost| boost == 1);
    let no_turbo = || roots.sys_value::<u8>(&format!("{dir}/intel_pstate/no_turbo"));
    boost.or_else(|| no_turbo().map(|no_turbo| no_turbo == 0))
}

/// CPUs kept from the scheduler or from its tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// CPUs on which the scheduler places nothing by itself (isolcpus).
    pub isolated: CpuSet,
    /// CPUs that run without a timer tick while one task runs (nohz_full).
    pub nohz_full: CpuSet,
}

impl Isolation {
    /// As sysfs lists them; empty where it does not.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        // Without any, the kernel prints an empty line, or "(null)", which is not a list either.
        let list =
            |name: &str| roots.sys_value(&format!("devices/system/cpu/{name}")).unwrap_or_default();
        Self { isolated: list("isolated"), nohz_full: list("nohz_full") }
    }
}

/// What a kernel runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Virtualisation {
    /// A virtual machine, by the hypervisor's name (`hypervisor` if it has none).
    Guest(String),
    /// A container on what seems bare metal.
    Container,
    /// Neither, as far as this process can see.
    None,
}

impl fmt::Display for Virtualisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest(hypervisor) => hypervisor,
            Self::Container => "container",
            Self::None => "none",
        })
    }
}

impl Virtualisation {
    /// By the CPU's flag and the firmware's names; a container by its root file system.
    #[must_use]
    pub fn detect(roots: &Roots) -> Self {
        if let Some(hypervisor) = hypervisor(roots) {
            Self::Guest(hypervisor)
        } else if has_overlay_root(roots) {
            Self::Container
        } else {
            Self::None
        }
    }
}

fn hypervisor(roots: &Roots) -> Option<String> {
    const NAMES: [&str; 7] =
        ["QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Amazon EC2", "Google Compute Engine"];
    let firmware = ["sys_vendor", "product_name"]
        .map(|file| roots.sys(&format!("class/dmi/id/{file}")).unwrap_or_default())
        .join(" ");
    let by_firmware = NAMES.into_iter().find(|name| firmware.contains(name)).map(str::to_owned);
    let by_device_tree = || roots.sys("firmware/devicetree/base/hypervisor/compatible");
    let by_xen = || roots.sys("hypervisor/type");
    match cpuinfo(roots, "flags") {
        // x86: a guest's CPU says so. Bare-metal instances carry their cloud's names too.
        Some(flags) => flags
            .split(' ')
            .any(|flag| flag == "hypervisor")
            .then(|| by_firmware.or_else(by_xen).unwrap_or_else(|| "hypervisor".to_owned())),
        None => by_device_tree()
            .or_else(by_xen)
            .or_else(|| by_firmware.filter(|_| !firmware.contains("metal"))),
    }
}

/// Image-based container runtimes stack an image's layers into an overlay.
fn has_overlay_root(roots: &Roots) -> bool {
    let mounts = roots.proc("self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| {
        let (place, kind) = line.split_once(" - ").unwrap_or((line, ""));
        place.split(' ').nth(4) == Some("/") && kind.starts_with("overlay ")
    })
}

/// The first value of `key` in `/proc/cpuinfo`.
pub(super) fn cpuinfo(roots: &Roots, key: &str) -> Option<String> {
    roots.proc("cpuinfo")?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}
