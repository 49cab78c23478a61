//! Records without a field: none of what was not known is read, or written, as a value.

use cellbench_record::{Calibration, CoreMatrix, CpuPlace, Host, Round, Run};
use serde_json::{Value, json};

/// Lists the values below `value` that say something, by their paths.
fn said(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::Array(all) => all.iter().for_each(|one| said(&format!("{path}[]"), one, found)),
        Value::Object(all) => {
            all.iter().for_each(|(name, one)| said(&format!("{path}.{name}"), one, found));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(path.to_owned()),
    }
}

/// Lists what a type says that was read from an object without a field, but for the fields `counts`, whose 0
/// is the count of an empty list.
fn said_by_nothing<T: serde::Serialize + serde::de::DeserializeOwned>(
    counts: &[&str],
) -> Vec<String> {
    let nothing: T = serde_json::from_value(json!({})).expect("every field may be absent");
    let mut found = Vec::new();
    said("", &serde_json::to_value(&nothing).expect("writable"), &mut found);
    found.retain(|path| !counts.contains(&path.as_str()));
    found
}

#[test]
fn a_host_that_says_nothing_has_no_definite_value() {
    // CPUs and cores are those of the list of CPUs, which is empty.
    let counts = [".topology.cpus_online", ".topology.cores"];
    assert_eq!(said_by_nothing::<Host>(&counts), Vec::<String>::new());
    assert_eq!(said_by_nothing::<CpuPlace>(&[".cpu"]), Vec::<String>::new());
    assert_eq!(said_by_nothing::<Calibration>(&[]), Vec::<String>::new());
    assert_eq!(said_by_nothing::<CoreMatrix>(&[]), Vec::<String>::new());
}

#[test]
fn a_run_that_says_nothing_about_its_host_and_its_cost_has_no_definite_value_there() {
    let run: Run = serde_json::from_value(json!({})).expect("every field may be absent");
    let mut found = Vec::new();
    for field in
        ["host", "calibration", "self_test", "finished_unix_s", "git_revision", "simulated"]
    {
        let whole = serde_json::to_value(&run).expect("writable");
        said(field, whole.get(field).unwrap_or(&Value::Null), &mut found);
    }
    found.retain(|path| {
        !["host.topology.cpus_online", "host.topology.cores"].contains(&path.as_str())
    });
    assert_eq!(found, Vec::<String>::new());
}

/// Counters, switches and steal that a round does not have were not read: they are not 0.
#[test]
fn a_round_without_its_optional_fields_has_none_of_them() {
    let least = json!({
        "source": "model", "kind": "timer", "workload": "w", "placement": "compact", "threads": 1,
        "cell": "c", "round": 0, "duration_s": 1.0,
    });
    let round: Round = serde_json::from_value(least).expect("the fields that a round must have");
    assert_eq!(round.context_switches_involuntary, None);
    assert_eq!(round.context_switches_voluntary, None);
    assert_eq!((round.migrations, round.steal_ns), (None, None));
    assert_eq!((round.unserved, round.interruptions_missed), (None, None));
    assert_eq!((round.elapsed_in_kernel_ns, round.timing_cost_ns), (None, None));
    assert_eq!(round.latency_sample_every, None);
    assert!(round.counters.is_empty() && round.latency.is_empty());
    let written = serde_json::to_value(&round).expect("writable");
    for name in ["steal_ns", "migrations", "context_switches_involuntary", "counters", "unserved"] {
        assert_eq!(written.get(name), None, "{name} is written, and was not known");
    }
}
