//! `latency/*.hlog`: whole distributions, in the interval log format that the HdrHistogram tools
//! read (V2 encoding, compressed).
//!
//! One log per series, one interval per round and operation, the operation as the interval's tag;
//! the tag of a disturbed round begins with `disturbed/`, so that tools can leave it out.
//! Values are nanoseconds; `HistogramLogProcessor` shows them as such with
//! `-outputValueUnitRatio 1`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::{Damage, ReadError, WriteError};

/// One operation's latencies in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    /// Operation by name.
    pub op: String,
    /// Start, seconds since the run started.
    pub start_s: f64,
    /// Length of the round.
    pub duration_s: f64,
    /// Whether the round was disturbed and counts in no statistic.
    pub disturbed: bool,
    /// Latencies in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// Returns the path of a log that a record of the run in `dir` names. Only the name of the file counts: a path
/// in a record, which may come from anybody, must not lead out of the run.
#[must_use]
pub fn latency_log(dir: &Path, hlog: &str) -> PathBuf {
    dir.join("latency").join(Path::new(hlog).file_name().unwrap_or_default())
}

/// Appends `intervals` to the log at `path`, which is created with its header if it is new.
pub(crate) fn append(
    path: &Path,
    run_started_unix_s: u64,
    intervals: &[Interval],
) -> Result<(), WriteError> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    if !path.exists() {
        let start = UNIX_EPOCH + Duration::from_secs(run_started_unix_s);
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("[values are nanoseconds; the tag is the operation]")
            .with_start_time(start)
            .with_base_time(start)
            .begin_log_with(&mut text, &mut serializer)
            .map_err(|e| WriteError::encode(path, e))?;
        text.extend_from_slice(LEGEND);
    }
    let mut log = IntervalLogWriterBuilder::new()
        .begin_log_with(&mut text, &mut serializer)
        .map_err(|e| WriteError::encode(path, e))?;
    for interval in intervals {
        let mark = if interval.disturbed { DISTURBED } else { "" };
        let tag = format!("{mark}{}", interval.op);
        let tag = Tag::new(&tag).ok_or_else(|| {
            let op = &interval.op;
            WriteError::encode(
                path,
                format!("operation {op:?}: a tag has no comma, space or line end"),
            )
        })?;
        let seconds =
            |s: f64| Duration::try_from_secs_f64(s).map_err(|e| WriteError::encode(path, e));
        log.write_histogram(
            &interval.histogram,
            seconds(interval.start_s)?,
            seconds(interval.duration_s)?,
            Some(tag),
        )
        .map_err(|e| WriteError::encode(path, e))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(&text))
        .map_err(|e| WriteError::io(path, "append to it", e))
}

/// Begins the tag of a disturbed round.
const DISTURBED: &str = "disturbed/";

/// Column names, as the Java `HistogramLogWriter` puts them before the first interval.
const LEGEND: &[u8] =
    b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Reads a log, with what could not be used.
///
/// # Errors
/// [`ReadError::Io`] if the file cannot be opened.
pub fn read_latency_log(path: &Path) -> Result<(Vec<Interval>, Vec<Damage>), ReadError> {
    let bytes = fs::read(path).map_err(|e| ReadError::io(path, e))?;
    let mut deserializer = Deserializer::new();
    let mut intervals = Vec::new();
    let mut damage = Vec::new();
    // Line by line, because the crate's iterator ends at the first fault.
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut fault = |what: String| {
            damage.push(Damage { path: path.to_owned(), line: Some(index as u64 + 1), what });
        };
        for entry in IntervalLogIterator::new(line) {
            match entry {
                Ok(LogEntry::Interval(interval)) => {
                    match decode(interval.encoded_histogram(), &mut deserializer) {
                        Ok(histogram) => {
                            let tag = interval.tag();
                            let tag = tag.as_ref().map_or("", |tag| tag.as_str());
                            let of_disturbed = tag.strip_prefix(DISTURBED);
                            intervals.push(Interval {
                                op: of_disturbed.unwrap_or(tag).to_owned(),
                                start_s: interval.start_timestamp().as_secs_f64(),
                                duration_s: interval.duration().as_secs_f64(),
                                disturbed: of_disturbed.is_some(),
                                histogram,
                            });
                        }
                        Err(what) => fault(what),
                    }
                }
                Ok(LogEntry::StartTime(_) | LogEntry::BaseTime(_)) => {}
                Err(_) => fault("not a line of an HdrHistogram log, or cut short".to_owned()),
            }
        }
    }
    Ok((intervals, damage))
}

/// Packs a histogram into one word of text: the V2 encoding, compressed, in base64, as a log has it.
///
/// # Errors
/// A sentence, if the histogram cannot be encoded.
pub fn pack_histogram(histogram: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|e| format!("histogram cannot be encoded: {e}"))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Unpacks what [`pack_histogram`] packed.
///
/// # Errors
/// A sentence, if the text is something else.
pub fn unpack_histogram(text: &str) -> Result<Histogram<u64>, String> {
    decode(text, &mut Deserializer::new())
}

fn decode(text: &str, deserializer: &mut Deserializer) -> Result<Histogram<u64>, String> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|e| format!("histogram is not base64: {e}"))?;
    deserializer
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| format!("histogram cannot be decoded: {e}"))
}
