//! Traces: what an operation of a kernel executes, instruction by instruction and cache line by cache
//! line, read off the kernel's image under emulation. No time is measured, so that a busy laptop will
//! do, and the outcome is the same every time.
//!
//! ```text
//! host::trace(image)      boots the image in QEMU with kernelproof as its first process
//!   guest::work()            calls each operation between markers, and tells what it called
//!   contended                the same with a second processor stopped in the operation
//!   trace/trace.c           QEMU's plugin: writes down the instructions between markers
//! raw, log                read what the two wrote
//! path                    cuts operations out of windows; interrupts are filtered and counted
//! request                 what the host asks of the guest
//! objects, figures        name addresses, count, and write access scripts
//! stops                   choose where in an operation the second processor is stopped
//! report, diff            tables, data, text for a mail
//! diagram                 pictures
//! ```

#[cfg(feature = "bpf")]
mod contended;
pub mod decode;
pub mod diagram;
pub mod diff;
pub mod figures;
#[cfg(feature = "bpf")]
pub mod guest;
pub mod host;
pub mod log;
pub mod objects;
pub mod path;
pub mod raw;
pub mod report;
pub mod request;
mod stops;
pub mod symbols;

/// Error in a trace, or in the making of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The bytes are not what the plugin or the guest writes.
    #[error("the trace is damaged: {what}")]
    Damaged {
        /// Where, and what is there.
        what: String,
    },
    /// A tool that is needed is not installed.
    #[error("{tool} is missing: apt-get install {package}")]
    NoTool {
        /// The tool.
        tool: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A file that is needed is not there.
    #[error("no {what} at {}{}", path.display(), advice(what))]
    Missing {
        /// Kind of file, in words.
        what: &'static str,
        /// Where it was looked for.
        path: std::path::PathBuf,
    },
    /// There is no such kernel.
    #[error("no kernel {name}: {reason}")]
    NoImage {
        /// As it was asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A row was asked for that there is not.
    #[error("unknown row `{name}`; known are {known}")]
    UnknownRow {
        /// The row.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The compiler refused the plugin.
    #[error("the plugin does not compile: {what}")]
    Plugin {
        /// First message of the compiler.
        what: String,
    },
    /// The guest program could not do its work on this kernel.
    #[error("this kernel cannot be traced: {what}")]
    Guest {
        /// Reason that the guest gave.
        what: String,
    },
    /// The guest did not come so far as to trace a row.
    #[error("the kernel did not come up: the guest {what}")]
    NoBoot {
        /// How it ended.
        what: String,
    },
    /// QEMU or the plugin gave up.
    #[error("{what}")]
    Machine {
        /// Message of QEMU or the plugin.
        what: String,
    },
}

/// Returns what to do about a missing file.
fn advice(what: &str) -> &'static str {
    match what {
        "guest program" => {
            "; build it: cargo build --release -p cellbench-kernel --features bpf --bin kernelproof"
        }
        _ => "",
    }
}

/// Calls of each row that are traced: the first, and as many as it takes until nothing changes.
#[cfg(feature = "bpf")]
pub(crate) const CALLS: u8 = 4;
/// Calls of a row that waits for a millisecond in each.
#[cfg(feature = "bpf")]
pub(crate) const WAITING_CALLS: u8 = 2;
/// Calls of a row while a second processor is stopped in the same operation.
#[cfg(feature = "bpf")]
pub(crate) const CONTENDED_CALLS: u8 = 2;
/// Attempts of a row that chooses between operations at random.
#[cfg(feature = "bpf")]
pub(crate) const MIXED_ATTEMPTS: u64 = 16;
/// Structures whose fields a trace names, and how deep.
#[cfg(feature = "bpf")]
pub(crate) const STRUCTURES: &[(&str, u32)] = &[
    ("bpf_async_kern", 4),
    ("bpf_timer_kern", 4),
    ("bpf_async_cb", 4),
    ("bpf_hrtimer", 5),
    ("bpf_work", 5),
    ("bpf_task_work_kern", 4),
    ("bpf_task_work_ctx", 5),
    ("bpf_prog", 2),
    ("bpf_prog_aux", 2),
    ("bpf_array", 3),
    ("hrtimer_cpu_base", 2),
    ("rqspinlock_held", 1),
    ("task_struct", 2),
];
