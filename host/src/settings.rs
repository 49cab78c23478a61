//! Settings of the host that a record states and the doctor judges: read here, once, for both.

use std::collections::BTreeSet;

use cellbench_record::Spinlocks;

use super::cpus::{CpuId, CpuSet};
use super::roots::Roots;
use super::virtualisation::Virtualisation;
#[cfg(target_arch = "x86_64")]
use super::virtualisation::cpuid_signature;

/// Returns the frequency governors of `cpus`; empty if frequency is not in the kernel's hands.
#[must_use]
pub fn governors(roots: &Roots, cpus: impl Iterator<Item = CpuId>) -> BTreeSet<String> {
    cpus.filter_map(|cpu| {
        roots.sys(&format!("devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
    })
    .collect()
}

/// Returns whether frequency boost is on; `None` if the host does not say.
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
    /// Returns them as sysfs lists them; empty where it does not.
    #[must_use]
    pub fn read(roots: &Roots) -> Self {
        // Without any, the kernel prints an empty line, or "(null)", which is not a list either.
        let list =
            |name: &str| roots.sys_value(&format!("devices/system/cpu/{name}")).unwrap_or_default();
        Self { isolated: list("isolated"), nohz_full: list("nohz_full") }
    }
}

/// Returns how the kernel's spinlocks wait. Linux on x86 decides by what the hypervisor offers;
/// `None` where
/// that cannot be known: under other hypervisors than KVM, or of another machine.
pub(super) fn spinlocks(roots: &Roots) -> Option<Spinlocks> {
    if *roots != Roots::live() {
        return None;
    }
    match Virtualisation::detect(roots) {
        Virtualisation::Guest(_) => {
            let parameters = roots.proc("cmdline")?;
            let compiled = roots.proc("kallsyms")?.contains(" __pv_queued_spin_lock_slowpath");
            let cpus = roots.sys("devices/system/cpu/possible")?;
            let alone = cpus == "0" || parameters.split(' ').any(|word| word == "nopvspin");
            compiled.then(|| kvm_features().map(|kvm| guest_spinlocks(kvm, alone)))?
        }
        Virtualisation::Container | Virtualisation::Unknown => None,
        Virtualisation::None => Some(Spinlocks::Queued),
    }
}

/// Features that KVM tells its guests of their CPUs.
#[derive(Clone, Copy)]
struct KvmFeatures {
    /// A halted CPU can be woken by a call (`KVM_FEATURE_PV_UNHALT`).
    unhalt: bool,
    /// CPUs are never taken away (`KVM_HINTS_REALTIME`).
    dedicated: bool,
}

/// Names the hypervisor by its CPUID leaves, which begin with its signature (Linux,
/// `Documentation/virt/kvm/x86/cpuid.rst`).
#[cfg(target_arch = "x86_64")]
fn kvm_features() -> Option<KvmFeatures> {
    use std::arch::x86_64::__cpuid;
    const SIGNATURE: u32 = 0x4000_0000;
    const FEATURES: u32 = 0x4000_0001;
    let highest = __cpuid(SIGNATURE).eax;
    (cpuid_signature() == "KVMKVMKVM" && highest >= FEATURES).then(|| {
        let features = __cpuid(FEATURES);
        KvmFeatures { unhalt: features.eax & 1 << 7 != 0, dedicated: features.edx & 1 != 0 }
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn kvm_features() -> Option<KvmFeatures> {
    None
}

/// Returns the choice of a KVM guest's kernel that has all forms. `alone`: it has one CPU, or its
/// command
/// line forbids the paravirtual form.
fn guest_spinlocks(kvm: KvmFeatures, alone: bool) -> Spinlocks {
    if !kvm.unhalt {
        Spinlocks::TestAndSet
    } else if kvm.dedicated || alone {
        Spinlocks::Queued
    } else {
        Spinlocks::Paravirt
    }
}

#[cfg(test)]
mod tests {
    use super::{KvmFeatures, guest_spinlocks, spinlocks};
    use crate::roots::Roots;
    use cellbench_record::Spinlocks;

    #[test]
    fn a_guest_waits_as_its_hypervisor_allows() {
        let choice =
            |unhalt, dedicated, alone| guest_spinlocks(KvmFeatures { unhalt, dedicated }, alone);
        assert_eq!(choice(true, false, false), Spinlocks::Paravirt);
        assert_eq!(choice(true, true, false), Spinlocks::Queued);
        assert_eq!(choice(true, false, true), Spinlocks::Queued);
        assert_eq!(choice(false, false, false), Spinlocks::TestAndSet);
    }

    #[test]
    fn another_machine_does_not_tell() {
        assert_eq!(spinlocks(&Roots::at("/nowhere/sys", "/nowhere/proc")), None);
    }
}
