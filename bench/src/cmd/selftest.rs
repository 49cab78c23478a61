//! `cellbench selftest`: can this tool be believed on this host?

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use cellbench_record::{Kind, Run, RunReader, RunWriter, SelfTest, write_atomically};

use crate::check::selftest::{Effort, SelfTester, is_finished, judge, twins};
use cellbench_host::Topology;
use cellbench_measure::backend::Backend;
use cellbench_measure::backend::cores::{self, Cores};
use cellbench_measure::cmd::args::{Output, parse_duration, parse_percent};
use cellbench_measure::cmd::command_line::{command_line, given};
use cellbench_measure::cmd::{output, run};
use cellbench_measure::session::budget;
use cellbench_measure::session::ctrl_c::{self, CtrlC};
use cellbench_measure::session::plan::{Matrix, Plan, Selection, Shard, Spec};
use cellbench_measure::session::run::Settings;

/// The cell that is slowed, and the workload that shows it: short, and on one CPU.
const PLANTED: (&str, &str) = ("spin-queued", "solo-set");
/// Cost of masking interrupts that the model adds in the planted part, about what kernels were
/// measured at: an operation is then long enough for steps of 2 %.
const IRQ_SAVE_NS: f64 = 18.0;
/// Share of the time that goes to A/A.
const A_A_SHARE: f64 = 0.5;

/// Rounds of a comparison, unless the user says otherwise.
const ROUNDS: u32 = 30;

/// Check the tool itself: equal cells must not differ, slowed ones must be found
///
/// Exit status: 0 passed, 1 not, 3 the time ended before.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    output: Output,
    /// Seed of every random choice [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Time for all
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    time_budget: Duration,
    /// Rounds of each comparison
    #[arg(long, value_name = "N", default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(6..))]
    rounds: u32,
    /// Rounds of each A/A comparison
    #[arg(long, value_name = "N", default_value_t = budget::SURVEY_ROUNDS, value_parser = clap::value_parser!(u32).range(6..))]
    a_a_rounds: u32,
    /// Tries of each planted slow-down
    #[arg(long, value_name = "N", default_value = "40", value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// Relative difference that matters, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    threshold: f64,
    /// Write the outcome into this run as well, for its reports
    #[arg(long, value_name = "RUN")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let topology = Topology::read()?;
    // By its real name: `latest` may be another run when this one has ended.
    let real = |dir: &PathBuf| RunReader::open(&fs::canonicalize(dir).unwrap_or(dir.clone()));
    let into = args.into.as_ref().map(real).transpose()?;
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let seed = args.seed.unwrap_or_else(run::seed_from_clock);
    let given = given();
    let settings = Settings {
        out: args.output.dir(),
        seed,
        time_budget: Some(args.time_budget),
        window: None,
        shard: Shard::WHOLE,
        most_rounds: Some(args.rounds),
        stops_when_decided: false,
        threshold_share: args.threshold,
        baseline: PLANTED.0.to_owned(),
        matrix: "self-test".to_owned(),
        command_line: command_line(("cellbench", &given), args.seed.is_none().then_some(seed)),
        watch: false,
        announce: output::note,
    };
    let mut plan = twins(&Plan::new(&Selection::of(Matrix::Headline), &topology)?);
    let order = topology.place(cellbench_host::Placement::Compact, topology.usable.len())?;
    let stuck = run::stuck(settings.out.clone());
    let mut cores = Cores::new(&topology, order, cores::Options::default(), stuck);
    let mut described = settings.describe();
    cores.describe(&mut described);
    let mut writer = RunWriter::create(&settings.out, described)?;
    cores.prepare(settings.time_budget)?;
    let time = args.time_budget.saturating_sub(began.elapsed());
    let share = time.mul_f64(A_A_SHARE);
    let window = budget::fit_rounds(&mut plan, args.a_a_rounds, share, &cores::cost);
    writer.update_run(|run| {
        cores.describe(run);
        run.settings.window_s = window.as_secs_f64();
    })?;
    let spec = planted_spec(&topology)?;
    let effort = Effort { rounds: args.rounds, tries: args.tries };
    let planted_time = effort.planted_time(&spec, window);
    if planted_time > time - share {
        let all = began.elapsed() + share + planted_time;
        output::note(&format!(
            "the time does not suffice for the planted slow-downs: --time-budget {}s does, \
             or fewer --tries",
            all.as_secs() + 1
        ));
    }

    let bar = indicatif::ProgressBar::new(1)
        .with_style(indicatif::ProgressStyle::with_template("{bar:30} {msg}")?);
    let tell = |what: &str, done: u32, of: u32| {
        bar.set_length(u64::from(of));
        bar.set_position(u64::from(done));
        bar.set_message(format!("{what} {done}/{of}"));
    };
    let mut tester = SelfTester {
        cores: &mut cores,
        window,
        writer: &mut writer,
        seed,
        stop: &|| ctrl_c.is_requested() || began.elapsed() >= args.time_budget,
    };
    let aa = tester.a_a(&plan, args.a_a_rounds, &tell)?;
    tester.cores.set_irq_save_cost_ns(IRQ_SAVE_NS);
    let planted = tester.planted(&spec, effort, &tell)?;
    bar.finish_and_clear();

    let outcome = judge(aa, planted, writer.run());
    writer.update_run(|run| run.self_test = Some(outcome.clone()))?;
    if let Some(reader) = into {
        let run = Run { self_test: Some(outcome.clone()), ..reader.run().clone() };
        let mut text = serde_json::to_vec_pretty(&run)?;
        text.push(b'\n');
        write_atomically(&reader.dir().join("run.json"), &text)?;
    }
    if args.output.json {
        output::emit_json(&outcome)?;
    } else {
        output::emit(&table(&outcome, writer.run())?)?;
    }
    Ok(match (ctrl_c.is_requested(), outcome.passed) {
        (true, _) => ExitCode::from(ctrl_c::EXIT_STATUS),
        (_, true) => ExitCode::SUCCESS,
        (_, false) if !is_finished(&outcome) => ExitCode::from(run::EXIT_NOTHING),
        (_, false) => ExitCode::FAILURE,
    })
}

/// Returns the configuration that is slowed.
fn planted_spec(topology: &Topology) -> anyhow::Result<Spec> {
    let selection = Selection {
        cells: vec![PLANTED.0.to_owned()],
        workloads: vec![PLANTED.1.to_owned()],
        kinds: vec![Kind::Timer.to_string()],
        threads: vec![1],
        ..Selection::of(Matrix::Headline)
    };
    let plan = Plan::new(&selection, topology)?;
    plan.specs().next().cloned().context("the planted cell is not in the registry")
}

fn table(outcome: &SelfTest, run: &Run) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let aa = &outcome.aa;
    let share = 100.0 * f64::from(aa.different_uncorrected) / f64::from(aa.comparisons.max(1));
    writeln!(text, "A/A      {} comparisons of cells with themselves", aa.comparisons)?;
    writeln!(
        text,
        "         {} ({share:.1} %) differ at the 5 % level each, {} after correction",
        aa.different_uncorrected, aa.different
    )?;
    if outcome.planted.iter().all(|check| check.tries == 0) {
        writeln!(text, "planted  not tried: the time ended before")?;
    }
    for check in outcome.planted.iter().filter(|check| check.tries > 0) {
        writeln!(
            text,
            "planted  {} slowed by {} % under {}: found in {} of {} tries",
            check.cell, check.slowdown_percent, check.workload, check.found, check.tries
        )?;
    }
    let known = |value: Option<f64>, unit: &str| {
        value.map_or("unknown".to_owned(), |value| format!("{value:.2} {unit}"))
    };
    let calibration = &run.calibration;
    writeln!(text, "timestamp {}", known(calibration.timestamp_ns, "ns"))?;
    writeln!(text, "empty operation {}", known(calibration.empty_op_ns, "ns"))?;
    let sampling = calibration.sampling_cost_share.map(|share| share * 100.0);
    writeln!(text, "sampling latency costs {} of throughput", known(sampling, "%"))?;
    let verdict = match outcome.passed {
        true => "passed",
        false if is_finished(outcome) => "NOT PASSED",
        false => "NOT FINISHED",
    };
    writeln!(text, "{verdict}")?;
    Ok(text)
}
