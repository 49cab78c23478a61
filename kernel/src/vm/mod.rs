//! Kernels in virtual machines, measured as the running one is.
//!
//! ```text
//! Machine            what to boot, with which processors
//! Guest::boot()        boots it with kernelproof as its first process, which tells its rows
//!   .measure(..)         has it measure one of them
//! kvm::obstacle()    why this host cannot run one at its own speed
//! serve::serve()     the part in the guest
//! ```
//!
//! With KVM the processors are real ones and each is pinned. Without, QEMU's code generator executes
//! one instruction in each nanosecond of the guest's clock: what looks like a time is a number of
//! instructions then, and is called that.

mod guest;
pub mod kvm;
pub mod protocol;
pub(crate) mod qemu;
#[cfg(feature = "bpf")]
pub mod serve;

pub use guest::{Engine, Guest, Machine, VmError};
