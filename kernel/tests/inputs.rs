//! Damaged traces, guests' words and type descriptions: no panic, no hang, one line that says what is
//! wrong.

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_kernel::btf::Btf;
use cellbench_kernel::trace::diff::difference;
use cellbench_kernel::trace::log::Log;
use cellbench_kernel::trace::raw;
use cellbench_kernel::trace::report::Trace;
use cellbench_mutations::input::hold;

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(reader: &str) -> PathBuf {
    home().join("tests/corpus").join(reader)
}

fn data(name: &str) -> Vec<u8> {
    fs::read(home().join("tests/data").join(name)).expect("a file of the tests")
}

const WORDS: &str = "row window object word outcome skip end error layout symbol done \
                     ffffffffffffffff 18446744073709551615";

/// A guest's words and the processor's trace are read apart, and put together whatever both are.
#[test]
fn guests() {
    let windows = raw::read(&data("timer-start-cancel.trace")).expect("it is whole");
    hold(&corpus("guest"), &[data("timer-start-cancel.guest")], WORDS, |bytes| {
        let Ok(log) = Log::parse(&String::from_utf8_lossy(bytes)) else { return false };
        let trace = Trace::new(&log, windows.clone());
        assert!(trace.rows.len() <= log.rows.len());
        true
    });
}

#[test]
fn instructions() {
    let text = String::from_utf8(data("timer-start-cancel.guest")).expect("text");
    let log = Log::parse(&text).expect("it is whole");
    let mut whole = data("timer-start-cancel.trace");
    // The first windows are windows like the others.
    whole.truncate(6_000);
    hold(&corpus("instructions"), &[whole], "B E I M", |bytes| {
        let Ok(windows) = raw::read(bytes) else { return false };
        let _ = Trace::new(&log, windows);
        true
    });
}

#[test]
fn kept_traces() {
    let text = String::from_utf8(data("timer-start-cancel.guest")).expect("text");
    let windows = raw::read(&data("timer-start-cancel.trace")).expect("it is whole");
    let whole = Trace::new(&Log::parse(&text).expect("it is whole"), windows);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("damaged.json");
    let words = r#""rows" "script" "version" null [] {}"#;
    hold(&corpus("trace"), &[whole.text().into_bytes()], words, |bytes| {
        fs::write(&path, bytes).expect("a file");
        match Trace::read(&path) {
            Ok(trace) => {
                let _ = difference(&whole, &trace);
                assert!(difference(&trace, &trace).is_empty());
                true
            }
            Err(error) => {
                assert!(error.to_string().contains("damaged.json"), "{error}");
                false
            }
        }
    });
}

/// Returns a type description with an integer, a structure of two members and a pointer to it.
fn types() -> Vec<u8> {
    let names = b"\0int\0pair\0one\0two\0";
    let mut records = Vec::new();
    let of_integer = [1, 1 << 24, 4, 32];
    let of_structure = [5, 4 << 24 | 2, 8, 10, 1, 0, 14, 1, 32];
    let of_pointer = [0, 2 << 24, 2_u32];
    for word in of_integer.into_iter().chain(of_structure).chain(of_pointer) {
        records.extend(word.to_ne_bytes());
    }
    let mut bytes = Vec::new();
    bytes.extend(0xeb9f_u16.to_ne_bytes());
    bytes.extend([1, 0]);
    let sections = [24, 0, records.len() as u32, records.len() as u32, names.len() as u32];
    sections.iter().for_each(|value| bytes.extend(value.to_ne_bytes()));
    bytes.extend(records);
    bytes.extend(names);
    bytes
}

#[test]
fn type_descriptions() {
    assert!(Btf::parse(&types()).is_ok());
    hold(&corpus("btf"), &[types()], "int pair", |bytes| Btf::parse(bytes).is_ok());
}
