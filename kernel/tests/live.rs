//! The running kernel, where BPF is available; elsewhere each test says that it was skipped, and why.
#![cfg(feature = "bpf")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cellbench_host::affinity;
use cellbench_kernel::{
    Bench, Configuration, Context, Error, Kernel, KernelInfo, Layout, Options, Plan, Row, Sampler,
    prove, rows,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The tests share the kernel, and one of them counts what is loaded.
static KERNEL: Mutex<()> = Mutex::new(());

/// Says why something was skipped, also when the test harness captures what is printed.
fn say(text: String) {
    // Standard error that is closed is nothing to fail for.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns the kernel, if BPF is available here; else prints why the test is skipped.
fn kernel(test: &str) -> Option<(KernelInfo, MutexGuard<'static, ()>)> {
    let guard = KERNEL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let info = Kernel::probe().and_then(|info| info.check_permission().map(|()| info));
    // Containers may hold the capabilities and still be refused.
    let info = info.and_then(|info| {
        let row = row(&info, "bpf_spin_lock");
        match Bench::open(&row, options(Layout::Same, 1)) {
            Ok(_) => Ok(info),
            Err(error) => Err(error),
        }
    });
    match info {
        Ok(info) => Some((info, guard)),
        Err(error) => {
            say(format!("{test}: skipped: {error}"));
            None
        }
    }
}

fn row(info: &KernelInfo, name: &str) -> Row {
    rows(info).into_iter().find(|row| row.name() == name).expect("a known row")
}

fn options(layout: Layout, threads: u32) -> Options {
    Options { layout, threads, sample_every: 0, seed: 1 }
}

fn cpus() -> Vec<u32> {
    affinity::current().unwrap_or_default().iter().map(|cpu| cpu.0).collect()
}

fn plan(info: &KernelInfo, names: &[&str]) -> Plan {
    Plan {
        rows: names.iter().map(|name| row(info, name)).collect(),
        layouts: vec![Layout::Same, Layout::OwnPadded],
        threads: vec![1],
        cpus: cpus(),
    }
}

#[test]
fn every_row_and_every_error_is_proven() {
    let Some((info, _guard)) = kernel("every_row_and_every_error_is_proven") else { return };
    let (found, skipped) = prove(&info, &cpus(), Duration::from_millis(5)).unwrap();
    for (row, reason) in &skipped {
        say(format!("{row}: skipped: {reason}"));
    }
    let failed: Vec<_> = found.iter().filter(|expectation| !expectation.holds).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(found.len() > 20, "only {} expectations", found.len());
}

#[test]
fn a_batch_counts_what_it_was_asked_for() {
    let Some((info, _guard)) = kernel("a_batch_counts_what_it_was_asked_for") else { return };
    let bench = Bench::open(&row(&info, "bpf_spin_lock"), options(Layout::Same, 1)).unwrap();
    let mut worker = bench.worker(0).unwrap();
    let first = worker.run_batch(1000).unwrap();
    let second = worker.run_batch(500).unwrap();
    assert_eq!((first.of("lock", "ok"), first.entries), (1000, 1));
    assert_eq!((second.of("lock", "ok"), second.entries), (500, 1));
    assert!(first.elapsed_ns > 0 && second.ended_ns > first.ended_ns);
    let mut total = first;
    total.merge(&second);
    assert_eq!(bench.check(&total).unwrap().violations, Vec::<String>::new());
    // A count that is off by one must be noticed.
    total.merge(&worker.run_batch(1).unwrap());
    worker.run_batch(1).unwrap();
    assert_eq!(bench.check(&total).unwrap().violations.len(), 1);
}

#[test]
fn failures_are_told_apart_between_batches() {
    let Some((info, _guard)) = kernel("failures_are_told_apart_between_batches") else { return };
    let row = row(&info, "bpf_res_spin_lock-aa");
    if let Some(reason) = &row.skipped {
        return say(format!("failures_are_told_apart_between_batches: skipped: {reason}"));
    }
    let bench = Bench::open(&row, options(Layout::OwnPadded, 2)).unwrap();
    for thread in [0, 1] {
        let mut worker = bench.worker(thread).unwrap();
        for n in [10, 7] {
            let counts = worker.run_batch(n).unwrap();
            assert_eq!(counts.of("lock", "EDEADLK"), u64::from(n));
            assert_eq!(counts.attempts(), u64::from(n));
        }
    }
    assert!(matches!(bench.worker(2).unwrap_err(), Error::Plan { .. }));
}

#[test]
fn one_task_work_is_taken_until_the_thread_returns() {
    let Some((info, _guard)) = kernel("one_task_work_is_taken_until_the_thread_returns") else {
        return;
    };
    let row = row(&info, "task_work-schedule");
    if let Some(reason) = &row.skipped {
        return say(format!("one_task_work_is_taken_until_the_thread_returns: skipped: {reason}"));
    }
    let timed = Options { sample_every: 1, ..options(Layout::Same, 1) };
    let bench = Bench::open(&row, timed).unwrap();
    let counts = bench.worker(0).unwrap().run_batch(1000).unwrap();
    assert_eq!((counts.of("schedule", "ok"), counts.of("schedule", "EBUSY")), (1, 999));
    assert_eq!(bench.check(&counts).unwrap().violations, Vec::<String>::new());
    assert_eq!(bench.callbacks().unwrap(), 1);
    // One schedule succeeded, so that one latency to the callback was taken.
    assert_eq!(bench.latency().unwrap()["callback"].samples(), 1);
}

#[test]
fn entries_shorter_than_the_sampling_interval_take_turns_to_be_timed() {
    let Some((info, _guard)) = kernel("entries_shorter_than_the_sampling_interval") else { return };
    // Enters 32 times round the loop at a time.
    let timed = Options { sample_every: 64, ..options(Layout::Same, 1) };
    let bench = Bench::open(&row(&info, "timer-init-free"), timed).unwrap();
    let deadline_ns = cellbench_kernel::monotonic_ns() + 20_000_000;
    let counts = bench.worker(0).unwrap().run_until(deadline_ns).unwrap();
    let timed = bench.latency().unwrap().get("init").map_or(0, |histogram| histogram.samples());
    let due = (0..counts.entries).filter(|entry| (entry * 37) % 64 == 0 || (entry * 37) % 64 > 32);
    assert_eq!(timed, due.count() as u64, "{} entries", counts.entries);
}

#[test]
fn samples_are_as_many_as_asked_for_and_in_the_right_buckets() {
    let Some((info, _guard)) = kernel("samples_are_as_many_as_asked_for") else { return };
    let timed = Options { sample_every: 16, ..options(Layout::Same, 1) };
    let bench = Bench::open(&row(&info, "bpf_spin_lock"), timed).unwrap();
    bench.worker(0).unwrap().run_batch(4096).unwrap();
    let latency = bench.latency().unwrap();
    assert_eq!(latency.keys().collect::<Vec<_>>(), [&"lock"]);
    let histogram = &latency["lock"];
    assert_eq!(histogram.samples(), 256);
    // The exact sum and maximum hold the programs' buckets and this crate's ranges together.
    let from_buckets: u64 = histogram.counts().map(|(value, count)| value * count).sum();
    assert!(from_buckets.abs_diff(histogram.sum_ns) <= histogram.sum_ns / 32);
    let (top, _) = histogram.counts().last().unwrap();
    assert!(top.abs_diff(histogram.max_ns) <= histogram.max_ns / 32);
}

#[test]
fn results_become_records() {
    let Some((info, _guard)) = kernel("results_become_records") else { return };
    let plan = plan(&info, &["bpf_spin_lock", "bpf_spin_lock-empty"]);
    let (configurations, skipped) = plan.configurations().unwrap();
    assert!(skipped.is_empty(), "{skipped:?}");
    let mut sampler = Sampler::new(true, 7);
    let mut workloads = BTreeSet::new();
    for configuration in &configurations {
        let result = sampler.measure(configuration, Duration::from_millis(5), 7).unwrap();
        assert!(result.invariants.violations.is_empty() && result.invariants.checked > 0);
        assert!(result.duration_ns >= 5_000_000);
        let round = result.to_round("compact");
        assert!(round.goodput_ops_s().unwrap() > 0.0);
        assert_eq!(round.series.source, cellbench_record::Source::Kernel);
        assert!(round.latency_sample_every.unwrap() > 0);
        assert!(round.context_switches_involuntary.is_some());
        workloads.insert(round.series.workload.clone());
    }
    assert_eq!(workloads, BTreeSet::from(["empty".to_owned(), "lock-irqsave".to_owned()]));
}

/// Returns the number of interrupts that CPUs sent themselves to run `irq_work`, of all CPUs; none where the
/// kernel does not count them.
fn irq_work_interrupts() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/interrupts").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("IWI:"))?;
    Some(line.split_whitespace().map_while(|count| count.parse::<u64>().ok()).sum())
}

#[test]
fn each_queued_irq_work_is_an_interrupt_and_draining_alone_is_none() {
    let Some((info, _guard)) = kernel("each_queued_irq_work_is_an_interrupt") else { return };
    if let Some(reason) = row(&info, "irq_work-queue").skipped {
        return say(format!("each_queued_irq_work_is_an_interrupt: skipped: {reason}"));
    }
    let Some(_) = irq_work_interrupts() else {
        return say("each_queued_irq_work_is_an_interrupt: skipped: no line IWI".to_owned());
    };
    const TIMES: u32 = 100_000;
    let interrupts = |name: &str| {
        let bench = Bench::open(&row(&info, name), options(Layout::Same, 1)).unwrap();
        let before = irq_work_interrupts().unwrap();
        let counts = bench.worker(0).unwrap().run_batch(TIMES).unwrap();
        let interrupts = irq_work_interrupts().unwrap() - before;
        assert_eq!(counts.of("drain", "ok"), u64::from(TIMES), "{name}: {counts:?}");
        assert_eq!(bench.check(&counts).unwrap().violations, Vec::<String>::new());
        interrupts
    };
    let (with, without) = (interrupts("irq_work-queue"), interrupts("irq_work-without"));
    // Others on this host may send some; two queued before the interrupt came are one.
    assert!(with >= u64::from(TIMES) * 9 / 10, "{with} interrupts of {TIMES} queued");
    assert!(without < u64::from(TIMES) / 10, "{without} interrupts, and none was queued");
}

#[test]
fn impossible_plans_are_refused() {
    let Some((info, _guard)) = kernel("impossible_plans_are_refused") else { return };
    let good = plan(&info, &["bpf_spin_lock"]);
    let most = good.cpus.len() as u32 + 1;
    let plans = [
        Plan { threads: vec![0], ..good.clone() },
        Plan { threads: vec![], ..good.clone() },
        Plan { threads: vec![most], ..good.clone() },
    ];
    for plan in plans {
        assert!(matches!(plan.configurations().unwrap_err(), Error::Plan { .. }));
    }
    let (configurations, _) = good.configurations().unwrap();
    let nothing = Sampler::new(false, 7).measure(&configurations[0], Duration::ZERO, 7);
    assert!(matches!(nothing.unwrap_err(), Error::Plan { .. }));
    let offline = Configuration { cpus: vec![100_000], ..configurations[0].clone() };
    let error = Sampler::new(false, 7).measure(&offline, Duration::from_millis(5), 7).unwrap_err();
    assert!(matches!(error, Error::Pin(_)), "{error:?}");
}

#[test]
fn a_row_of_another_kernel_is_skipped_with_its_reason() {
    let Some((info, _guard)) = kernel("a_row_of_another_kernel_is_skipped") else { return };
    let mut old = info.clone();
    old.functions.retain(|name| !name.starts_with("bpf_timer"));
    let row = row(&old, "timer-start");
    let error = Bench::open(&row, options(Layout::Same, 1)).unwrap_err();
    assert!(
        matches!(error, Error::Unsupported { .. }) && error.to_string().contains("bpf_timer_init")
    );
}

#[test]
fn interrupts_make_attempts_or_say_why_not() {
    let Some((info, _guard)) = kernel("interrupts_make_attempts_or_say_why_not") else { return };
    for row in rows(&info).iter().filter(|row| row.context != Context::Task) {
        match Bench::open(row, options(Layout::Same, 1)) {
            Ok(bench) => {
                let deadline_ns = cellbench_kernel::monotonic_ns() + 20_000_000;
                let counts = bench.worker(0).unwrap().run_until(deadline_ns).unwrap();
                assert!(counts.attempts() > 0, "{row}: no interrupt came");
                assert_eq!(bench.check(&counts).unwrap().violations, Vec::<String>::new(), "{row}");
            }
            Err(Error::Unsupported { reason, .. }) => say(format!("{row}: skipped: {reason}")),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns the identifiers of the programs, maps and links that the kernel holds.
fn held() -> BTreeSet<(&'static str, u32)> {
    use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
    let mut held = BTreeSet::new();
    held.extend(ProgInfoIter::default().map(|info| ("program", info.id)));
    held.extend(MapInfoIter::default().map(|info| ("map", info.id)));
    held.extend(LinkInfoIter::default().map(|info| ("link", info.id)));
    held
}

/// Waits, for a bounded time, until nothing is held that was not held before; the kernel frees in the
/// background.
fn assert_nothing_left(before: &BTreeSet<(&'static str, u32)>) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left: Vec<_> = held().difference(before).copied().collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {left:?}");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_left_after_success_error_and_panic() {
    let Some((info, _guard)) = kernel("nothing_is_left_after_success_error_and_panic") else {
        return;
    };
    let before = held();
    let timer = row(&info, "timer-start");
    {
        let bench = Bench::open(&timer, options(Layout::Same, 1)).unwrap();
        bench.worker(0).unwrap().run_batch(100).unwrap();
        assert!(held().difference(&before).count() > 0, "the enumeration sees what is loaded");
    }
    assert_nothing_left(&before);
    let refused = Bench::open(&timer, options(Layout::Zipf { cells: 3, exponent: 1.0 }, 1));
    assert!(refused.is_err());
    assert_nothing_left(&before);
    let panicked = std::panic::catch_unwind(|| {
        let bench = Bench::open(&timer, options(Layout::Same, 1)).unwrap();
        bench.worker(0).unwrap().run_batch(100).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.is_err());
    assert_nothing_left(&before);
}

/// Starts and kills at random moments: 10, or as many as the environment variable CELLBENCH_KILLS says.
#[test]
fn nothing_is_left_after_a_kill() {
    let Some((_, _guard)) = kernel("nothing_is_left_after_a_kill") else { return };
    let kills = std::env::var("CELLBENCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let before = held();
    let mut rng = SmallRng::seed_from_u64(kills);
    for kill in 0..kills {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kernelproof"))
            .args(["prove", "5"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(0..400)));
        if kill % 2 == 0 {
            // SIGINT, as Ctrl-C sends it.
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
    assert_nothing_left(&before);
}

#[test]
fn without_privileges_the_capabilities_are_named() {
    let Some((_, _guard)) = kernel("without_privileges_the_capabilities_are_named") else { return };
    let nobody = 65_534;
    let output = Command::new(env!("CARGO_BIN_EXE_kernelproof")).arg("prove").uid(nobody).output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return say(format!(
                "without_privileges_the_capabilities_are_named: skipped: cannot run as nobody: {error}"
            ));
        }
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("missing CAP_BPF and CAP_PERFMON"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}
