//! Counters as Criterion's measurement on the live host, whatever it lets one count.

use std::time::Duration;

use cellbench_criterion::measurement::{CounterMeasurement, MeasurementError};
use criterion::Criterion;
use criterion::measurement::Measurement;

/// Runs `test` on a thread of its own, whose counters and filters go with it.
fn on_own_thread<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(test).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_counter_is_a_criterion_measurement_or_says_why_not() {
    on_own_thread(|| {
        match CounterMeasurement::open("page-faults") {
            Ok(measurement) => {
                measurement.start();
                let touched = vec![1_u8; 8 << 20];
                let faults = measurement.end(());
                assert!(touched.iter().all(|&byte| byte == 1));
                assert!(measurement.to_f64(&faults) >= 1.0);
                assert_eq!(measurement.add(&faults, &measurement.zero()), faults);
                assert!(measurement.formatter().format_value(2500.0).contains("2.500 K events"));
            }
            Err(error) => panic!("{error}"),
        }
        let Err(error) = CounterMeasurement::open("no-such-event") else { panic!("opened") };
        assert!(matches!(error, MeasurementError::Unknown { .. }));
        assert!(error.to_string().contains("page-faults"), "{error}");
        if let Err(error) = CounterMeasurement::open("cycles") {
            assert!(matches!(error, MeasurementError::Unavailable { .. }), "{error}");
        }
    });
}

/// Steps of the loop that is counted.
const STEPS: u64 = 1000;

fn work(mut steps: u64) -> u64 {
    let mut worked = 1_u64;
    while steps > 0 {
        worked = std::hint::black_box(worked.wrapping_mul(3));
        steps -= 1;
    }
    worked
}

/// Where there is a PMU that this process may use; elsewhere the event has a reason.
#[test]
fn instructions_per_iteration_are_those_of_the_loop() {
    on_own_thread(|| {
        let instructions = match CounterMeasurement::open("instructions") {
            Ok(measurement) => measurement,
            Err(error) => {
                assert!(matches!(error, MeasurementError::Unavailable { .. }), "{error}");
                println!("not counted: {error}");
                return;
            }
        };
        let out = std::env::temp_dir().join(format!("cellbench-counted-{}", std::process::id()));
        let moment = Duration::from_millis(20);
        Criterion::default()
            .with_measurement(instructions)
            .output_directory(&out)
            .without_plots()
            .sample_size(10)
            .warm_up_time(moment)
            .measurement_time(moment)
            .bench_function("loop", |bencher| bencher.iter(|| work(STEPS)));
        let estimates = std::fs::read_to_string(out.join("loop/new/estimates.json")).unwrap();
        let estimates: serde_json::Value = serde_json::from_str(&estimates).unwrap();
        let counted = estimates["median"]["point_estimate"].as_f64().unwrap();
        println!("{counted:.0} instructions for {STEPS} steps");
        // A multiplication, a count and a jump each; some times as many where nothing is optimised.
        let steps = STEPS as f64;
        assert!((3.0 * steps..=200.0 * steps).contains(&counted), "{counted} for {STEPS} steps");
        std::fs::remove_dir_all(out).unwrap();
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

#[test]
fn with_perf_denied_the_kernels_accounts_can_be_the_measurement() {
    on_own_thread(|| {
        if !deny_perf_to_this_thread() {
            return;
        }
        assert!(CounterMeasurement::open("page-faults").is_ok());
        assert!(CounterMeasurement::open("cycles").is_err());
    });
}
