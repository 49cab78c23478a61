//! Damaged runs of others: records and packed files. No panic, no hang, one line, no file beside the run's
//! own, and no figure in a report that none can be.

mod fixture;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cellbench_mutations::input::{Random, hold_made, input};
use cellbench_plots::Loaded;
use cellbench_plots::chart::Drawings;
use cellbench_plots::pack::unpack;
use cellbench_plots::report::{FORMATS, terminal};
use cellbench_record::{Interval, RunWriter};
use flate2::Compression;
use flate2::write::GzEncoder;
use hdrhistogram::Histogram;
use tar::EntryType;

/// Files of a run.
const RUN: &str = "run.json";
const ROUNDS: &str = "rounds.jsonl";

const WORDS: &str = "\"round\" \"ops\" \"duration_s\" \"ok\" \"cell\" \"threads\" \"counters\" \"host\" \
                     \"latency\" \"disturbed\" \"invariants\" \"settings\" \"merged_from\" \"hlog\" \
                     \"machine\" \"../x\" null [] {}";

fn corpus(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(reader)
}

/// Returns the records of a small run: `run.json`, and the rounds.
fn records() -> (Vec<u8>, Vec<u8>) {
    let out = tempfile::tempdir().expect("a temporary directory");
    let mut rounds = fixture::rounds();
    rounds.retain(|round| round.round < 7 && round.series.workload == "update");
    let dir = fixture::written(out.path(), fixture::run(), &rounds);
    let read = |name| fs::read(dir.join(name)).expect("it was written");
    (read(RUN), read(ROUNDS))
}

/// Makes what a user looks at of a run, and checks what every figure must be; returns whether there are some.
fn is_reported(dir: &Path) -> bool {
    let loaded = match Loaded::read(dir, |_| ()) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            return false;
        }
    };
    for entry in &loaded.summary.entries {
        let figures = [
            entry.goodput_ops_s,
            entry.goodput_low_ops_s,
            entry.goodput_high_ops_s,
            entry.p50_ns,
            entry.p99_ns,
            entry.max_ns,
            entry.ratio,
            entry.ratio_low,
            entry.ratio_high,
        ];
        assert!(figures.iter().flatten().all(|it| *it >= 0.0 && it.is_finite()), "{entry:?}");
        assert!(entry.failure_share.is_none_or(|share| (0.0..=1.0).contains(&share)), "{entry:?}");
        if let (Some(low), Some(high)) = (entry.ratio_low, entry.ratio_high) {
            assert!(low <= high, "{entry:?}");
        }
    }
    let drawings = Drawings::of(loaded.report());
    for format in FORMATS.iter().filter(|format| ["mail", "results"].contains(&format.name())) {
        format.render(&loaded.report(), &drawings).expect("text can be written");
    }
    let text = terminal(&loaded.report(), false);
    assert!(text.is_ascii() && !text.contains('\u{1b}'), "{text}");
    !loaded.summary.entries.is_empty()
}

#[test]
fn records_that_are_reported() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (run, rounds) = records();
    // Which of the two is damaged: an input's first byte, which is not part of it.
    let make = |number| match number % 2 {
        0 => [b"0", &*input(number, std::slice::from_ref(&run), WORDS)].concat(),
        _ => [b"1", &*input(number, std::slice::from_ref(&rounds), WORDS)].concat(),
    };
    let (given, reported) = hold_made(&corpus("reported"), make, |bytes| {
        let (which, bytes) = bytes.split_first().expect("it has one");
        let files = if *which == b'0' { [bytes, &rounds] } else { [&run, bytes] };
        for (name, bytes) in [RUN, ROUNDS].into_iter().zip(files) {
            fs::write(home.path().join(name), bytes).expect("a file");
        }
        is_reported(home.path())
    });
    assert!(2 * reported >= given, "{reported} of {given} have something to report");
}

/// Names that a file in a packed run may have, few of which it should.
const NAMES: [&str; 9] = [
    RUN,
    ROUNDS,
    "hosts.jsonl",
    "../run.json",
    "/tmp/run.json",
    "run.json/",
    "run\n.json",
    "\x1b[2Jrun.json",
    "latency/a.hlog",
];

/// Returns a packed file with one to three changes to what is in it.
fn packed(number: u64, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut random = Random::of_input(number);
    let mut parts: Vec<(String, EntryType, Vec<u8>)> = files
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), EntryType::Regular, bytes.clone()))
        .collect();
    for _ in 0..=random.below(3) {
        let at = random.below(parts.len());
        match random.below(16) {
            0 => (*random.one(&NAMES)).clone_into(&mut parts[at].0),
            1 => {
                let again = parts[at].clone();
                parts.push(again);
            }
            2 if parts.len() > 1 => drop(parts.remove(at)),
            3 => parts.swap(at, 0),
            4 => {
                let types = [
                    EntryType::Symlink,
                    EntryType::Link,
                    EntryType::Fifo,
                    EntryType::Directory,
                    EntryType::GNULongName,
                    EntryType::GNUSparse,
                    EntryType::XHeader,
                ];
                parts[at].1 = *random.one(&types);
            }
            _ => parts[at].2 = input(number, std::slice::from_ref(&parts[at].2), WORDS),
        }
    }
    let mut archive = Vec::new();
    for (name, kind, bytes) in parts {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(&bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    if random.below(8) == 0 {
        archive = input(number, &[archive], "");
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&archive).expect("memory");
    let packed = packed.finish().expect("memory");
    if random.below(16) == 0 { input(number, &[packed], "") } else { packed }
}

#[test]
fn packed_runs() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (run, rounds) = records();
    let whole = [(RUN, run), (ROUNDS, rounds)];
    let path = home.path().join("run.cellbench");
    let into = home.path().join("into");
    let (given, unpacked) = hold_made(
        &corpus("packed"),
        |number| packed(number, &whole),
        |bytes| {
            fs::write(&path, bytes).expect("a file");
            fs::create_dir(&into).expect("a directory");
            let found = unpack(&path, &into);
            if let Err(error) = &found {
                let line = error.to_string();
                let is_plain = line.lines().count() == 1 && !line.contains(char::is_control);
                assert!(is_plain && line.contains("run.cellbench: "), "{line:?}");
            } else {
                is_reported(&into);
            }
            // Whatever was unpacked is a file of a run, and nothing is beside it.
            for entry in fs::read_dir(&into).expect("a directory") {
                let entry = entry.expect("an entry");
                let name = entry.file_name();
                let is_known = NAMES[..3].iter().any(|known| name == *known);
                assert!(is_known && entry.file_type().expect("a type").is_file(), "{name:?}");
            }
            assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 2);
            fs::remove_dir_all(&into).expect("it is there");
            found.is_ok()
        },
    );
    assert!(2 * unpacked >= given, "{unpacked} of {given} are unpacked");
}

/// A record comes from anybody: what it names as a latency log is read in the run alone.
#[test]
fn a_log_outside_of_the_run_is_not_read() {
    let out = tempfile::tempdir().expect("a temporary directory");
    let series = fixture::rounds()[0].series.clone();
    let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).expect("bounds");
    histogram.record_n(500, 100).expect("a value");
    let interval =
        Interval { op: "start".into(), start_s: 0.0, duration_s: 1.0, disturbed: false, histogram };
    let mut writer = RunWriter::create(&out.path().join("others"), fixture::run()).expect("a run");
    let log = writer.append_latency(&series, &[interval]).expect("a log");
    let inside = writer.dir().to_owned();
    let outside = inside.join(&log).display().to_string();

    let mut rounds = fixture::rounds();
    rounds.retain(|round| round.series == series);
    let report = |dir: &Path, hlog: &str| {
        let mut rounds = rounds.clone();
        for latency in rounds.iter_mut().flat_map(|round| round.latency.values_mut()) {
            latency.hlog = Some(hlog.to_owned());
        }
        let lines = rounds.iter().map(|round| serde_json::to_string(round).expect("JSON") + "\n");
        fs::write(dir.join(ROUNDS), lines.collect::<String>()).expect("a file");
        let loaded = Loaded::read(dir, |_| ()).expect("a run");
        (loaded.summary.entries[0].latency_pooled, loaded.damage.total)
    };
    assert_eq!(report(&inside, &log), (true, 0), "{log}");
    let elsewhere = fixture::written(&out.path().join("elsewhere"), fixture::run(), &[]);
    let (is_pooled, damage) = report(&elsewhere, &outside);
    assert!(!is_pooled && damage > 0, "{outside} was read: {damage}");
}
