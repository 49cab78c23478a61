//! Checks of the machine and its kernel: virtualisation, clock, counters, memory settings.

use cellbench_record::{Finding, Severity};

use super::{Examined, finding, ok};
use crate::counters::Unavailable;
use crate::counters::catalogue::table_for;
use crate::counters::event::Pmu;
use crate::cpu_model::CpuModel;
use crate::virtualisation::{Virtualisation, emulator};

/// Highest `perf_event_paranoid` at which a thread may count its own user-space events.
const COUNTING_PARANOIA: i64 = 2;

pub(super) fn check(host: &Examined<'_>, findings: &mut Vec<Finding>) {
    findings.push(virtualisation(host));
    findings.extend(emulation(host));
    findings.push(clock_source(host));
    findings.push(counters(host));
    findings.extend(watchdog(host));
    findings.push(huge_pages(host));
    findings.push(address_space(host));
}

fn virtualisation(host: &Examined<'_>) -> Finding {
    match Virtualisation::detect(host.roots) {
        Virtualisation::None => ok("virtualisation", "bare metal, by the processor's word"),
        Virtualisation::Unknown => finding(
            "virtualisation",
            Severity::Info,
            "whether this is a virtual machine cannot be told",
            "nothing proves bare metal here; if it is a guest, virtual CPUs may share cores and stop at any instruction",
            "",
        ),
        Virtualisation::Container => finding(
            "virtualisation",
            Severity::Info,
            "inside a container",
            "CPUs are as fast as outside; counters, cgroups and other tasks may be hidden",
            "",
        ),
        Virtualisation::Guest(hypervisor) => finding(
            "virtualisation",
            Severity::Warning,
            format!("a virtual machine ({hypervisor})"),
            "virtual CPUs may share cores, stop at any instruction, and sit elsewhere than the topology says; compare ratios within this host, not its absolute numbers",
            "measure on bare metal for numbers to quote",
        ),
    }
}

/// Finds that the times here are those of no hardware.
fn emulation(host: &Examined<'_>) -> Option<Finding> {
    let emulator = emulator(host.roots)?;
    Some(finding(
        "emulation",
        Severity::Unfit,
        format!("the processor is emulated ({emulator})"),
        "every time, rate and ratio is that of the emulator; outcomes, counts and invariants hold",
        "measure on real processors, or with KVM",
    ))
}

fn clock_source(host: &Examined<'_>) -> Finding {
    let dir = "devices/system/clocksource/clocksource0";
    let current = host.roots.sys(&format!("{dir}/current_clocksource"));
    match current.as_deref() {
        None => finding(
            "clock-source",
            Severity::Info,
            "the kernel's clock source cannot be told",
            "the CPU counter is used as it is",
            "",
        ),
        Some(name @ ("tsc" | "arch_sys_counter" | "riscv_clocksource")) => {
            ok("clock-source", format!("clock source is {name}"))
        }
        Some(name) => {
            let available = host.roots.sys(&format!("{dir}/available_clocksource"));
            let distrusted =
                available.is_some_and(|names| !names.split(' ').any(|name| name == "tsc"));
            finding(
                "clock-source",
                Severity::Warning,
                format!("clock source is {name}, not the CPU's counter"),
                if distrusted {
                    "the kernel distrusts the TSC (dmesg says why): timestamps taken on different CPUs may disagree"
                } else {
                    "reading the system clock is slow, and it may drift against the CPU counter that latencies are taken with"
                },
                if distrusted {
                    "look for `clocksource` in dmesg; update firmware".to_owned()
                } else {
                    format!("echo tsc > /sys/{dir}/current_clocksource")
                },
            )
        }
    }
}

fn counters(host: &Examined<'_>) -> Finding {
    let effect =
        "throughput and latency are unaffected; why one cell is faster than another stays open";
    let without = |severity, reason: &Unavailable| {
        // A reason reads `what; what to do`.
        let text = reason.to_string();
        let (text, fix) = text.split_once("; ").unwrap_or((&text, ""));
        finding("pmu", severity, format!("hardware counters: {text}"), effect, fix)
    };
    let Some(first) = host.cpus.first() else {
        return without(Severity::Info, &Unavailable::NoPmu);
    };
    let Some(pmu) = Pmu::of(host.roots, first) else {
        return without(Severity::Warning, &Unavailable::NoPmu);
    };
    let level = host.roots.proc_value::<i64>("sys/kernel/perf_event_paranoid");
    let possible = host.counting.clone().unwrap_or(match level {
        None => Err(Unavailable::NoPerf),
        Some(level) if level > COUNTING_PARANOIA => {
            Err(Unavailable::Paranoid { level, needed: COUNTING_PARANOIA })
        }
        Some(_) => Ok(()),
    });
    if let Err(reason) = possible {
        return without(Severity::Warning, &reason);
    }
    let model = CpuModel::read(host.roots, first);
    match model.as_ref().map(|model| (table_for(model), model)) {
        Some((Some(table), _)) => ok(
            "pmu",
            format!("hardware counters by PMU {}, contention events of {}", pmu.name, table.name),
        ),
        Some((None, model)) => {
            without(Severity::Info, &Unavailable::UnknownCpu { cpu: model.to_string() })
        }
        None => without(Severity::Info, &Unavailable::UnknownCpu { cpu: "unnamed".into() }),
    }
}

fn watchdog(host: &Examined<'_>) -> Option<Finding> {
    let on = host.roots.proc_value::<u8>("sys/kernel/nmi_watchdog") == Some(1);
    on.then(|| {
        finding(
            "nmi-watchdog",
            Severity::Info,
            "the NMI watchdog is on",
            "it holds one hardware counter and sends an NMI every few seconds",
            "sysctl kernel.nmi_watchdog=0",
        )
    })
}

fn huge_pages(host: &Examined<'_>) -> Finding {
    let setting = host.roots.sys("kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if setting.contains("[always]") {
        finding(
            "thp",
            Severity::Warning,
            "transparent huge pages are given always",
            "whether a round's memory lies on huge pages depends on fragmentation, so TLB misses differ between rounds",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    } else {
        ok("thp", "transparent huge pages are given on request only, or never")
    }
}

/// Checks that the address space is random: with a fixed layout, its luck is in every round.
fn address_space(host: &Examined<'_>) -> Finding {
    match host.roots.proc_value::<u8>("sys/kernel/randomize_va_space") {
        Some(0) => finding(
            "aslr",
            Severity::Warning,
            "address space randomisation is off",
            "every run gets the same layout: a difference may be one of layout, and repeats as if it were real",
            "sysctl kernel.randomize_va_space=2",
        ),
        Some(level) => ok(
            "aslr",
            format!("address space randomisation is on ({level}): runs average over layouts"),
        ),
        None => finding(
            "aslr",
            Severity::Info,
            "whether the address space is randomised cannot be told",
            "if it is not, all runs share one layout",
            "",
        ),
    }
}
