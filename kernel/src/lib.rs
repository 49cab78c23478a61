//! The running kernel's own async cells and locks, measured through BPF.
//!
//! The models of this project stand or fall by the real thing, and the users' question is mostly "my
//! kernel before and after the patch". This crate makes the running kernel do what the workloads do
//! to the models: BPF programs of type `syscall` call the kernel's own timers, work queues, task
//! works and locks in a loop, entered from pinned threads, and count every outcome.
//!
//! ```text
//! Kernel::probe()         generation of the cells, functions, capabilities, emulation
//! rows(&info)             every operation in every context, or why this kernel lacks it
//! Bench::open(row, ..)    one of them loaded, with fresh cells
//!   .worker(thread)         then on each pinned thread
//!     .run_batch(n)           n times round the loop
//!     .run_until(deadline)    or until the common deadline
//!   .check(..) .latency()   invariants and latencies afterwards
//! Plan::configurations()  rows x layouts x threads
//! Sampler::measure(..)    one of them once: pins, measures, checks
//!   RoundResult::to_round()  as a line of a record
//! vm::Guest::boot(..)     the same in a virtual machine that runs another kernel
//! ```
//!
//! Without the feature `bpf` there is no `Bench` and no `Sampler`, and [`built`] says so. Nothing is
//! ever pinned in a BPF file system: the kernel takes back programs, maps, timers and perf events
//! when the process ends, however it ends.
//!
//! What the numbers include: a map lookup and a counter per attempt (the `-empty` rows measure both),
//! and interrupt masking, allocator and hrtimer, which the models leave out.

#[cfg(feature = "bpf")]
mod bench;
pub mod btf;
mod counts;
mod error;
mod generation;
mod histogram;
mod info;
#[cfg(feature = "bpf")]
mod interrupt;
#[cfg(feature = "bpf")]
mod measure;
#[cfg(feature = "bpf")]
mod object;
mod operations;
mod options;
mod plan;
#[cfg(feature = "bpf")]
mod proof;
mod rows;
pub mod trace;
pub mod vm;

#[cfg(feature = "bpf")]
pub use bench::{Bench, Worker, monotonic_ns};
pub use counts::{Counts, errno_name};
pub use error::Error;
pub use generation::{CellGenerations, Generation, detect};
pub use histogram::Histogram;
pub use info::{Kernel, KernelInfo};
#[cfg(feature = "bpf")]
pub use measure::Sampler;
pub use options::Options;
pub use plan::{Configuration, Plan, RoundResult, Skipped};
#[cfg(feature = "bpf")]
pub use proof::{Expectation, prove};
pub use rows::{Context, Layout, Row, rows};

/// Returns whether the measuring part was built in.
///
/// # Errors
/// [`Error::NotBuilt`] if not, which says how to get it.
pub fn built() -> Result<(), Error> {
    if cfg!(feature = "bpf") { Ok(()) } else { Err(Error::NotBuilt) }
}
