//! The part that runs on this machine: finds an image, boots it in QEMU with the guest program and the
//! plugin, and boots it again without the row that made it panic or hang.

mod image;
pub(crate) mod initramfs;
mod machine;
mod plugin;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::TraceError;
use super::log::Log;
use super::raw::{self, Window};
use super::report::{GUEST, RowTrace, Trace};
use super::request::{CONTENDED, Fault};
use super::stops::{self, Stop};
use crate::operations::OPERATIONS;
use crate::rows::Context;
use crate::vm::qemu;
pub use image::find as find_image;
use machine::{Ended, Machine};

/// Longest time without a word from the guest.
const SILENCE: Duration = Duration::from_secs(240);
/// Boots of one kernel, each without one more row.
const BOOTS: usize = 8;

/// Order for a trace: image, program, rows and options.
#[derive(Clone, Debug)]
pub struct Request {
    /// Image file.
    pub image: PathBuf,
    /// Program that is the guest's first process: `kernelproof`, built with the feature `bpf`.
    pub program: PathBuf,
    /// Rows by name; all if empty.
    pub rows: Vec<String>,
    /// Directory for what is kept between runs: the plugin. The files of the run lie on its disk.
    pub cache: PathBuf,
    /// Longest time without a word from the guest before it counts as hung.
    pub silence: Duration,
    /// Faults that the guest commits, to see what becomes of them.
    pub faults: Vec<Fault>,
}

impl Request {
    /// Returns every row of an image.
    #[must_use]
    pub fn new(image: PathBuf, program: PathBuf, cache: PathBuf) -> Self {
        Self { image, program, rows: Vec::new(), cache, silence: SILENCE, faults: Vec::new() }
    }
}

/// Returns names of every row there is, on whatever kernel.
#[must_use]
pub fn row_names() -> Vec<String> {
    OPERATIONS
        .iter()
        .flat_map(|operation| {
            Context::ALL
                .into_iter()
                .filter(|context| *context == Context::Task || operation.any_context)
                .map(|context| match context {
                    Context::Task => operation.name.to_owned(),
                    context => format!("{}@{}", operation.name, context.name()),
                })
        })
        .collect()
}

/// Returns names of every row that can be traced: those of [`row_names`], and the contended ones.
#[must_use]
pub fn traced_names() -> Vec<String> {
    let contended = stops::ROWS.iter().map(|row| format!("{row}{CONTENDED}"));
    row_names().into_iter().chain(contended).collect()
}

/// Returns an error of the file system, with the file.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> TraceError + use<> {
    let path = path.to_owned();
    move |source| TraceError::Io { path: path.clone(), source }
}

/// Removes what compilations of the plugin left behind that were killed.
fn sweep(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix("trace-plugin-"));
        let owner = owner.and_then(|rest| rest.split_once('.')?.0.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Somebody else may sweep at the same time.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// One boot: what the guest told and what the plugin wrote.
struct Boot {
    log: Log,
    windows: Vec<Window>,
    ended: Ended,
}

fn boot(
    request: &Request,
    plugin: &Path,
    rows: &[String],
    stops: &BTreeMap<String, Stop>,
    progress: &mut dyn FnMut(&str),
) -> Result<Boot, TraceError> {
    let disk = &request.cache;
    let line =
        |row: &String| match row.strip_suffix(CONTENDED).and_then(|of| stops.get_key_value(of)) {
            Some((of, stop)) => format!("hold {of} {:x}", stop.at),
            None => format!("row {row}"),
        };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    let processors = if stops.is_empty() { 1 } else { 2 };
    lines.extend(request.faults.iter().map(|fault| format!("fault {fault}")));
    let initramfs = qemu::nameless(disk)?;
    initramfs::write(&initramfs, disk, &request.program, &lines)?;
    let machine = Machine::new(&request.image, &initramfs, plugin, disk, processors)?;
    let ended = machine.run(request.silence, progress)?;
    let log = Log::parse(&machine.told()?)?;
    let windows = raw::read(&machine.trace()?)?;
    Ok(Boot { log, windows, ended })
}

/// Traces rows of an image. Rows that make the guest panic or hang are named in the outcome, with
/// the
/// last lines of the guest's console, and the others are traced all the same. `progress` is told
/// each
/// row that the guest begins.
///
/// # Errors
/// [`TraceError`] if QEMU, a compiler or the image is not there or not fit, or a disk is full.
pub fn trace(request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Trace, TraceError> {
    let known = traced_names();
    if let Some(name) = request.rows.iter().find(|name| !known.contains(name)) {
        return Err(TraceError::UnknownRow { name: name.clone(), known: known.join(", ") });
    }
    for (file, what) in [(&request.image, "kernel image"), (&request.program, "guest program")] {
        if !file.is_file() {
            return Err(TraceError::Missing { what, path: file.clone() });
        }
    }
    let wanted = if request.rows.is_empty() { &known } else { &request.rows };
    qemu::check()?;
    fs::create_dir_all(&request.cache).map_err(io(&request.cache))?;
    sweep(&request.cache);
    let plugin = plugin::build(&request.cache)?;
    let (contended, mut alone): (Vec<String>, Vec<String>) =
        wanted.iter().cloned().partition(|row| row.ends_with(CONTENDED));
    // Where the second processor is stopped is found in the trace of the call alone.
    for row in contended.iter().filter_map(|row| row.strip_suffix(CONTENDED)) {
        if !alone.iter().any(|known| known == row) {
            alone.push(row.to_owned());
        }
    }
    let mut boots = boot_until_done(request, &plugin, alone, &BTreeMap::new(), progress)?;
    let told = boots.last().map(|(log, _)| log.clone()).unwrap_or_default();
    share_what_was_told(&mut boots, &told);
    let mut found = BTreeMap::new();
    for (log, windows) in &boots {
        found.extend(stops::stops(log, windows));
    }
    let (stopped, never): (Vec<String>, Vec<String>) = contended
        .into_iter()
        .partition(|row| row.strip_suffix(CONTENDED).is_some_and(|of| found.contains_key(of)));
    if !stopped.is_empty() {
        let mut contended = boot_until_done(request, &plugin, stopped, &found, progress)?;
        share_what_was_told(&mut contended, &told);
        boots.extend(contended);
    }
    let mut trace = whole(boots);
    for row in &mut trace.rows {
        let of = row.name.strip_suffix(CONTENDED);
        row.held = of.and_then(|of| found.get(of)).map(|stop| stop.what.clone());
        if row.held.is_some() {
            // See the field: the one thing that two runs of a row of two processors do not share.
            row.filtered.clear();
        }
    }
    trace.rows.extend(never.into_iter().map(|name| RowTrace {
        name,
        context: Context::Task.name().to_owned(),
        skipped: Some("its call alone has no step to stop a second processor at".to_owned()),
        ..RowTrace::default()
    }));
    trace.rows.retain(|row| wanted.contains(&row.name));
    trace.rows.sort_by_key(|row| wanted.iter().position(|name| *name == row.name));
    Ok(trace)
}

/// Boots an image until every row was traced, or was the one during which a boot ended.
fn boot_until_done(
    request: &Request,
    plugin: &Path,
    mut left: Vec<String>,
    stops: &BTreeMap<String, Stop>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<(Log, Vec<Window>)>, TraceError> {
    let mut boots: Vec<(Log, Vec<Window>)> = Vec::new();
    for _ in 0..BOOTS {
        let mut booted = boot(request, plugin, &left, stops, progress)?;
        if let Some(error) = booted.log.error {
            return Err(TraceError::Guest { what: error });
        }
        if booted.log.release.is_empty() {
            return Err(TraceError::NoBoot { what: booted.ended.to_string() });
        }
        settle_unended(&mut booted.log, &booted.ended);
        left.retain(|name| !booted.log.rows.iter().any(|row| row.name == *name));
        let done = booted.log.done;
        let silent = !done && booted.log.rows.is_empty();
        boots.push((booted.log, booted.windows));
        if done {
            return Ok(boots);
        }
        if silent {
            return Err(TraceError::NoBoot { what: booted.ended.to_string() });
        }
    }
    Err(TraceError::NoBoot { what: format!("did not come to its end in {BOOTS} boots") })
}

/// Decides about the row during which a boot ended: it is named as the one that could not be traced, unless QEMU
/// gave up after other rows. Then it is tried again, first in a boot of its own: what QEMU met
/// depends on all that it ran before.
fn settle_unended(log: &mut Log, ended: &Ended) {
    let Some(at) = log.rows.iter().position(|row| !row.ended) else { return };
    if matches!(ended, Ended::Aborted(_)) && at > 0 {
        log.rows.truncate(at);
    } else {
        log.rows[at].skipped = Some(format!("{GUEST}{ended}"));
    }
}

/// Gives every boot the symbols and structures of one that came to its end: one that did not told of none, and
/// the kernel lies where it lay.
fn share_what_was_told(boots: &mut [(Log, Vec<Window>)], told: &Log) {
    for (log, _) in boots {
        log.symbols.clone_from(&told.symbols);
        log.layouts.clone_from(&told.layouts);
    }
}

/// Returns one trace of all boots.
fn whole(boots: Vec<(Log, Vec<Window>)>) -> Trace {
    let mut whole = Trace::default();
    for (log, windows) in boots {
        let part = Trace::new(&log, windows);
        let rows = whole.rows.into_iter().chain(part.rows).collect();
        whole = Trace { rows, ..part };
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::super::log::ToldRow;
    use super::*;

    #[test]
    fn every_row_of_the_tables_has_its_name() {
        let names = row_names();
        assert!(names.contains(&"timer-start@nmi".to_owned()));
        assert!(names.contains(&"bpf_res_spin_lock_irqsave".to_owned()));
        assert!(!names.contains(&"timer-cancel@nmi".to_owned()));
        assert!(names.contains(&"task_work-schedule@softirq".to_owned()));
        // Each contended row is one of an operation that there is.
        let traced = traced_names();
        assert!(stops::ROWS.iter().all(|row| names.iter().any(|name| name == row)));
        assert_eq!(traced.len(), names.len() + stops::ROWS.len());
    }

    #[test]
    fn a_row_is_tried_again_where_qemu_gave_up_after_others() {
        let told = |rows: &[(&str, bool)]| {
            let rows = rows.iter().map(|(name, ended)| ToldRow {
                name: (*name).to_owned(),
                ended: *ended,
                ..ToldRow::default()
            });
            Log { rows: rows.collect(), ..Log::default() }
        };
        let aborted = Ended::Aborted("an assertion".to_owned());
        let mut log = told(&[("a", true), ("b", false)]);
        settle_unended(&mut log, &aborted);
        assert_eq!(log.rows.len(), 1, "b is left for the next boot");
        let mut log = told(&[("b", false)]);
        settle_unended(&mut log, &aborted);
        let reason = log.rows[0].skipped.as_deref().expect("named");
        assert!(reason.contains("gave up: an assertion"), "{reason}");
        let mut log = told(&[("a", true), ("b", false)]);
        settle_unended(&mut log, &Ended::Panic("Oops".to_owned()));
        assert!(log.rows[1].skipped.is_some(), "a panic is the row's own");
    }

    #[test]
    fn a_boot_that_ended_early_has_the_symbols_of_one_that_did_not() {
        let whole = Log::parse("symbol 10 here\n").expect("a symbol");
        let mut boots = [(Log::default(), Vec::new()), (whole.clone(), Vec::new())];
        share_what_was_told(&mut boots, &whole);
        assert_eq!(format!("{:?}", boots[0].0.symbols), format!("{:?}", whole.symbols));
    }

    #[test]
    fn what_is_missing_is_one_line() {
        let directory = std::env::temp_dir();
        let mut request =
            Request::new("/nonexistent/vmlinuz".into(), "/bin/true".into(), directory);
        let error = trace(&request, &mut |_| {}).unwrap_err().to_string();
        assert!(
            error.contains("kernel image") && error.contains("/nonexistent/vmlinuz"),
            "{error}"
        );
        request.rows = vec!["timer-go".to_owned()];
        let error = trace(&request, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("timer-go") && error.contains("timer-start"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let file = |name: &str| cache.path().join(name);
        let own = format!("trace-plugin-{}.so", std::process::id());
        // No process has this number: the kernel's limit is 2^22.
        let names =
            ["trace-plugin-4194305.c", &own, "trace-plugin-00ff00ff00ff00ff.so", "x.vmlinuz"];
        for name in names {
            fs::write(file(name), b"").unwrap();
        }
        sweep(cache.path());
        assert_eq!(names.map(|name| file(name).exists()), [false, true, true, true]);
    }
}
