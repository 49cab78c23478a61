//! Saved machines: text manifests in this directory, unpacked into a temporary `/sys`.
//!
//! A line is `path = value`. One `[LIST]` in a path repeats the line for every number of the CPU
//! list, and in the value `{n}`, `{n+K}`, `{n-K}` then stand for that number and its neighbours.
//! `#` begins a comment line.

use std::fs;
use std::path::Path;

use cellbench_host::CpuSet;
use tempfile::TempDir;

/// Unpacks a manifest; the tree lives as long as the returned directory.
pub(crate) fn unpack(manifest: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    unpack_into(dir.path(), manifest);
    dir
}

/// Unpacks a manifest below `root`, over what is there.
pub(crate) fn unpack_into(root: &Path, manifest: &str) {
    for line in
        manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (path, value) = line.split_once('=').unwrap_or_else(|| panic!("`{line}`: no `=`"));
        let (path, value) = (path.trim(), value.trim());
        let Some((before, rest)) = path.split_once('[') else {
            write(root, path, value);
            continue;
        };
        let (list, after) = rest.split_once(']').unwrap_or_else(|| panic!("`{line}`: no `]`"));
        for cpu in list.parse::<CpuSet>().unwrap().iter() {
            write(root, &format!("{before}{cpu}{after}"), &expand(value, i64::from(cpu.0)));
        }
    }
}

fn expand(value: &str, n: i64) -> String {
    let mut parts = value.split('{');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, after) =
            part.split_once('}').unwrap_or_else(|| panic!("`{value}`: no `}}`"));
        let offset = expression.strip_prefix('n').unwrap_or_else(|| panic!("`{value}`: not {{n}}"));
        let offset: i64 = if offset.is_empty() { 0 } else { offset.parse().unwrap() };
        text.push_str(&format!("{}{after}", n + offset));
    }
    text
}

fn write(root: &Path, path: &str, value: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a file has a directory")).unwrap();
    fs::write(path, format!("{value}\n")).unwrap();
}
