//! Measures every row of the running kernel at one and, with two CPUs, two threads, and prints what came
//! of it: the shortest complete use of this crate.
//!
//! ```text
//! cargo run --release -p cellbench-kernel --features bpf --example measure [ROUNDS [WINDOW_MS]]
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use cellbench_kernel::{Configuration, Error, Kernel, Layout, Plan, Sampler, rows};

fn argument(number: usize, default: u64) -> Result<u64, Error> {
    std::env::args().nth(number).map_or(Ok(default), |text| {
        text.parse().map_err(|_| Error::Plan { what: format!("{text:?} is not a number") })
    })
}

fn run() -> Result<(), Error> {
    let info = Kernel::probe()?;
    info.check_permission()?;
    let cpus: Vec<u32> =
        (0..).take(std::thread::available_parallelism().map_or(1, usize::from)).collect();
    let plan = Plan {
        rows: rows(&info),
        layouts: vec![Layout::Same, Layout::OwnPadded, Layout::OwnPacked, Layout::ZIPF],
        threads: if cpus.len() > 1 { vec![1, 2] } else { vec![1] },
        cpus,
    };
    let (rounds, window) = (argument(1, 3)?, Duration::from_millis(argument(2, 30)?));
    let (configurations, skipped) = plan.configurations()?;
    println!("{} series", configurations.len());
    for (row, reason) in skipped {
        println!("skipped {row}: {reason}");
    }
    let mut sampler = Sampler::new(true, 1);
    let mut series: BTreeMap<String, Vec<(f64, f64, u64)>> = BTreeMap::new();
    for round in 0..rounds {
        for configuration in &configurations {
            let result = match sampler.measure(configuration, window, round) {
                Ok(result) => result,
                Err(error) => {
                    eprintln!("{error}");
                    continue;
                }
            };
            let Configuration { row, layout, cpus } = configuration;
            let total = result.total();
            let name = format!("{row} {} x{}", layout.name(), cpus.len());
            let failed = 1.0 - total.ok() as f64 / total.attempts().max(1) as f64;
            let p99 = result.latency.values().filter_map(|h| h.quantile_ns(0.99)).max();
            let violations = &result.invariants.violations;
            assert!(violations.is_empty(), "{violations:?}");
            series.entry(name).or_default().push((
                total.ns_per_attempt().unwrap_or(f64::NAN),
                failed,
                p99.unwrap_or(0),
            ));
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
