//! What `cargo bench` runs: `cellbench run` under the conditions of a Cargo bench target.
//!
//! Cargo and the user hand the same arguments to every bench target, those of Criterion and this
//! one. Criterion's own flags are therefore taken and left aside here, and [`criterion`] leaves this
//! one's aside there.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use criterion::Criterion;

use super::args::Measuring;
use super::{finish, output, run, usage};
use crate::session::plan::Plan;
use cellbench_host::Topology;

/// Criterion's flags that take a value.
const CRITERION_VALUES: &[&str] = &[
    "--save-baseline",
    "-s",
    "--baseline",
    "-b",
    "--baseline-lenient",
    "--load-baseline",
    "--sample-size",
    "--warm-up-time",
    "--measurement-time",
    "--nresamples",
    "--noise-threshold",
    "--confidence-level",
    "--significance-level",
    "--profile-time",
    "--color",
    "-c",
    "--colour",
    "--output-format",
    "--plotting-backend",
    "--format",
];
/// Criterion's flags that take none, and those that Cargo hands to test harnesses.
const CRITERION_FLAGS: &[&str] = &[
    "--bench",
    "--verbose",
    "-v",
    "--quiet",
    "--noplot",
    "-n",
    "--discard-baseline",
    "--exact",
    "--ignored",
    "--include-ignored",
    "--nocapture",
    "--show-output",
];
/// Flags with which Criterion does not measure, and neither does the suite.
const NOT_MEASURING: &[&str] = &["--test", "--load-baseline", "--profile-time"];
/// This one's flags that Criterion does not know, without a value.
const OWN_FLAGS: &[&str] = &["--full", "--json", "--retry"];
/// Those with a value.
const OWN_VALUES: &[&str] = &[
    "--out",
    "--cells",
    "--workloads",
    "--kinds",
    "--threads",
    "--placement",
    "--rates",
    "--time-budget",
    "--window",
    "--rounds",
    "--seed",
    "--threshold",
    "--against",
    "--irq-save-ns",
    "--interrupt-rate",
];

/// What the user typed before the arguments.
const COMMAND: &str = "cargo bench --bench suite --";

/// Measure this host and report.
#[derive(Debug, Parser)]
#[command(name = COMMAND, version)]
struct Suite {
    #[command(flatten)]
    measuring: Measuring,
    /// Only rows whose name, as `timer/same-cell/cmpxchg-state`, contains this
    filter: Option<String>,
    /// List the rows instead of measuring them
    #[arg(long)]
    list: bool,
}

/// The suite's whole `main`.
#[must_use]
pub fn suite() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.iter().any(|arg| NOT_MEASURING.contains(&flag(arg))) {
        output::note("suite: nothing measured with these flags");
        return ExitCode::SUCCESS;
    }
    let own = without(&given, CRITERION_FLAGS, CRITERION_VALUES);
    match Suite::try_parse_from(std::iter::once(COMMAND).chain(own.iter().map(String::as_str))) {
        Ok(suite) => finish(measure(&suite, &own)),
        Err(error) => usage(&error),
    }
}

fn measure(suite: &Suite, args: &[String]) -> anyhow::Result<ExitCode> {
    let topology = Topology::read()?;
    let mut plan = Plan::new(&suite.measuring.choice.selection(), &topology)?;
    if let Some(filter) = &suite.filter {
        plan.retain(|name| name.contains(filter.as_str()));
        if plan.is_empty() {
            // It may be a benchmark of another target.
            output::note(&format!("suite: no row matches `{filter}`"));
            return Ok(ExitCode::SUCCESS);
        }
    }
    if suite.list {
        let rows: String = plan.specs().map(|spec| format!("{}\n", spec.series)).collect();
        output::emit(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    run::measure(&suite.measuring, plan, &topology, (COMMAND, args))
}

/// Criterion for this package's benches, configured by the command line. Shorter than its defaults:
/// there are many benchmarks, each of some nanoseconds.
#[must_use]
pub fn criterion() -> Criterion {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(400))
        .sample_size(30)
        .nresamples(5000);
    let given: Vec<String> = std::env::args().skip(1).collect();
    // Pictures of what was chosen: those of everything would take longer than measuring it.
    let chosen = filter(&given);
    let criterion = if chosen.is_some() { criterion } else { criterion.without_plots() };
    if without(&given, OWN_FLAGS, OWN_VALUES) == given {
        return criterion.configure_from_args();
    }
    // Criterion reads the process's arguments itself and would end at one that it does not know.
    match chosen {
        Some(filter) => criterion.with_filter(filter),
        None => criterion,
    }
}

/// What benchmarks were chosen by: the argument that is neither a flag nor the value of one.
fn filter(args: &[String]) -> Option<String> {
    let rest = without(&without(args, OWN_FLAGS, OWN_VALUES), CRITERION_FLAGS, CRITERION_VALUES);
    rest.into_iter().find(|arg| !arg.starts_with('-'))
}

/// The name of a flag, without its value.
fn flag(arg: &str) -> &str {
    arg.split_once('=').map_or(arg, |(name, _)| name)
}

/// The arguments without some flags, and without the value of those that take one.
fn without(args: &[String], flags: &[&str], with_value: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if with_value.contains(&flag(arg)) {
            if !arg.contains('=') {
                args.next();
            }
        } else if !flags.contains(&arg.as_str()) {
            kept.push(arg.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn criterions_flags_are_left_aside_with_their_values() {
        let args =
            words("--bench --save-baseline before same-cell --noplot --sample-size=50 --quick");
        assert_eq!(without(&args, CRITERION_FLAGS, CRITERION_VALUES), words("same-cell --quick"));
    }

    #[test]
    fn own_flags_are_left_aside_for_criterion() {
        let args = words("--bench --threads 1,2 --full solo-set --out=x");
        assert_eq!(without(&args, OWN_FLAGS, OWN_VALUES), words("--bench solo-set"));
    }

    #[test]
    fn a_value_is_no_filter() {
        assert_eq!(filter(&words("--bench --threads 1,2 --save-baseline before --quick")), None);
        let chosen = words("--bench --threads 1,2 solo-set --sample-size 50");
        assert_eq!(filter(&chosen).as_deref(), Some("solo-set"));
    }

    /// A flag that the suite takes and this list forgets would end Criterion.
    #[test]
    fn every_own_flag_is_known_to_be_one() {
        use clap::CommandFactory;
        let shared = ["quick", "help", "version", "list"];
        for arg in Suite::command().get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !shared.contains(long)) else { continue };
            let list = if arg.get_action().takes_values() { OWN_VALUES } else { OWN_FLAGS };
            assert!(list.contains(&format!("--{long}").as_str()), "{long}");
        }
    }
}
