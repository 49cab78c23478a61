//! Damaged records: no panic, no hang, and what is read is what stands there.

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_mutations::input::hold;
use cellbench_record::{
    Counter, Interval, Kind, Latency, OK, Round, Run, RunReader, RunWriter, Series, Source,
    ThreadCount, read_latency_log,
};
use hdrhistogram::Histogram;
use serde_json::Value;

fn corpus(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(reader)
}

/// Writes a run of a few rounds with all that a round can have.
fn recorded() -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    let mut run = Run::new("0.1.0", 7);
    run.baseline = "spin-queued".into();
    run.host.cpu_model = Some("A CPU".into());
    let mut writer = RunWriter::create(out.path(), run).unwrap();
    for (cell, kind) in [("spin-tas", Kind::Timer), ("cmd-queue", Kind::Wq)] {
        let series = Series::new(cell, kind, "update", 2, "compact", Source::Model);
        for number in 0..2 {
            let mut round = Round::new(series.clone(), number, 0.25);
            round.count("start", OK, 500);
            round.count("start", "EBUSY", 12);
            round.count("cancel", OK, 7);
            round.per_thread = vec![ThreadCount { cpu: 1, attempts: 519, ok: 507 }];
            let counter = Counter::Counted { value: 12_345, enabled_ns: 100, running_ns: 50 };
            round.counters.insert("cycles".into(), counter);
            round.latency.insert("start".into(), Latency { samples: 9, ..Latency::default() });
            round.disturbed = vec!["stolen time".into()];
            writer.append(&round).unwrap();
        }
    }
    let dir = writer.dir().to_owned();
    (out, dir)
}

const WORDS: &str = "\"round\" \"ops\" \"duration_s\" \"ok\" \"cell\" \"threads\" \"counters\" \
                     \"latency\" \"disturbed\" \"invariants\" \"schema\" \"seed\" null [] {}";

/// Returns what an independent reader finds of the successes and the window of a line.
fn figures(line: &[u8]) -> (u64, Option<f64>) {
    let value: Value = serde_json::from_slice(line).expect("it was taken for a round");
    let of_ops = value["ops"].as_object().into_iter().flatten();
    let ok = of_ops.filter_map(|(_, outcomes)| outcomes[OK].as_u64());
    (ok.fold(0, u64::saturating_add), value["duration_s"].as_f64())
}

#[test]
fn rounds() {
    let (_out, dir) = recorded();
    let path = dir.join("rounds.jsonl");
    let seeds = [fs::read(&path).unwrap()];
    hold(&corpus("rounds"), &seeds, WORDS, |bytes| {
        fs::write(&path, bytes).unwrap();
        let lines: Vec<&[u8]> = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .collect();
        let found: Vec<_> = RunReader::open(&dir).unwrap().rounds().unwrap().collect();
        assert_eq!(found.len(), lines.len(), "each line is a round or named as damaged");
        for (line, round) in lines.iter().zip(&found) {
            if let Ok(round) = round {
                let (ok, duration_s) = figures(line);
                assert_eq!((round.ok(), Some(round.duration_s)), (ok, duration_s));
                assert!(round.duration_s > 0.0 || !round.is_usable(), "{round:?}");
            }
        }
        found.iter().any(Result::is_ok)
    });
}

#[test]
fn runs() {
    let (_out, dir) = recorded();
    let path = dir.join("run.json");
    let seeds = [fs::read(&path).unwrap()];
    hold(&corpus("run"), &seeds, WORDS, |bytes| {
        fs::write(&path, bytes).unwrap();
        // A file of a newer schema is refused; else the rounds are there, whatever became of it.
        let Ok(reader) = RunReader::open(&dir) else { return false };
        assert_eq!(reader.rounds().unwrap().filter(Result::is_ok).count(), 4);
        let whole = reader.damage().is_empty();
        if whole {
            let value: Value = serde_json::from_slice(bytes).expect("it was taken for a run");
            assert_eq!(value["seed"].as_u64().unwrap_or_default(), reader.run().seed);
        }
        whole
    });
}

#[test]
fn latency_logs() {
    let out = tempfile::tempdir().unwrap();
    let run = Run { started_unix_s: 1_795_252_223, ..Run::default() };
    let mut writer = RunWriter::create(out.path(), run).unwrap();
    let series = Series::new("cmd-queue", Kind::Wq, "update", 4, "spread", Source::Model);
    let intervals = [("start", 0.5), ("cancel", 0.75)].map(|(op, start_s)| {
        let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap();
        (1..300).for_each(|value| histogram.record(value * value).unwrap());
        Interval { op: op.into(), start_s, duration_s: 0.25, disturbed: false, histogram }
    });
    let name = writer.append_latency(&series, &intervals).unwrap();
    let path = writer.dir().join(name);
    let seeds = [fs::read(&path).unwrap()];
    hold(&corpus("latency"), &seeds, "Tag=start, #[StartTime: HISTFAAA #", |bytes| {
        fs::write(&path, bytes).unwrap();
        let (intervals, _) = read_latency_log(&path).unwrap();
        for interval in &intervals {
            assert!(interval.start_s.is_finite() && interval.duration_s.is_finite());
        }
        !intervals.is_empty()
    });
}
