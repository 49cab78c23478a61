//! Where `/sys` and `/proc` are: the live ones, or saved trees of another machine or a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The two directories everything about the host is read below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Directory that stands for `/sys`.
    pub sys: PathBuf,
    /// Directory that stands for `/proc`.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self::live()
    }
}

impl Roots {
    /// Returns the trees of this machine.
    #[must_use]
    pub fn live() -> Self {
        Self::at("/sys", "/proc")
    }

    /// Returns saved or made trees.
    pub fn at(sys: impl Into<PathBuf>, proc: impl Into<PathBuf>) -> Self {
        Self { sys: sys.into(), proc: proc.into() }
    }

    /// Returns a file below `/sys`, trimmed; `None` if it is absent or unreadable.
    #[must_use]
    pub fn sys(&self, path: &str) -> Option<String> {
        read(&self.sys.join(path))
    }

    /// Returns a file below `/proc`, trimmed; `None` if it is absent or unreadable.
    #[must_use]
    pub fn proc(&self, path: &str) -> Option<String> {
        read(&self.proc.join(path))
    }

    /// Returns a file below `/sys` that holds one value; `None` also if it holds something else.
    #[must_use]
    pub fn sys_value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.sys(path)?.parse().ok()
    }

    /// Returns a file below `/proc` that holds one value; `None` also if it holds something else.
    #[must_use]
    pub fn proc_value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.proc(path)?.parse().ok()
    }

    /// Returns names in a directory below `/sys`, sorted; empty if it is absent.
    #[must_use]
    pub fn sys_names(&self, path: &str) -> Vec<String> {
        names(&self.sys.join(path))
    }

    /// Returns names in a directory below `/proc`, sorted; empty if it is absent.
    #[must_use]
    pub fn proc_names(&self, path: &str) -> Vec<String> {
        names(&self.proc.join(path))
    }
}

/// Returns a small file, trimmed. Bytes that are not UTF-8 (firmware strings) are replaced, not
/// refused.
fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(
        String::from_utf8_lossy(&bytes)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned(),
    )
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
