//! Reads access scripts. A script that is not of the form ends the test with the line and what is
//! wrong with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file: the paths of one operation.
pub(crate) struct Script {
    /// Name below `impls/scripts`, as `timer/cmd-queue/start.txt`.
    pub(crate) name: String,
    pub(crate) paths: Vec<Trace>,
}

/// One path of an operation: how to get onto it, and what is done there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) title: String,
    /// The context: `task`, `nmi` or `irqs off`.
    pub(crate) context: String,
    /// Calls made before, unrecorded.
    pub(crate) after: Vec<String>,
    /// Calls that are recorded.
    pub(crate) call: Vec<String>,
    /// Value that the last call returns.
    pub(crate) returns: String,
    pub(crate) steps: Vec<Step>,
}

/// A line of a sequence.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) side: Side,
    /// In the words of [`crate::sequence`], or what another CPU does.
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// As published, and in the code.
    Both,
    /// In the code only.
    Code,
    /// As published only.
    Published,
    /// Another CPU does something between two accesses.
    Other,
}

impl Trace {
    /// Returns the steps that the code is to take, without those of others.
    pub(crate) fn expected(&self) -> impl Iterator<Item = &str> {
        self.steps
            .iter()
            .filter(|step| matches!(step.side, Side::Both | Side::Code))
            .map(|step| step.text.as_str())
    }

    /// Returns the actions of others before the access of each number.
    pub(crate) fn others(&self) -> BTreeMap<usize, Vec<String>> {
        let mut others: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut number = 0;
        for step in &self.steps {
            match step.side {
                Side::Both | Side::Code => number += 1,
                Side::Published => {}
                Side::Other => others.entry(number).or_default().push(step.text.clone()),
            }
        }
        others
    }
}

/// Returns the folder of the scripts.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Reads the script of a name without its ending, if there is one of its own.
pub(crate) fn read(name: &str) -> Option<Script> {
    let name = format!("{name}.txt");
    let text = fs::read_to_string(root().join(&name)).ok()?;
    Some(parse(name, &text))
}

/// Reads the designs and operations that have another one's script: left and right of each line.
pub(crate) fn aliases() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("same.txt")).expect("impls/scripts/same.txt");
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (left, right) = line.split_once('=').unwrap_or_else(|| panic!("same.txt: {line}"));
            (left.trim().to_owned(), right.trim().to_owned())
        })
        .collect()
}

fn list(text: &str) -> Vec<String> {
    text.split(';').map(|call| call.trim().to_owned()).filter(|call| !call.is_empty()).collect()
}

pub(crate) fn parse(name: String, text: &str) -> Script {
    let mut paths: Vec<Trace> = Vec::new();
    let mut sources = 0;
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| panic!("{name}:{}: {what}: {line}", number + 1);
        let (statement, remark) = match line.split_once('#') {
            Some((statement, remark)) => (statement.trim(), remark.trim()),
            None => (line.trim(), ""),
        };
        if statement.is_empty() {
            continue;
        }
        let (keyword, rest) = statement.split_once(char::is_whitespace).unwrap_or((statement, ""));
        let rest = rest.trim();
        if keyword == "source" {
            sources += 1;
            continue;
        }
        if keyword == "path" {
            let title = rest.to_owned();
            paths.push(Trace { title, context: "task".to_owned(), ..Trace::default() });
            continue;
        }
        let Some(path) = paths.last_mut() else { return wrong("before the first path") };
        match keyword {
            "on" => path.context = rest.to_owned(),
            "after" => path.after = list(rest),
            "call" if path.call.is_empty() => path.call = list(rest),
            "returns" => path.returns = rest.to_owned(),
            "then" => path.steps.push(Step { side: Side::Other, text: rest.to_owned() }),
            "+" | "-" if remark.is_empty() => return wrong("a difference without a reason"),
            "+" => path.steps.push(Step { side: Side::Code, text: normal(rest) }),
            "-" => path.steps.push(Step { side: Side::Published, text: normal(rest) }),
            _ => path.steps.push(Step { side: Side::Both, text: normal(statement) }),
        }
    }
    assert!(sources > 0, "{name}: no source");
    for path in &paths {
        assert!(!path.call.is_empty(), "{name}: path {}: nothing is called", path.title);
        assert!(!path.returns.is_empty(), "{name}: path {}: no result", path.title);
    }
    Script { name, paths }
}

/// Returns the words of a line as [`crate::sequence`] has them: orders that C11 has no form for become those
/// that the code uses.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| match word {
        "once" | "plain" => "relaxed",
        "dep" | "ctrl" => "acquire",
        "last" => "acq_rel",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}
