//! `cellbench trace`: what a kernel's operations execute, and what a patch changes about that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use cellbench_kernel::trace::diff::{Difference, difference};
use cellbench_kernel::trace::host::{self, Request};
use cellbench_kernel::trace::report::Trace;
use cellbench_kernel::trace::request::Fault;

use cellbench_measure::cmd::args::parse_duration;
use cellbench_measure::cmd::output;

/// Exit status where `--against` found a difference.
const EXIT_DIFFERENT: u8 = 1;

/// Show what the operations of a kernel image execute: instructions, locked ones, cache lines,
/// locks
///
/// Boots the image in QEMU, without KVM, and measures no time: every run of one image shows the
/// same.
/// With --against, shows what changed from that image to --kernel's; exit status 1 if anything did.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Image file, Debian package (linux-image-...), `running`, or a trace (.json) kept before
    #[arg(long, value_name = "IMAGE")]
    kernel: String,
    /// Compare: the kernel before the patch, given likewise
    #[arg(long, value_name = "IMAGE")]
    against: Option<String>,
    /// Rows by name, as `cellbench kernel --list` shows them [default: all]
    #[arg(long, value_name = "X,Y", value_delimiter = ',')]
    rows: Vec<String>,
    /// Directory for the data [default: target/cellbench/trace]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Program that runs in the guest [default: kernelproof beside this program]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Longest silence of the guest before a row counts as hung
    #[arg(long, value_name = "TIME", default_value = "4m", value_parser = parse_duration)]
    silence: Duration,
    /// Fault that the guest commits, for tests: panic:ROW, hang:ROW, no-btf
    #[arg(long, value_name = "FAULT", hide = true)]
    fault: Vec<Fault>,
    /// Print text for a mail, 72 columns wide; needs --against
    #[arg(long, requires = "against")]
    mail: bool,
    /// Draw the access diagram of each operation below DIR/access
    #[arg(long)]
    svg: bool,
    /// Print JSON instead of text
    #[arg(long, conflicts_with = "mail")]
    json: bool,
}

impl Args {
    fn dir(&self) -> PathBuf {
        self.out
            .clone()
            .unwrap_or_else(|| cellbench_measure::cmd::args::default_out().join("trace"))
    }

    fn program(&self) -> PathBuf {
        self.program.clone().unwrap_or_else(|| {
            let own = std::env::current_exe().unwrap_or_default();
            own.with_file_name("kernelproof")
        })
    }
}

/// Returns the trace of a kernel: read if it was kept, else made and kept.
fn obtain(name: &str, args: &Args) -> anyhow::Result<Trace> {
    if Path::new(name).extension().is_some_and(|extension| extension == "json") {
        let mut trace = Trace::read(Path::new(name))?;
        trace.rows.retain(|row| args.rows.is_empty() || args.rows.contains(&row.name));
        return Ok(trace);
    }
    let dir = args.dir();
    let cache = dir.join("cache");
    let image = host::find_image(name, &cache)?;
    let mut request = Request::new(image, args.program(), cache);
    request.rows.clone_from(&args.rows);
    request.silence = args.silence;
    request.faults.clone_from(&args.fault);
    let mut rows = 0;
    let trace = host::trace(&request, &mut |row| {
        rows += 1;
        output::note(&format!("{name}: {rows}: {row}"));
    })?;
    for (row, ended) in trace.failures() {
        output::note(&format!("{name}: {row}: {ended}; the other rows were traced"));
    }
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let file = dir.join(format!("{}.json", trace.release));
    trace.write(&file)?;
    output::note(&format!("data: {}", file.display()));
    Ok(trace)
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let before = args.against.as_ref().map(|name| obtain(name, args)).transpose()?;
    let trace = obtain(&args.kernel, args)?;
    if args.svg {
        let dir = args.dir().join("access");
        let count = cellbench_kernel::trace::diagram::write_all(&trace, before.as_ref(), &dir)?;
        output::note(&format!("{count} diagrams: {}", dir.display()));
    }
    match before {
        Some(before) => compared(&difference(&before, &trace), args),
        None => {
            if args.json {
                output::emit_json(&trace)?;
            } else {
                output::emit(&trace.table())?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn compared(found: &Difference, args: &Args) -> anyhow::Result<ExitCode> {
    if args.json {
        output::emit_json(found)?;
    } else if args.mail {
        output::emit(&found.mail())?;
    } else {
        output::emit(&found.table())?;
    }
    Ok(ExitCode::from(if found.is_empty() { 0 } else { EXIT_DIFFERENT }))
}
