//! Lists the machine files of `machines/` and the matrices beside them, so that adding a simulated
//! machine is adding files there.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=machines");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&root).join("machines");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the folder machines/ belongs to this package")
        .map(|entry| entry.expect("a readable folder entry").file_name())
        .filter_map(|name| name.to_str()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    names.sort();

    let mut list = String::from("&[\n");
    for name in &names {
        let file = folder.join(format!("{name}.toml"));
        writeln!(list, "    ({name:?}, include_str!({file:?})),").expect("writing to a string");
    }
    list.push_str("]\n");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("machines.rs"), list).expect("a writable OUT_DIR");

    let mut matrices: Vec<String> = fs::read_dir(&folder)
        .expect("the folder machines/ belongs to this package")
        .map(|entry| entry.expect("a readable folder entry").file_name())
        .filter_map(|name| name.to_str().filter(|name| name.ends_with(".csv")).map(str::to_owned))
        .collect();
    matrices.sort();
    let mut list = String::from("&[\n");
    for name in &matrices {
        let file = folder.join(name);
        writeln!(list, "    ({name:?}, include_str!({file:?})),").expect("writing to a string");
    }
    list.push_str("]\n");
    fs::write(Path::new(&out).join("matrices.rs"), list).expect("a writable OUT_DIR");
}
