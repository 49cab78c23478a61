//! The merge of many runs, and the report of what was merged. Time and memory are printed; memory is
//! held to its bound, and the growth of both to n log n by counts: bytes asked of the allocator, and
//! bytes read and written. A test by itself, since all of that is the process's. The figures of
//! METHODOLOGY.md:
//! `CELLBENCH_RUNS=200,1000,2000 cargo test -p cellbench-plots --test many_hosts -- --nocapture`;
//! with `CELLBENCH_REPORT=DIR` also those of the reports, whose pages are left in DIR.

mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cellbench_plots::report::Format;
use cellbench_plots::stats::random::SplitMix64;
use cellbench_plots::{merge, write_formats};
use cellbench_record::{CoreMatrix, CpuPlace, RunReader, RunWriter, Source};
use fixture::{CELLS, round, series};

/// Numbers of runs that are merged, unless `CELLBENCH_RUNS` names others.
const RUNS: &str = "10,30";
/// CPUs of each host; their matrix is what grows with the square.
const CPUS: u32 = 128;
/// Bytes that the merge may take at any number of runs here.
const MOST_BYTES: u64 = 200_000_000;

/// The system's allocator, which counts.
struct Counting;

/// Bytes asked for since the start.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// Bytes held now.
static HELD: AtomicU64 = AtomicU64::new(0);
/// Most bytes held since [`Counts::begin`].
static MOST_HELD: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's allocator does the work; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as u64;
        // Relaxed, here and below: the counts publish nothing.
        ASKED.fetch_add(size, Ordering::Relaxed);
        let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
        MOST_HELD.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Work done, in counts that do not depend on how fast the host is.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Bytes asked of the allocator.
    asked: u64,
    /// Bytes read from and written to files.
    moved: u64,
    /// Most bytes held at a time, beyond those at the start.
    most_held: u64,
}

impl Counts {
    /// Returns what `work` took.
    fn of(work: impl FnOnce()) -> Self {
        let (asked, moved) = (ASKED.load(Ordering::Relaxed), bytes_moved());
        let held = HELD.load(Ordering::Relaxed);
        MOST_HELD.store(held, Ordering::Relaxed);
        work();
        Self {
            asked: ASKED.load(Ordering::Relaxed) - asked,
            moved: bytes_moved() - moved,
            most_held: MOST_HELD.load(Ordering::Relaxed).saturating_sub(held),
        }
    }
}

/// Returns the number of bytes that this process read and wrote, from `/proc/self/io`.
fn bytes_moved() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let of = |name| io.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    ["rchar: ", "wchar: "].iter().map(|name| of(name).parse::<u64>().unwrap()).sum()
}

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

/// Returns the time this process has had on a CPU, from `/proc/self/stat`: what it would take on an idle
/// host.
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

/// Returns the largest memory since then, from `/proc/self/status`.
fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Twice the runs take at most this much of the counts: n log n has 2 (log n + 1) / log n, which is
/// 2.4 at 32; a step that is quadratic has 4.
const TWICE: f64 = 2.4;
/// Bytes that another host may add to what a merge holds at a time.
const MOST_BYTES_OF_HOST: u64 = 16 << 10;

/// One after the other, since peaks and counts are the process's.
#[test]
fn merges_and_reports_of_many_hosts() {
    the_merge_of_many_runs_streams();
    no_step_is_worse_than_n_log_n();
}

/// Checks the growth of each step with the number of hosts. All want the same label here, which is where a
/// search through those given would show.
fn no_step_is_worse_than_n_log_n() {
    let home = tempfile::tempdir().unwrap();
    let run = host(&home.path().join("runs"), 1, 1);
    let text = |format: &dyn Format| !format.is_on_demand();
    let counts = [16, 32, 64].map(|runs| {
        let inputs = vec![run.clone(); runs];
        let out = home.path().join(format!("merged-{runs}"));
        let mut dir = None;
        let merging = Counts::of(|| dir = Some(merge(&inputs, &out).unwrap().dir));
        let dir = dir.unwrap();
        let reporting = Counts::of(|| _ = write_formats(&dir, |_| (), text).unwrap());
        // However many charts there are of single hosts, those that compare hosts have room.
        let page = fs::read_to_string(dir.join("report/index.html")).unwrap();
        for chart in ["chart-hosts-model-timer", "chart-hosts-core-to-core-cas"] {
            assert!(page.contains(chart), "{runs} hosts: no {chart} in the page");
        }
        fs::remove_dir_all(&out).unwrap();
        println!("{runs} runs: merge {merging:?}; report {reporting:?}");
        [merging, reporting]
    });
    // What is there without any run cancels out of the differences.
    let doubled = |of: &dyn Fn(&[Counts; 2]) -> u64| {
        let [one, two, four] = [of(&counts[0]), of(&counts[1]), of(&counts[2])];
        (four - two) as f64 / (two - one) as f64
    };
    for (what, ratio) in [
        ("bytes that the merge asks for", doubled(&|[merge, _]| merge.asked)),
        ("bytes that the merge moves", doubled(&|[merge, _]| merge.moved)),
        ("bytes that the report asks for", doubled(&|[_, report]| report.asked)),
        ("bytes that the report moves", doubled(&|[_, report]| report.moved)),
        ("bytes that the report holds", doubled(&|[_, report]| report.most_held)),
    ] {
        println!("{what}: twice the runs take {ratio:.2} times as many");
        assert!(ratio <= TWICE, "{what}: {ratio}");
    }
    let of_host = (counts[2][0].most_held - counts[1][0].most_held) / 32;
    println!("a host adds {of_host} bytes to what the merge holds");
    assert!(of_host <= MOST_BYTES_OF_HOST, "{of_host} bytes");
}

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
        if let Some(kept) = std::env::var_os("CELLBENCH_REPORT") {
            reset_peak();
            let (start, start_cpu_s) = (Instant::now(), cpu_time_s());
            write_formats(&merged.dir, |_| (), |format| !format.is_on_demand()).unwrap();
            let (elapsed_s, cpu_s) = (start.elapsed().as_secs_f64(), cpu_time_s() - start_cpu_s);
            let page = Path::new(&kept).join(format!("{runs}.html"));
            println!(
                "  its report: {elapsed_s:.2} s, of CPU {cpu_s:.2} s, peak {:.0} MB, page {:.2} MB",
                peak_memory_bytes() as f64 / 1e6,
                fs::copy(merged.dir.join("report/index.html"), page).unwrap() as f64 / 1e6
            );
        }
        fs::remove_dir_all(&out).unwrap();
    }
}
