//! Loads a BPF object: sizes its maps, picks its programs, and turns a refusal into one line.

use std::cell::RefCell;
use std::sync::Once;

use libbpf_rs::{ErrorKind, Object, ObjectBuilder, PrintLevel};

use crate::error::Error;
use crate::operations::Source;
use crate::rows::{Context, Layout, Row};

macro_rules! object {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"))
    };
}

/// Returns the compiled programs of a source in a layout.
fn bytes_of(source: Source, layout: Layout) -> &'static [u8] {
    let packed = matches!(layout, Layout::OwnPacked | Layout::Zipf { .. });
    match (source, packed) {
        (Source::Timer, false) => object!("timer-padded"),
        (Source::Timer, true) => object!("timer-packed"),
        (Source::Wq, false) => object!("wq-padded"),
        (Source::Wq, true) => object!("wq-packed"),
        (Source::TaskWork, false) => object!("task_work-padded"),
        (Source::TaskWork, true) => object!("task_work-packed"),
        (Source::SpinLock, false) => object!("spin_lock-padded"),
        (Source::SpinLock, true) => object!("spin_lock-packed"),
        (Source::ResLock, false) => object!("res_lock-padded"),
        (Source::ResLock, true) => object!("res_lock-packed"),
        (Source::IrqWork, false) => object!("irq_work-padded"),
        (Source::IrqWork, true) => object!("irq_work-packed"),
    }
}

thread_local! {
    /// Messages of libbpf on this thread since loading began. libbpf reports through one callback for the
    /// process; objects are loaded on the thread that asks for it.
    static LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

fn keep(_: PrintLevel, text: String) {
    LOG.with_borrow_mut(|log| log.push_str(&text));
}

/// How many elements the maps of an object have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) cells: u32,
    pub(crate) threads: u32,
}

/// Loads those `programs` of the row's object that it has.
pub(crate) fn load(
    row: &Row,
    layout: Layout,
    sizes: Sizes,
    programs: &[&str],
) -> Result<Object, Error> {
    static CAPTURE: Once = Once::new();
    CAPTURE.call_once(|| {
        libbpf_rs::set_print(Some((PrintLevel::Warn, keep)));
    });
    LOG.with_borrow_mut(String::clear);
    try_load(row, layout, sizes, programs).map_err(|error| {
        let log = LOG.with_borrow_mut(std::mem::take);
        refusal(row, error.kind(), &error.to_string(), &log)
    })
}

fn try_load(
    row: &Row,
    layout: Layout,
    sizes: Sizes,
    programs: &[&str],
) -> libbpf_rs::Result<Object> {
    let mut object =
        ObjectBuilder::default().open_memory(bytes_of(row.operation.source, layout))?;
    for mut map in object.maps_mut() {
        let entries = match map.name().to_str() {
            Some("cells" | "scheduled_ns") => sizes.cells,
            Some("failures" | "keys" | "interrupt_args" | "entries") => sizes.threads,
            _ => continue,
        };
        map.set_max_entries(entries)?;
    }
    for mut program in object.progs_mut() {
        let wanted = programs.iter().any(|name| program.name() == *name);
        program.set_autoload(wanted);
    }
    object.load()
}

/// Returns the verifier's verdict: the line before its closing statistics; else the last line of
/// the log.
fn verdict(log: &str) -> Option<&str> {
    let lines: Vec<&str> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("-- "))
        .collect();
    let statistics = lines
        .iter()
        .position(|line| line.starts_with("verification time") || line.starts_with("processed "));
    match statistics {
        Some(at) => lines.get(at.checked_sub(1)?).copied(),
        None => lines.last().copied(),
    }
}

fn refusal(row: &Row, kind: ErrorKind, error: &str, log: &str) -> Error {
    let said = verdict(log).unwrap_or(error).to_owned();
    // What a verifier says when it lacks the feature, not when the program is wrong.
    let lacking =
        ["tracing progs cannot use", "is not allowed", "unknown func", "program of this type"];
    let refused_context = row.context != Context::Task
        && matches!(kind, ErrorKind::InvalidInput | ErrorKind::PermissionDenied)
        && !said.is_empty();
    if refused_context || lacking.iter().any(|part| said.contains(part)) {
        return Error::Unsupported {
            row: row.name(),
            reason: format!(
                "this kernel's verifier refuses it in {} context: {said}",
                row.context.name()
            ),
        };
    }
    let advice = match kind {
        ErrorKind::PermissionDenied => {
            "; needs CAP_BPF and CAP_PERFMON, and a kernel not locked down \
             (/sys/kernel/security/lockdown)"
        }
        ErrorKind::OutOfMemory => {
            "; not enough memory for its maps: raise the memory cgroup's limit"
        }
        _ if error.contains("os error 7") && !said.contains("program is too large") => {
            "; a map is too large: use fewer cells or threads"
        }
        _ => "",
    };
    Error::Load { row: row.name(), reason: format!("{said}{advice}") }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn the_verdict_is_the_line_before_the_statistics() {
        let log = "libbpf: prog 'irq_start': BPF program load failed: -EINVAL\n\
                   libbpf: prog 'irq_start': -- BEGIN PROG LOAD LOG --\n\
                   tracing progs cannot use bpf_timer yet\n\
                   verification time 34 usec\n\
                   processed 0 insns (limit 1000000)\n\
                   -- END PROG LOAD LOG --\n\
                   libbpf: failed to load object 'timer'\n";
        assert_eq!(verdict(log), Some("tracing progs cannot use bpf_timer yet"));
        assert_eq!(verdict("libbpf: no memory\n"), Some("libbpf: no memory"));
        assert_eq!(verdict(""), None);
    }
}
