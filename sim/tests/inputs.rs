//! Damaged machine files and measurements: no panic, no hang, and a machine that is accepted runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use cellbench_mutations::input::hold;
use cellbench_sim::{MachineModel, SimU64, Simulation, truth};

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn corpus(reader: &str) -> PathBuf {
    home().join("tests/corpus").join(reader)
}

/// Reads the files of a folder with an ending, in the order of their names.
fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it is").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

const WORDS: &str = "[topology] [hit] [transfer] [fill] [directory] [store_buffer] [core] [[source]] \
                     kind=\"uniform\" protocol=\"moesi\" sockets cores_per_llc threads_per_core \
                     jitter schema=1 matrix_file matrix_ns through_home=true";

#[test]
fn machines() {
    let seeds: Vec<_> =
        files(&home().join("machines"), "toml").into_iter().map(|(_, bytes)| bytes).collect();
    let file = home().join("machines/damaged.toml").display().to_string();
    hold(&corpus("machine"), &seeds, WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let machine = match MachineModel::parse(&file, &text) {
            Ok(machine) => machine,
            Err(error) => {
                let line = error.to_string();
                assert!(
                    line.lines().count() == 1 && line.contains("damaged") || line.contains(".csv"),
                    "{line}"
                );
                return false;
            }
        };
        let again =
            MachineModel::parse(&file, &machine.to_toml()).expect("what it writes it reads");
        assert_eq!(again, machine);
        let word = Rc::new(SimU64::new("word", 0));
        let mut simulation = Simulation::new(&machine, 1);
        simulation.time_limit_ns(1e5);
        for core in 0..machine.places().len().min(2) {
            let word = Rc::clone(&word);
            simulation.spawn(core, move || _ = word.fetch_add(1, SeqCst)).expect("the core exists");
        }
        let report = simulation.run().expect("it runs");
        assert!(report.duration_ns.is_finite() && report.duration_ns >= 0.0);
        true
    });
}

#[test]
fn measurements() {
    let mut measured = files(&home().join("ground-truth"), "csv");
    measured.extend(files(&home().join("ground-truth/matrices"), "csv"));
    // Short ones: a matrix of 160 threads is a matrix.
    let seeds: Vec<_> =
        measured.into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes.len() < 8_000).collect();
    assert!(seeds.len() > 2);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("damaged.csv");
    hold(&corpus("measurements"), &seeds, "primitive,threads,ns_per_op ,", |bytes| {
        fs::write(&file, bytes).expect("a file");
        match truth::read(folder.path()) {
            Ok((sets, _)) => !sets.is_empty(),
            Err(error) => {
                let line = error.to_string();
                assert!(line.contains("damaged.csv"), "{line}");
                false
            }
        }
    });
}
