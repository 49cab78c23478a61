//! All reports over many rounds: whole, within the page's size and the promised memory. How long it
//! takes is printed, not judged: `cargo test --release -p cellbench-plots --test huge -- --nocapture`.

mod fixture;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use cellbench_plots::report::Format;
use cellbench_plots::stats::random::SplitMix64;
use cellbench_plots::write_formats;
use cellbench_record::{RunWriter, Source};
use fixture::{CELLS, round, series};

/// Optimised, the promised number; else fewer, for the time it takes.
const ROUNDS: u32 = if cfg!(debug_assertions) { 10_000 } else { 100_000 };

/// Writes a run of [`ROUNDS`] lines: `per_row` rounds for each row.
fn huge(out: &Path, per_row: u32) -> std::path::PathBuf {
    let writer = RunWriter::create(out, fixture::run()).unwrap();
    let dir = writer.dir().to_owned();
    drop(writer);
    let mut random = SplitMix64::new(1);
    let mut file = BufWriter::new(fs::File::create(dir.join("rounds.jsonl")).unwrap());
    let groups = ROUNDS / per_row / CELLS.len() as u32;
    for number in 0..per_row {
        for group in 0..groups {
            for behaviour in &CELLS {
                let workload = format!("workload-{}", group / 4);
                let series = series(behaviour.cell, &workload, 1 << (group % 4), Source::Model);
                let round = round(&mut random, series, number, 1e7, behaviour);
                serde_json::to_writer(&mut file, &round).unwrap();
                file.write_all(b"\n").unwrap();
            }
        }
    }
    file.flush().unwrap();
    dir
}

/// Returns the largest memory this process ever had, from `/proc/self/status`.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Returns the time this process has had on a CPU, from `/proc/self/stat`: what it would take on an idle
/// host.
fn cpu_time_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the name in parentheses; user and system time are fields 14 and 15, in
    // ticks of 10 ms.
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

#[test]
fn reports_over_many_rounds() {
    // Few rows with many rounds, the usual shape, and a row for every line.
    let text = |format: &dyn Format| !format.is_on_demand();
    for per_row in [ROUNDS / 100, 20, 1] {
        let out = tempfile::tempdir().unwrap();
        let dir = huge(out.path(), per_row);
        let size = fs::metadata(dir.join("rounds.jsonl")).unwrap().len();
        let (start, start_cpu_s) = (Instant::now(), cpu_time_s());
        let written = write_formats(&dir, |_| (), text).unwrap();
        let (elapsed_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_time_s() - start_cpu_s);
        let peak = peak_memory_bytes();
        println!(
            "\n{ROUNDS} rounds in {} rows, {:.0} MB: {elapsed_s:.2} s, of CPU {cpu_s:.2} s, peak {:.0} MB",
            written.loaded.summary.entries.len(),
            size as f64 / 1e6,
            peak as f64 / 1e6
        );
        assert_eq!(written.loaded.summary.entries.len() as u32, ROUNDS / per_row);
        assert_eq!(written.loaded.damage.total, 0);
        let page = fs::metadata(dir.join("report/index.html")).unwrap().len();
        assert!(page < 3_000_000, "{page} bytes");
        assert!(peak <= 500_000_000, "{peak} bytes");
    }
}
