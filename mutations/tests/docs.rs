//! The form of doc comments in the whole repository, as CONTRIBUTING.md asks for it.

use std::fs;
use std::path::{Path, PathBuf};

/// Words in s that begin a sentence and are no verb in the third person.
const NO_VERBS: [&str; 3] = ["As", "Its", "This"];

/// Collects the Rust sources below a folder, but for those of builds and hidden folders.
fn collect(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let entry = entry.expect("an entry");
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().expect("a type").is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&entry.path(), sources);
            }
        } else if name.ends_with(".rs") {
            sources.push(entry.path());
        }
    }
}

/// Returns the text of a line of a doc comment that begins with `marker`.
fn said<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    let text = line.trim_start().strip_prefix(marker)?;
    (!text.starts_with('/')).then(|| text.trim())
}

/// Returns whether a line begins a function.
fn is_function(line: &str) -> bool {
    let Some((before, _)) = line.split_once("fn ") else { return false };
    before.split_whitespace().all(|word| {
        ["pub", "const", "async", "unsafe", "extern", "default"].contains(&word)
            || word.starts_with("pub(")
            || word.ends_with(')')
            || word.starts_with('"')
    })
}

/// Returns whether a word has the form of a verb in the third person at the beginning of a sentence.
fn is_verb(word: &str) -> bool {
    let word = word.trim_end_matches([',', ':', ';']);
    let mut letters = word.chars();
    letters.next().is_some_and(|first| first.is_ascii_uppercase())
        && letters.all(|letter| letter.is_ascii_lowercase() || letter == '-')
        && word.ends_with('s')
        && !NO_VERBS.contains(&word)
}

/// Returns the number of the first line behind attributes and comments, and whether one of the attributes
/// makes the item a test: a test's docs tell its story.
fn item(lines: &[&str], from: usize) -> (usize, bool) {
    let (mut number, mut is_test, mut open) = (from, false, 0);
    while let Some(line) = lines.get(number).map(|line| line.trim_start()) {
        if open == 0 && !line.starts_with("#[") && !line.starts_with("//") {
            break;
        }
        if !line.starts_with("//") {
            is_test |= line.starts_with("#[test]");
            open += line.matches('[').count();
            open = open.saturating_sub(line.matches(']').count());
        }
        number += 1;
    }
    (number, is_test)
}

/// Returns the faults of a source's doc comments, each with the number of its line.
fn faults(text: &str) -> Vec<(usize, &'static str)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut faults = Vec::new();
    let mut number = 0;
    while number < lines.len() {
        let marker =
            ["///", "//!"].into_iter().find(|marker| said(lines[number], marker).is_some());
        let Some(marker) = marker else {
            number += 1;
            continue;
        };
        let first = said(lines[number], marker).expect("a line of the comment");
        let length = lines[number..].iter().take_while(|line| said(line, marker).is_some()).count();
        let word = first.split_whitespace().next().unwrap_or_default();
        if word.trim_end_matches(|c: char| !c.is_alphabetic()) == "What" {
            faults.push((number + 1, "begins with \"What\""));
        }
        if length == 1 && first == word && !word.starts_with('[') {
            faults.push((number + 1, "is one word"));
        }
        let (item, is_test) = item(&lines, number + length);
        let tells = marker == "///" && lines.get(item).is_some_and(|line| is_function(line));
        if tells && !is_test && !is_verb(word) && first != "# Safety" {
            faults.push((number + 1, "begins with no verb in the third person"));
        }
        number += length;
    }
    faults
}

#[test]
fn doc_comments_say_what_things_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut sources = Vec::new();
    collect(root, &mut sources);
    assert!(sources.len() > 500, "{} sources", sources.len());
    sources.sort();
    let mut found = String::new();
    for source in sources {
        let text = fs::read_to_string(&source).expect("a source file");
        let path = source.strip_prefix(root).expect("below the root").display();
        for (line, fault) in faults(&text) {
            found += &format!("{path}:{line}: the doc comment {fault}\n");
        }
    }
    assert!(found.is_empty(), "see the rules in CONTRIBUTING.md\n{found}");
}

#[test]
fn each_fault_is_found_at_its_line() {
    let text = "//! What is here.\n\n/// Row.\nstruct A;\n\n\
                /// The sum.\n#[must_use]\npub(crate) const fn a() {}\n";
    let numbers: Vec<usize> = faults(text).iter().map(|(line, _)| *line).collect();
    assert_eq!(numbers, [1, 3, 6]);
    for fine in [
        "/// Returns the sum.\nfn a() {}",
        "/// Adds, wrapping.\n#[expect(\n    a,\n    reason = \"b\"\n)]\npub unsafe extern \"C\" fn a() {}",
        "/// # Safety\n///\n/// As `b`.\nunsafe fn a() {}",
        "/// A slice dies.\n#[test]\nfn a() {}",
        "/// Whatever\n/// runs.\nstruct A;",
        "/// The callback.\nrun: fn (),",
        "//// Row.\nstruct A;",
        "// What is here.",
    ] {
        assert_eq!(faults(fine), [], "{fine}");
    }
    let wrong = [
        "/// As in `b`.\nfn a() {}",
        "/// `b` is called.\nasync fn a() {}",
        "/// What?\nenum A {}",
    ];
    for wrong in wrong {
        assert!(!faults(wrong).is_empty(), "{wrong}");
    }
}
