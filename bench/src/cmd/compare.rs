//! `cellbench compare`: two runs against each other.

use std::path::PathBuf;
use std::process::ExitCode;

use cellbench_plots::report::comparison;
use cellbench_plots::{Loaded, Options, compare};

use super::args::parse_percent;
use super::output;

/// Compare two runs: a patch before and after, two hosts, model and kernel
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
    Ok(ExitCode::SUCCESS)
}
