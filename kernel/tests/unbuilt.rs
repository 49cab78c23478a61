//! A build without the measuring part says how to get it.
#![cfg(not(feature = "bpf"))]

use std::time::Duration;

use cellbench_kernel::{Bench, Error, Kernel, Layout, Options, Plan, built, measure, rows};

#[test]
fn measuring_says_what_to_install() {
    let error = built().unwrap_err();
    assert!(matches!(error, Error::NotBuilt));
    let text = error.to_string();
    for word in ["--features kernel", "clang", "libelf-dev", "zlib1g-dev"] {
        assert!(text.contains(word), "{text}");
    }
    let plan = Plan {
        rows: Vec::new(),
        layouts: vec![Layout::Same],
        threads: vec![1],
        cpus: vec![0],
        placement: "compact".to_owned(),
        rounds: 1,
        window: Duration::from_millis(1),
        latency: false,
        seed: 0,
        stop: None,
        emulator: None,
    };
    assert!(matches!(measure(plan).unwrap_err(), Error::NotBuilt));
}

#[test]
fn the_generation_is_named_all_the_same() {
    let info = match Kernel::probe() {
        Ok(info) => info,
        Err(error) => return eprintln!("the_generation_is_named_all_the_same: skipped: {error}"),
    };
    let rows = rows(&info);
    assert!(rows.len() > 20);
    let options = Options { layout: Layout::Same, threads: 1, sample_every: 0, seed: 0 };
    assert!(matches!(Bench::open(&rows[0], options).unwrap_err(), Error::NotBuilt));
}
