//! The list and the code belong together. (That the code asks for nothing that is not in the list, the
//! compiler checks.)

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cellbench_mutations::{Check, Mutation};

/// Appends the text of all sources below a folder.
fn read(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// Returns the names that sources ask for.
fn asked(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for asks in ["planted!(", "mutated!("] {
        for (at, _) in text.match_indices(asks) {
            let arguments = &text[at + asks.len()..];
            let arguments = arguments.split(')').next().expect("there is always a part");
            names.insert(arguments.rsplit([',', ' ']).next().expect("a name").trim());
        }
    }
    names
}

#[test]
fn every_mutation_of_the_list_is_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut text = String::new();
    for package in ["impls", "sim", "stats", "plots"] {
        read(&root.join(package).join("src"), &mut text);
    }
    let asked = asked(&text);
    let missing: Vec<&str> =
        Mutation::ALL.iter().map(|m| m.name()).filter(|name| !asked.contains(name)).collect();
    assert!(missing.is_empty(), "in the list, and nowhere in the code: {missing:?}");
}

#[test]
fn names_differ_and_at_most_three_are_not_to_be_found() {
    let names: BTreeSet<&str> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
    assert_eq!(names.len(), Mutation::ALL.len());
    let equivalent = |m: &&Mutation| matches!(m.check(), Check::Equivalent(_));
    assert!(Mutation::ALL.iter().filter(equivalent).count() <= 3);
    assert!(Mutation::ALL.len() >= 60);
    for mutation in Mutation::ALL {
        assert!(mutation.title().ends_with('.') && !mutation.title().contains('|'), "{mutation:?}");
    }
}
