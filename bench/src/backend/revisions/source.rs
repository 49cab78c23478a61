//! From what the user names to a program: a git revision, a checkout, or a binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Program;

/// Digits of a commit in labels and file names.
const DIGITS: &str = "--short=10";

/// Something to build or run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A commit of the repository in the current directory.
    Commit {
        /// Its short name.
        short: String,
        /// Its subject.
        subject: String,
    },
    /// A directory with the sources, changed or not.
    Checkout(PathBuf),
    /// A `cellbench` binary.
    Binary(PathBuf),
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The name means nothing here.
    #[error("`{name}` is no directory, no file, and no revision of a git repository here")]
    Unknown {
        /// Name that the user gave.
        name: String,
    },
    /// A directory without this project in it.
    #[error("{}: no sources of cellbench: bench/Cargo.toml is missing", dir.display())]
    NotCellbench {
        /// The directory.
        dir: PathBuf,
    },
    /// A command failed; what it printed is on the terminal.
    #[error("{what} failed ({status})")]
    Command {
        /// Command that failed, in words.
        what: String,
        /// Exit status.
        status: String,
    },
    /// A file could not be written or a command not be started.
    #[error("{what}: {source}")]
    Io {
        /// Action that failed, in words.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
}

impl Source {
    /// Finds out what `name` is.
    ///
    /// # Errors
    /// [`SourceError`] if it is nothing that can be built or run.
    pub fn named(name: &str) -> Result<Self, SourceError> {
        let path = Path::new(name);
        if path.is_dir() {
            let dir = path.canonicalize().map_err(|source| io(name, source))?;
            if !dir.join("bench/Cargo.toml").is_file() {
                return Err(SourceError::NotCellbench { dir });
            }
            return Ok(Self::Checkout(dir));
        }
        if path.is_file() {
            return Ok(Self::Binary(path.canonicalize().map_err(|source| io(name, source))?));
        }
        let unknown = || SourceError::Unknown { name: name.to_owned() };
        let commit = format!("{name}^{{commit}}");
        let short = git(&["rev-parse", "--verify", "--quiet", DIGITS, &commit]);
        let short = short.filter(|_| !name.starts_with('-')).ok_or_else(unknown)?;
        let subject = git(&["log", "-1", "--format=%s", &short]).unwrap_or_default();
        Ok(Self::Commit { short, subject })
    }

    /// Returns the name in the table.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Commit { short, .. } => short.clone(),
            Self::Checkout(path) | Self::Binary(path) => path
                .file_name()
                .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned()),
        }
    }

    /// Says in a sentence what it is, for the record.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Commit { short, subject } => format!("{short} is the commit \"{subject}\""),
            Self::Checkout(dir) => format!("{} is the checkout {}", self.label(), dir.display()),
            Self::Binary(path) => format!("{} is the binary {}", self.label(), path.display()),
        }
    }

    /// Builds the program, below `dir`, unless it is there already. What Cargo says goes to the
    /// terminal.
    ///
    /// # Errors
    /// [`SourceError`] if git or Cargo fails.
    pub fn program(&self, dir: &Path) -> Result<Program, SourceError> {
        let label = self.label();
        fs::create_dir_all(dir).map_err(|source| io(&dir.display().to_string(), source))?;
        let path = match self {
            Self::Binary(path) => path.clone(),
            Self::Checkout(sources) => build(sources, dir, &label)?,
            Self::Commit { short, .. } => {
                let built = binary(dir, short);
                if built.is_file() { built } else { build_commit(short, dir)? }
            }
        };
        Ok(Program { label, path })
    }
}

/// Sums up how two sources differ, if git can tell.
#[must_use]
pub fn difference(old: &Source, new: &Source) -> Option<String> {
    let (Source::Commit { short: old, .. }, Source::Commit { short: new, .. }) = (old, new) else {
        return None;
    };
    let summary = git(&["diff", "--shortstat", old, new])?;
    let summary = if summary.is_empty() { "no change".to_owned() } else { summary };
    Some(format!("from {old} to {new}: {summary}"))
}

fn binary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("cellbench-{name}"))
}

fn build_commit(short: &str, dir: &Path) -> Result<PathBuf, SourceError> {
    let sources = dir.join(format!("sources-{short}"));
    let tree = sources.display().to_string();
    // What an interrupted run left.
    let _ = git(&["worktree", "remove", "--force", &tree]);
    run(Command::new("git").args(["worktree", "add", "--detach", "--quiet", &tree, short]))?;
    let built = build(&sources, dir, short);
    let _ = git(&["worktree", "remove", "--force", &tree]);
    built
}

/// Builds the sources in a target directory that all revisions share: crates of others are built
/// once.
fn build(sources: &Path, dir: &Path, name: &str) -> Result<PathBuf, SourceError> {
    let target = dir.join("build");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .current_dir(sources)
        .args(["build", "--release", "-p", "cellbench", "--bin", "cellbench", "--target-dir"])
        .arg(fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).join("build")))?;
    let built = binary(dir, name);
    // Under another name first: an interrupted copy must not look like a binary.
    let partial = built.with_extension("partial");
    fs::copy(target.join("release/cellbench"), &partial)
        .and_then(|_| fs::rename(&partial, &built))
        .map_err(|source| io(&built.display().to_string(), source))?;
    Ok(built)
}

fn run(command: &mut Command) -> Result<(), SourceError> {
    let what = command.get_program().to_string_lossy().into_owned()
        + &command.get_args().take(2).map(|arg| format!(" {}", arg.display())).collect::<String>();
    let status = command.status().map_err(|source| io(&what, source))?;
    if status.success() {
        return Ok(());
    }
    Err(SourceError::Command { what, status: status.to_string() })
}

fn io(what: &str, source: std::io::Error) -> SourceError {
    SourceError::Io { what: what.to_owned(), source }
}

/// Returns what a git command prints, if it succeeds.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_directory_a_file_or_a_revision() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let checkout = Source::named(&root.display().to_string()).unwrap();
        assert!(matches!(checkout, Source::Checkout(_)), "{checkout:?}");
        let file = Source::named(&root.join("Cargo.toml").display().to_string()).unwrap();
        assert!(matches!(file, Source::Binary(_)), "{file:?}");
        let error = Source::named(env!("CARGO_MANIFEST_DIR")).unwrap_err().to_string();
        assert!(error.contains("bench/Cargo.toml is missing"), "{error}");
        for unknown in ["no-such-revision", "--all"] {
            let error = Source::named(unknown).unwrap_err().to_string();
            assert!(error.contains(unknown) && error.contains("no revision"), "{error}");
        }
    }
}
