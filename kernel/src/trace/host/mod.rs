//! The part that runs on this machine: finds an image, boots it in QEMU with the guest program and the
//! plugin, and boots it again without the row that made it panic or hang.

mod image;
mod initramfs;
mod machine;
mod plugin;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::TraceError;
use super::log::Log;
use super::raw::{self, Window};
use super::report::Trace;
use crate::operations::OPERATIONS;
use crate::rows::Context;
pub use image::find as find_image;
use machine::{Ended, Machine};

/// Longest time without a word from the guest.
const SILENCE: Duration = Duration::from_secs(240);
/// Boots of one kernel, each without one more row.
const BOOTS: usize = 8;

/// What to trace, and with what.
#[derive(Clone, Debug)]
pub struct Request {
    /// Image file.
    pub image: PathBuf,
    /// Program that is the guest's first process: `kernelproof`, built with the feature `bpf`.
    pub program: PathBuf,
    /// Rows by name; all if empty.
    pub rows: Vec<String>,
    /// Directory for what is kept between runs: the plugin.
    pub cache: PathBuf,
    /// Longest time without a word from the guest before it counts as hung.
    pub silence: Duration,
}

impl Request {
    /// Every row of an image.
    #[must_use]
    pub fn new(image: PathBuf, program: PathBuf, cache: PathBuf) -> Self {
        Self { image, program, rows: Vec::new(), cache, silence: SILENCE }
    }
}

/// Names of every row there is, on whatever kernel.
#[must_use]
pub fn row_names() -> Vec<String> {
    OPERATIONS
        .iter()
        .flat_map(|operation| {
            let contexts = [Context::Task, Context::Hardirq, Context::Nmi];
            contexts
                .into_iter()
                .filter(|context| *context == Context::Task || operation.any_context)
                .map(|context| match context {
                    Context::Task => operation.name.to_owned(),
                    context => format!("{}@{}", operation.name, context.name()),
                })
        })
        .collect()
}

/// An error of the file system, with the file.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> TraceError + use<> {
    let path = path.to_owned();
    move |source| TraceError::Io { path: path.clone(), source }
}

/// A directory that is gone when the run is, however the run ends short of a kill.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, TraceError> {
        fs::create_dir_all(parent).map_err(io(parent))?;
        sweep(parent);
        let path = parent.join(format!("trace-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(io(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing more can be done about a directory that does not go away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what runs that were killed left behind.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix("trace-"));
        if let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok())
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            // Somebody else may sweep at the same time.
            let _ = fs::remove_dir_all(entry.path());
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
    scratch: &Path,
    rows: &[String],
    progress: &mut dyn FnMut(&str),
) -> Result<Boot, TraceError> {
    let initramfs = scratch.join("initramfs");
    initramfs::write(&initramfs, &request.program, rows)?;
    let machine = Machine { image: &request.image, initramfs: &initramfs, plugin, scratch };
    let ended = machine.run(request.silence, progress)?;
    let log = Log::parse(&machine.told()?)?;
    let windows = raw::read(&machine.trace()?)?;
    Ok(Boot { log, windows, ended })
}

/// Traces rows of an image. Rows that make the guest panic or hang are named in the outcome, with the
/// last lines of the guest's console, and the others are traced all the same. `progress` is told each
/// row that the guest begins.
///
/// # Errors
/// [`TraceError`] if QEMU, a compiler or the image is not there or not fit, or a disk is full.
pub fn trace(request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Trace, TraceError> {
    let known = row_names();
    if let Some(name) = request.rows.iter().find(|name| !known.contains(name)) {
        return Err(TraceError::UnknownRow { name: name.clone(), known: known.join(", ") });
    }
    for (file, what) in [(&request.image, "kernel image"), (&request.program, "guest program")] {
        if !file.is_file() {
            return Err(TraceError::Missing { what, path: file.clone() });
        }
    }
    let wanted = if request.rows.is_empty() { &known } else { &request.rows };
    machine::check()?;
    let plugin = plugin::build(&request.cache)?;
    let scratch = Scratch::new(&request.cache)?;
    let mut left: Vec<String> = wanted.clone();
    let mut boots: Vec<(Log, Vec<Window>)> = Vec::new();
    for _ in 0..BOOTS {
        let mut booted = boot(request, &plugin, &scratch.0, &left, progress)?;
        if let Some(error) = booted.log.error {
            return Err(TraceError::Guest { what: error });
        }
        if booted.log.release.is_empty() {
            return Err(TraceError::NoBoot { what: booted.ended.to_string() });
        }
        if let Some(row) = booted.log.rows.iter_mut().find(|row| !row.ended) {
            row.skipped = Some(format!("the guest {}", booted.ended));
        }
        left.retain(|name| !booted.log.rows.iter().any(|row| row.name == *name));
        let done = booted.log.done;
        let silent = !done && booted.log.rows.is_empty();
        boots.push((booted.log, booted.windows));
        if done {
            return Ok(whole(boots, wanted));
        }
        if silent {
            return Err(TraceError::NoBoot { what: booted.ended.to_string() });
        }
    }
    Err(TraceError::NoBoot { what: format!("did not come to its end in {BOOTS} boots") })
}

/// One trace of all boots. The kernel lies where it lay, so that what the last boot told of symbols
/// and structures holds for all.
fn whole(boots: Vec<(Log, Vec<Window>)>, wanted: &[String]) -> Trace {
    let (symbols, layouts) =
        boots.last().map(|(log, _)| (log.symbols.clone(), log.layouts.clone())).unwrap_or_default();
    let mut whole = Trace::default();
    for (mut log, windows) in boots {
        log.symbols = symbols.clone();
        log.layouts = layouts.clone();
        let part = Trace::new(&log, windows);
        let rows = whole.rows.into_iter().chain(part.rows).collect();
        whole = Trace { rows, ..part };
    }
    whole.rows.sort_by_key(|row| wanted.iter().position(|name| *name == row.name));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_has_its_name() {
        let names = row_names();
        assert!(names.contains(&"timer-start@nmi".to_owned()));
        assert!(names.contains(&"bpf_res_spin_lock_irqsave".to_owned()));
        assert!(!names.contains(&"timer-cancel@nmi".to_owned()));
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
        let parent = std::env::temp_dir().join(format!("cellbench-sweep-{}", std::process::id()));
        // No process has this number: the kernel's limit is 2^22.
        let stale = parent.join("trace-4194305");
        fs::create_dir_all(&stale).unwrap();
        let scratch = Scratch::new(&parent).unwrap();
        assert!(!stale.exists() && scratch.0.exists());
        drop(scratch);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        fs::remove_dir(&parent).unwrap();
    }
}
