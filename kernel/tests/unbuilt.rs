//! A build without the measuring part says how to get it.
#![cfg(not(feature = "bpf"))]

use cellbench_kernel::{Error, Kernel, built, rows};

#[test]
fn measuring_says_what_to_install() {
    let error = built().unwrap_err();
    assert!(matches!(error, Error::NotBuilt));
    let text = error.to_string();
    for word in ["--features kernel", "clang", "libelf-dev", "zlib1g-dev"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn the_generation_is_named_all_the_same() {
    let info = match Kernel::probe() {
        Ok(info) => info,
        Err(error) => return eprintln!("the_generation_is_named_all_the_same: skipped: {error}"),
    };
    assert!(rows(&info).len() > 20);
}
