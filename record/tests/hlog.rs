//! Latency logs, read back by this crate and by a second decoder written from the format's
//! description alone (the V2 encoding of HdrHistogram: header, then counts in ZigZag LEB128 where a
//! negative number is a run of zeros).

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use base64::Engine as _;
use cellbench_record::read_latency_log;
use cellbench_record::{Interval, Kind, Latency, Run, RunWriter, Series, Source, WriteError};
use hdrhistogram::Histogram;

fn series() -> Series {
    Series::new("cmd queue/1", Kind::Wq, "update", 4, "spread", Source::Model)
}

fn interval(op: &str, start_s: f64, values_ns: &[u64]) -> Interval {
    let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap();
    for value in values_ns {
        histogram.record(*value).unwrap();
    }
    Interval { op: op.into(), start_s, duration_s: 0.25, disturbed: false, histogram }
}

fn written(intervals: &[&[Interval]]) -> (tempfile::TempDir, PathBuf) {
    let out = tempfile::tempdir().unwrap();
    let run = Run { started_unix_s: 1_795_252_223, ..Run::default() };
    let mut writer = RunWriter::create(out.path(), run).unwrap();
    let mut name = String::new();
    for intervals in intervals {
        name = writer.append_latency(&series(), intervals).unwrap();
    }
    let path = writer.dir().join(name);
    (out, path)
}

/// Returns the counts by bucket index, and (lowest, highest, significant digits), of one encoded histogram.
fn decode_v2(encoded: &str) -> (Vec<u64>, (u64, u64, u32)) {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let long = |bytes: &[u8], at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(&bytes, 0), 0x1c84_9314, "V2 compressed, one-byte words");
    assert_eq!(word(&bytes, 4) as usize, bytes.len() - 8);
    let mut payload = Vec::new();
    flate2::read::ZlibDecoder::new(&bytes[8..]).read_to_end(&mut payload).unwrap();
    assert_eq!(word(&payload, 0), 0x1c84_9313, "V2");
    let length = word(&payload, 4) as usize;
    assert_eq!(word(&payload, 8), 0, "normalizing index offset");
    let digits = word(&payload, 12);
    let (lowest, highest) = (long(&payload, 16), long(&payload, 24));
    let ratio = f64::from_bits(long(&payload, 32));
    assert!((ratio - 1.0).abs() < 1e-12);
    let mut counts = Vec::new();
    let mut body = payload[40..40 + length].iter();
    while let Some(first) = body.next() {
        let mut value = u64::from(first & 0x7f);
        let mut byte = *first;
        let mut shift = 7;
        while byte & 0x80 != 0 {
            byte = *body.next().unwrap();
            let bits = if shift == 56 { u64::from(byte) } else { u64::from(byte & 0x7f) };
            value |= bits << shift;
            if shift == 56 {
                break;
            }
            shift += 7;
        }
        let zigzag = (value >> 1) as i64 ^ -((value & 1) as i64);
        if zigzag < 0 {
            counts.resize(counts.len() + zigzag.unsigned_abs() as usize, 0);
        } else {
            counts.push(zigzag as u64);
        }
    }
    (counts, (lowest, highest, digits))
}

/// Returns the smallest value of a bucket, by the layout of HdrHistogram: 2048 unit buckets at three digits,
/// then 1024 of each doubling width.
fn bucket_value(index: u64) -> u64 {
    if index < 2048 { index } else { (1024 + index % 1024) << (index / 1024 - 1) }
}

#[test]
fn a_second_decoder_reads_the_same_distribution() {
    let values = [1, 17, 17, 2047, 2048, 5_000, 123_456, 9_999_999_999];
    let (_out, path) = written(&[&[interval("start", 1.5, &values)]]);
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("#[Histogram log format version 1.3]"));
    let line = text.lines().last().unwrap();
    let fields: Vec<&str> = line.split(',').collect();
    assert_eq!(fields[..3], ["Tag=start", "1.500", "0.250"]);
    let (counts, bounds) = decode_v2(fields[4]);
    assert_eq!(bounds, (1, 10_000_000_000, 3));
    let mut decoded = Vec::new();
    for (index, count) in counts.iter().enumerate() {
        decoded.extend(std::iter::repeat_n(bucket_value(index as u64), *count as usize));
    }
    assert_eq!(decoded.len(), values.len());
    for (value, bucket) in values.iter().zip(&decoded) {
        assert!(bucket <= value && *value - bucket <= value / 1000, "{value} in bucket {bucket}");
    }
}

#[test]
fn header_stands_once_and_intervals_follow() {
    let first = [interval("start", 0.0, &[5, 6]), interval("cancel", 0.0, &[70])];
    let second = [interval("start", 0.5, &[8])];
    let (_out, path) = written(&[&first, &second]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("log format version").count(), 1);
    assert_eq!(text.matches("#[StartTime: 1795252223.000").count(), 1);
    assert_eq!(text.matches("\"StartTimestamp\"").count(), 1);
    let (intervals, damage) = read_latency_log(&path).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    assert_eq!(intervals, [&first[..], &second[..]].concat());
}

#[test]
fn damaged_intervals_are_named_and_the_rest_used() {
    let (_out, path) = written(&[&[interval("a", 0.0, &[5]), interval("b", 0.0, &[6])]]);
    let text = fs::read_to_string(&path).unwrap();
    let cut = text.replacen("Tag=a", "no interval\n\nTag=c,0.000,0.250,5.0,AAAA\nTag=a", 1);
    fs::write(&path, &cut[..cut.len() - 9]).unwrap();
    let (intervals, damage) = read_latency_log(&path).unwrap();
    assert_eq!(intervals.iter().map(|i| i.op.as_str()).collect::<Vec<_>>(), ["a"]);
    let header_lines = 5;
    let lines: Vec<_> = damage.iter().map(|found| found.line.unwrap()).collect();
    assert_eq!(lines, [header_lines + 1, header_lines + 3, header_lines + 5]);
}

#[test]
fn an_operation_name_that_would_break_the_line_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    let error = writer.append_latency(&series(), &[interval("a,b", 0.0, &[1])]).unwrap_err();
    assert!(matches!(error, WriteError::Encode { .. }), "{error:?}");
}

#[test]
fn percentiles_of_a_round_are_those_of_its_histogram() {
    let values: Vec<u64> = (1..=10_000).collect();
    let latency = Latency::of(&interval("a", 0.0, &values).histogram);
    assert_eq!((latency.samples, latency.p50_ns), (10_000, 5_003));
    assert!((9_900..=9_910).contains(&latency.p99_ns), "{latency:?}");
    assert!(latency.max_ns >= 10_000);
}

/// A reader that knows nothing of this crate leaves out what was disturbed by its tag.
#[test]
fn the_tag_tells_a_disturbed_round() {
    let mut disturbed = interval("start", 1.0, &[900_000]);
    disturbed.disturbed = true;
    let (_out, path) = written(&[&[interval("start", 0.5, &[100])], &[disturbed]]);
    let text = fs::read_to_string(&path).unwrap();
    let tags: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Tag=")).collect();
    let tags: Vec<&str> = tags.iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(tags, ["start", "disturbed/start"]);
    let (read, damage) = read_latency_log(&path).unwrap();
    assert!(damage.is_empty());
    let told: Vec<(&str, bool)> = read.iter().map(|it| (it.op.as_str(), it.disturbed)).collect();
    assert_eq!(told, [("start", false), ("start", true)]);
}
