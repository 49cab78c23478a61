//! Who else gets the CPUs: siblings, other tasks, the tick, the cgroup, the hypervisor.

use cellbench_record::{Finding, Severity};

use super::{Examined, finding, ok};
use crate::cpus::CpuId;
use crate::settings::Isolation;

/// Share of a CPU from which on foreign work shows in results.
const BUSY: f64 = 0.05;
/// Share from which on a host is not worth measuring on.
const OVERLOADED: f64 = 0.5;
/// The same for stolen time, which comes in bursts of milliseconds.
const STOLEN: f64 = 0.001;
const MOSTLY_STOLEN: f64 = 0.1;

pub(super) fn check(host: &Examined<'_>, findings: &mut Vec<Finding>) {
    findings.push(smt(host));
    findings.push(isolation(host));
    findings.extend(usable(host));
    findings.extend(quota(host));
    findings.push(load(host));
    findings.push(competing(host));
    findings.push(steal(host));
    findings.extend(numa_balancing(host));
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn smt(host: &Examined<'_>) -> Finding {
    let active = host.roots.sys("devices/system/cpu/smt/active");
    let width = host.topology.smt_width();
    match active.as_deref() {
        Some("0") => ok("smt", "no core runs more than one thread"),
        None if width == 1 => ok("smt", "no core runs more than one thread"),
        _ => finding(
            "smt",
            Severity::Info,
            format!("SMT is on: up to {width} CPUs a core"),
            "a busy sibling takes half a core away, also from a CPU that is otherwise quiet; placements keep apart what they can",
            "echo off > /sys/devices/system/cpu/smt/control",
        ),
    }
}

fn isolation(host: &Examined<'_>) -> Finding {
    let Isolation { isolated, nohz_full } = Isolation::read(host.roots);
    let shared = host.cpus.difference(&isolated);
    let ticking = host.cpus.difference(&nohz_full);
    match (shared.is_empty(), ticking.is_empty()) {
        (true, true) => ok("isolation", "the CPUs are isolated and run without a tick"),
        (true, false) => finding(
            "isolation",
            Severity::Info,
            format!("CPUs {ticking} are isolated but keep their tick"),
            "the timer tick shows in the tail of latencies (100 to 1000 times a second, a few us)",
            format!("boot with nohz_full={ticking}"),
        ),
        (false, _) => finding(
            "isolation",
            Severity::Info,
            format!("CPUs {shared} are not isolated"),
            "the scheduler may run other tasks on them; rounds in which it did are dropped and counted",
            format!("boot with isolcpus={shared} nohz_full={shared}"),
        ),
    }
}

fn usable(host: &Examined<'_>) -> Vec<Finding> {
    let topology = host.topology;
    let mut findings = Vec::new();
    let denied = topology.online().difference(&topology.usable);
    if !denied.is_empty() {
        findings.push(finding(
            "cpuset",
            Severity::Info,
            format!("affinity or cpuset leaves {} of {} CPUs: {}", topology.usable.len(), topology.cpus.len(), topology.usable),
            "placements and thread counts are limited to these; others may be busy with unseen work",
            "widen the cpuset, or run without taskset",
        ));
    }
    if host.cpus.len() < 2 {
        findings.push(finding(
            "cpu-count",
            Severity::Warning,
            "one CPU only",
            "nothing contends: only uncontended cost can be measured",
            "give the process more CPUs, or use the simulator (cellbench sim)",
        ));
    }
    if topology.mixes_core_kinds(&host.cpus.iter().collect::<Vec<_>>()) {
        findings.push(finding(
            "hybrid",
            Severity::Warning,
            "the CPUs are of two sorts, performance and efficiency cores",
            "threads on slow cores hold locks longer; fairness and scaling mix two machines",
            "choose CPUs of one sort (cellbench topology shows them)",
        ));
    }
    findings
}

fn quota(host: &Examined<'_>) -> Option<Finding> {
    let quota = host.topology.quota.as_ref()?;
    let cpus = quota.cpus();
    let wanted = host.cpus.len();
    let severity = if cpus < wanted as f64 { Severity::Unfit } else { Severity::Info };
    Some(finding(
        "cgroup-quota",
        severity,
        format!(
            "the cgroup allows {cpus:.2} CPUs' time, {wanted} CPUs are to be used ({})",
            quota.source.display()
        ),
        "beyond its quota every thread stops for the rest of the period, lock holders too",
        format!("raise or lift the limit in {}, or use fewer CPUs", quota.source.display()),
    ))
}

fn load(host: &Examined<'_>) -> Finding {
    let average = host.roots.proc("loadavg").unwrap_or_default();
    let average = average.split(' ').next().filter(|text| !text.is_empty()).unwrap_or("unknown");
    let busiest = busiest(host, &host.activity.busy);
    let mean = mean(host, &host.activity.busy);
    let effect = "workers share these CPUs with other work: throughput falls, tails grow, unevenly between rounds";
    match busiest {
        None => finding("load", Severity::Info, "how busy the CPUs are cannot be told", effect, ""),
        Some((cpu, share)) if share > BUSY => finding(
            "load",
            if mean > OVERLOADED { Severity::Unfit } else { Severity::Warning },
            format!(
                "CPU {cpu} is {} busy, the CPUs {} on average (load average {average})",
                percent(share),
                percent(mean)
            ),
            effect,
            "stop the other work (top -H shows it), or move it: taskset, cpuset",
        ),
        Some(_) => ok("load", format!("the CPUs are idle (load average {average})")),
    }
}

fn competing(host: &Examined<'_>) -> Finding {
    let online = host.topology.online();
    let here: Vec<_> = host
        .activity
        .tasks
        .iter()
        .filter(|task| task.cpu_share > BUSY && !task.allowed.intersection(host.cpus).is_empty())
        .collect();
    let pinned = here.iter().any(|task| !online.difference(&task.allowed).is_empty());
    if here.is_empty() {
        return ok("competing-tasks", "no other task was seen running on the CPUs");
    }
    let described: Vec<String> = here
        .iter()
        .take(3)
        .map(|task| {
            let place = if online.difference(&task.allowed).is_empty() {
                String::new()
            } else {
                format!(", pinned to {}", task.allowed)
            };
            format!("{} {} ({} of a CPU{place})", task.tid, task.name, percent(task.cpu_share))
        })
        .collect();
    finding(
        "competing-tasks",
        Severity::Warning,
        format!("{} other task(s) run on the CPUs: {}", here.len(), described.join("; ")),
        if pinned {
            "a pinned task cannot be moved away by the scheduler: its CPU is shared for the whole run"
        } else {
            "the scheduler will move them back and forth while workers stay"
        },
        "stop them, or move them off these CPUs: taskset -p",
    )
}

fn steal(host: &Examined<'_>) -> Finding {
    let effect = "the hypervisor stops CPUs for milliseconds, lock holders too; disturbed rounds are dropped and counted";
    let fix = "use a host with dedicated CPUs, or bare metal";
    match busiest(host, &host.activity.stolen) {
        None => finding("steal", Severity::Info, "stolen time cannot be told", effect, ""),
        Some((cpu, share)) if share > STOLEN => finding(
            "steal",
            if share > MOSTLY_STOLEN { Severity::Unfit } else { Severity::Warning },
            format!("{} of CPU {cpu}'s time was stolen by the hypervisor", percent(share)),
            effect,
            fix,
        ),
        Some(_) => ok("steal", "no time was stolen while looking"),
    }
}

fn numa_balancing(host: &Examined<'_>) -> Option<Finding> {
    let on =
        host.roots.proc_value::<u8>("sys/kernel/numa_balancing").is_some_and(|value| value > 0);
    (on && host.topology.numa_nodes().is_some_and(|nodes| nodes > 1)).then(|| {
        finding(
            "numa-balancing",
            Severity::Warning,
            "automatic NUMA balancing is on",
            "the kernel unmaps and moves pages of a running round to see who uses them",
            "sysctl kernel.numa_balancing=0",
        )
    })
}

type Shares = std::collections::BTreeMap<CpuId, f64>;

/// Returns the CPU, among those to be measured on, with the largest share.
fn busiest(host: &Examined<'_>, shares: &Shares) -> Option<(CpuId, f64)> {
    let here = shares.iter().filter(|(cpu, _)| host.cpus.contains(**cpu));
    here.map(|(&cpu, &share)| (cpu, share)).max_by(|a, b| a.1.total_cmp(&b.1))
}

fn mean(host: &Examined<'_>, shares: &Shares) -> f64 {
    let here: Vec<f64> = shares
        .iter()
        .filter(|(cpu, _)| host.cpus.contains(**cpu))
        .map(|(_, &share)| share)
        .collect();
    here.iter().sum::<f64>() / here.len().max(1) as f64
}
