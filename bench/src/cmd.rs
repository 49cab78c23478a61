//! The command line: one file for each sub-command.
//!
//! Whatever is wrong with the input ends in one line on standard error, `cellbench: error: ...`,
//! with what was wrong, where, and what to do; exit status 2. Results go to standard output, so
//! that they can be piped; progress goes to standard error.

mod ab;
mod advise;
mod builds;
mod compare;
mod doctor;
mod fleet;
mod hosts;
#[cfg(test)]
mod inputs;
mod kernel;
mod list;
mod merge;
mod pack;
mod selftest;
mod serve;
mod sim;
mod stress;
mod topology;
mod trace;

use std::ffi::OsString;
use std::process::ExitCode;

use cellbench_host::threads;
use cellbench_plots::report::glossary;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use cellbench_measure::cmd::args::Measuring;
use cellbench_measure::cmd::{finish, output, report, run, usage};

/// Measures the async cell of BPF timers, work queues and task works in every design.
#[derive(Debug, Parser)]
#[command(name = "cellbench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Doctor(doctor::Args),
    Topology(topology::Args),
    Run(Box<Measuring>),
    Sim(Box<sim::Args>),
    Stress(Box<stress::Args>),
    Report(report::Args),
    Compare(compare::Args),
    Builds(builds::Args),
    Merge(merge::Args),
    Pack(pack::Args),
    Hosts(hosts::Args),
    Selftest(selftest::Args),
    Kernel(kernel::Args),
    Trace(trace::Args),
    Ab(Box<ab::Args>),
    /// Measure rows as `cellbench ab` asks on standard input
    #[command(hide = true)]
    ServeRounds(Box<Measuring>),
    Advise(advise::Args),
    /// Explain the words of the reports
    Words,
    Fleet(fleet::Args),
}

/// Returns the `cellbench` command, from its arguments to its exit status.
#[must_use]
pub fn main() -> ExitCode {
    if std::env::args_os().len() < 2 {
        return finish(output::emit(FIRST_STEPS).map(|()| ExitCode::SUCCESS));
    }
    let words = Cli::command().mut_subcommand("words", |words| words.after_help(glossary_text()));
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // clap knows no flags of its own command `help`.
    if arguments[1] == "help"
        && arguments.get(2).is_some_and(|flag| flag == "--help" || flag == "-h")
    {
        arguments[2] = "help".into();
    }
    let found = words.try_get_matches_from(arguments);
    let cli = match found.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if matches!(
        cli.command,
        Command::Sim(_)
            | Command::Advise(_)
            | Command::Report(_)
            | Command::Compare(_)
            | Command::Builds(_)
            | Command::Merge(_)
            | Command::Pack(_)
            | Command::Hosts(_)
    ) {
        fall_back_to_one_thread();
    }
    let outcome = match cli.command {
        Command::List(args) => list::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Topology(args) => topology::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Stress(args) => stress::run(&args),
        Command::Kernel(args) => kernel::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Ab(args) => ab::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::ServeRounds(args) => serve::run(&args),
        Command::Words => output::emit(&glossary_text()).map(|()| ExitCode::SUCCESS),
        Command::Fleet(args) => fleet::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Builds(args) => builds::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Hosts(args) => hosts::run(&args),
        Command::Selftest(args) => selftest::run(&args),
    };
    finish(outcome)
}

/// The commands that one needs first, for who gives none.
const FIRST_STEPS: &str = "\
cellbench measures the ways of synchronising a BPF async cell. To begin with:

  cellbench sim --quick   an answer in seconds, on a simulated 112-core machine
  cellbench doctor        is this host fit to measure on, and what to change
  cellbench run --quick   measure this host and report, in under a minute

`cellbench help` lists all commands, `cellbench words` explains the reports.
";

/// Returns the glossary, a line for each word.
fn glossary_text() -> String {
    glossary::words().map(|(word, meaning)| format!("{word}: {meaning}\n")).collect()
}

/// Has reports and simulations made on this thread where no others can be started; Rayon's own pool
/// would panic.
fn fall_back_to_one_thread() {
    let wanted = std::thread::available_parallelism().map_or(1, usize::from);
    if threads::together(wanted, |_| ()).is_err() {
        output::note("no threads can be started here: on one, it takes longer");
        // Rayon says no where a pool is there already, which is as good.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    }
}
