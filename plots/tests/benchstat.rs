//! `benchstat.txt` against the format's specification (Go proposal 14313), by a parser written
//! from it:
//!
//! * a configuration line is `key: value`; the key begins with a lower-case letter and holds no
//!   space and no upper-case letter;
//! * a result line is `name iterations value unit [value unit...]`, separated by runs of blanks;
//!   the name begins with `Benchmark` followed by nothing or a character that is not lower-case;
//!   iterations is a positive whole number, each value a decimal number;
//! * a unit line (`Unit name key=value...`) describes a unit;
//! * all other lines are to be ignored; there must be none here but empty ones and comments (`# `).

mod fixture;

use std::collections::BTreeMap;

use cellbench_plots::Loaded;
use cellbench_plots::chart::Drawings;
use cellbench_plots::report::FORMATS;

#[derive(Debug)]
struct Sample {
    name: String,
    config: BTreeMap<String, String>,
    iterations: u64,
    values: BTreeMap<String, f64>,
}

fn parse(text: &str) -> (Vec<Sample>, BTreeMap<String, String>) {
    let mut config = BTreeMap::new();
    let mut units = BTreeMap::new();
    let mut samples = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if let Some(unit) = line.strip_prefix("Unit ") {
            let (name, rest) = unit.split_once(' ').expect(line);
            assert!(rest.split(' ').all(|pair| pair.split_once('=').is_some()), "{line}");
            units.insert(name.to_owned(), rest.to_owned());
        } else if let Some(rest) = line.strip_prefix("Benchmark") {
            assert!(!rest.starts_with(char::is_lowercase), "{line}");
            let fields: Vec<&str> = line.split_whitespace().collect();
            assert!(fields.len() >= 4 && fields.len().is_multiple_of(2), "{line}");
            let values: BTreeMap<String, f64> = fields[2..]
                .chunks(2)
                .map(|pair| (pair[1].to_owned(), pair[0].parse::<f64>().expect(line)))
                .collect();
            assert_eq!(values.len(), fields.len() / 2 - 1, "a unit occurs twice: {line}");
            assert!(values.values().all(|value| value.is_finite()), "{line}");
            let iterations = fields[1].parse().expect(line);
            assert!(iterations > 0, "{line}");
            let name = fields[0].to_owned();
            samples.push(Sample { name, config: config.clone(), iterations, values });
        } else {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            assert!(key.starts_with(char::is_lowercase), "{line}");
            assert!(!key.contains(|c: char| c.is_whitespace() || c.is_uppercase()), "{line}");
            config.insert(key.to_owned(), value.to_owned());
        }
    }
    (samples, units)
}

fn text() -> String {
    let out = tempfile::tempdir().unwrap();
    let dir = fixture::written(out.path(), fixture::run(), &fixture::rounds());
    let loaded = Loaded::read(&dir, |_| ()).unwrap();
    let format = FORMATS.iter().find(|format| format.name() == "benchstat").unwrap();
    let files = format.render(&loaded.report(), &Drawings::of(loaded.report())).unwrap();
    String::from_utf8(files[0].bytes.clone()).unwrap()
}

#[test]
fn first_lines() {
    insta::assert_snapshot!(text().lines().take(16).collect::<Vec<_>>().join("\n"));
}

#[test]
fn follows_the_specification_and_holds_every_good_round() {
    let (samples, units) = parse(&text());
    // 18 rows of 20 rounds, one of them disturbed; the wrong cell is no result.
    assert_eq!(samples.len(), 18 * 20 - 1);
    assert!(units["goodput-ops/s"].contains("better=higher"));
    for sample in &samples {
        assert_eq!(sample.config["goarch"], "amd64");
        assert_eq!(sample.config["cpu"], "Fictional? CPU 9000 @ 3.00GHz");
        assert!(!sample.name.contains("seq-latch"));
        for unit in sample.values.keys().filter(|unit| *unit != "ns/op") {
            assert!(units.contains_key(unit), "unit {unit} is not described");
        }
        // Time and rate are two views of the same round.
        let product = sample.values["ns/op"] * sample.values["goodput-ops/s"];
        assert!((product / 1e9 - 1.0).abs() < 1e-3, "{sample:?}");
        assert!(sample.iterations > 1_000);
    }
}

#[test]
fn names_carry_the_row_for_benchstat_to_group_by() {
    let (samples, _) = parse(&text());
    let name = "BenchmarkCell/source=model/kind=timer/workload=update/placement=compact\
                /cell=cmpxchg-state/threads=2-2";
    let rounds: Vec<&Sample> = samples.iter().filter(|sample| sample.name == name).collect();
    assert_eq!(rounds.len(), 20);
    let failures = rounds[0].values["failures/op"];
    assert!((failures - 0.2577).abs() < 1e-3, "{failures}");
}

/// benchstat compares files only under equal configuration: what is different in every run must not
/// be one of its keys.
#[test]
fn two_runs_of_one_host_have_one_configuration() {
    let (samples, _) = parse(&text());
    let keys: Vec<&str> = samples[0].config.keys().map(String::as_str).collect();
    assert_eq!(keys, ["cpu", "goarch", "goos", "pkg"]);
    for what in ["run", "commit", "command", "kernel"] {
        assert!(text().contains(&format!("\n# {what}: ")), "{what} is told as a comment");
    }
}
