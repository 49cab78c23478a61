//! `cellbench compare`: two runs against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use cellbench_plots::compare::RunComparison;
use cellbench_plots::report::comparison;
use cellbench_plots::{Loaded, Options, compare};
use cellbench_record::Verdict;

use cellbench_measure::cmd::args::parse_percent;
use cellbench_measure::cmd::output;

/// Exit status when something that --fail-on names is there.
const EXIT_FAILED: u8 = 1;

/// Compare two runs: a patch before and after, two hosts, model and kernel
///
/// Exit status: 0; with --fail-on 1 if a row has a verdict named there or a broken invariant, or if
/// the runs have no row in common.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directory of the first run
    a: PathBuf,
    /// Directory of the second run
    b: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Relative difference that matters, in percent [default: what the second run says]
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    threshold: Option<f64>,
    /// End with status 1 if B has a row with one of these verdicts, a row that broke an invariant,
    /// or
    /// no row in common with A
    #[arg(long, value_name = "V,W", value_delimiter = ',')]
    fail_on: Vec<FailOn>,
}

/// Outcome of a comparison that a script may call a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    Slower,
    Faster,
    Undecided,
}

impl FailOn {
    fn verdict(self) -> Verdict {
        match self {
            Self::Slower => Verdict::Slower,
            Self::Faster => Verdict::Faster,
            Self::Undecided => Verdict::Undecided,
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let options = |options: &mut Options| {
        if let Some(threshold) = args.threshold {
            options.threshold_share = threshold;
        }
    };
    let a = Loaded::read(&args.a, options)?;
    let b = Loaded::read(&args.b, options)?;
    for damage in a.damage.first.iter().chain(&b.damage.first) {
        output::note(&format!("left out: {damage}"));
    }
    let found = compare(&a, &b);
    if args.json {
        output::emit_json(&found)?
    } else {
        output::emit(&comparison(&found))?
    }
    Ok(conclude(&found, &args.fail_on))
}

/// Returns the exit status, and in a line why it is not 0.
fn conclude(found: &RunComparison, fail_on: &[FailOn]) -> ExitCode {
    if fail_on.is_empty() {
        return ExitCode::SUCCESS;
    }
    let mut reasons: Vec<String> = fail_on
        .iter()
        .map(|fail_on| (fail_on.verdict(), found.count(fail_on.verdict())))
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    let broken = found.rows.iter().filter(|row| row.broken).count();
    if broken > 0 {
        reasons.push(format!("{broken} with a broken invariant"));
    }
    if found.rows.is_empty() {
        reasons.push("no row in both runs".to_owned());
    }
    if reasons.is_empty() {
        return ExitCode::SUCCESS;
    }
    output::note(&format!("--fail-on: {}", reasons.join(", ")));
    ExitCode::from(EXIT_FAILED)
}
