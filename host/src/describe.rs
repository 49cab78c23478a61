//! The host as a record keeps it.

use cellbench_record::{CpuPlace, Host};

use super::cpu_model::CpuModel;
use super::cpuinfo::cpuinfo;
use super::cpus::CpuSet;
use super::roots::Roots;
use super::settings::{self, Isolation};
use super::topology::{Cpu, Topology};
use super::virtualisation::Virtualisation;

/// Returns everything a reader should know of the host that a run used `cpus` of. The host's name
/// is left
/// out: whether it may be published is the user's decision.
#[must_use]
pub fn describe(roots: &Roots, topology: &Topology, cpus: &CpuSet) -> Host {
    let governors = settings::governors(roots, cpus.iter());
    let Isolation { isolated, nohz_full } = Isolation::read(roots);
    let isolation = if isolated.is_empty() && nohz_full.is_empty() {
        String::new()
    } else {
        format!("isolated={isolated} nohz_full={nohz_full}")
    };
    let version = roots.proc("sys/kernel/version");
    Host {
        cpu_model: cpus
            .first()
            .and_then(|cpu| CpuModel::read(roots, cpu))
            .map(|cpu| cpu.to_string()),
        architecture: std::env::consts::ARCH.to_owned(),
        microcode: cpuinfo(roots, "microcode"),
        kernel: roots.proc("sys/kernel/osrelease").map(|release| match &version {
            Some(version) => format!("{release} {version}"),
            None => release,
        }),
        governor: (!governors.is_empty())
            .then(|| governors.into_iter().collect::<Vec<_>>().join(", ")),
        boost: settings::boosts(roots),
        smt: roots.sys("devices/system/cpu/smt/control"),
        isolation: Some(isolation),
        virtualisation: Virtualisation::detect(roots).recorded(),
        spinlocks: settings::spinlocks(roots),
        preemption: version.and_then(|version| {
            let names = ["PREEMPT_DYNAMIC", "PREEMPT_RT", "PREEMPT"];
            names.into_iter().find(|name| version.contains(name)).map(str::to_owned)
        }),
        clock_source: roots.sys("devices/system/clocksource/clocksource0/current_clocksource"),
        memory_bytes: roots.proc("meminfo").and_then(|text| memory_bytes(&text)),
        topology: places(topology),
        ..Host::default()
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the usable CPUs and their places.
#[must_use]
pub fn places(topology: &Topology) -> cellbench_record::Topology {
    let place = |cpu: &Cpu| CpuPlace {
        cpu: cpu.id.0,
        package: cpu.package,
        die: cpu.die,
        llc: cpu.llc,
        core: Some(cpu.core),
        smt_index: Some(cpu.smt_index),
        numa_node: cpu.numa_node,
    };
    cellbench_record::Topology {
        cpus_online: topology.usable.len() as u32,
        packages: topology.packages().map(|n| n as u32),
        llc_groups: topology.llc_groups().map(|n| n as u32),
        cores: topology.cores() as u32,
        numa_nodes: topology.numa_nodes().map(|n| n as u32),
        cpus: topology.usable_cpus().map(place).collect(),
    }
}
