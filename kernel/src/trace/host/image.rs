//! Finds a kernel image: a file, Debian's package, or that of the running kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::io;
use crate::trace::TraceError;

const FETCH: &str = include_str!("../../../vm/fetch-image.sh");
/// Where packages are looked for; the machine's own suites hold only what it could install.
const SUITES: &str = "sid trixie trixie-backports bookworm bookworm-backports experimental";
/// Offset of the magic number of an x86 image (Documentation/arch/x86/boot.rst).
const MAGIC_AT: usize = 0x202;

fn no_image(name: &str, reason: impl Into<String>) -> TraceError {
    TraceError::NoImage { name: name.to_owned(), reason: reason.into() }
}

/// Checks that a file is an image that QEMU can boot.
fn check(path: &Path) -> Result<PathBuf, TraceError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| no_image(&name, error.to_string()))?;
    match bytes.get(MAGIC_AT..MAGIC_AT + 4) {
        Some(b"HdrS") => Ok(path.to_owned()),
        _ => Err(no_image(&name, "not an x86 kernel image (bzImage)")),
    }
}

fn running() -> Result<PathBuf, TraceError> {
    let at = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(at).map_err(io(Path::new(at)))?;
    let release = release.trim();
    let places = [format!("/boot/vmlinuz-{release}"), format!("/lib/modules/{release}/vmlinuz")];
    let found = places.iter().map(Path::new).find(|place| place.is_file());
    found.map_or_else(
        || {
            let reason = format!("Linux {release} keeps no image at {}", places.join(" or "));
            Err(no_image("running", reason))
        },
        check,
    )
}

/// Returns a name that Debian's policy allows for a package, and the shell leaves alone.
fn is_package(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.starts_with("linux-") && name.chars().all(allowed)
}

fn package(name: &str, cache: &Path) -> Result<PathBuf, TraceError> {
    let file = cache.join(format!("{name}.vmlinuz"));
    if file.is_file() {
        return check(&file);
    }
    fs::create_dir_all(cache).map_err(io(cache))?;
    let output = Command::new("bash")
        .args(["-c", FETCH, "fetch-image.sh", name, SUITES])
        .args([cache, &file])
        .output()
        .map_err(|_| TraceError::NoTool { tool: "bash", package: "bash" })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(no_image(name, said.lines().last().unwrap_or("cannot be fetched")));
    }
    check(&file)
}

/// Returns the image that `name` means: a file, Debian's package, or `running`. Images of packages
/// are
/// kept in `cache`.
///
/// # Errors
/// [`TraceError::NoImage`] that says why not.
pub fn find(name: &str, cache: &Path) -> Result<PathBuf, TraceError> {
    match name {
        "running" => running(),
        _ if Path::new(name).exists() => check(Path::new(name)),
        _ if is_package(name) => package(name, cache),
        _ => Err(no_image(name, "neither a file, nor a package (linux-image-...), nor `running`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_said_in_a_line() {
        let cache = std::env::temp_dir();
        let error = |name: &str| find(name, &cache).unwrap_err().to_string();
        assert!(error("/nonexistent/vmlinuz").contains("neither a file"));
        assert!(error("/bin/true").contains("not an x86 kernel image"));
        assert!(error("linux-image; reboot").contains("neither a file"));
    }
}
