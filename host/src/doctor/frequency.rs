//! How fast the CPUs run and when they sleep: governor, boost, C-states, throttling.

use cellbench_record::{Finding, Severity};

use super::{Examined, finding, ok};
use crate::roots::Roots;
use crate::settings::{boosts, governors};

/// Exit latency from which on a sleeping CPU answers noticeably late.
const SLOW_EXIT_US: u64 = 20;

pub(super) fn check(host: &Examined<'_>, findings: &mut Vec<Finding>) {
    findings.push(governor(host));
    findings.push(boost(host.roots));
    findings.push(c_states(host));
    findings.push(throttling(host));
}

fn governor(host: &Examined<'_>) -> Finding {
    let governors = governors(host.roots, host.cpus.iter());
    let names = governors.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.as_str() {
        "" => finding(
            "governor",
            Severity::Info,
            "the kernel does not control the frequency (no cpufreq)",
            "frequency changes, if any, are the firmware's or hypervisor's and do not show",
            "",
        ),
        "performance" => ok("governor", "frequency governor is performance"),
        _ => finding(
            "governor",
            Severity::Warning,
            format!("frequency governor is {names}"),
            "the first rounds after a pause run slower, and light load is measured at low frequency",
            "cpupower frequency-set -g performance",
        ),
    }
}

fn boost(roots: &Roots) -> Finding {
    match boosts(roots) {
        None => finding(
            "boost",
            Severity::Info,
            "whether frequency boost is on cannot be told",
            "if it is, frequency falls as more cores work",
            "",
        ),
        Some(false) => ok("boost", "frequency boost is off"),
        Some(true) => finding(
            "boost",
            Severity::Warning,
            "frequency boost is on",
            "frequency falls with temperature and with the number of busy cores: scaling over threads looks worse than it is",
            if roots.sys("devices/system/cpu/cpufreq/boost").is_some() {
                "echo 0 > /sys/devices/system/cpu/cpufreq/boost"
            } else {
                "echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo"
            },
        ),
    }
}

fn c_states(host: &Examined<'_>) -> Finding {
    let slow = host.cpus.iter().flat_map(|cpu| {
        let dir = format!("devices/system/cpu/cpu{cpu}/cpuidle");
        let states =
            host.roots.sys_names(&dir).into_iter().filter(|name| name.starts_with("state"));
        states.filter_map(move |state| {
            let file = |name: &str| format!("{dir}/{state}/{name}");
            let enabled = host.roots.sys_value::<u8>(&file("disable")) != Some(1);
            let latency_us: u64 = host.roots.sys_value(&file("latency"))?;
            (enabled && latency_us > SLOW_EXIT_US)
                .then(|| (latency_us, host.roots.sys(&file("name"))))
        })
    });
    match slow.max() {
        None => {
            ok("c-states", format!("no enabled C-state takes more than {SLOW_EXIT_US} us to leave"))
        }
        Some((latency_us, name)) => finding(
            "c-states",
            Severity::Warning,
            format!("C-state {} takes {latency_us} us to leave", name.as_deref().unwrap_or("?")),
            "threads that sleep between operations (open loop, timers, wake-ups) show its exit as latency",
            format!("cpupower idle-set -D {SLOW_EXIT_US}"),
        ),
    }
}

fn throttling(host: &Examined<'_>) -> Finding {
    match (host.activity.throttled, host.activity.throttled_since_boot) {
        (Some(now), _) if now > 0 => finding(
            "thermal-throttling",
            Severity::Unfit,
            format!("{now} thermal throttling events while looking, at idle"),
            "frequency is being cut: results follow the temperature",
            "improve cooling or lower the load of neighbours, then measure again",
        ),
        (_, Some(before)) if before > 0 => finding(
            "thermal-throttling",
            Severity::Info,
            format!("{before} thermal throttling events since boot, none while looking"),
            "under long load frequency may be cut again",
            "check again after the run: cellbench doctor",
        ),
        (Some(_), _) => ok("thermal-throttling", "no thermal throttling since boot"),
        (None, _) => finding(
            "thermal-throttling",
            Severity::Info,
            "this CPU does not count thermal throttling",
            "if frequency is cut, only cycles per second show it",
            "",
        ),
    }
}
