//! The page of the kept runs is what the kept runs say: whoever changes one without the other ends
//! here, with the command that mends it.

use std::fs;
use std::path::Path;

use cellbench_plots::report::{Kept, KeptError};

/// What the page names as its command.
fn command(page: &str) -> &str {
    page.split('`').nth(3).expect("the second thing in backquotes is the command")
}

#[test]
fn results_md_is_what_the_kept_runs_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("RESULTS.md")).unwrap();
    let verification = fs::read_to_string(root.join("VERIFICATION.md")).unwrap();
    let kept = Kept::read(&root.join("results")).unwrap();
    for (name, run) in &kept.runs {
        assert_eq!(run.damage.total, 0, "results/{name}: {:?}", run.damage.first);
        assert!(!run.run.command_line.is_empty(), "results/{name} names no command");
    }
    let again = kept.page(command(&page), Some(&verification));
    if again != page {
        let differing = again.lines().zip(page.lines()).position(|(a, b)| a != b);
        let line = differing.unwrap_or_else(|| again.lines().count().min(page.lines().count()));
        panic!(
            "RESULTS.md parts from results/ or VERIFICATION.md in line {}:\n  is      {:?}\n  \
             should be {:?}\nmake it again: {}",
            line + 1,
            page.lines().nth(line),
            again.lines().nth(line),
            command(&page)
        );
    }
}

#[test]
fn a_directory_without_runs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Kept::read(dir.path()).unwrap_err();
    assert!(matches!(&error, KeptError::Empty(path) if path == dir.path()), "{error:?}");
    assert!(error.to_string().contains("no run below it"), "{error}");
    let missing = dir.path().join("missing");
    let error = Kept::read(&missing).unwrap_err().to_string();
    assert!(error.contains("missing: cannot list its runs"), "{error}");
}
