//! Compiles the plugin, once for each version of its source.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::io;
use crate::trace::TraceError;

const SOURCE: &str = include_str!("../../../trace/trace.c");

/// Returns the compiled plugin, which is kept in `cache`.
pub(super) fn build(cache: &Path) -> Result<PathBuf, TraceError> {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let built = cache.join(format!("trace-plugin-{:016x}.so", hasher.finish()));
    if built.is_file() {
        return Ok(built);
    }
    fs::create_dir_all(cache).map_err(io(cache))?;
    let own = format!("trace-plugin-{}", std::process::id());
    let (source, part) = (cache.join(format!("{own}.c")), cache.join(format!("{own}.so")));
    let compiled = compile(&source, &part);
    // Both are remains by now, whatever became of the compilation.
    let renamed = compiled.and_then(|()| fs::rename(&part, &built).map_err(io(&built)));
    let _ = fs::remove_file(&source);
    let _ = fs::remove_file(&part);
    renamed.map(|()| built)
}

fn compile(source: &Path, into: &Path) -> Result<(), TraceError> {
    fs::write(source, SOURCE).map_err(io(source))?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
        .arg(into)
        .arg(source)
        .output()
        .map_err(|_| TraceError::NoTool { tool: "cc", package: "gcc libc6-dev" })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = said.lines().find(|line| line.contains("error")).or(said.lines().next());
    Err(TraceError::Plugin { what: first.unwrap_or("no reason given").to_owned() })
}
