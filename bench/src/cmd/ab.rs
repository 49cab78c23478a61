//! `cellbench ab`: two revisions of the sources in one run, their rounds interleaved.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args as ClapArgs;

use crate::backend::revisions::source::{Source, difference};
use crate::backend::revisions::{Pair, Revisions, distinct};
use cellbench_measure::cmd::args::Measuring;
use cellbench_measure::cmd::command_line::given;
use cellbench_measure::cmd::{report, run};
use cellbench_measure::session::ctrl_c::CtrlC;
use cellbench_measure::session::run::run as run_session;

/// Compare two revisions of the sources in one run: a patch before and after
///
/// Builds both, loads both, and interleaves their rounds, so that drift of the host moves both alike.
/// A revision is one of git, a directory with sources, or a cellbench binary.
#[derive(ClapArgs, Debug)]
pub(super) struct Args {
    /// Revision before the change: the baseline
    old: String,
    /// Revision after the change
    new: String,
    /// Compare cell OLD of the first revision with cell NEW of the second
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = parse_pair)]
    pair: Vec<Pair>,
    #[command(flatten)]
    measuring: Measuring,
}

fn parse_pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => {
            Ok(Pair { old: old.to_owned(), new: new.to_owned() })
        }
        _ => Err(format!("`{text}` is no pair of cells; write OLD=NEW")),
    }
}

/// Builds, measures and reports.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sources = [Source::named(&args.old)?, Source::named(&args.new)?];
    let dir = args.measuring.output.dir().join("ab");
    let mut notes: Vec<String> = sources.iter().map(Source::describe).collect();
    notes.dedup();
    notes.extend(difference(&sources[0], &sources[1]));
    let [mut old, mut new] = [sources[0].program(&dir)?, sources[1].program(&dir)?];
    [old.label, new.label] = distinct([old.label, new.label]);
    let baseline = old.label.clone();

    let choices = [choice(args, |pair| &pair.old), choice(args, |pair| &pair.new)];
    let (mut revisions, plan) = Revisions::start([old, new], &choices, &args.pair, notes)?;
    let given = given();
    let settings = run::settings(&args.measuring, baseline, ("cellbench", &given));
    let ctrl_c = CtrlC::install().map_err(|error| anyhow!(error))?;
    let finished = run_session(plan, &mut revisions, &settings, ctrl_c)?;
    drop(revisions);
    let answers = report::show(&finished.dir, args.measuring.output.json, &[])?;
    Ok(run::conclude(&finished, answers))
}

/// Returns the flags that say what to measure, for the side whose cell of each pair `of_pair` is.
fn choice(args: &Args, of_pair: impl Fn(&Pair) -> &String) -> Vec<String> {
    let choice = &args.measuring.choice;
    let mut flags: Vec<String> = Vec::new();
    let mut list = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            flags.extend([name.to_owned(), values.join(",")]);
        }
    };
    let mut cells = choice.cells.clone();
    cells.extend(args.pair.iter().map(|pair| of_pair(pair).clone()));
    list("--cells", cells);
    list("--workloads", choice.workloads.clone());
    list("--kinds", choice.kinds.clone());
    list("--threads", choice.threads.iter().map(u32::to_string).collect());
    list("--placement", choice.placement.iter().map(|p| p.name().to_owned()).collect());
    list("--rates", choice.rates.iter().map(u64::to_string).collect());
    let options = args.measuring.options();
    flags.push(format!("--irq-save-ns={}", options.irq_save_cost_ns));
    flags.push(format!("--arm-ns={}", options.charges.arm_timer_ns));
    flags.push(format!("--queue-ns={}", options.charges.queue_work_ns));
    flags.push(format!("--irq-work-ns={}", options.charges.irq_work_ns));
    flags.extend(args.measuring.interrupt_rate.map(|hz| format!("--interrupt-rate={hz}")));
    let switches = [(choice.retry, "--retry"), (choice.quick, "--quick"), (choice.full, "--full")];
    flags.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
    flags
}
