//! `cellbench pack`: a run as one file to hand on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use cellbench_plots::pack::{Private, file_name, pack};

use cellbench_measure::cmd::output;

/// Make one file of a run, to hand on: records and host, and nothing personal
///
/// Says what is in the file before it is written. `cellbench merge` reads such files.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Directory of the run, such as target/cellbench/latest
    run: PathBuf,
    /// The file [default: RUN-ID.cellbench in this directory]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Name for the host in merged reports, such as `genoa` [default: its CPU model]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// Only say what would be in it
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let packed = pack(&args.run, args.label.as_deref(), &private())?;
    output::emit(&packed.contents)?;
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let to = match &args.to {
        Some(to) => to.clone(),
        None => file_name(&args.run).context("the run's directory has no name; see --to")?,
    };
    if to.exists() {
        bail!("{}: is there already; remove it, or see --to", to.display());
    }
    packed.write(&to)?;
    output::emit(&format!("written   {}\n", to.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns what says who works on this host, and which it is.
fn private() -> Private {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut private = Private::default().with(host.trim(), "HOST");
    for name in ["USER", "LOGNAME", "SUDO_USER"] {
        private = private.with(&std::env::var(name).unwrap_or_default(), "USER");
    }
    let of_home = Path::new(&home).file_name().unwrap_or_default().to_string_lossy();
    private.with(&of_home, "USER")
}
