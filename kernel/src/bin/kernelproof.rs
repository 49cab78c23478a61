//! `kernelproof probe | prove | solo`: what the running kernel is, whether it behaves, and the solo
//! cost of its basic operations. Small and with few needs, so that it fits into an initramfs.

use std::process::ExitCode;
use std::time::Duration;

use cellbench_host::{CpuId, affinity, pin};
use cellbench_kernel::trace::guest;
use cellbench_kernel::{Bench, Error, Kernel, KernelInfo, Layout, Options, prove, rows};

const USAGE: &str = "usage: kernelproof probe | prove [WINDOW_MS] | solo";
/// Rows that the reference program measures as well.
const SOLO: [&str; 5] = [
    "timer-empty",
    "timer-set_callback",
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
];

fn print_info(info: &KernelInfo) {
    let name =
        |generation: Option<cellbench_kernel::Generation>| generation.map_or("none", |g| g.name());
    println!("kernel     {}", info.release);
    println!("timer      {}", name(info.cells.timer));
    println!("wq         {}", name(info.cells.wq));
    println!("task work  {}", if info.cells.task_work { "task-work" } else { "none" });
    for line in &info.cells.evidence {
        println!("evidence   {line}");
    }
    println!("functions  {}", info.functions.join(" "));
    println!("emulator   {}", info.emulator.as_deref().unwrap_or("none"));
    if info.jit == Some(false) {
        println!("warning    BPF programs are interpreted: times are those of the interpreter");
    }
}

fn cpus() -> Vec<u32> {
    let allowed = affinity::current().unwrap_or_default();
    allowed.iter().map(|cpu| cpu.0).collect()
}

fn prove_all(info: &KernelInfo, window: Duration) -> Result<bool, Error> {
    let (found, skipped) = prove(info, &cpus(), window)?;
    for (row, reason) in &skipped {
        println!("skipped    {row}: {reason}");
    }
    for expectation in &found {
        let mark = if expectation.holds { "ok" } else { "FAILED" };
        println!("{mark:<10} {}: {}", expectation.what, expectation.found);
        if !expectation.holds {
            println!("{:<10} expected {}", "", expectation.expected);
        }
    }
    let failed = found.iter().filter(|e| !e.holds).count();
    println!(
        "generation {}: {} passed, {failed} failed, {} skipped",
        info.cells.timer.map_or("none", |g| g.name()),
        found.len() - failed,
        skipped.len()
    );
    Ok(failed == 0)
}

/// Prints the median time of an attempt of each row, by one thread on one cell.
fn solo(info: &KernelInfo) -> Result<(), Error> {
    const ATTEMPTS: u32 = 2_000_000;
    const REPEATS: usize = 9;
    if let Some(emulator) = &info.emulator {
        return Err(Error::Emulated { emulator: emulator.clone() });
    }
    info.check_permission()?;
    if let Some(cpu) = cpus().last() {
        pin(CpuId(*cpu))?;
    }
    let all = rows(info);
    for row in all.iter().filter(|row| SOLO.contains(&row.name().as_str())) {
        let options = Options { layout: Layout::Same, threads: 1, sample_every: 0, seed: 0 };
        let bench = Bench::open(row, options)?;
        let mut worker = bench.worker(0)?;
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            times.push(worker.run_batch(ATTEMPTS)?.ns_per_attempt().unwrap_or(f64::NAN));
        }
        times.sort_by(f64::total_cmp);
        println!("{row} {:.2} ns", times[REPEATS / 2]);
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<bool, Error> {
    let info = Kernel::probe()?;
    match arguments {
        ["probe"] => print_info(&info),
        ["solo"] => solo(&info)?,
        ["prove", window @ ..] => {
            let window_ms = match window {
                [] => 20,
                [ms] => ms.parse().map_err(|_| Error::Plan { what: USAGE.to_owned() })?,
                _ => return Err(Error::Plan { what: USAGE.to_owned() }),
            };
            print_info(&info);
            return prove_all(&info, Duration::from_millis(window_ms));
        }
        _ => return Err(Error::Plan { what: USAGE.to_owned() }),
    }
    Ok(true)
}

/// Serves as the first process of a machine: does what the host asks for, and switches the machine off.
fn first_process() -> ExitCode {
    let mounted = guest::mount_all().map_err(|error| error.to_string());
    if let Err(error) = mounted.and_then(|()| guest::work()) {
        println!("kernelproof: {error}");
    }
    guest::power_off();
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    if guest::is_first_process() {
        return first_process();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernelproof: {error}");
            ExitCode::from(2)
        }
    }
}
