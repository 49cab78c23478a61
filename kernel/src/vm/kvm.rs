//! Whether this host runs a kernel that was not made for it at the speed of its processors.

use std::fs;
use std::path::Path;

/// The way to real processors.
const DEVICE: &str = "/dev/kvm";
const CPUINFO: &str = "/proc/cpuinfo";
const MODULES: &str = "/sys/module";

/// Returns why a kernel cannot be timed in a virtual machine here; none if it can.
#[must_use]
pub fn obstacle() -> Option<String> {
    found(Path::new(DEVICE), Path::new(CPUINFO), Path::new(MODULES))
}

fn found(device: &Path, cpuinfo: &Path, modules: &Path) -> Option<String> {
    if fs::OpenOptions::new().read(true).write(true).open(device).is_err() {
        return Some(format!("no {} that this user may open", device.display()));
    }
    let text = fs::read_to_string(cpuinfo).unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags"));
    if flags
        .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
    {
        return None;
    }
    // Without them a KVM can run kernels that were made for it; another one's instructions it emulates.
    let mut modules: Vec<String> = fs::read_dir(modules)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("kvm_"))
        .collect();
    modules.sort();
    let module =
        if modules.is_empty() { String::new() } else { format!(" ({})", modules.join(", ")) };
    Some(format!(
        "{}{module} has no processors with vmx or svm to run an unmodified kernel on",
        device.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: &str, with_device: bool) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        if with_device {
            fs::write(at("kvm"), b"").unwrap();
        }
        fs::write(at("cpuinfo"), format!("processor\t: 0\nflags\t\t: {flags}\n")).unwrap();
        fs::create_dir_all(at("module/kvm_pvm")).unwrap();
        fs::create_dir_all(at("module/kvm")).unwrap();
        found(&at("kvm"), &at("cpuinfo"), &at("module"))
    }

    #[test]
    fn a_kvm_without_virtualisation_is_told_from_one_with_it() {
        for flags in ["fpu vmx sse2", "fpu sse2 svm"] {
            assert_eq!(of(flags, true), None);
        }
        let without = of("fpu sse2 svm_lock", true).unwrap();
        assert!(without.contains("(kvm_pvm) has no processors with vmx or svm"), "{without}");
        let none = of("fpu vmx", false).unwrap();
        assert!(none.contains("that this user may open"), "{none}");
        assert!(!without.contains('\n') && !none.contains('\n'));
    }
}
