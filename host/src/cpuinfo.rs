//! Statements of the kernel about the processors, in `/proc/cpuinfo`.

use super::roots::Roots;

/// Returns the first value of `key` in `/proc/cpuinfo`.
pub(crate) fn cpuinfo(roots: &Roots, key: &str) -> Option<String> {
    roots.proc("cpuinfo")?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}
