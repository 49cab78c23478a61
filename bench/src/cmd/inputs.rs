//! Damaged command lines: no panic, one line that says what is wrong, and what a fleet would run.

use std::path::Path;

use cellbench_measure::cmd::what_is_wrong;
use cellbench_mutations::input::hold;
use clap::Parser;

use super::{Cli, fleet};

/// Command lines as the documents have them, a word on each line.
const WHOLE: &[&str] = &[
    "run\n--cells\nspin-queued,cmd-queue\n--workloads\nsame-cell,churn\n--threads\n1,2,4\n--window\n20ms\n--rounds\n9\n--seed\n42",
    "sim\n--machine\nxeon-spr-2s\n--cells\nall\n--threads\n1,112\n--seed\n1\n--quick",
    "stress\n--seconds\n600\n--workloads\nnmi-same-cell\n--interrupts\n10000000\n--stepped",
    "report\nrun-1\n--format\nmail\n--baseline\nspin-tas",
    "compare\na\nb",
    "builds\na\nb\n--pairs\nmcs/ck-mcs,clh/ck-clh\n--fail-on-slower",
    "merge\na\nb\n--out\nc",
    "selftest\n--time-budget\n90s",
    "kernel\n--vm\nvmlinuz\n--against\nother",
    "ab\n--before\nHEAD~1\n--after\nHEAD",
    "topology\n--time-budget\n5s",
    "advise\n--machine\nepyc-genoa-2s",
    "fleet\nsubmit\nPLAN.toml\n--dry-run",
    "list\nworkloads",
    "help\nrun",
];

const WORDS: &str = "--cells --threads --seed --window --time-budget --rounds --quick --help \
                     --version -- - -h all 1-8 0 1,1,1 10ms 1e9s -5 \u{b5}s run sim --machine --shard \
                     1/2 3/2 --out --load --offered --placement";

#[test]
fn command_lines() {
    let seeds: Vec<_> = WHOLE.iter().map(|line| line.as_bytes().to_vec()).collect();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/command-line");
    hold(&corpus, &seeds, WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<String> = text.split(['\n', ' ']).map(str::to_owned).collect();
        let read =
            Cli::try_parse_from(std::iter::once("cellbench".to_owned()).chain(words.clone()));
        if let Err(error) = &read {
            assert_eq!(what_is_wrong(error).lines().count().max(1), 1, "{words:?}");
        }
        // Names are looked up, and the plan is made, as for a task of a fleet.
        if let Err(line) = fleet::check(&words) {
            assert_eq!(line.lines().count().max(1), 1, "{words:?}: {line}");
        }
        read.is_ok()
    });
}
