//! The command line of `cargo bench`, and what other commands share with it: flags, output, reports.
//!
//! Whatever is wrong with the input ends in one line on standard error, `cellbench: error: ...`,
//! with what was wrong, where, and what to do; exit status 2. Results go to standard output, so
//! that they can be piped; progress goes to standard error.

pub mod args;
pub mod command_line;
pub mod output;
pub mod report;
pub mod run;
mod suite;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;

pub use suite::suite;

/// Exit status for wrong input and for whatever else ends a command without its result.
pub const EXIT_ERROR: u8 = 2;

/// Returns the exit status of a command that ended; an error becomes its one line.
pub fn finish(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::from(EXIT_ERROR)
    })
}

/// Writes help and version as clap prints them, and anything else as one line.
pub fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Not `exit`, which does not look whether all was written.
            let status = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_ERROR));
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            finish(match printed {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(status),
                printed => printed.context("standard output").map(|()| status),
            })
        }
        _ => {
            output::error(&anyhow::anyhow!("{}; see --help", what_is_wrong(error)));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Returns the first paragraph of clap's text, as one line; the rest is usage.
pub fn what_is_wrong(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let what: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let what = what.join(" ");
    what.strip_prefix("error: ").unwrap_or(&what).to_owned()
}
