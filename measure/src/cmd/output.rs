//! Writing to the terminal.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use serde::Serialize;

/// Writes results to standard output. A reader that has seen enough (`| head`) is no error.
pub fn emit(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Writes a value as JSON.
pub fn emit_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value).context("encoding JSON")?;
    text.push('\n');
    emit(&text)
}

/// Writes one line to standard error.
pub fn error(error: &anyhow::Error) {
    say(&format!("cellbench: error: {}", one_line(&with_causes(error))));
}

/// Returns what an error says, and its causes as far as it does not say them itself.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let cause = cause.to_string();
        match said.is_empty() {
            true => cause,
            false if said.contains(&cause) => said,
            false => format!("{said}: {cause}"),
        }
    })
}

/// Tells the user something on standard error.
pub fn note(text: &str) {
    say(&format!("cellbench: {}", one_line(text)));
}

fn say(line: &str) {
    // Nobody is left to be told that standard error is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Returns whether standard output shows colours to somebody who wants them
/// (<https://no-color.org>).
pub fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{one_line, with_causes};

    #[test]
    fn no_cause_is_said_twice() {
        let error = anyhow!("no such file").context("reading a: no such file").context("loading");
        assert_eq!(with_causes(&error), "loading: reading a: no such file");
    }

    #[test]
    fn an_error_is_one_line_whatever_its_cause_says() {
        assert_eq!(one_line("a:\n  b\n\nc\n"), "a:; b; c");
    }
}
