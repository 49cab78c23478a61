//! Measures every row of the running kernel at one and, with two CPUs, two threads, and prints what came
//! of it: the shortest complete use of the runner.
//!
//! ```text
//! cargo run --release -p cellbench-kernel --features bpf --example measure [ROUNDS [WINDOW_MS]]
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use cellbench_kernel::{Error, Event, Kernel, Layout, Plan, built, measure, rows};

fn argument(number: usize, default: u64) -> Result<u64, Error> {
    std::env::args().nth(number).map_or(Ok(default), |text| {
        text.parse().map_err(|_| Error::Plan { what: format!("{text:?} is not a number") })
    })
}

fn run() -> Result<(), Error> {
    built()?;
    let info = Kernel::probe()?;
    info.check_permission()?;
    let cpus: Vec<u32> =
        (0..).take(std::thread::available_parallelism().map_or(1, usize::from)).collect();
    let plan = Plan {
        rows: rows(&info),
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads: if cpus.len() > 1 { vec![1, 2] } else { vec![1] },
        cpus,
        placement: "compact".to_owned(),
        rounds: argument(1, 3)? as u32,
        window: Duration::from_millis(argument(2, 30)?),
        latency: true,
        seed: 1,
        stop: None,
        emulator: info.emulator.clone(),
    };
    let measurement = measure(plan)?;
    println!("{} series, timing one attempt costs {:.0} ns", measurement.series_count(), {
        measurement.timing_cost_ns()
    });
    let mut series: BTreeMap<String, Vec<(f64, f64, u64)>> = BTreeMap::new();
    for event in measurement {
        match event {
            Ok(Event::Skipped { row, reason }) => println!("skipped {row}: {reason}"),
            Ok(Event::Round(result)) => {
                let round = result.to_round()?;
                let total = result.total();
                let name =
                    format!("{} {} x{}", result.row, result.layout.name(), result.cpus.len());
                let failed = 1.0 - total.ok() as f64 / total.attempts().max(1) as f64;
                let p99 = result.latency.values().filter_map(|h| h.quantile_ns(0.99)).max();
                assert!(round.invariants.violations.is_empty(), "{:?}", round.invariants);
                series.entry(name).or_default().push((
                    total.ns_per_attempt().unwrap_or(f64::NAN),
                    failed,
                    p99.unwrap_or(0),
                ));
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    println!("{:<48} {:>10} {:>8} {:>9}", "series", "ns/attempt", "failed", "p99 ns");
    for (name, mut rounds) in series {
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ns, failed, p99) = rounds[rounds.len() / 2];
        println!("{name:<48} {ns:>10.1} {:>7.1}% {p99:>9}", 100.0 * failed);
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("measure: {error}");
            std::process::ExitCode::from(2)
        }
    }
}
