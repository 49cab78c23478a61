//! Topologies and placements of saved machines, read by the code that reads the live one.

mod sysfs;

use std::path::Path;
use std::sync::LazyLock;

use cellbench_host::topology::{CoreKind, Topology, TopologyError};
use cellbench_host::{CpuId, CpuSet, Placement, Roots};

const SERVER: &str = include_str!("sysfs/server-2s-smt.txt");
const CHIPLET: &str = include_str!("sysfs/chiplet.txt");
const HYBRID: &str = include_str!("sysfs/hybrid-laptop.txt");
const ARM: &str = include_str!("sysfs/arm-many-core.txt");
const BIG_LITTLE: &str = include_str!("sysfs/arm-big-little.txt");
const VM: &str = include_str!("sysfs/vm-2.txt");

/// 2048 possible CPUs in three NUMA nodes, 100-199 and 1000-1099 offline; nothing else is told.
const HUGE: &str = "
    devices/system/cpu/online = 0-99,200-999,1100-2047
    devices/system/cpu/present = 0-2047
    devices/system/cpu/possible = 0-4095
    devices/system/node/node0/cpulist = 0-99,200-511
    devices/system/node/node1/cpulist = 512-999,1100-1535
    devices/system/node/node2/cpulist = 1536-2047
";

fn read(manifest: &str) -> Topology {
    Topology::from_sysfs(sysfs::unpack(manifest).path()).unwrap()
}

/// The machines, read once.
struct Machines {
    server: Topology,
    chiplet: Topology,
    hybrid: Topology,
    arm: Topology,
    big_little: Topology,
    vm: Topology,
    huge: Topology,
}

static MACHINES: LazyLock<Machines> = LazyLock::new(|| Machines {
    server: read(SERVER),
    chiplet: read(CHIPLET),
    hybrid: read(HYBRID),
    arm: read(ARM),
    big_little: read(BIG_LITTLE),
    vm: read(VM),
    huge: read(HUGE),
});

fn read_allowed(dir: &Path, allowed: &str) -> Topology {
    let roots = Roots::at(dir, dir.join("no-proc"));
    Topology::read_with(&roots, Some(&allowed.parse().unwrap())).unwrap()
}

fn place(topology: &Topology, placement: Placement, n: usize) -> Vec<u32> {
    topology.place(placement, n).unwrap().iter().map(|cpu| cpu.0).collect()
}

/// Packages, dies, LLC groups, cores, SMT width, NUMA nodes; 0 stands for unknown.
fn shape(topology: &Topology) -> [usize; 6] {
    let known = |count: Option<usize>| {
        assert_ne!(count, Some(0), "an unknown count is none");
        count.unwrap_or(0)
    };
    [
        known(topology.packages()),
        known(topology.dies()),
        known(topology.llc_groups()),
        topology.cores(),
        topology.smt_width(),
        known(topology.numa_nodes()),
    ]
}

#[test]
fn shapes_are_those_of_the_machines() {
    assert_eq!(shape(&MACHINES.server), [2, 2, 2, 40, 2, 2]);
    assert_eq!(shape(&MACHINES.chiplet), [1, 1, 4, 16, 2, 2]);
    assert_eq!(shape(&MACHINES.hybrid), [1, 1, 1, 12, 2, 1]);
    // Firmware tells neither packages nor the last-level cache: unknown, not one of each.
    assert_eq!(shape(&MACHINES.arm), [0, 0, 0, 64, 1, 2]);
    assert_eq!(shape(&MACHINES.big_little), [1, 1, 2, 6, 1, 0]);
    assert_eq!(shape(&MACHINES.vm), [1, 1, 1, 2, 1, 1]);
    assert_eq!(shape(&MACHINES.huge), [0, 0, 0, 1848, 1, 3]);
}

#[test]
fn siblings_with_repeated_core_ids_stay_apart() {
    let server = &MACHINES.server;
    let of = |cpu| server.cpu(CpuId(cpu)).unwrap();
    assert_eq!((of(0).core, of(0).smt_index), (of(40).core, 0));
    assert_eq!(of(40).smt_index, 1);
    // Core id 0 in both sockets.
    assert_ne!(of(0).core, of(20).core);
    assert_eq!((of(20).package, of(20).llc, of(20).numa_node), (Some(1), Some(1), Some(1)));
}

#[test]
fn an_offline_first_sibling_leaves_the_second_as_the_core() {
    let topology = read(&format!("{HYBRID}\ndevices/system/cpu/online = 1-15"));
    assert_eq!(topology.offline.to_string(), "0");
    assert_eq!(topology.cpu(CpuId(1)).unwrap().smt_index, 0);
    assert_eq!(topology.cores(), 12);
    assert!(topology.cpu(CpuId(0)).is_none());
}

#[test]
fn compact_fills_a_cache_with_one_per_core_before_it_leaves_it() {
    let server = &MACHINES.server;
    assert_eq!(place(server, Placement::Compact, 20), (0..20).collect::<Vec<_>>());
    assert_eq!(place(server, Placement::Compact, 21)[20], 20);
    // Second siblings only once every core has its first.
    assert_eq!(place(server, Placement::Compact, 41)[40], 40);

    let chiplet = &MACHINES.chiplet;
    assert_eq!(place(chiplet, Placement::Compact, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn spread_takes_turns_over_sockets_nodes_and_caches() {
    assert_eq!(place(&MACHINES.server, Placement::Spread, 4), [0, 20, 1, 21]);
    // Nodes 0 and 1 in turn, and within each its two caches.
    assert_eq!(place(&MACHINES.chiplet, Placement::Spread, 5), [0, 8, 4, 12, 1]);
    assert_eq!(place(&MACHINES.server, Placement::Spread, 42)[40..], [40, 60]);
    assert_eq!(place(&MACHINES.arm, Placement::Spread, 4), [0, 32, 1, 33]);
}

#[test]
fn smt_puts_siblings_side_by_side_and_only_siblings() {
    assert_eq!(place(&MACHINES.server, Placement::Smt, 4), [0, 40, 1, 41]);
    let hybrid = &MACHINES.hybrid;
    assert_eq!(place(hybrid, Placement::Smt, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    let error = hybrid.place(Placement::Smt, 9).unwrap_err().to_string();
    assert!(error.contains("only 8 of the 16 usable CPUs"), "{error}");
    let error = MACHINES.vm.place(Placement::Smt, 1).unwrap_err().to_string();
    assert!(error.contains("only 0 of the 2 usable CPUs"), "{error}");
}

#[test]
fn fast_cores_come_first_and_mixtures_are_told() {
    let hybrid = &MACHINES.hybrid;
    assert_eq!(hybrid.cpu(CpuId(8)).unwrap().kind, CoreKind::Efficiency);
    let compact = hybrid.place(Placement::Compact, 5).unwrap();
    assert_eq!(compact.iter().map(|cpu| cpu.0).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
    assert!(hybrid.mixes_core_kinds(&compact));
    assert!(!hybrid.mixes_core_kinds(&compact[..4]));
    assert_eq!(place(&MACHINES.big_little, Placement::Compact, 3), [4, 5, 0]);
}

#[test]
fn a_cpuset_with_holes_limits_placements_and_errors_say_how_many() {
    // Three cores of the first socket, one with both siblings, and two of the second.
    let dir = sysfs::unpack(SERVER);
    let topology = read_allowed(dir.path(), "3,5,7,43,22,24,100");
    assert_eq!(topology.usable.to_string(), "3,5,7,22,24,43");
    assert_eq!(place(&topology, Placement::Compact, 6), [3, 5, 7, 22, 24, 43]);
    assert_eq!(place(&topology, Placement::Spread, 4), [3, 22, 5, 24]);
    assert_eq!(place(&topology, Placement::Smt, 2), [3, 43]);
    for placement in Placement::ALL {
        let error = topology.place(placement, 7).unwrap_err().to_string();
        assert!(error.contains("may use 6 (80 online)"), "{error}");
        assert!(topology.place(placement, 0).unwrap_err().to_string().contains("1 to 6"));
    }
    // The second socket offers more cores, so compact begins there.
    let topology = read_allowed(dir.path(), "0,30-33");
    assert_eq!(place(&topology, Placement::Compact, 5), [30, 31, 32, 33, 0]);
    // From the fullest cache to the next of its node, then to the fullest of the other node.
    let dir = sysfs::unpack(CHIPLET);
    let topology = read_allowed(dir.path(), "0,4-6,8,12-13");
    assert_eq!(place(&topology, Placement::Compact, 7), [4, 5, 6, 0, 12, 13, 8]);
}

#[test]
fn every_placement_is_a_choice_of_distinct_usable_cpus() {
    let Machines { server, chiplet, hybrid, arm, big_little, vm, huge } = &*MACHINES;
    for topology in [server, chiplet, hybrid, arm, big_little, vm, huge] {
        for placement in [Placement::Compact, Placement::Spread] {
            let all = topology.place(placement, topology.usable.len()).unwrap();
            assert_eq!(all.iter().copied().collect::<CpuSet>(), topology.usable);
            // A smaller choice is the beginning of a larger one.
            let half = all.len() / 2;
            assert_eq!(topology.place(placement, half.max(1)).unwrap(), all[..half.max(1)]);
        }
    }
}

#[test]
fn more_than_1024_cpus_and_offline_holes_are_like_any_others() {
    let huge = &MACHINES.huge;
    assert_eq!(huge.offline.to_string(), "100-199,1000-1099");
    assert_eq!(huge.online().to_string(), "0-99,200-999,1100-2047");
    assert_eq!(place(huge, Placement::Spread, 3), [0, 512, 1536]);
    // The second node has most CPUs, numbers beyond 1024 among them.
    let compact = place(huge, Placement::Compact, 600);
    assert_eq!((compact[0], compact[599]), (512, 1211));
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let error = Topology::from_sysfs(empty.path()).unwrap_err().to_string();
    assert!(error.contains("devices/system/cpu/online") && error.contains("--sysfs"), "{error}");

    let broken = sysfs::unpack("devices/system/cpu/online = 0-x");
    let error = Topology::from_sysfs(broken.path()).unwrap_err();
    assert!(matches!(error, TopologyError::BadList { .. }));
    assert!(error.to_string().contains("devices/system/cpu/online"), "{error}");

    let dir = sysfs::unpack(VM);
    let roots = Roots::at(dir.path(), dir.path());
    let error = Topology::read_with(&roots, Some(&"7".parse().unwrap())).unwrap_err().to_string();
    assert!(error.contains("online are 0-1") && error.contains("allow 7"), "{error}");
}

#[test]
fn cgroup_quotas_are_found_in_both_versions_and_the_tightest_counts() {
    let dir = sysfs::unpack(VM);
    let proc = dir.path().join("proc");
    let roots = Roots::at(dir.path(), &proc);
    let quota = || Topology::read_with(&roots, None).unwrap().quota;
    assert_eq!(quota(), None);

    // Version 2: a group without a limit of its own, below one of four and one of 2.5 CPUs.
    sysfs::unpack_into(
        dir.path(),
        "proc/self/cgroup = 0::/app/worker/job
         proc/self/mountinfo = 30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
         fs/cgroup/app/worker/job/cpu.max = max 100000
         fs/cgroup/app/worker/cpu.max = 400000 100000
         fs/cgroup/app/cpu.max = 250000 100000",
    );
    let found = quota().unwrap();
    assert_eq!(found.cpus(), 2.5);
    assert_eq!(found.source.to_str(), Some("/sys/fs/cgroup/app/cpu.max"));

    // Version 1 in a container: the mount shows the hierarchy from /docker/1 on.
    sysfs::unpack_into(
        dir.path(),
        "proc/self/cgroup = 4:cpu,cpuacct:/docker/1/job
         proc/self/mountinfo = 31 23 0:27 /docker/1 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
         fs/cgroup/cpu/job/cpu.cfs_quota_us = 50000
         fs/cgroup/cpu/job/cpu.cfs_period_us = 100000
         fs/cgroup/cpu/cpu.cfs_quota_us = -1
         fs/cgroup/cpu/cpu.cfs_period_us = 100000",
    );
    assert_eq!(quota().unwrap().cpus(), 0.5);
}

#[test]
fn the_text_form_shows_groups_and_what_is_unknown() {
    let text = MACHINES.hybrid.to_string();
    assert!(text.contains("package 0 node 0 LLC 0 performance cores: CPUs 0-7"), "{text}");
    assert!(text.contains("efficiency cores: CPUs 8-15"), "{text}");
    let text = MACHINES.arm.to_string();
    assert!(text.contains("packages ?, dies ?, LLC groups ?, cores 64"), "{text}");
    assert!(text.contains("package ? node 1 LLC ?: CPUs 32-63"), "{text}");
    assert!(MACHINES.huge.to_string().contains("offline: 100-199,1000-1099"));
}

#[test]
fn placement_names_are_read_back_and_unknown_ones_list_the_known() {
    for placement in Placement::ALL {
        assert_eq!(placement.name().parse::<Placement>().unwrap(), placement);
    }
    let error = "near".parse::<Placement>().unwrap_err().to_string();
    assert!(error.contains("`near`") && error.contains("compact, spread and smt"), "{error}");
}

/// As hwloc's users save trees: masks in place of lists, no `online` file, PMUs not below `bus`.
#[test]
fn trees_with_masks_and_without_lists_are_read() {
    let topology = read(
        "devices/system/cpu/cpu[0-3,32-35]/topology/physical_package_id = 0
         devices/system/cpu/cpu[0-3,32-35]/topology/core_siblings = 0000000f,0000000f
         devices/system/cpu/cpu[0-3]/topology/thread_siblings = 00000000,0000000f
         devices/system/cpu/cpu[32-35]/topology/thread_siblings = 0000000f,00000000
         devices/system/cpu/cpu[0-3,32-35]/cache/index3/level = 3
         devices/system/cpu/cpu[0-3,32-35]/cache/index3/shared_cpu_map = f,0000000f
         devices/system/cpu/cpu35/online = 0
         devices/system/node/node0/cpumap = 00000000,0000000f
         devices/system/node/node1/cpumap = 0000000f,00000000
         devices/cpu_atom/cpus = 32-34",
    );
    assert_eq!(topology.online().to_string(), "0-3,32-34");
    assert_eq!(topology.offline.to_string(), "35");
    assert_eq!(shape(&topology), [1, 1, 1, 2, 4, 2]);
    assert_eq!(topology.cpu(CpuId(32)).unwrap().kind, CoreKind::Efficiency);
    let error = Topology::from_sysfs(
        sysfs::unpack("devices/system/cpu/online = 0\ndevices/system/node/node0/cpumap = 0000000g")
            .path(),
    );
    assert!(matches!(error, Err(TopologyError::BadList { .. })), "{error:?}");
}

#[test]
fn a_die_id_of_minus_one_is_one_die_a_package() {
    let topology = read(
        "devices/system/cpu/online = 0-3
         devices/system/cpu/cpu[0-3]/topology/physical_package_id = 0
         devices/system/cpu/cpu[0-3]/topology/package_cpus_list = 0-3
         devices/system/cpu/cpu[0-3]/topology/die_id = -1
         devices/system/cpu/cpu[0-3]/topology/die_cpus_list = {n}",
    );
    assert_eq!(topology.dies(), Some(1));
}

#[test]
fn cpus_that_are_only_possible_are_not_offline() {
    let topology = read(
        "devices/system/cpu/online = 0-3
         devices/system/cpu/present = 0-5
         devices/system/cpu/possible = 0-127",
    );
    assert_eq!(topology.offline.to_string(), "4-5");
}

/// Capacities of a phone with one slow and three fast cores of two models.
#[test]
fn a_few_per_cent_of_capacity_are_not_another_kind_of_core() {
    use CoreKind::{Efficiency, Performance};
    let manifest = "devices/system/cpu/online = 0-3
         devices/system/cpu/cpu0/cpu_capacity = 718
         devices/system/cpu/cpu1/cpu_capacity = 997
         devices/system/cpu/cpu2/cpu_capacity = 1017
         devices/system/cpu/cpu3/cpu_capacity = 1024";
    let kinds = |topology: &Topology| topology.cpus.iter().map(|cpu| cpu.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&read(manifest)), [Efficiency, Performance, Performance, Performance]);

    // With models: the first is a slower bin of the same core as the fastest.
    let dir = sysfs::unpack(manifest);
    let proc = dir.path().join("proc");
    std::fs::create_dir(&proc).unwrap();
    let entries: Vec<String> = [0xd4e, 0xd4e, 0xd4d, 0xd4e]
        .into_iter()
        .enumerate()
        .map(|(cpu, part)| {
            format!("processor : {cpu}\nCPU implementer : 0x41\nCPU part : {part:#x}")
        })
        .collect();
    std::fs::write(proc.join("cpuinfo"), entries.join("\n\n")).unwrap();
    let topology = Topology::read_with(&Roots::at(dir.path(), &proc), None).unwrap();
    assert_eq!(kinds(&topology), [Performance; 4]);
}

#[test]
fn one_sibling_is_asked_for_in_the_singular() {
    let vm = &MACHINES.vm;
    let line = |n| vm.place(Placement::Smt, n).expect_err("it has no SMT").to_string();
    assert!(line(1).starts_with("asked for 1 SMT sibling, but"), "{}", line(1));
    assert!(line(2).starts_with("asked for 2 SMT siblings, but"), "{}", line(2));
}
