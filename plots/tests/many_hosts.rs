//! The merge of many runs: time and memory are printed, and memory is held to its bound. A test by
//! itself, since the peak is the process's. The figures of METHODOLOGY.md:
//! `CELLBENCH_RUNS=200,1000,2000 cargo test -p cellbench-plots --test many_hosts -- --nocapture`.

mod fixture;

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cellbench_plots::merge;
use cellbench_plots::stats::random::SplitMix64;
use cellbench_record::{CoreMatrix, CpuPlace, RunReader, RunWriter, Source};
use fixture::{CELLS, round, series};

/// Numbers of runs that are merged, unless `CELLBENCH_RUNS` names others.
const RUNS: &str = "10,20,40";
/// CPUs of each host; their matrix is what grows with the square.
const CPUS: u32 = 128;
/// Bytes that the merge may take at any number of runs here.
const MOST_BYTES: u64 = 200_000_000;

/// Writes a run of 8 designs x 20 workloads, `rounds` rounds each, of a host with [`CPUS`] CPUs.
fn host(out: &Path, seed: u64, rounds: u32) -> PathBuf {
    let mut random = SplitMix64::new(seed);
    let mut run = fixture::run();
    run.seed = seed;
    run.host.topology.cpus_online = CPUS;
    run.host.topology.cpus = (0..CPUS)
        .map(|cpu| CpuPlace { cpu, package: Some(cpu / 64), ..CpuPlace::default() })
        .collect();
    let row =
        |i: u32| (0..CPUS).map(|j| (i != j).then(|| f64::from(40 + (i ^ j)))).collect::<Vec<_>>();
    run.calibration.core_to_core = vec![CoreMatrix {
        method: "cas".into(),
        cpus: (0..CPUS).collect(),
        one_way_ns: (0..CPUS).map(row).collect(),
    }];
    let dir = RunWriter::create(out, run).unwrap().dir().to_owned();
    let mut file = BufWriter::new(fs::File::create(dir.join("rounds.jsonl")).unwrap());
    for number in 0..rounds {
        for workload in 0..20 {
            for copy in 0..2 {
                for behaviour in &CELLS {
                    let cell = format!("{}{}", behaviour.cell, ["", "-b"][copy]);
                    let series = series(&cell, &format!("workload-{workload}"), 2, Source::Model);
                    let round = round(&mut random, series, number, 1e7, behaviour);
                    serde_json::to_writer(&mut file, &round).unwrap();
                    file.write_all(b"\n").unwrap();
                }
            }
        }
    }
    file.flush().unwrap();
    dir
}

/// Time this process has had on a CPU, from `/proc/self/stat`: what it would take on an idle host.
fn cpu_time_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the name in parentheses; user and system time are fields 14 and 15, in
    // ticks of 10 ms.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Sets the peak of this process's memory to what it has now.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Largest memory since then, from `/proc/self/status`.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn the_merge_of_many_runs_streams() {
    let home = tempfile::tempdir().unwrap();
    let rounds = 3;
    let lines = rounds as usize * 20 * 2 * CELLS.len();
    // A few different runs stand for all: what the merge does with each is the same.
    let different: Vec<PathBuf> =
        (0..10).map(|seed| host(&home.path().join("runs"), seed, rounds)).collect();
    let bytes: u64 = ["run.json", "rounds.jsonl"]
        .iter()
        .map(|name| fs::metadata(different[0].join(name)).unwrap().len())
        .sum();
    println!("\neach run: {lines} rounds, {:.2} MB", bytes as f64 / 1e6);
    let numbers = std::env::var("CELLBENCH_RUNS").unwrap_or_else(|_| RUNS.to_owned());
    for runs in numbers.split(',').map(|number| number.parse::<usize>().unwrap()) {
        let inputs: Vec<PathBuf> = different.iter().cycle().take(runs).cloned().collect();
        let out = home.path().join(format!("merged-{runs}"));
        reset_peak();
        let (start, start_cpu_s) = (Instant::now(), cpu_time_s());
        let merged = merge(&inputs, &out).unwrap();
        let (elapsed_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_time_s() - start_cpu_s);
        let peak = peak_memory_bytes();
        println!(
            "{runs} runs, {:.0} MB: {elapsed_s:.2} s, of CPU {cpu_s:.2} s, {:.2} ms each, peak {:.0} MB",
            runs as f64 * bytes as f64 / 1e6,
            cpu_s * 1e3 / runs as f64,
            peak as f64 / 1e6
        );
        assert_eq!(merged.damage.total, 0);
        assert_eq!(RunReader::open(&merged.dir).unwrap().run().merged_from.len(), runs);
        let copied = BufReader::new(fs::File::open(merged.dir.join("rounds.jsonl")).unwrap());
        assert_eq!(copied.split(b'\n').count(), runs * lines);
        assert!(peak <= MOST_BYTES, "{peak} bytes");
        fs::remove_dir_all(&out).unwrap();
    }
}
