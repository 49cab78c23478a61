//! `cellbench run`: measure, record, report. Also what `cargo bench` does.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;

use super::args::Measuring;
use super::command_line::{command_line, given};
use super::{output, report};
use crate::backend::cores::Cores;
use crate::backend::cores::round::OnStuck;
use crate::session::ctrl_c::{self, CtrlC};
use crate::session::plan::{Matrix, Plan, PlanError, known_cells};
use crate::session::plan::{Shard, Spec};
use crate::session::run::{Ended, Finished, Settings, run as run_session};
use crate::session::subject;
use crate::session::watch::restore_terminal;
use cellbench_host::topology::Topology;

/// Exit status when an invariant broke: a cell is wrong.
pub const EXIT_VIOLATION: u8 = 1;
/// Exit status of a run that measured nothing which can be judged: no round, or disturbed ones
/// alone.
pub const EXIT_NOTHING: u8 = 3;
/// Cell that the others are compared with, unless it is not measured.
const BASELINE: &str = cellbench_plots::options::DEFAULT_BASELINE;

/// Measures and reports.
pub fn run(args: &Measuring) -> anyhow::Result<ExitCode> {
    let topology = Topology::read()?;
    let plan = Plan::new(&args.choice.selection(), &topology)?;
    let given = given();
    measure(args, plan, &topology, ("cellbench", &given))
}

/// Measures a plan and reports. `command` is what was typed: what comes first, and the arguments.
pub fn measure(
    args: &Measuring,
    plan: Plan,
    topology: &Topology,
    command: (&str, &[OsString]),
) -> anyhow::Result<ExitCode> {
    let baseline = baseline(args.against.as_deref(), &mut plan.specs())?;
    let settings = settings(args, baseline, command);
    let options = args.options();
    let mut cores = Cores::new(topology, plan.cpus(), options, stuck(settings.out.clone()));
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let finished = run_session(plan, &mut cores, &settings, ctrl_c)?;
    let answers = report::show(&finished.dir, args.output.json, &[])?;
    Ok(conclude(&finished, answers))
}

/// Returns the exit status of a run that ended. `answers`: whether its rows can answer anything.
pub fn conclude(finished: &Finished, answers: bool) -> ExitCode {
    for violation in &finished.violations {
        output::note(&format!("error: {violation}"));
    }
    if !finished.violations.is_empty() {
        ExitCode::from(EXIT_VIOLATION)
    } else if finished.ended == Ended::Interrupted {
        ExitCode::from(ctrl_c::EXIT_STATUS)
    } else if !answers {
        ExitCode::from(EXIT_NOTHING)
    } else {
        ExitCode::SUCCESS
    }
}

/// Returns the settings of a session from the flags.
pub fn settings(args: &Measuring, baseline: String, command: (&str, &[OsString])) -> Settings {
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    Settings {
        out: args.output.dir(),
        seed,
        time_budget: Some(args.time_budget.unwrap_or_else(|| default_budget(args.choice.matrix()))),
        window: args.window,
        shard: Shard::WHOLE,
        most_rounds: args.rounds,
        threshold_share: args.threshold,
        baseline,
        stops_when_decided: true,
        matrix: args.choice.matrix_name().to_owned(),
        command_line: command_line(command, args.seed.is_none().then_some(seed)),
        watch: args.watch,
        announce: output::note,
    }
}

/// Returns the time for a matrix: with the other benches and the reports, `cargo bench` takes five
/// minutes
/// on two CPUs, and below a minute with `--quick`.
fn default_budget(matrix: Matrix) -> Duration {
    Duration::from_secs(match matrix {
        Matrix::Quick => 20,
        Matrix::Headline => 280,
        Matrix::Full => 3600,
    })
}

/// Returns the cell asked for, else the usual one if it is measured, else the first that is.
pub fn baseline(
    asked: Option<&str>,
    specs: &mut dyn Iterator<Item = &Spec>,
) -> Result<String, PlanError> {
    let measured: Vec<&str> = specs.map(|spec| spec.series.cell.as_str()).collect();
    match asked {
        Some(name) if measured.contains(&name) => Ok(name.to_owned()),
        Some(name) if !subject::named(name).is_empty() => Err(PlanError::Nothing {
            reasons: format!(
                "--against {name}: it is not among the cells chosen; add it to --cells"
            ),
        }),
        Some(name) => {
            Err(PlanError::Unknown { what: "cell", name: name.to_owned(), known: known_cells() })
        }
        None if measured.contains(&BASELINE) => Ok(BASELINE.to_owned()),
        None => Ok((*measured.first().unwrap_or(&BASELINE)).to_owned()),
    }
}

/// Returns nanoseconds of the clock: different for each run, and recorded.
pub fn seed_from_clock() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    // 53 bits, which every JSON reader keeps.
    since.as_nanos() as u64 & ((1 << 53) - 1)
}

/// Ends the process when workers do not come back: they cannot be ended otherwise. What was
/// recorded
/// below `out` stays.
pub fn stuck(out: PathBuf) -> OnStuck {
    Box::new(move |error| {
        let kept = format!("{}: the newest run did not end, its rounds are kept", out.display());
        restore_terminal();
        output::error(&anyhow!(error).context(kept));
        std::process::exit(i32::from(EXIT_VIOLATION));
    })
}
