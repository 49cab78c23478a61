//! Tells the program which revision of the sources it was built from.

use std::path::Path;
use std::process::Command;

fn main() {
    // What is measured with: a change there makes the tree differ from its revision.
    for member in [
        "record",
        "host",
        "sim",
        "impls",
        "workloads",
        "trials/native",
        "trials/sim",
        "trials/stress",
        "plots",
        "fleet",
        "kernel",
        "measure",
        "bench",
    ] {
        let sources = format!("../{member}/src");
        if Path::new(&sources).is_dir() {
            println!("cargo:rerun-if-changed={sources}");
        }
    }
    for file in ["../.git/HEAD", "../.git/index"] {
        if Path::new(file).is_file() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    println!("cargo:rerun-if-changed=build.rs");
    // Outside a checkout, or without git, the revision is unknown.
    if let Some(revision) = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
    {
        println!("cargo:rustc-env=CELLBENCH_GIT_REVISION={revision}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
