//! Facts about the running kernel, and whether this process may measure it.

use std::path::Path;

use cellbench_host::Roots;
use cellbench_host::virtualisation::emulator;

use crate::btf::Btf;
use crate::error::Error;
use crate::generation::{CellGenerations, detect};

/// Where a kernel describes its types.
pub(crate) const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Kernel functions that decide which rows exist. `A|B`: either does.
pub(crate) const KERNEL_FUNCTIONS: [&str; 17] = [
    "bpf_timer_init",
    "bpf_timer_cancel_async",
    "bpf_wq_init",
    "bpf_wq_start",
    "bpf_wq_set_callback",
    "bpf_wq_set_callback_impl",
    "bpf_task_work_schedule_signal",
    "bpf_task_work_schedule_signal_impl",
    "bpf_task_work_schedule_resume",
    "bpf_task_work_schedule_resume_impl",
    "bpf_spin_lock",
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
    "bpf_loop",
    "bpf_user_ringbuf_drain",
    "bpf_iter_num_new",
    "bpf_get_current_task_btf",
];

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Release, as `uname -r` shows it.
    pub release: String,
    /// Generations of its cells.
    pub cells: CellGenerations,
    /// Those of the functions this crate uses that the kernel has.
    pub functions: Vec<String>,
    /// Capabilities this process lacks to measure, by the kernel's names; empty if it may.
    pub missing_capabilities: Vec<String>,
    /// Emulator that runs this machine, as it names itself; none on hardware or under hardware
    /// virtualisation. Under emulation no timing is a result.
    pub emulator: Option<String>,
    /// Whether BPF programs are compiled; none if the kernel does not tell. Interpreted programs
    /// measure the interpreter.
    pub jit: Option<bool>,
}

/// The running kernel, as an entry point.
#[derive(Debug)]
pub struct Kernel;

impl Kernel {
    /// Looks at the running kernel. Needs no privileges and no measuring part.
    ///
    /// # Errors
    /// [`Error::NoBtf`] or [`Error::BadBtf`] if the kernel does not describe its types.
    pub fn probe() -> Result<KernelInfo, Error> {
        Self::probe_at(Path::new(VMLINUX_BTF))
    }

    /// Returns the same with the type description in another file, of the same byte order.
    ///
    /// # Errors
    /// As [`Kernel::probe`].
    pub fn probe_at(path: &Path) -> Result<KernelInfo, Error> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::NoBtf { path: path.to_owned(), source })?;
        let btf =
            Btf::parse(&bytes).map_err(|source| Error::BadBtf { path: path.to_owned(), source })?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(KernelInfo {
            release: release.trim().to_owned(),
            cells: detect(&btf),
            functions: KERNEL_FUNCTIONS
                .iter()
                .filter(|name| btf.has_function(name))
                .map(|name| (*name).to_owned())
                .collect(),
            missing_capabilities: missing_capabilities(&status),
            emulator: emulator(&Roots::live()),
            jit: std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
                .ok()
                .map(|text| text.trim() != "0"),
        })
    }
}

impl KernelInfo {
    /// Returns whether the kernel has function `name`, one of those in [`KernelInfo::functions`].
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.functions.iter().any(|f| f == name)
    }

    /// Fails when this process lacks the capabilities to measure.
    ///
    /// # Errors
    /// [`Error::Permission`] that names them.
    pub fn check_permission(&self) -> Result<(), Error> {
        if self.missing_capabilities.is_empty() {
            return Ok(());
        }
        Err(Error::Permission { missing: self.missing_capabilities.clone() })
    }
}

/// Bits of the capability set (include/uapi/linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Returns what the effective set in the text of `/proc/self/status` lacks. CAP_SYS_ADMIN includes
/// both.
fn missing_capabilities(status: &str) -> Vec<String> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let held = |bit: u32| effective >> bit & 1 == 1;
    if held(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|(bit, _)| !held(*bit))
        .map(|(_, name)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(mask: u64) -> Vec<String> {
        missing_capabilities(&format!("Name:\tx\nCapInh:\t0\nCapEff:\t{mask:016x}\n"))
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(1 << 39), ["CAP_PERFMON"]);
        assert_eq!(missing(1 << 38), ["CAP_BPF"]);
        assert_eq!(missing(1 << 38 | 1 << 39), Vec::<String>::new());
        assert_eq!(missing(1 << 21), Vec::<String>::new());
        assert_eq!(missing_capabilities(""), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn a_kernel_without_btf_is_told_so() {
        let error = Kernel::probe_at(Path::new("/nonexistent/vmlinux")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/vmlinux") && text.contains("CONFIG_DEBUG_INFO_BTF"));
    }
}
