//! Why the kernel's cells could not be measured, in words that say what to do.

use std::path::PathBuf;

/// Error of the kernel part. Each message names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The crate was built without its measuring part.
    #[error(
        "built without the kernel part; rebuild with --features kernel after installing: clang \
         libelf-dev zlib1g-dev (kernel/install-deps.sh does)"
    )]
    NotBuilt,
    /// The kernel does not describe its types.
    #[error(
        "no BTF at {path}: {source}; this needs a kernel built with CONFIG_DEBUG_INFO_BTF=y and a \
         mounted /sys"
    )]
    NoBtf {
        /// Where it was looked for.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The type description cannot be read.
    #[error("BTF of {path} is damaged: {source}")]
    BadBtf {
        /// Where it came from.
        path: PathBuf,
        /// Fault in the description.
        source: crate::btf::BtfError,
    },
    /// The process may not load BPF programs.
    #[error("not permitted: missing {}; run as root (sudo)", missing.join(" and "))]
    Permission {
        /// Capabilities that are missing, by the kernel's names.
        missing: Vec<String>,
    },
    /// This kernel or host cannot run the row. Skip it and say so.
    #[error("{row}: {reason}")]
    Unsupported {
        /// The row.
        row: String,
        /// Feature or condition that is lacking, in words.
        reason: String,
    },
    /// The kernel refused the programs for another reason than lack of support.
    #[error("{row}: the kernel refused to load it: {reason}")]
    Load {
        /// The row.
        row: String,
        /// Message of the kernel or the verifier, with the remedy where that is known.
        reason: String,
    },
    /// A program could not be run, or a map not be read.
    #[error("{row}: {what}: {reason}")]
    Run {
        /// The row.
        row: String,
        /// Action that failed, in words.
        what: &'static str,
        /// Message of the kernel.
        reason: String,
    },
    /// Cells could not be brought to life before the measurement.
    #[error(
        "{row}: {failed} of {cells} cells could not be initialised: the kernel has no memory for them; \
         use fewer cells"
    )]
    Prepare {
        /// The row.
        row: String,
        /// Cells to prepare.
        cells: u32,
        /// Those that are not.
        failed: u64,
    },
    /// A thread could not be pinned.
    #[error(transparent)]
    Pin(#[from] cellbench_host::pin::PinError),
    /// The plan asks for something that cannot be.
    #[error("{what}")]
    Plan {
        /// Part of the plan that cannot be, and what would do.
        what: String,
    },
    /// The machine is emulated: its times are those of the emulator.
    #[error(
        "this machine is emulated ({emulator}): its timings say nothing about any hardware and are \
         not reported as results"
    )]
    Emulated {
        /// The emulator.
        emulator: String,
    },
}
