//! Damaged files below `/sys`: no panic, no hang, and no CPU that was not there.

mod sysfs;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cellbench_host::topology::Topology;
use cellbench_host::{CpuSet, Placement};
use cellbench_mutations::input::hold;

fn corpus(reader: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(reader)
}

/// Collects the paths of all files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Puts the content of one file into another one, or damages it.
fn topologies(manifest: &str, name: &str) {
    let tree = sysfs::unpack(manifest);
    let mut paths = Vec::new();
    files(tree.path(), &mut paths);
    paths.sort();
    let whole: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a file")).collect();
    let words = "0-1 0-4095 1-0 65535 0,2-3 K Unified notsupported";
    let place = std::sync::atomic::AtomicUsize::new(0);
    hold(&corpus(name), &whole, words, |bytes| {
        // The readers of all files, one after the other. Relaxed: only draws numbers.
        let at = place.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % paths.len();
        fs::write(&paths[at], bytes).expect("a file");
        let read = Topology::from_sysfs(tree.path());
        fs::write(&paths[at], &whole[at]).expect("a file");
        let Ok(topology) = read else { return false };
        let known: BTreeSet<_> = topology.cpus.iter().map(|cpu| cpu.id).collect();
        assert_eq!(known.len(), topology.cpus.len(), "{}: a CPU twice", paths[at].display());
        for count in [1, topology.usable.len()] {
            for placement in [Placement::Compact, Placement::Spread, Placement::Smt] {
                let Ok(cpus) = topology.place(placement, count) else { continue };
                let distinct: BTreeSet<_> = cpus.iter().copied().collect();
                assert_eq!((cpus.len(), distinct.len()), (count, count), "{placement:?}");
                assert!(distinct.is_subset(&known), "{placement:?}: {cpus:?}");
            }
        }
        true
    });
}

#[test]
fn topology_of_a_small_machine() {
    topologies(include_str!("sysfs/vm-2.txt"), "topology-vm");
}

#[test]
fn topology_of_a_hybrid_machine() {
    topologies(include_str!("sysfs/hybrid-laptop.txt"), "topology-hybrid");
}

#[test]
fn lists_of_cpus() {
    let seeds = ["0-3,8,10-11", "0-1023", "", "4095"].map(|list| list.as_bytes().to_vec());
    hold(&corpus("cpu-list"), &seeds, "- , 0- 4294967295", |bytes| {
        let Ok(set) = String::from_utf8_lossy(bytes).parse::<CpuSet>() else { return false };
        assert_eq!(set.to_string().parse::<CpuSet>().as_ref(), Ok(&set));
        true
    });
}
