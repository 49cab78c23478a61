//! Whether this is a guest, and whose.
//!
//! | what decides | where | answers |
//! |---|---|---|
//! | CPUID leaf 1, ECX bit 31, which the kernel shows as the flag `hypervisor` | x86 | guest, or bare metal |
//! | a hypervisor's name in firmware or device tree | elsewhere | guest, or unknown |
//!
//! Only x86 has a bit whose absence proves bare metal. Everywhere else a guest without a name that is
//! listed here looks like a machine, so the answer is "cannot be told". The names are those of
//! `host/hypervisors.txt`, with their sources.

use super::cpuinfo::cpuinfo;
use super::roots::Roots;

/// The table of names.
const NAMES: &str = include_str!("../hypervisors.txt");

/// The environment of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Virtualisation {
    /// A virtual machine, by the hypervisor's name (`hypervisor` if it has none that is known).
    Guest(String),
    /// A container; the machine below shows no hypervisor.
    Container,
    /// Bare metal, by the processor's word.
    None,
    /// Nothing proves one or the other.
    Unknown,
}

impl Virtualisation {
    /// Detects the environment: a guest by the processor or by names, a container by its root file
    /// system.
    #[must_use]
    pub fn detect(roots: &Roots) -> Self {
        let guest = in_guest(roots);
        let name = || cpuid_name(roots).or_else(|| firmware_name(roots));
        match guest {
            Some(true) => Self::Guest(name().unwrap_or_else(|| "hypervisor".to_owned())),
            // Elsewhere only a guest's firmware bears such a name, but for that of clouds whose
            // machines are rented whole.
            None if !is_metal_instance(roots) => match name() {
                Some(name) => Self::Guest(name),
                None if has_overlay_root(roots) => Self::Container,
                None => Self::Unknown,
            },
            _ if has_overlay_root(roots) => Self::Container,
            Some(false) => Self::None,
            None => Self::Unknown,
        }
    }

    /// Returns the word for records; none where nothing is known.
    #[must_use]
    pub fn recorded(&self) -> Option<String> {
        match self {
            Self::Guest(hypervisor) => Some(hypervisor.clone()),
            Self::Container => Some("container".to_owned()),
            Self::None => Some("none".to_owned()),
            Self::Unknown => None,
        }
    }
}

/// Returns whether the processor says that it is a guest's; `None` where it does not tell.
fn in_guest(roots: &Roots) -> Option<bool> {
    match cpuinfo(roots, "flags") {
        Some(flags) => Some(flags.split(' ').any(|flag| flag == "hypervisor")),
        None if *roots == Roots::live() => guest_bit(),
        None => None,
    }
}

/// Reads CPUID leaf 1, ECX bit 31: reserved for hypervisors to tell their guests.
#[cfg(target_arch = "x86_64")]
fn guest_bit() -> Option<bool> {
    Some(std::arch::x86_64::__cpuid(1).ecx & 1 << 31 != 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn guest_bit() -> Option<bool> {
    None
}

/// Returns the hypervisor's signature; empty where there is none.
#[cfg(target_arch = "x86_64")]
pub(super) fn cpuid_signature() -> String {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    String::from_utf8_lossy(bytes.as_flattened()).trim_end_matches(['\0', ' ']).to_owned()
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn cpuid_signature() -> String {
    String::new()
}

/// Returns the emulator that executes this machine's instructions, if the processor names one: QEMU's
/// code generator (TCG), by its CPUID signature, or, on Arm, by the part number of its CPU `max` (QEMU,
/// target/arm/tcg/cpu64.c). Its times are those of no hardware.
#[must_use]
pub fn emulator(roots: &Roots) -> Option<String> {
    const TCG: &str = "QEMU TCG";
    let by_signature = *roots == Roots::live()
        && guest_bit() == Some(true)
        && is_code_generator(&cpuid_signature());
    let number = |key| {
        let text = cpuinfo(roots, key)?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let by_part = || (number("CPU implementer"), number("CPU part")) == (Some(0), Some(0x51));
    (by_signature || by_part()).then(|| TCG.to_owned())
}

fn is_code_generator(signature: &str) -> bool {
    signature.starts_with("TCGTCGTCG")
}

/// Returns the name of this machine's hypervisor by its signature; of saved trees nothing is known.
fn cpuid_name(roots: &Roots) -> Option<String> {
    (*roots == Roots::live() && guest_bit() == Some(true))
        .then(|| named(|field| if field == "cpuid" { cpuid_signature() } else { String::new() }))?
}

/// Returns the name by firmware, device tree or the Xen interface.
fn firmware_name(roots: &Roots) -> Option<String> {
    let dmi = |field: &str| roots.sys(&format!("class/dmi/id/{field}")).unwrap_or_default();
    let by_device_tree = || roots.sys("firmware/devicetree/base/hypervisor/compatible");
    let by_xen = || roots.sys("hypervisor/type");
    named(dmi).or_else(by_device_tree).or_else(by_xen).filter(|name| !name.is_empty())
}

/// Tells whether this is an instance of Amazon that is a whole machine: those are named `*.metal`.
fn is_metal_instance(roots: &Roots) -> bool {
    roots.sys("class/dmi/id/product_name").is_some_and(|name| name.contains(".metal"))
}

/// Returns the first name of the table all of whose conditions hold.
fn named(value: impl Fn(&str) -> String) -> Option<String> {
    rows().find_map(|(name, conditions, _)| {
        conditions
            .split(" & ")
            .filter_map(|condition| condition.split_once(' '))
            .all(|(field, begin)| value(field).starts_with(begin))
            .then(|| name.to_owned())
    })
}

/// Returns the rows of the table: name, conditions, source.
fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    NAMES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(|line| {
        let (name, rest) = line.split_once('|')?;
        let (conditions, source) = rest.split_once('|')?;
        Some((name.trim(), conditions.trim(), source.trim()))
    })
}

/// Tells whether the root is an overlay: image-based container runtimes stack an image's layers into one.
fn has_overlay_root(roots: &Roots) -> bool {
    let mounts = roots.proc("self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| {
        let (place, kind) = line.split_once(" - ").unwrap_or((line, ""));
        place.split(' ').nth(4) == Some("/") && kind.starts_with("overlay ")
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Detects the virtualisation where files hold these values; `/proc/cpuinfo` is an Arm's unless given.
    fn detected(files: &[(&str, &str)]) -> Virtualisation {
        Virtualisation::detect(&tree(files).1)
    }

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        let arm = ("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd atomics\n");
        for (path, text) in [&[arm], files].concat() {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let roots = Roots::at(dir.path().join("sys"), dir.path().join("proc"));
        (dir, roots)
    }

    #[test]
    fn only_the_code_generator_counts_as_emulation() {
        assert!(is_code_generator("TCGTCGTCGTCG") && !is_code_generator("KVMKVMKVM"));
        let of = |implementer: &str, part: &str| {
            let text = format!(
                "processor\t: 0\nCPU implementer\t: {implementer}\nCPU architecture: 8\nCPU part\t: {part}\n"
            );
            emulator(&tree(&[("proc/cpuinfo", &text)]).1)
        };
        assert_eq!(of("0x00", "0x051"), Some("QEMU TCG".to_owned()));
        assert_eq!(of("0x41", "0xd40"), None);
        assert_eq!(emulator(&tree(&[]).1), None);
    }

    const VENDOR: &str = "sys/class/dmi/id/sys_vendor";
    const PRODUCT: &str = "sys/class/dmi/id/product_name";

    #[test]
    fn guests_on_arm_are_told_by_their_names() {
        let guest = |name: &str| Virtualisation::Guest(name.to_owned());
        let azure = [(VENDOR, "Microsoft Corporation\n"), (PRODUCT, "Virtual Machine\n")];
        assert_eq!(detected(&azure), guest("Hyper-V"));
        let apple =
            [(VENDOR, "Apple Inc.\n"), (PRODUCT, "Apple Virtualization Generic Platform\n")];
        assert_eq!(detected(&apple), guest("Apple"));
        let openstack = [(VENDOR, "OpenStack Foundation\n"), (PRODUCT, "OpenStack Nova\n")];
        assert_eq!(detected(&openstack), guest("KVM"));
        let amazon = [(VENDOR, "Amazon EC2\n"), (PRODUCT, "c7g.4xlarge\n")];
        assert_eq!(detected(&amazon), guest("Amazon EC2"));
        let tree = [("sys/firmware/devicetree/base/hypervisor/compatible", "linux,kvm\0")];
        assert_eq!(detected(&tree), guest("linux,kvm"));
    }

    #[test]
    fn bare_metal_needs_a_proof() {
        assert_eq!(detected(&[]), Virtualisation::Unknown);
        assert_eq!(detected(&[(VENDOR, "Ampere(R)\n")]), Virtualisation::Unknown);
        let metal = [(VENDOR, "Amazon EC2\n"), (PRODUCT, "c7g.metal\n")];
        assert_eq!(detected(&metal), Virtualisation::Unknown);
        // A tablet's vendor is a hypervisor's.
        let surface = [(VENDOR, "Microsoft Corporation\n"), (PRODUCT, "Surface Pro\n")];
        assert_eq!(detected(&surface), Virtualisation::Unknown);
        // An x86 whose cpuinfo cannot be read.
        assert_eq!(detected(&[("proc/cpuinfo", "")]), Virtualisation::Unknown);
        assert_eq!(Virtualisation::Unknown.recorded(), None);
        let x86 = ("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vme\n");
        assert_eq!(detected(&[x86, (VENDOR, "Amazon EC2")]), Virtualisation::None);
    }

    #[test]
    fn every_name_says_where_it_is_found_and_by_whom() {
        let lines = NAMES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(rows().count(), lines.count());
        let fields = ["cpuid", "sys_vendor", "product_name", "product_version", "board_vendor"];
        for (name, conditions, source) in rows() {
            assert!(!name.is_empty() && source.len() > 8, "{name}: {source}");
            for condition in conditions.split(" & ") {
                let (field, begin) = condition.split_once(' ').unwrap();
                assert!(fields.contains(&field) && begin.len() > 1, "{name}: {condition}");
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_processor_says_the_same_as_the_kernel() {
        let flags = cpuinfo(&Roots::live(), "flags").expect("x86 has flags");
        assert_eq!(guest_bit(), Some(flags.split(' ').any(|flag| flag == "hypervisor")));
        if guest_bit() == Some(true) {
            assert!(!cpuid_signature().is_empty());
        }
    }
}
