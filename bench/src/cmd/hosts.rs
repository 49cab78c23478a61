//! `cellbench hosts`: the packed runs that a repository keeps, checked and shown on one page.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use cellbench_plots::report::Gallery;

use cellbench_measure::cmd::{output, report};

/// Exit status when a file is rejected.
const EXIT_REJECTED: u8 = 1;

/// Check the packed runs of several hosts, and write the page that shows them
///
/// Exit status: 0 all can be shown, 1 a file is rejected.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directory of the packed runs, such as results/hosts
    dir: PathBuf,
    /// Write the page, such as HOSTS.md, with its figures beside it
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

/// Command that makes the page again, for its header.
const PAGE_COMMAND: &str =
    "cargo run --release -p cellbench -- hosts results/hosts --page HOSTS.md";

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (gallery, rejected) = Gallery::read(&args.dir).map_err(|why| anyhow!("{why}"))?;
    for rejected in &rejected {
        output::note(&format!("rejected: {rejected}"));
    }
    for (name, loaded) in &gallery.hosts {
        let cpu = loaded.run.host.cpu_model.as_deref().unwrap_or_default();
        output::emit(&format!("{name}: {cpu}\n"))?;
    }
    if !rejected.is_empty() {
        return Ok(ExitCode::from(EXIT_REJECTED));
    }
    if let Some(page) = &args.page {
        let text = gallery.page(PAGE_COMMAND).map_err(|error| anyhow!(error))?;
        report::write_with_figures(
            page,
            &text,
            gallery.figures().map_err(|error| anyhow!(error))?,
        )?;
    }
    Ok(ExitCode::SUCCESS)
}
