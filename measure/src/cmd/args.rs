//! Flags that several commands take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::backend::cores::{IRQ_WORK_NS, Options};
use crate::session::plan::{Matrix, Selection};
use cellbench_host::Placement;
use cellbench_record::Charges;

/// Most steps a second of an open loop, over all threads: more than the cores of any host begin.
const MOST_RATE: u64 = 1_000_000_000_000;

/// Flags of the commands that measure.
#[derive(Args, Clone, Debug)]
#[command(about = "Measure chosen cells, workloads, CPUs and placements on this host")]
pub struct Measuring {
    /// Where results go.
    #[command(flatten)]
    pub output: Output,
    /// Rows to measure.
    #[command(flatten)]
    pub choice: Choice,
    /// Time for the run without its reports, as 90s, 5m or 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub time_budget: Option<Duration>,
    /// Length of one measurement, as 20ms [default: as the budget allows, 3 to 20 ms]
    #[arg(long, value_name = "TIME", value_parser = parse_window)]
    pub window: Option<Duration>,
    /// Stop after so many rounds, decided or not
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Seed of every random choice [default: from the clock; it stands in run.json]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Cell that the others are compared with [default: spin-queued, or the first of --cells]
    #[arg(long, value_name = "CELL")]
    pub against: Option<String>,
    /// Relative difference that matters, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    pub threshold: f64,
    /// Costs of what user space cannot do.
    #[command(flatten)]
    pub charged: Charged,
    /// Show a live view while measuring: the forest plot as it grows, what is undecided and how
    /// many
    /// rounds it needs; a progress bar where standard error is no terminal
    #[arg(long)]
    pub watch: bool,
    /// Interruptions of each worker a second, in workloads that interrupt; 0: as many as are
    /// handled
    /// [default: the workload's]
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub interrupt_rate: Option<u32>,
}

/// Costs that the model adds for what user space cannot do.
#[derive(Args, Clone, Debug)]
pub struct Charged {
    /// Cost that the model adds to masking interrupts, in nanoseconds: user space cannot mask them
    #[arg(long, value_name = "NS", default_value_t = IRQ_SAVE_NS, value_parser = parse_ns)]
    pub irq_save_ns: f64,
    /// Cost that the model adds to arming a timer
    #[arg(long, value_name = "NS", default_value_t = ARM_TIMER_NS, value_parser = parse_ns)]
    pub arm_ns: f64,
    /// Cost that the model adds to queueing a work
    #[arg(long, value_name = "NS", default_value_t = QUEUE_WORK_NS, value_parser = parse_ns)]
    pub queue_ns: f64,
    /// Cost that the model adds to the interrupt that runs irq_work [default: on real cores 2800, of a
    /// virtual machine, where a CPU leaves the guest to interrupt itself; on simulated ones the machine's
    /// own interrupt]
    #[arg(long, value_name = "NS", value_parser = parse_ns)]
    pub irq_work_ns: Option<f64>,
    /// Add none of these costs
    #[arg(long, conflicts_with_all = ["irq_save_ns", "arm_ns", "queue_ns", "irq_work_ns"])]
    pub no_charges: bool,
}

/// Charges as the kernel run kept in `results/kernel` shows them, in nanoseconds: a masked pair of
/// the
/// resilient lock less an unmasked one.
const IRQ_SAVE_NS: f64 = 7.0;
/// A start of a timer that is armed already, less the lookup and the cell's own part.
const ARM_TIMER_NS: f64 = 220.0;
/// A start of a work, less the same.
const QUEUE_WORK_NS: f64 = 20.0;

/// Returns the charges unless others are given: for masking interrupts, and the rest, of which that for the
/// interrupt of `irq_work` is `irq_work_ns`.
#[must_use]
pub fn usual_charges(irq_work_ns: f64) -> (f64, Charges) {
    let (arm_timer_ns, queue_work_ns) = (ARM_TIMER_NS, QUEUE_WORK_NS);
    (IRQ_SAVE_NS, Charges { arm_timer_ns, queue_work_ns, irq_work_ns })
}

impl Charged {
    /// Returns the charge for masking interrupts, and the others; that for the interrupt of `irq_work` is
    /// `irq_work_ns` unless another one was given.
    #[must_use]
    pub fn of(&self, irq_work_ns: f64) -> (f64, Charges) {
        if self.no_charges {
            return (0.0, Charges::default());
        }
        let charges = Charges {
            arm_timer_ns: self.arm_ns,
            queue_work_ns: self.queue_ns,
            irq_work_ns: self.irq_work_ns.unwrap_or(irq_work_ns),
        };
        (self.irq_save_ns, charges)
    }
}

impl Measuring {
    /// Returns the options of the model on real cores.
    pub fn options(&self) -> Options {
        let (irq_save_cost_ns, charges) = self.charged.of(IRQ_WORK_NS);
        Options { irq_save_cost_ns, charges, interrupt_rate_hz: self.interrupt_rate }
    }
}

/// Where results go.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// Directory for runs; each gets its own below [default: target/cellbench]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

impl Output {
    /// Returns the directory for runs.
    pub fn dir(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(default_out)
    }
}

/// Returns `cellbench` below the target directory that Cargo uses for the current project.
pub fn default_out() -> PathBuf {
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        return PathBuf::from(target).join("cellbench");
    }
    // Cargo sets it for what it runs, and runs benches in the package's directory, not the
    // workspace's, whose lock file tells where that is.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let workspace = package
        .as_deref()
        .and_then(|package| package.ancestors().find(|dir| dir.join("Cargo.lock").is_file()));
    workspace.unwrap_or(Path::new("")).join("target/cellbench")
}

/// Choice of the rows to measure.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Cells and locks by name, as `cellbench list` shows them
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Workloads by name
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Kinds: timer, wq, task_work, lock
    #[arg(long, value_name = "K,L", value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// Numbers of threads, one per CPU [default: 1, 2, 4 ... all]
    #[arg(long, value_name = "N,M", value_delimiter = ',')]
    pub threads: Vec<u32>,
    /// How threads are placed: compact, spread, smt [default: compact]
    #[arg(long, value_name = "P,Q", value_delimiter = ',')]
    pub placement: Vec<Placement>,
    /// Open loop: steps per second over all threads, at random times
    #[arg(long, value_name = "R,S", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=MOST_RATE))]
    pub rates: Vec<u64>,
    /// Only the workloads that repeat an operation until it succeeds
    #[arg(long)]
    pub retry: bool,
    /// The headline workloads only, on one CPU and on all, in under half a minute
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Everything, at every number of threads, in every placement
    #[arg(long)]
    pub full: bool,
}

impl Choice {
    /// Returns the matrix that the flags name.
    pub fn matrix(&self) -> Matrix {
        match (self.quick, self.full) {
            (true, _) => Matrix::Quick,
            (_, true) => Matrix::Full,
            _ => Matrix::Headline,
        }
    }

    /// Returns the matrix, narrowed to the names that were given.
    pub fn selection(&self) -> Selection {
        Selection {
            cells: self.cells.clone(),
            workloads: self.workloads.clone(),
            kinds: self.kinds.clone(),
            threads: self.threads.clone(),
            placements: self.placement.clone(),
            rates_ops_s: self.rates.clone(),
            retry: self.retry,
            ..Selection::of(self.matrix())
        }
    }

    /// Returns the name of what is measured, for the record.
    pub fn matrix_name(&self) -> &'static str {
        let chosen = !(self.cells.is_empty()
            && self.workloads.is_empty()
            && self.kinds.is_empty()
            && self.threads.is_empty()
            && self.placement.is_empty()
            && self.rates.is_empty()
            && !self.retry);
        if chosen { "chosen" } else { self.matrix().name() }
    }
}

/// Reads `90s`, `5m`, `1h30m` or `500ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write 90s, 5m, 1h30m or 500ms");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "" if number.len() == text.len() => 1.0,
            _ => return Err(wrong()),
        };
        let value: f64 = number.parse().map_err(|_| wrong())?;
        total = Duration::try_from_secs_f64(value * seconds)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

fn parse_window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text)?;
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(10));
    if (least..=most).contains(&window) {
        Ok(window)
    } else {
        Err(format!("a window lasts 1ms to 10s, not {text}"))
    }
}

/// Returns a percentage as a share.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
    match percent {
        Some(percent) if percent > 0.0 && percent < 100.0 => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no percentage above 0 and below 100")),
    }
}

fn parse_ns(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ns) if (0.0..=1e6).contains(&ns) => Ok(ns),
        _ => Err(format!("`{text}` is no time from 0 to 1000000 ns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_many_ways() {
        let cases = [
            ("90s", 90.0),
            ("90", 90.0),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            ("500ms", 0.5),
            ("1m500ms", 60.5),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "s", "5x", "-1s", "1h30", "0s", "1e99h", "5m5m5"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_become_shares() {
        assert_eq!(parse_percent("2"), Ok(0.02));
        assert_eq!(parse_percent("0.5%"), Ok(0.005));
        for text in ["0", "100", "-1", "x", "nan"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_makes_a_matrix_chosen() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            choice: Choice,
        }
        let name = |args: &[&str]| {
            let args = ["x"].iter().chain(args);
            Cli::try_parse_from(args).unwrap().choice.matrix_name()
        };
        assert_eq!(name(&[]), "headline");
        assert_eq!(name(&["--quick"]), "quick");
        assert_eq!(name(&["--full"]), "full");
        assert_eq!(name(&["--quick", "--threads", "1,2"]), "chosen");
    }
}
