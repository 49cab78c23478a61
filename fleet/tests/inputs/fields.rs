//! Plans that are changed by fields: most of them pass the parser, and reach the checks behind.

use cellbench_mutations::input::Random;
use toml::{Table, Value};

/// Sections of a plan with a list of entries.
pub(crate) const SECTIONS: [&str; 3] = ["measure", "kernel", "simulate"];

/// Values that a field may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    /// A text.
    Text,
    /// A number from 0 on.
    Number,
    /// A number with a fraction.
    Real,
    /// Yes or no.
    Flag,
    /// Some texts.
    Texts,
    /// Some numbers from 0 on.
    Numbers,
}

use Type::{Flag, Number, Numbers, Real, Text, Texts};

/// Fields of the plan itself that are no sections.
pub(crate) const OF_PLAN: &[(&str, Type)] =
    &[("name", Text), ("directory", Text), ("partition", Text), ("account", Text), ("qos", Text)];

/// Fields that entries of all sections have.
const OF_ALL: &[(&str, Type)] = &[
    ("name", Text),
    ("partition", Text),
    ("constraint", Text),
    ("time_limit", Text),
    ("cellbench", Text),
    ("workloads", Texts),
    ("kinds", Texts),
    ("threads", Numbers),
    ("threshold", Real),
    ("rounds", Number),
];

const OF_MEASURE: &[(&str, Type)] = &[
    ("nodes", Texts),
    ("unfit", Flag),
    ("cells", Texts),
    ("placement", Texts),
    ("rates", Numbers),
    ("matrix", Text),
    ("against", Text),
    ("time_budget", Text),
    ("window", Text),
    ("seed", Number),
];

const OF_KERNEL: &[(&str, Type)] = &[
    ("nodes", Texts),
    ("unfit", Flag),
    ("vm", Text),
    ("against", Text),
    ("program", Text),
    ("instructions", Flag),
    ("boot", Text),
    ("kernels", Texts),
    ("turns", Number),
    ("placement", Text),
    ("time_budget", Text),
    ("window", Text),
    ("seed", Number),
];

const OF_SIMULATE: &[(&str, Type)] = &[
    ("cpus", Number),
    ("machines", Texts),
    ("seeds", Numbers),
    ("shards", Number),
    ("cells", Texts),
    ("placement", Texts),
    ("matrix", Text),
    ("against", Text),
];

/// Returns the fields of the entries of a section.
pub(crate) fn of_section(section: &str) -> Vec<(&'static str, Type)> {
    let own = match section {
        "measure" => OF_MEASURE,
        "kernel" => OF_KERNEL,
        _ => OF_SIMULATE,
    };
    [OF_ALL, own].concat()
}

/// Names that fit, some of which make others when they are joined, and files that exist.
const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "a-b",
    "b-c",
    "a-b-c",
    "a.2",
    "n01",
    "bench",
    "genoa",
    "boot",
    "proof",
    "spread",
    "same-cell",
    "desktop",
    "xeon-spr-2s",
    "10m",
    "20ms",
    "quick",
    "full",
    "1-00:00:00",
    "6.18",
];

/// Texts that fit into few fields or none.
const STRANGE: &[&str] = &[
    "",
    " ",
    "a b",
    "a,b",
    "../x",
    "./boot",
    "/",
    "/dev/null",
    ".a",
    "-a",
    "--help",
    "a\nb",
    "a\0",
    "\"",
    "a'b",
    "$(id)",
    "%j",
    "n[1-4]",
    "\u{b5}",
    "\u{202e}a",
    "a=b",
    "#",
    "a/b.toml",
    "1e999",
    "tmp/",
];

fn text(random: &mut Random) -> String {
    match random.below(16) {
        0 | 1 => (*random.one(STRANGE)).to_owned(),
        2 => random.one(WORDS).repeat(1 + random.below(400)),
        _ => (*random.one(WORDS)).to_owned(),
    }
}

fn number(random: &mut Random) -> i64 {
    match random.below(8) {
        0 => *random.one(&[0, 1001, 65_536, i64::from(u32::MAX)]),
        1 => *random.one(&[-1, i64::from(u32::MAX) + 1, i64::MAX, i64::MIN]),
        _ => *random.one(&[1, 2, 3, 4, 7, 12]),
    }
}

fn some(random: &mut Random, make: fn(&mut Random) -> Value) -> Value {
    Value::Array((0..random.below(4)).map(|_| make(random)).collect())
}

fn value(random: &mut Random, of: Type) -> Value {
    match of {
        Text => Value::String(text(random)),
        Number => Value::Integer(number(random)),
        Real => Value::Float(*random.one(&[
            0.0,
            -0.0,
            1.5,
            100.0,
            -1.0,
            1e308,
            f64::NAN,
            f64::INFINITY,
        ])),
        Flag => Value::Boolean(random.below(2) == 1),
        Texts => some(random, |random| Value::String(text(random))),
        Numbers => some(random, |random| Value::Integer(number(random))),
    }
}

/// Returns the entries of a section.
fn entries<'a>(plan: &'a mut Table, section: &str) -> Option<&'a mut Vec<Value>> {
    plan.get_mut(section).and_then(Value::as_array_mut)
}

/// Gives a field another value, takes it away, or writes one of another type.
fn change_field(random: &mut Random, table: &mut Table, fields: &[(&str, Type)]) {
    let (name, of) = *random.one(fields);
    match random.below(24) {
        0..=3 => drop(table.remove(name)),
        4 => {
            let other = *random.one(&[Text, Number, Real, Flag, Texts, Numbers]);
            table.insert(name.to_owned(), value(random, other));
        }
        5 if random.below(2) == 0 => drop(table.insert(format!("{name}s"), value(random, of))),
        _ => drop(table.insert(name.to_owned(), value(random, of))),
    }
}

/// Changes a plan once.
fn change(random: &mut Random, plan: &mut Table) {
    let section = *random.one(&SECTIONS);
    let fields = of_section(section);
    if random.below(8) == 0 {
        return change_field(random, plan, OF_PLAN);
    }
    let Some(found) = entries(plan, section) else {
        // A section that the plan does not have.
        let entry: Table = [("name".to_owned(), Value::String(text(random)))].into_iter().collect();
        plan.insert(section.to_owned(), Value::Array(vec![Value::Table(entry)]));
        return;
    };
    let at = random.below(found.len());
    match random.below(10) {
        0 => drop(plan.remove(section)),
        1 if !found.is_empty() => {
            let again = found[at].clone();
            found.push(again);
        }
        2 if !found.is_empty() => drop(found.remove(at)),
        3 if !found.is_empty() => {
            // A value of another entry.
            let (name, _) = *random.one(&fields);
            let other = random.one(found).get(name).cloned();
            if let (Some(entry), Some(other)) = (found[at].as_table_mut(), other) {
                entry.insert(name.to_owned(), other);
            }
        }
        _ => {
            if let Some(entry) = found.get_mut(at).and_then(Value::as_table_mut) {
                change_field(random, entry, &fields);
            }
        }
    }
}

/// Returns the plan of a number: one of `whole` with one to six changes. Always the same.
pub(crate) fn plan(number: u64, whole: &[&str]) -> Vec<u8> {
    let mut random = Random::of_input(number);
    let mut plan: Table = random.one(whole).parse().expect("a whole plan");
    for _ in 0..=random.below(6) {
        change(&mut random, &mut plan);
    }
    toml::to_string(&plan).expect("a table can be written").into_bytes()
}
