//! The litmus tests in `docs/litmus/`: each is in its README's table, with the verdict that it says
//! itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use libtest_mimic::{Failed, Trial};

/// Returns the verdict that a test's first comment ends with.
fn verdict(name: &str, text: &str) -> Result<String, Failed> {
    let wrong = |what: &str| Failed::from(format!("docs/litmus/{name}.litmus: {what}"));
    if text.lines().next() != Some(&format!("C {name}")) {
        return Err(wrong("the first line does not name it"));
    }
    let (comment, program) = text.split_once("*)").ok_or_else(|| wrong("no comment"))?;
    if !program.contains("exists (") {
        return Err(wrong("no condition"));
    }
    let said = ["Sometimes", "Never"].into_iter().find(|verdict| {
        comment.lines().any(|line| line.trim().trim_start_matches("* ") == *verdict)
    });
    said.map(str::to_owned).ok_or_else(|| wrong("no verdict"))
}

fn index() -> Result<(), Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/litmus");
    let readme = fs::read_to_string(folder.join("README.md"))?;
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| [")?.split('|');
        let (name, _) = cells.next()?.split_once(']')?;
        let verdict = cells.nth(1)?.trim().split([' ', ',', ';']).next()?;
        Some((name.to_owned(), verdict.to_owned()))
    });
    let listed: BTreeMap<String, String> = rows.collect();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "litmus") {
            let name = path.file_stem().expect("it has one").to_string_lossy().into_owned();
            let said = verdict(&name, &fs::read_to_string(&path)?)?;
            found.insert(name, said);
        }
    }
    if found.is_empty() || listed != found {
        return Err(format!("docs/litmus: the README lists {listed:?}, there are {found:?}").into());
    }
    Ok(())
}

/// Returns the test of the list of litmus tests.
pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::test("litmus tests are listed with their verdicts", index)]
}
