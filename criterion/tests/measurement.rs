//! Counters as Criterion's measurement on the live host, whatever it lets one count.

use cellbench_criterion::measurement::{CounterMeasurement, MeasurementError};
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

/// As in a container: `perf_event_open` answers EPERM to this thread whatever the paranoia level.
/// Whether the filter is in force (a sandbox may refuse it).
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
