//! Damaged plans: no panic, one line that names the file, and a plan that is accepted keeps what its
//! names promise.

use std::collections::BTreeSet;
use std::path::Path;

use cellbench_fleet::plan::Plan;
use cellbench_mutations::input::hold;

const WHOLE: &str = r#"name = "spr-and-genoa"
directory = "shared"
partition = "bench"

[[measure]]
name = "genoa"
constraint = "genoa"
workloads = ["same-cell", "churn"]
time_budget = "10m"

[[measure]]
name = "spr"
nodes = ["n01", "n02"]

[[kernel]]
name = "fedora"
nodes = ["n01"]

[[kernel]]
name = "booted"
boot = "/site/boot"
kernels = ["6.18", "6.18-patched"]
turns = 4

[[simulate]]
name = "sim"
machines = ["xeon-spr-2s", "epyc-genoa-2s"]
seeds = [1, 2]
shards = 4
"#;

const WORDS: &str = "[[measure]] [[kernel]] [[simulate]] name=\"a\" nodes seeds shards turns vm \
                     against program \"n[1-4]\" \"../x\" \"a_b\" cellbench time_limit";

#[test]
fn plans() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let path = home.path().join("PLAN.toml");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/plan");
    hold(&corpus, &[WHOLE.as_bytes().to_vec()], WORDS, |bytes| {
        match Plan::parse(&path, &String::from_utf8_lossy(bytes)) {
            Ok(plan) => {
                let mut names = BTreeSet::new();
                let measured = plan.measure.iter().map(|measure| &measure.name);
                let others = plan.kernel.iter().map(|kernel| &kernel.name);
                let others = others.chain(plan.simulate.iter().map(|simulate| &simulate.name));
                assert!(measured.chain(others).all(|name| names.insert(name)), "{plan:?}");
                assert!(!names.is_empty() && plan.directory.is_absolute(), "{plan:?}");
                true
            }
            Err(error) => {
                let line = error.to_string();
                assert!(line.lines().count() == 1 && line.contains("PLAN.toml"), "{line}");
                false
            }
        }
    });
}
