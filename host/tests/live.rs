//! The live host, whatever it is: with or without PMU, in a container, on one CPU, on a cpuset
//! with holes. Nothing here asserts how fast anything is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cellbench_host::c2c::{self, C2cError, Effort, Method};
use cellbench_host::counters::{Plan, Reading, ThreadCounters, Unavailable};
use cellbench_host::pin::PinError;
use cellbench_host::{
    Clock, CpuId, CpuSet, Placement, Roots, RoundProbe, Topology, affinity, describe, doctor,
    limits, pin,
};

const TINY: Effort = Effort { samples: 3, round_trips: 10 };
/// To lose the CPU: a sleep of a microsecond may be over before the thread has left it.
const LONG_ENOUGH: Duration = Duration::from_millis(5);
/// Time in which all pairs have their turn.
const LONG: Duration = Duration::from_secs(60);

/// Runs `test` on a thread of its own, so that pinning does not leak into other tests.
fn on_own_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(test).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn the_topology_holds_exactly_the_cpus_this_process_may_use() {
    let topology = Topology::read().unwrap();
    assert_eq!(topology.usable, topology.online().intersection(&affinity::current().unwrap()));
    let all = topology.place(Placement::Compact, topology.usable.len()).unwrap();
    assert_eq!(all.into_iter().collect::<CpuSet>(), topology.usable);
    assert!(topology.place(Placement::Compact, topology.usable.len() + 1).is_err());
}

#[test]
fn pinning_works_on_every_usable_cpu_and_is_checked() {
    on_own_thread(|| {
        for cpu in Topology::read().unwrap().usable.iter() {
            pin(cpu).unwrap();
            assert_eq!(affinity::current().unwrap().to_string(), cpu.to_string());
            assert_eq!(affinity::current_cpu().unwrap(), cpu);
        }
    });
}

#[test]
fn cpus_that_are_not_there_are_refused_below_and_beyond_1024() {
    on_own_thread(|| {
        let before = affinity::current().unwrap();
        for absent in [CpuId(1023), CpuId(4095)] {
            if before.contains(absent) {
                continue;
            }
            let error = pin(absent).unwrap_err();
            assert!(matches!(error, PinError::NotUsable { .. }), "{error}");
            assert!(error.to_string().contains(&format!("CPU {absent}")), "{error}");
            assert_eq!(affinity::current().unwrap(), before);
        }
    });
}

/// As under `taskset` or in a cpuset: the last usable CPU alone, which leaves a hole below it
/// wherever there are two.
#[test]
fn a_restricted_process_sees_one_cpu_and_measures_what_one_cpu_can() {
    on_own_thread(|| {
        let last = Topology::read().unwrap().usable.last().unwrap();
        affinity::set_current(&CpuSet::from_iter([last])).unwrap();
        let topology = Topology::read().unwrap();
        assert_eq!(topology.usable, CpuSet::from_iter([last]));
        assert_eq!(topology.place(Placement::Spread, 1).unwrap(), [last]);
        let error = topology.place(Placement::Compact, 2).unwrap_err().to_string();
        assert!(error.contains("may use 1 "), "{error}");

        let limits = limits::measure(&[last], TINY, &Clock::new(), LONG).unwrap();
        assert_eq!((limits.contended_rmw_ns, limits.line_transfer_ns()), (None, None));
        assert!(limits.uncontended_rmw_ns > 0.0);

        let findings = doctor::examine(&topology, &topology.usable, Duration::ZERO);
        assert!(findings.iter().any(|finding| finding.id == "cpu-count"));
        let host = describe::describe(&Roots::live(), &topology, &topology.usable);
        assert_eq!(host.topology.cpus_online, 1);
    });
}

#[test]
fn the_matrix_is_symmetric_complete_and_empty_on_the_diagonal() {
    let topology = Topology::read().unwrap();
    let cpus = topology.place(Placement::Compact, topology.usable.len().min(3)).unwrap();
    let clock = Clock::new();
    for method in Method::ALL {
        let matrix = c2c::measure(&cpus, method, TINY, &clock).unwrap();
        for i in 0..cpus.len() {
            for j in 0..cpus.len() {
                assert_eq!(matrix.one_way_ns[i][j], matrix.one_way_ns[j][i]);
                assert_eq!(matrix.one_way_ns[i][j].is_some(), i != j);
                assert!(matrix.one_way_ns[i][j].is_none_or(|ns| ns > 0.0));
            }
        }
        assert_eq!(matrix.median_ns().is_some(), cpus.len() > 1);
        assert_eq!(matrix.to_record().cpus.len(), cpus.len());
    }
}

#[test]
fn a_matrix_refuses_repeated_and_absent_cpus_instead_of_hanging() {
    let clock = Clock::new();
    let first = Topology::read().unwrap().usable.first().unwrap();
    let error = c2c::measure(&[first, first], Method::ReadWrite, TINY, &clock).unwrap_err();
    assert!(matches!(error, C2cError::Repeated(cpu) if cpu == first));
    for pair in [[first, CpuId(4095)], [CpuId(4095), first]] {
        let error = c2c::measure(&pair, Method::CompareExchange, TINY, &clock).unwrap_err();
        assert!(matches!(error, C2cError::Pin(PinError::NotUsable { .. })), "{error}");
    }
}

#[test]
fn limits_are_complete_where_there_are_two_cpus() {
    let topology = Topology::read().unwrap();
    let Ok(cpus) = topology.place(Placement::Compact, 2) else { return };
    let limits = limits::measure(&cpus, TINY, &Clock::new(), LONG).unwrap();
    assert!(limits.contended_rmw_ns.is_some_and(|ns| ns > 0.0));
    assert_eq!(limits.line_transfer_ns(), limits.transfers.one_way_ns[0][1]);
}

#[test]
fn every_planned_event_has_a_reading_with_a_count_or_a_reason() {
    on_own_thread(|| {
        let cpu = affinity::current_cpu().unwrap();
        pin(cpu).unwrap();
        let plan = Plan::full(&Roots::live(), cpu);
        let mut counters = ThreadCounters::open(&plan);
        counters.start().unwrap();
        touch_fresh_memory(8 << 20);
        std::thread::sleep(LONG_ENOUGH);
        counters.stop().unwrap();
        let readings = counters.read();

        let planned: BTreeSet<&str> = plan.events().map(|event| event.name.as_str()).collect();
        let read: BTreeSet<&str> = readings.keys().map(String::as_str).collect();
        assert!(planned.is_subset(&read), "{planned:?} {read:?}");
        // The kernel's own events are there without PMU and without permission.
        for name in ["page-faults", "context-switches"] {
            let counted = readings[name].scaled();
            assert!(counted.is_some_and(|count| count >= 1.0), "{name}: {:?}", readings[name]);
        }
        for (name, reading) in &readings {
            match reading {
                Reading::Counted { enabled_ns, running_ns, .. } => {
                    assert!(running_ns > &0 && enabled_ns >= running_ns, "{name}: {reading:?}");
                }
                Reading::Unavailable(reason) => assert!(!reason.to_string().is_empty()),
            }
        }
        // Stopped means stopped, and a new start begins at zero.
        let again = vec![1_u8; 8 << 20];
        assert_eq!(counters.read()["page-faults"], readings["page-faults"]);
        assert!(again.iter().all(|&byte| byte == 1));
        let begin = Instant::now();
        counters.start().unwrap();
        counters.stop().unwrap();
        let elapsed_ns = begin.elapsed().as_nanos() as u64;
        if let Reading::Counted { value, enabled_ns, .. } = counters.read()["page-faults"] {
            assert!((value as f64) < readings["page-faults"].scaled().unwrap());
            assert!(enabled_ns <= elapsed_ns, "{enabled_ns} of {elapsed_ns}");
        }
    });
}

/// More counts of one event than any CPU has counters for: the kernel has them take turns, and each
/// reading says for how long it ran. Without a PMU each says why there is none.
#[test]
fn counters_that_take_turns_say_so() {
    on_own_thread(|| {
        let cpu = Topology::read().unwrap().usable.first().unwrap();
        pin(cpu).unwrap();
        let plan = Plan::basic(&Roots::live(), cpu).only("instructions").unwrap();
        let mut all: Vec<ThreadCounters> = (0..40).map(|_| ThreadCounters::open(&plan)).collect();
        all.iter_mut().for_each(|counters| counters.start().unwrap());
        // Many turns of a few milliseconds.
        let began = Instant::now();
        let mut worked = 1_u64;
        while began.elapsed() < Duration::from_millis(200) {
            for _ in 0..10_000 {
                worked = std::hint::black_box(worked.wrapping_mul(3));
            }
        }
        all.iter_mut().for_each(|counters| counters.stop().unwrap());
        let readings: Vec<Reading> =
            all.iter_mut().map(|counters| counters.read()["instructions"].clone()).collect();
        let turns = readings.iter().filter(|reading| reading.is_multiplexed()).count();
        println!("{turns} of {} counts of instructions took turns", readings.len());
        for reading in &readings {
            match reading {
                Reading::Counted { value, enabled_ns, running_ns } => {
                    assert!(running_ns <= enabled_ns, "{reading:?}");
                    assert!(
                        reading.scaled().is_some_and(|all| all >= *value as f64),
                        "{reading:?}"
                    );
                }
                Reading::Unavailable(reason) => assert!(!reason.to_string().is_empty()),
            }
        }
    });
}

/// Denies `perf_event_open` to this thread with EPERM, whatever the paranoia level, as in a container.
/// Returns whether the filter is in force (a sandbox may refuse it).
fn deny_perf_to_this_thread() -> bool {
    let (load, jump, answer) = (0x20, 0x15, 0x06);
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let perf_event_open = u32::try_from(libc::SYS_perf_event_open).unwrap();
    let mut filter = [
        // The number of the system call is the first word.
        statement(load, 0),
        libc::sock_filter { code: jump, jt: 0, jf: 1, k: perf_event_open },
        statement(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(answer, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls concern the calling thread alone; `program` and the filter it points to
    // outlive the call, which copies them.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Writes a byte to each page of new memory: an allocator may give pages out again that it has.
fn touch_fresh_memory(bytes: usize) {
    let (access, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    // SAFETY: a new anonymous mapping, of which nobody else knows; written within its length, and
    // unmapped once.
    unsafe {
        let flags = private | libc::MAP_ANONYMOUS;
        let base = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        for page in (0..bytes).step_by(4096) {
            base.cast::<u8>().add(page).write_volatile(1);
        }
        assert_eq!(libc::munmap(base, bytes), 0);
    }
}

#[test]
fn with_perf_denied_the_kernels_accounts_still_count_and_the_rest_says_why_not() {
    on_own_thread(|| {
        if !deny_perf_to_this_thread() {
            return;
        }
        let plan = Plan::full(&Roots::live(), affinity::current_cpu().unwrap());
        let mut counters = ThreadCounters::open(&plan);
        counters.start().unwrap();
        touch_fresh_memory(8 << 20);
        std::thread::sleep(LONG_ENOUGH);
        counters.stop().unwrap();
        let readings = counters.read();
        for name in ["page-faults", "context-switches"] {
            let counted = readings[name].scaled();
            assert!(counted.is_some_and(|count| count >= 1.0), "{name}: {:?}", readings[name]);
        }
        for name in ["cycles", "instructions", "branch-misses", "LLC-load-misses"] {
            let Reading::Unavailable(reason) = &readings[name] else { panic!("{name} counted") };
            assert!(
                matches!(reason, Unavailable::Denied | Unavailable::Paranoid { .. }),
                "{name}: {reason:?}"
            );
        }
    });
}

#[test]
fn steal_is_known_on_a_kernel_with_proc_stat() {
    let topology = Topology::read().unwrap();
    let disturbance = RoundProbe::start(topology.usable.clone()).stop();
    assert_eq!(disturbance.steal_ns.is_some(), std::path::Path::new("/proc/stat").exists());
}
