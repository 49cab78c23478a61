//! Findings on made-up hosts: each check sees its own sign, says what it does to results and what
//! to do, and the worst finding decides.

mod sysfs;

use cellbench_host::counters::Unavailable;
use cellbench_host::doctor::{Activity, Examined, Fitness, Snapshot, diagnose};
use cellbench_host::{CpuId, CpuSet, Roots, Topology};
use cellbench_record::{Finding, Severity};

/// Four cores, everything as it should be for measuring.
const FIT: &str = "
    devices/system/cpu/online = 0-3
    devices/system/cpu/possible = 0-3
    devices/system/cpu/smt/active = 0
    devices/system/cpu/isolated = 1-3
    devices/system/cpu/nohz_full = 1-3
    devices/system/cpu/cpufreq/boost = 0
    devices/system/cpu/cpu[0-3]/cpufreq/scaling_governor = performance
    devices/system/cpu/cpu[0-3]/topology/physical_package_id = 0
    devices/system/cpu/cpu[0-3]/topology/package_cpus_list = 0-3
    devices/system/cpu/cpu[0-3]/cpuidle/state0/name = POLL
    devices/system/cpu/cpu[0-3]/cpuidle/state0/latency = 0
    devices/system/cpu/cpu[0-3]/cpuidle/state0/disable = 0
    devices/system/cpu/cpu[0-3]/cpuidle/state1/name = C6
    devices/system/cpu/cpu[0-3]/cpuidle/state1/latency = 133
    devices/system/cpu/cpu[0-3]/cpuidle/state1/disable = 1
    devices/system/cpu/cpu[0-3]/thermal_throttle/core_throttle_count = 0
    devices/system/cpu/cpu[0-3]/thermal_throttle/package_throttle_count = 0
    devices/system/clocksource/clocksource0/current_clocksource = tsc
    devices/system/clocksource/clocksource0/available_clocksource = tsc hpet acpi_pm
    kernel/mm/transparent_hugepage/enabled = always [madvise] never
    bus/event_source/devices/cpu/type = 4
    proc/sys/kernel/perf_event_paranoid = 2
    proc/sys/kernel/randomize_va_space = 2
    proc/sys/kernel/nmi_watchdog = 0
    proc/loadavg = 0.01 0.02 0.00 1/300 4711";

const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\n";

fn stat(busy: u64, idle: u64, steal: u64) -> String {
    let cpu = |n| format!("cpu{n} {busy} 0 0 {idle} 0 0 0 {steal} 0 0\n");
    format!("cpu  0 0 0 0 0 0 0 0 0 0\n{}intr 1\n", (0..4).map(cpu).collect::<String>())
}

/// Returns the doctor's findings on the fit host with the lines of `changes` on top, both before and during
/// the watching, and those of `meanwhile` from then on.
fn findings_while(changes: &str, meanwhile: &str, later: &[(&str, String)]) -> Vec<Finding> {
    let dir = sysfs::unpack(FIT);
    let root = dir.path();
    std::fs::write(root.join("proc/cpuinfo"), CPUINFO).unwrap();
    std::fs::write(root.join("proc/stat"), stat(1000, 9000, 0)).unwrap();
    sysfs::unpack_into(root, changes);
    let roots = Roots::at(root, root.join("proc"));
    let topology = Topology::read_with(&roots, None).unwrap();
    let before = Snapshot::take(&roots, &topology);
    std::fs::write(root.join("proc/stat"), stat(1000, 9100, 0)).unwrap();
    sysfs::unpack_into(root, meanwhile);
    for (path, text) in later {
        std::fs::write(root.join(path), text).unwrap();
    }
    let after = Snapshot::take(&roots, &topology);
    let activity = Activity::between(&roots, &before, &after, Some(1));
    let cpus: CpuSet = "1-3".parse().unwrap();
    diagnose(&Examined {
        roots: &roots,
        topology: &topology,
        cpus: &cpus,
        activity: &activity,
        counting: None,
    })
}

fn findings(changes: &str) -> Vec<Finding> {
    findings_while(changes, "", &[])
}

fn one<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    let mut found = findings.iter().filter(|finding| finding.id == id);
    let finding = found.next().unwrap_or_else(|| panic!("no `{id}` in {findings:#?}"));
    assert!(found.next().is_none(), "`{id}` twice");
    finding
}

#[test]
fn a_host_prepared_for_measuring_is_fit() {
    let findings = findings("");
    let others: Vec<_> =
        findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(Fitness::of(&findings), Fitness::Fit);
}

#[test]
fn each_setting_is_seen_and_comes_with_effect_and_fix() {
    use Severity::{Info, Unfit, Warning};
    // Change, finding, severity, what the text must name, what the fix must contain.
    let cases = [
        (
            "devices/system/cpu/cpu2/cpufreq/scaling_governor = powersave",
            "governor",
            Warning,
            "powersave",
            "performance",
        ),
        ("devices/system/cpu/cpufreq/boost = 1", "boost", Warning, "boost is on", "cpufreq/boost"),
        (
            "devices/system/cpu/cpu3/cpuidle/state1/disable = 0",
            "c-states",
            Warning,
            "C6 takes 133 us",
            "idle-set",
        ),
        (
            "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count = 5",
            "thermal-throttling",
            Info,
            "5 thermal",
            "doctor",
        ),
        ("devices/system/cpu/smt/active = 1", "smt", Info, "SMT is on", "smt/control"),
        (
            "devices/system/cpu/isolated =",
            "isolation",
            Info,
            "CPUs 1-3 are not isolated",
            "isolcpus=1-3",
        ),
        (
            "devices/system/cpu/nohz_full = (null)",
            "isolation",
            Info,
            "keep their tick",
            "nohz_full=1-3",
        ),
        (
            "kernel/mm/transparent_hugepage/enabled = [always] madvise never",
            "thp",
            Warning,
            "always",
            "madvise",
        ),
        ("proc/sys/kernel/randomize_va_space = 0", "aslr", Warning, "off", "randomize_va_space=2"),
        (
            "devices/system/clocksource/clocksource0/current_clocksource = hpet",
            "clock-source",
            Warning,
            "hpet",
            "echo tsc",
        ),
        (
            "proc/sys/kernel/perf_event_paranoid = 4",
            "pmu",
            Warning,
            "perf_event_paranoid=4",
            "sysctl kernel.perf_event_paranoid=2",
        ),
        ("proc/sys/kernel/nmi_watchdog = 1", "nmi-watchdog", Info, "watchdog", "nmi_watchdog=0"),
        (
            "proc/self/cgroup = 0::/
             proc/self/mountinfo = 30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
             fs/cgroup/cpu.max = 150000 100000",
            "cgroup-quota",
            Unfit,
            "1.50 CPUs' time, 3 CPUs",
            "cpu.max",
        ),
        (
            "devices/system/node/node0/cpulist = 0-1
             devices/system/node/node1/cpulist = 2-3
             proc/sys/kernel/numa_balancing = 1",
            "numa-balancing",
            Warning,
            "NUMA balancing is on",
            "numa_balancing=0",
        ),
        (
            "bus/event_source/devices/cpu_atom/cpus = 3
             bus/event_source/devices/cpu_atom/type = 10",
            "hybrid",
            Warning,
            "two sorts",
            "one sort",
        ),
    ];
    for (change, id, severity, text, fix) in cases {
        let findings = findings(change);
        let finding = one(&findings, id);
        assert_eq!(finding.severity, severity, "{finding:?}");
        assert!(finding.text.contains(text), "{finding:?}");
        assert!(finding.fix.contains(fix), "{finding:?}");
        assert!(!finding.effect.is_empty(), "{finding:?}");
        let expected = match severity {
            Unfit => Fitness::Unfit,
            Warning => Fitness::FitWithWarnings,
            _ => Fitness::Fit,
        };
        assert_eq!(Fitness::of(&findings), expected, "{change}");
        // Worst first.
        assert_eq!(findings[0].severity, severity, "{change}");
    }
}

#[test]
fn a_tsc_that_the_kernel_dropped_is_a_reason_to_distrust_timestamps() {
    let findings = findings(
        "devices/system/clocksource/clocksource0/current_clocksource = hpet
         devices/system/clocksource/clocksource0/available_clocksource = hpet acpi_pm",
    );
    let finding = one(&findings, "clock-source");
    assert!(finding.effect.contains("different CPUs may disagree"), "{finding:?}");
}

#[test]
fn a_guest_is_told_by_the_cpu_and_named_by_its_firmware() {
    let guest = CPUINFO.replace("fpu", "fpu hypervisor");
    let with = |changes: &str| findings_while(changes, "", &[("proc/cpuinfo", guest.clone())]);
    assert!(one(&with(""), "virtualisation").text.contains("(hypervisor)"));
    let named = with("class/dmi/id/sys_vendor = QEMU");
    assert!(one(&named, "virtualisation").text.contains("(QEMU)"));
    // A bare-metal instance of a cloud carries its name, not the flag.
    let metal = findings("class/dmi/id/sys_vendor = Amazon EC2");
    assert_eq!(one(&metal, "virtualisation").severity, Severity::Ok);
    let container =
        findings("proc/self/mountinfo = 500 400 0:50 / / rw - overlay overlay rw,lowerdir=/a");
    assert!(one(&container, "virtualisation").text.contains("container"));
}

#[test]
fn an_emulated_processor_makes_a_host_unfit() {
    let emulated = "processor\t: 0\nCPU implementer\t: 0x00\nCPU part\t: 0x051\n".to_owned();
    let findings = findings_while("", "", &[("proc/cpuinfo", emulated)]);
    assert_eq!(one(&findings, "emulation").severity, Severity::Unfit);
    assert!(one(&findings, "emulation").effect.contains("of the emulator"));
}

#[test]
fn a_missing_pmu_and_an_unknown_cpu_are_told_apart() {
    let unknown = CPUINFO.replace(": 106", ": 999");
    let findings = findings_while("", "", &[("proc/cpuinfo", unknown)]);
    let finding = one(&findings, "pmu");
    assert!(finding.text.contains("family 0x6 model 0x3e7"), "{finding:?}");
    assert!(finding.fix.contains("host/events"), "{finding:?}");

    let dir =
        sysfs::unpack("devices/system/cpu/online = 0-1\nproc/sys/kernel/perf_event_paranoid = 2");
    let roots = Roots::at(dir.path(), dir.path().join("proc"));
    let topology = Topology::read_with(&roots, None).unwrap();
    let examined = Examined {
        roots: &roots,
        topology: &topology,
        cpus: &topology.usable,
        activity: &Activity::default(),
        counting: None,
    };
    let findings = diagnose(&examined);
    assert!(one(&findings, "pmu").text.contains("no PMU"));
    // A host that tells nothing is not called fit for what it does not tell.
    for id in ["governor", "boost", "load", "steal", "clock-source", "aslr", "thermal-throttling"] {
        assert_eq!(one(&findings, id).severity, Severity::Info, "{id}");
    }
}

#[test]
fn a_counter_that_could_not_be_opened_outweighs_what_the_files_allow() {
    let dir = sysfs::unpack(FIT);
    let roots = Roots::at(dir.path(), dir.path().join("proc"));
    let topology = Topology::read_with(&roots, None).unwrap();
    let activity = Activity::default();
    let examined = |counting| Examined {
        roots: &roots,
        topology: &topology,
        cpus: &topology.usable,
        activity: &activity,
        counting,
    };
    let denied = diagnose(&examined(Some(Err(Unavailable::Denied))));
    assert_eq!(one(&denied, "pmu").severity, Severity::Warning);
    assert!(one(&denied, "pmu").text.contains("seccomp"), "{:?}", one(&denied, "pmu"));
    // The files deny it, but it worked: this process is privileged.
    sysfs::unpack_into(dir.path(), "proc/sys/kernel/perf_event_paranoid = 4");
    assert_eq!(one(&diagnose(&examined(None)), "pmu").severity, Severity::Warning);
    assert_eq!(one(&diagnose(&examined(Some(Ok(())))), "pmu").severity, Severity::Info);
}

#[test]
fn load_and_steal_grow_from_warning_to_unfit() {
    let with = |busy: u64, idle: u64, steal: u64| {
        findings_while("", "", &[("proc/stat", stat(1000 + busy, 9000 + idle, steal))])
    };
    let severity = |findings: &[Finding], id| one(findings, id).severity;

    assert_eq!(severity(&with(2, 98, 0), "load"), Severity::Ok);
    let some = with(20, 80, 0);
    assert_eq!(severity(&some, "load"), Severity::Warning);
    assert!(one(&some, "load").text.contains("20.0 % busy"), "{:?}", one(&some, "load"));
    assert_eq!(severity(&with(90, 10, 0), "load"), Severity::Unfit);

    assert_eq!(severity(&with(0, 100, 0), "steal"), Severity::Ok);
    assert_eq!(severity(&with(0, 95, 5), "steal"), Severity::Warning);
    assert_eq!(severity(&with(0, 70, 30), "steal"), Severity::Unfit);
}

#[test]
fn load_on_a_cpu_that_is_not_used_does_not_matter() {
    let text = stat(1000, 9100, 0).replace("cpu0 1000 0 0 9100", "cpu0 1100 0 0 9000");
    let findings = findings_while("", "", &[("proc/stat", text)]);
    assert_eq!(one(&findings, "load").severity, Severity::Ok);
}

#[test]
fn throttling_while_looking_makes_a_host_unfit() {
    let findings = findings_while(
        "",
        "devices/system/cpu/cpu1/thermal_throttle/package_throttle_count = 3",
        &[],
    );
    assert_eq!(one(&findings, "thermal-throttling").severity, Severity::Unfit);
    assert_eq!(Fitness::of(&findings), Fitness::Unfit);
}

#[test]
fn competing_tasks_are_named_and_pinned_ones_marked() {
    let task = |pid: u32, flags: u64, ticks: u64| {
        let times = format!("R 1 1 1 0 -1 {flags} 0 0 0 0 {ticks} 0 0 0 20 0 1 0 9");
        format!("proc/{pid}/task/{pid}/stat = {pid} (any name) {times}\n")
    };
    let status = |name: &str, allowed: &str| {
        format!("Name:\t{name}\nState:\tR\nCpus_allowed_list:\t{allowed}\n")
    };
    let threads = |ticks: u64| {
        // Ours (process 1), a pinned one, a free one, a kernel thread, and one elsewhere.
        [
            task(1, 0, ticks),
            task(50, 0, ticks),
            task(60, 0, ticks / 2),
            task(70, 0x0020_0000, ticks),
            task(80, 0, ticks),
        ]
        .concat()
    };
    let later = [
        ("proc/1/task/1/status", status("cellbench", "0-3")),
        ("proc/50/task/50/status", status("stress", "2")),
        ("proc/60/task/60/status", status("indexer", "0-3")),
        ("proc/70/task/70/status", status("kworker", "1")),
        ("proc/80/task/80/status", status("elsewhere", "0")),
    ];
    let findings = findings_while(&threads(0), &threads(90), &later);
    let finding = one(&findings, "competing-tasks");
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(
        finding.text,
        "2 other task(s) run on the CPUs: 50 stress (90.0 % of a CPU, pinned to 2); 60 indexer (45.0 % of a CPU)"
    );
    assert!(finding.effect.contains("pinned"), "{finding:?}");
}

#[test]
fn exit_statuses_are_the_documented_ones() {
    let statuses =
        [Fitness::Fit, Fitness::FitWithWarnings, Fitness::Unfit].map(Fitness::exit_status);
    assert_eq!(statuses, [0, 3, 4]);
    assert_eq!(Fitness::of(&[]), Fitness::Fit);
}

#[test]
fn one_cpu_is_a_warning_about_contention() {
    let dir = sysfs::unpack(FIT);
    let roots = Roots::at(dir.path(), dir.path().join("proc"));
    let topology = Topology::read_with(&roots, Some(&"2".parse().unwrap())).unwrap();
    let examined = Examined {
        roots: &roots,
        topology: &topology,
        cpus: &CpuSet::from_iter([CpuId(2)]),
        activity: &Activity::default(),
        counting: None,
    };
    let findings = diagnose(&examined);
    assert_eq!(one(&findings, "cpu-count").severity, Severity::Warning);
    assert!(one(&findings, "cpuset").text.contains("1 of 4 CPUs: 2"));
}
