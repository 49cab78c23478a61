//! Which `cellbench` it is, so that numbers of different ones are not mixed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A build of the `cellbench` command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// Revision of its sources; none if it was built outside a checkout.
    pub revision: Option<String>,
    /// Architecture that it was built for.
    pub architecture: String,
    /// FNV-1a of its file, in hexadecimal: two builds of one revision may differ.
    pub build: String,
}

impl Tool {
    /// Returns the identity of the executable file `path`, which says of itself that it is of this
    /// version and revision.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be read.
    pub fn of(path: &Path, version: &str, revision: Option<&str>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            for byte in &buffer[..read] {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        Ok(Self {
            version: version.to_owned(),
            revision: revision.map(str::to_owned),
            architecture: std::env::consts::ARCH.to_owned(),
            build: format!("{hash:016x}"),
        })
    }

    /// Returns whether numbers of both may stand side by side: the same sources, and on the same
    /// architecture the same file.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        (&self.version, &self.revision) == (&other.version, &other.revision)
            && (self.architecture != other.architecture || self.build == other.build)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.as_deref().unwrap_or("unknown revision");
        let Self { version, architecture, build, .. } = self;
        write!(f, "cellbench {version} ({revision}, {architecture}, build {build})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_agree_by_sources_and_on_one_architecture_by_file() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            Tool::of(&path, "1.0", Some("abc")).unwrap()
        };
        let (one, copy, other) = (of("one", "code"), of("copy", "code"), of("other", "other code"));
        assert!(one.agrees_with(&copy));
        assert!(!one.agrees_with(&other));
        let elsewhere = Tool { architecture: "riscv64".into(), ..other.clone() };
        assert!(one.agrees_with(&elsewhere));
        assert!(!one.agrees_with(&Tool { revision: None, ..elsewhere }));
        // The published test vector of FNV-1a for "a".
        assert_eq!(of("vector", "a").build, "af63dc4c8601ec8c");
    }
}
