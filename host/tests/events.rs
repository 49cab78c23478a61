//! The event tables: encodings as the vendors publish them, one table for each CPU model, and
//! plans that follow the CPU and its PMU.

mod sysfs;

use std::collections::{BTreeMap, BTreeSet};

use cellbench_host::counters::catalogue::{Format, Match, Role, Table, table_for, tables};
use cellbench_host::counters::event::Pmu;
use cellbench_host::counters::{Plan, Reading, ThreadCounters, Unavailable};
use cellbench_host::cpu_model::CpuModel;
use cellbench_host::{CpuId, Roots};

fn cpu(vendor: &str, family: u32, model: u32) -> CpuModel {
    CpuModel { vendor: vendor.to_owned(), family, model, name: None }
}

/// Returns `config` and `config1` of every event on a CPU, by name.
fn encodings(cpu: &CpuModel) -> BTreeMap<&'static str, (u64, u64)> {
    let table = table_for(cpu).unwrap_or_else(|| panic!("no table for {cpu}"));
    table
        .events
        .iter()
        .filter(|event| event.models.as_ref().is_none_or(|models| models.contains(cpu.model)))
        .map(|event| (event.name.as_str(), table.config(event)))
        .collect()
}

/// Raw codes as one would give them to `perf stat -e rNNNN`, from the vendors' lists.
#[test]
fn encodings_are_those_of_the_vendors_lists() {
    const HITM_RFO: u64 = 0x10_003c_0002;
    /// Name, `config`, `config1`.
    type Encoding = (&'static str, u64, u64);
    let cases: [(CpuModel, &[Encoding]); 12] = [
        (
            cpu("GenuineIntel", 6, 0x5e),
            &[
                ("mem_load_l3_hit_retired.xsnp_hitm", 0x04d2, 0),
                ("mem_load_l3_hit_retired.xsnp_hit", 0x02d2, 0),
                ("l2_rqsts.all_rfo", 0xe224, 0),
                ("l2_rqsts.rfo_miss", 0x2224, 0),
                ("mem_inst_retired.lock_loads", 0x21d0, 0),
                ("machine_clears.memory_ordering", 0x02c3, 0),
                ("offcore_response.demand_rfo.l3_hit.snoop_hitm", 0x01b7, 0x10_001c_0002),
            ],
        ),
        (
            cpu("GenuineIntel", 6, 0x55),
            &[
                ("mem_load_l3_miss_retired.remote_hitm", 0x04d3, 0),
                ("mem_load_l3_miss_retired.remote_fwd", 0x08d3, 0),
                ("ocr.demand_rfo.l3_hit.hitm_other_core", 0x01b7, HITM_RFO),
            ],
        ),
        (
            cpu("GenuineIntel", 6, 0x8c),
            &[
                ("mem_load_l3_hit_retired.xsnp_fwd", 0x04d2, 0),
                ("mem_load_l3_hit_retired.xsnp_no_fwd", 0x02d2, 0),
                ("ocr.demand_rfo.l3_hit.snoop_hitm", 0x01b7, HITM_RFO),
            ],
        ),
        (
            cpu("GenuineIntel", 6, 0x6a),
            &[("mem_load_l3_miss_retired.remote_hitm", 0x04d3, 0), ("l2_rqsts.rfo_hit", 0xc224, 0)],
        ),
        (
            cpu("GenuineIntel", 6, 0x97),
            &[
                ("lock_cycles.cache_lock_duration", 0x0242, 0),
                ("ocr.demand_rfo.l3_hit.snoop_hitm", 0x012a, HITM_RFO),
            ],
        ),
        (
            cpu("GenuineIntel", 6, 0x8f),
            &[
                ("mem_load_l3_hit_retired.xsnp_fwd", 0x04d2, 0),
                ("mem_load_l3_miss_retired.remote_fwd", 0x08d3, 0),
                ("mem_inst_retired.lock_loads", 0x21d0, 0),
            ],
        ),
        (
            cpu("GenuineIntel", 6, 0xbd),
            &[
                ("mem_load_l3_hit_retired.xsnp_hitm", 0x04d2, 0),
                ("mem_load_l3_hit_retired.xsnp_fwd", 0x10d2, 0),
            ],
        ),
        (
            cpu("AuthenticAMD", 0x17, 0x31),
            &[
                ("ls_refills_from_sys.ls_mabresp_lcl_cache", 0x0243, 0),
                ("ls_refills_from_sys.ls_mabresp_rmt_cache", 0x1043, 0),
            ],
        ),
        (
            cpu("AuthenticAMD", 0x19, 0x01),
            &[
                ("ls_dmnd_fills_from_sys.int_cache", 0x0243, 0),
                ("ls_dmnd_fills_from_sys.ext_cache_local", 0x0443, 0),
                ("ls_dmnd_fills_from_sys.ext_cache_remote", 0x1043, 0),
                ("l2_request_g1.change_to_x", 0x0860, 0),
            ],
        ),
        (
            cpu("AuthenticAMD", 0x19, 0x11),
            &[
                ("ls_dmnd_fills_from_sys.local_ccx", 0x0243, 0),
                ("ls_dmnd_fills_from_sys.near_cache", 0x0443, 0),
                ("ls_dmnd_fills_from_sys.far_cache", 0x1043, 0),
            ],
        ),
        (cpu("AuthenticAMD", 0x1a, 0x02), &[("ls_locks.all", 0x1f25, 0)]),
        (
            cpu("Arm", 0, 0xd0c),
            &[
                ("remote_access", 0x31, 0),
                ("ldrex_spec", 0x6c, 0),
                ("strex_pass_spec", 0x6d, 0),
                ("strex_fail_spec", 0x6e, 0),
                ("l1d_cache_refill_outer", 0x45, 0),
                ("l1d_cache_inval", 0x48, 0),
            ],
        ),
    ];
    for (cpu, expected) in cases {
        let found = encodings(&cpu);
        for &(name, config, config1) in expected {
            assert_eq!(found.get(name), Some(&(config, config1)), "{name} on {cpu}");
        }
    }
}

#[test]
fn remote_events_are_only_where_there_is_a_second_socket() {
    let laptop = encodings(&cpu("GenuineIntel", 6, 0x9a));
    assert!(!laptop.contains_key("mem_load_l3_miss_retired.remote_hitm"));
    let server = encodings(&cpu("GenuineIntel", 6, 0xcf));
    assert!(!server.contains_key("lock_cycles.cache_lock_duration"));
}

#[test]
fn amd_selects_beyond_eight_bits_go_to_bit_32() {
    let table = table_for(&cpu("AuthenticAMD", 0x19, 0x11)).unwrap();
    let mut event = table.events[0].clone();
    (event.event, event.umask) = (0x28f, 0x07);
    assert_eq!(table.config(&event), (0x2_0000_078f, 0));
}

#[test]
fn every_generation_asked_for_has_its_table() {
    let expected = [
        ("GenuineIntel", 6, 0x4e, "intel-skylake"),
        ("GenuineIntel", 6, 0x55, "intel-skylake"),
        ("GenuineIntel", 6, 0x7e, "intel-icelake"),
        ("GenuineIntel", 6, 0x6a, "intel-icelake"),
        ("GenuineIntel", 6, 0xb7, "intel-golden-cove"),
        ("GenuineIntel", 6, 0x8f, "intel-golden-cove"),
        ("GenuineIntel", 6, 0xad, "intel-golden-cove"),
        ("GenuineIntel", 6, 0xc6, "intel-lion-cove"),
        ("GenuineIntel", 6, 0xcc, "intel-lion-cove"),
        ("GenuineIntel", 6, 0x3f, "intel-haswell"),
        ("GenuineIntel", 6, 0x4f, "intel-haswell"),
        ("GenuineIntel", 6, 0xaf, "intel-crestmont"),
        ("GenuineIntel", 6, 0xb6, "intel-crestmont"),
        ("GenuineIntel", 6, 0xdd, "intel-darkmont"),
        ("AuthenticAMD", 0x17, 0x01, "amd-zen1"),
        ("HygonGenuine", 0x18, 0x00, "amd-zen1"),
        ("AuthenticAMD", 0x17, 0x31, "amd-zen2"),
        ("AuthenticAMD", 0x17, 0x71, "amd-zen2"),
        ("AuthenticAMD", 0x19, 0x01, "amd-zen3"),
        ("AuthenticAMD", 0x19, 0x21, "amd-zen3"),
        ("AuthenticAMD", 0x19, 0x11, "amd-zen4"),
        ("AuthenticAMD", 0x19, 0x61, "amd-zen4"),
        ("AuthenticAMD", 0x19, 0xa0, "amd-zen4"),
        ("AuthenticAMD", 0x1a, 0x02, "amd-zen5"),
        ("AuthenticAMD", 0x19, 0x30, "amd-zen3"),
        ("AuthenticAMD", 0x1a, 0x44, "amd-zen5"),
        ("AuthenticAMD", 0x1a, 0x50, "amd-zen6"),
        ("Arm", 0, 0xd0c, "arm-neoverse"),
        ("Arm", 0, 0xd49, "arm-neoverse"),
        ("Arm", 0, 0xd40, "arm-neoverse"),
        ("Arm", 0, 0xd4f, "arm-neoverse"),
        ("Arm", 0, 0xd83, "arm-neoverse"),
        ("Arm", 0, 0xd84, "arm-neoverse"),
        ("Arm", 0, 0xd8e, "arm-neoverse"),
        ("Microsoft", 0, 0xd49, "arm-neoverse"),
        ("Ampere", 0, 0xac3, "arm-ampereone"),
        ("Apple", 0, 0x23, "arm-apple"),
    ];
    for (vendor, family, model, name) in expected {
        let cpu = cpu(vendor, family, model);
        assert_eq!(table_for(&cpu).map(|table| table.name.as_str()), Some(name), "{cpu}");
    }
    for (vendor, family, model) in [
        ("GenuineIntel", 6, 0x3e), // Ivy Bridge server: before Haswell
        ("Arm", 0, 0xd08),         // Cortex-A72
        ("Ampere", 0, 0xd0c),      // another vendor's part with Arm's number
    ] {
        assert_eq!(table_for(&cpu(vendor, family, model)), None);
    }
}

#[test]
fn no_cpu_has_two_tables_and_no_table_is_unreachable() {
    let mut owner = BTreeMap::new();
    for table in tables() {
        assert!(!table.cpus.is_empty(), "{}", table.name);
        for cpus in &table.cpus {
            for model in cpus.models.iter() {
                let key = (cpus.vendor.as_str(), cpus.family, model);
                let other = owner.insert(key, table.name.as_str());
                assert_eq!(other, None, "{key:?} is also in {}", table.name);
            }
        }
    }
}

fn assert_fits(table: &Table) {
    let vendors: &[&str] = match table.format {
        Format::Intel => &["GenuineIntel"],
        Format::Amd => &["AuthenticAMD", "HygonGenuine"],
        Format::Arm => &["Arm", "Ampere", "Apple", "Microsoft"],
    };
    assert!(table.cpus.iter().all(|of| vendors.contains(&of.vendor.as_str())), "{}", table.name);
    for event in &table.events {
        let (event_max, umask_max) = match table.format {
            Format::Intel => (0xff, 0xff),
            Format::Amd => (0xfff, 0xff),
            Format::Arm => (0xffff, 0),
        };
        assert!(event.event > 0 && event.event <= event_max, "{}: {}", table.name, event.name);
        assert!(event.umask <= umask_max, "{}: {}", table.name, event.name);
        let is_offcore =
            table.format == Format::Intel && matches!(event.event, 0xb7 | 0xbb | 0x2a | 0x2b);
        assert_eq!(event.offcore_rsp != 0, is_offcore, "{}: {}", table.name, event.name);
    }
}

#[test]
fn tables_are_well_formed() {
    for table in tables() {
        assert!(!table.title.is_empty() && !table.source.is_empty(), "{}", table.name);
        assert_fits(table);
        for cpu in cpus_of(table) {
            let events: Vec<_> = table.events_of(&cpu).collect();
            let names: BTreeSet<_> = events.iter().map(|event| &event.name).collect();
            let codes: BTreeSet<_> = events.iter().map(|event| table.config(event)).collect();
            let roles: BTreeSet<Role> = events.iter().map(|event| event.role).collect();
            assert_eq!(names.len(), events.len(), "a name twice on {cpu}");
            assert_eq!(codes.len(), events.len(), "an encoding twice on {cpu}");
            assert_eq!(roles.len(), events.len(), "a role twice on {cpu}");
        }
        for event in &table.events {
            // As `perf list` prints names, so that they can be pasted into perf.
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
            assert!(event.name.chars().all(plain), "{}", event.name);
            assert!(!event.meaning.is_empty(), "{}", event.name);
            if let Some(models) = &event.models {
                let known = |model| table.cpus.iter().any(|of| of.models.contains(model));
                assert!(models.iter().all(known), "{}", event.name);
            }
        }
    }
}

fn cpus_of(table: &Table) -> Vec<CpuModel> {
    let of = |cpus: &Match| -> Vec<CpuModel> {
        cpus.models.iter().map(|model| cpu(&cpus.vendor, cpus.family, model)).collect()
    };
    table.cpus.iter().flat_map(of).collect()
}

/// Every Intel encoding on every model, against a copy of what Intel publishes.
#[test]
fn intel_encodings_are_those_published_for_each_model() {
    /// Names that later lists gave to events of earlier ones.
    const RENAMED: [(&str, &str); 3] = [
        ("mem_load_l3_hit_retired.xsnp_fwd", "mem_load_l3_hit_retired.xsnp_hitm"),
        ("mem_load_l3_hit_retired.xsnp_no_fwd", "mem_load_l3_hit_retired.xsnp_hit"),
        (
            "ocr.demand_rfo.l3_hit.hitm_other_core",
            "offcore_response.demand_rfo.l3_hit.hitm_other_core",
        ),
    ];
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let mut published = BTreeMap::new();
    for line in include_str!("published/intel.csv").lines().filter(|line| !line.starts_with('#')) {
        let [model, _list, name, select, umask, offcore] =
            line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let config = (number(select) | number(umask) << 8, number(offcore));
        published.insert((number(model) as u32, name), config);
    }
    let mut checked = 0;
    for table in tables().iter().filter(|table| table.format == Format::Intel) {
        for cpu in cpus_of(table) {
            for event in table.events_of(&cpu) {
                let listed = |name: &str| published.get(&(cpu.model, name)).copied();
                let before = RENAMED.iter().find(|(now, _)| event.name == *now);
                let found = listed(&event.name).or_else(|| listed(before?.1));
                assert_eq!(found, Some(table.config(event)), "{} on {cpu}", event.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 300, "{checked} encodings");
}

const INTEL_HYBRID: &str = "
    bus/event_source/devices/cpu_core/type = 4
    bus/event_source/devices/cpu_core/cpus = 0-7
    bus/event_source/devices/cpu_atom/type = 10
    bus/event_source/devices/cpu_atom/cpus = 8-15
    bus/event_source/devices/software/type = 1
    proc/sys/kernel/perf_event_paranoid = 2";

fn cpuinfo(entries: &[&str]) -> String {
    entries.join("\n\n")
}

fn roots_of(manifest: &str, cpuinfo: &str) -> (tempfile::TempDir, Roots) {
    let dir = sysfs::unpack(manifest);
    std::fs::create_dir_all(dir.path().join("proc")).unwrap();
    std::fs::write(dir.path().join("proc/cpuinfo"), cpuinfo).unwrap();
    let roots = Roots::at(dir.path(), dir.path().join("proc"));
    (dir, roots)
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.events().map(|event| event.name.as_str()).collect()
}

const ALDER_LAKE: &str =
    "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 154\nmodel name\t: 12th Gen";

#[test]
fn a_hybrid_cpu_is_counted_by_the_pmu_of_the_core_and_its_table_is_for_the_fast_ones() {
    let text = cpuinfo(&[
        &format!("processor\t: 0\n{ALDER_LAKE}"),
        &format!("processor\t: 8\n{ALDER_LAKE}"),
    ]);
    let (_dir, roots) = roots_of(INTEL_HYBRID, &text);
    assert_eq!(Pmu::of(&roots, CpuId(0)).unwrap().name, "cpu_core");
    assert_eq!(Pmu::of(&roots, CpuId(8)).unwrap().name, "cpu_atom");
    assert_eq!(Pmu::of(&roots, CpuId(99)), None);

    let fast = Plan::full(&roots, CpuId(0));
    assert!(names(&fast).contains(&"mem_load_l3_hit_retired.xsnp_fwd"));
    let slow = Plan::full(&roots, CpuId(8));
    assert!(names(&slow).contains(&"cycles"));
    assert!(!names(&slow).iter().any(|name| name.starts_with("mem_load")));
    let readings = ThreadCounters::open(&slow).read();
    let Some(Reading::Unavailable(reason @ Unavailable::UnknownCpu { .. })) =
        readings.get("contention-events")
    else {
        panic!("{readings:?}");
    };
    assert!(reason.to_string().contains("PMU cpu_atom"), "{reason}");
}

#[test]
fn arm_cores_are_known_by_part_and_other_implementers_are_not_taken_for_them() {
    let pmu = "bus/event_source/devices/armv8_pmuv3_0/type = 8";
    let entry = |implementer, part| {
        format!(
            "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: {implementer}\nCPU part\t: {part}"
        )
    };
    let (_dir, roots) = roots_of(pmu, &entry("0x41", "0xd40"));
    assert_eq!(CpuModel::read(&roots, CpuId(0)), Some(cpu("Arm", 0, 0xd40)));
    assert!(names(&Plan::full(&roots, CpuId(0))).contains(&"strex_fail_spec"));

    let (_dir, roots) = roots_of(pmu, &entry("0x51", "0xd0c"));
    let model = CpuModel::read(&roots, CpuId(0)).unwrap();
    assert_eq!(model.to_string(), "implementer 0x51 part 0xd0c");
    assert_eq!(table_for(&model), None);
}

#[test]
fn apple_cores_have_a_pmu_of_each_kind() {
    let (_dir, roots) = roots_of(
        "bus/event_source/devices/apple_firestorm_pmu/type = 10
         bus/event_source/devices/apple_firestorm_pmu/cpus = 4-7
         bus/event_source/devices/apple_icestorm_pmu/type = 9
         bus/event_source/devices/apple_icestorm_pmu/cpus = 0-3",
        "processor\t: 4\nCPU implementer\t: 0x61\nCPU part\t: 0x023",
    );
    assert_eq!(Pmu::of(&roots, CpuId(4)).unwrap().name, "apple_firestorm_pmu");
    assert!(names(&Plan::full(&roots, CpuId(4))).contains(&"atomic_or_exclusive_fail"));
}

#[test]
fn without_a_pmu_the_reason_is_the_pmu_and_not_the_table() {
    let text =
        cpuinfo(&["processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17"]);
    let (_dir, roots) = roots_of("bus/event_source/devices/software/type = 1", &text);
    assert_eq!(CpuModel::read(&roots, CpuId(0)), Some(cpu("AuthenticAMD", 0x19, 0x11)));
    let plan = Plan::full(&roots, CpuId(0));
    assert_eq!(plan.pmu(), None);
    let readings = ThreadCounters::open(&plan).read();
    assert_eq!(readings.get("contention-events"), Some(&Reading::Unavailable(Unavailable::NoPmu)));
}

#[test]
fn a_plan_can_be_reduced_to_one_event() {
    let (_dir, roots) = roots_of("bus/event_source/devices/software/type = 1", "");
    let plan = Plan::full(&roots, CpuId(0));
    assert_eq!(names(&plan.clone().only("page-faults").unwrap()), ["page-faults"]);
    assert!(plan.only("no-such-event").is_none());
}
