//! Damaged, cut, newer and foreign files: never a panic, the place is named, what is whole is used.

use std::fs;
use std::path::PathBuf;

use cellbench_record::{Damage, Kind, OK, ReadError, Round, Run, RunReader, RunWriter};
use cellbench_record::{Series, Source};
use proptest::prelude::*;

fn recorded(rounds: u32) -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    let mut run = Run::new("0.1.0", 7);
    run.baseline = "spin-queued".into();
    run.host.cpu_model = Some("A CPU".into());
    let mut writer = RunWriter::create(out.path(), run).unwrap();
    let series = Series::new("spin-tas", Kind::Timer, "update", 2, "compact", Source::Model);
    for number in 0..rounds {
        let mut round = Round::new(series.clone(), number, 0.25);
        round.count("start", OK, 5);
        writer.append(&round).unwrap();
    }
    let dir = writer.dir().to_owned();
    (out, dir)
}

fn read(dir: &std::path::Path) -> (Vec<u32>, Vec<Damage>) {
    let mut numbers = Vec::new();
    let mut damage = Vec::new();
    for round in RunReader::open(dir).unwrap().rounds().unwrap() {
        match round {
            Ok(round) => numbers.push(round.round),
            Err(found) => damage.push(found),
        }
    }
    (numbers, damage)
}

#[test]
fn a_cut_line_is_named_and_the_rest_used() {
    let (_out, dir) = recorded(4);
    let path = dir.join("rounds.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 30]).unwrap();
    let (numbers, damage) = read(&dir);
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(damage.len(), 1);
    assert_eq!((&damage[0].path, damage[0].line), (&path, Some(4)));
    assert!(damage[0].what.starts_with("cut short"), "{}", damage[0]);
}

#[test]
fn foreign_lines_are_named_and_the_rest_used() {
    let (_out, dir) = recorded(2);
    let path = dir.join("rounds.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    let mut bytes = Vec::new();
    for line in [
        first.as_bytes(),
        b"",
        b"hello, this is a log file",
        b"{\"cell\": \"spin-tas\"}",
        b"[1, 2, 3]",
        b"\xff\xfe\x00",
        &first.replace("0.25", "-0.25").into_bytes(),
        second.trim_end().as_bytes(),
    ] {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    fs::write(&path, bytes).unwrap();
    let (numbers, damage) = read(&dir);
    assert_eq!(numbers, [0, 1]);
    let lines: Vec<_> = damage.iter().filter_map(|found| found.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7]);
    assert!(damage[1].what.contains("missing field"), "{}", damage[1]);
}

#[test]
fn numbers_that_no_measurement_wrote_are_named() {
    let (_out, dir) = recorded(1);
    let path = dir.join("rounds.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    let changes = [
        ("\"duration_s\":0.25", "\"duration_s\":1e-300"),
        ("\"duration_s\":0.25", "\"duration_s\":1e300"),
        ("\"threads\":2", "\"threads\":0"),
        ("\"ok\":5", "\"ok\":18446744073709551615"),
        ("\"ok\":5", "\"ok\":9000000000000,\"EBUSY\":9000000000000"),
    ];
    let mut text = good.clone();
    for (from, to) in changes {
        assert!(good.contains(from), "{good}");
        text += &good.replace(from, to);
    }
    fs::write(&path, text).unwrap();
    let (numbers, damage) = read(&dir);
    assert_eq!(numbers, [0]);
    assert_eq!(damage.len(), changes.len());
    assert!(damage.iter().all(|found| found.what.starts_with("implausible: ")), "{damage:?}");
}

#[test]
fn a_line_too_long_for_memory_is_skipped() {
    let (_out, dir) = recorded(1);
    let path = dir.join("rounds.jsonl");
    let round = fs::read(&path).unwrap();
    let mut bytes = vec![b'x'; (16 << 20) + 5];
    bytes.push(b'\n');
    bytes.extend_from_slice(&round);
    fs::write(&path, bytes).unwrap();
    let (numbers, damage) = read(&dir);
    assert_eq!(numbers, [0]);
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].line, Some(1));
}

#[test]
fn a_newer_major_version_is_refused_and_a_newer_minor_read() {
    let (_out, dir) = recorded(1);
    let path = dir.join("run.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"1.1\"", "\"1.9\"")).unwrap();
    let reader = RunReader::open(&dir).unwrap();
    assert_eq!(reader.run().schema.minor, 9);
    assert!(reader.damage().is_empty());

    fs::write(&path, text.replace("\"1.1\"", "\"2.0\"")).unwrap();
    let error = RunReader::open(&dir).unwrap_err();
    assert!(matches!(error, ReadError::NewerSchema { .. }), "{error:?}");
    assert!(error.to_string().contains("schema 2.0, this tool reads up to 1.x"), "{error}");
}

#[test]
fn whole_fields_of_a_damaged_run_are_used() {
    let (_out, dir) = recorded(1);
    let path = dir.join("run.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"seed\": 7", "\"seed\": \"seven\"")).unwrap();
    let reader = RunReader::open(&dir).unwrap();
    assert_eq!(reader.run().baseline, "spin-queued");
    assert_eq!(reader.run().host.cpu_model.as_deref(), Some("A CPU"));
    assert_eq!(reader.damage().len(), 1);
    assert!(reader.damage()[0].what.contains("\"seed\""), "{}", reader.damage()[0]);
}

#[test]
fn rounds_without_a_run_are_used() {
    for content in [None, Some(""), Some("{\"a\": 1"), Some("[]"), Some("{\"a\": 1}")] {
        let (_out, dir) = recorded(2);
        match content {
            Some(content) => fs::write(dir.join("run.json"), content).unwrap(),
            None => fs::remove_file(dir.join("run.json")).unwrap(),
        }
        assert_eq!(RunReader::open(&dir).unwrap().damage().len(), 1, "{content:?}");
        assert_eq!(read(&dir).0, [0, 1]);
    }
}

#[test]
fn a_directory_that_is_no_run_is_said_to_be_none() {
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path().to_owned(), empty.path().join("nowhere")] {
        let error = RunReader::open(&path).unwrap_err();
        assert!(matches!(error, ReadError::NotARun { .. }), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Any bytes over any part of the file: no panic, and every whole line before them is used.
    #[test]
    fn no_damage_panics(at in 0_usize..900, junk in prop::collection::vec(any::<u8>(), 0..60)) {
        let (_out, dir) = recorded(3);
        let path = dir.join("rounds.jsonl");
        let mut bytes = fs::read(&path).unwrap();
        let at = at.min(bytes.len());
        let end = (at + junk.len()).min(bytes.len());
        let lines_before = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        bytes.splice(at..end, junk);
        fs::write(&path, bytes).unwrap();
        let (numbers, _) = read(&dir);
        prop_assert!(numbers.len() >= lines_before);
    }
}
