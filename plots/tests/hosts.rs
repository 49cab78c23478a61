//! The host as a dimension of a merged run's reports: where two hosts disagree, every report that a
//! reader opens first says so, and which.

use std::fs;
use std::path::{Path, PathBuf};

use cellbench_plots::{merge, write_all};
use cellbench_record::{CoreMatrix, Host, Kind, Round, Run, RunWriter, Series, Source};

/// Writes a run of twenty rounds on host `name`, on which `new` has `percent` of the baseline's goodput.
fn host(out: &Path, name: &str, percent: u64) -> PathBuf {
    let host = Host { name: Some(name.to_owned()), ..Host::default() };
    let mut run = Run { baseline: "old".into(), host, ..Run::new("1", 7) };
    let value = percent as f64;
    run.calibration.core_to_core.push(CoreMatrix {
        method: "cas".into(),
        cpus: vec![0, 1],
        one_way_ns: vec![vec![None, Some(value)], vec![Some(value), None]],
    });
    let mut writer = RunWriter::create(out, run).expect("a run");
    for number in 0..20 {
        for (cell, count) in [("old", 1_000_000), ("new", 10_000 * percent)] {
            let series = Series::new(cell, Kind::Timer, "churn", 2, "compact", Source::Model);
            let mut round = Round::new(series, number, 0.1);
            // A little noise, the same on both hosts.
            round.count("op", "ok", count + u64::from(number % 5) * 100);
            writer.append(&round).expect("a round");
        }
    }
    writer.dir().to_owned()
}

#[test]
fn hosts_that_disagree_are_named_in_every_report() {
    let home = tempfile::tempdir().expect("a directory");
    let runs =
        [("a", 150), ("b", 130), ("c", 70)].map(|(name, percent)| host(home.path(), name, percent));
    let merged = merge(&runs, &home.path().join("merged")).expect("merged");
    let written = write_all(&merged.dir).expect("reports");
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    let sentence = "Over 3 hosts, new (timer) in 1 row: hosts disagree in 1 (c in 1).";
    for name in ["RESULTS.md", "index.html", "mail.txt", "table.txt"] {
        let text = fs::read_to_string(merged.dir.join("report").join(name)).expect(name);
        assert!(text.contains(sentence), "{name}: {text}");
    }
    let row = "faster on 2 of 3 hosts; slower on c, 0.70x (c) to 1.50x (a)";
    for name in ["RESULTS.md", "index.html"] {
        let text = fs::read_to_string(merged.dir.join("report").join(name)).expect(name);
        assert!(text.contains(row), "{name}: {text}");
    }
    let summary = fs::read_to_string(merged.dir.join("summary.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!(summary["over_hosts"][0]["agreement"], "disagree");
    assert_eq!(summary["over_hosts"][0]["hosts"][2]["verdict"], "slower");
    // One host alone has no such part.
    let written = write_all(&runs[0]).expect("reports");
    assert!(!written.loaded.summary.extra.contains_key("over_hosts"));
    let text = fs::read_to_string(runs[0].join("report/RESULTS.md")).expect("a report");
    assert!(!text.contains("Over hosts"), "{text}");
}

#[test]
fn hosts_are_small_multiples_on_one_scale() {
    let home = tempfile::tempdir().expect("a directory");
    let runs: Vec<PathBuf> =
        (0..30).map(|number| host(home.path(), &format!("h{number:02}"), 70 + number)).collect();
    let merged = merge(&runs, &home.path().join("merged")).expect("merged");
    let written = write_all(&merged.dir).expect("reports");
    assert!(written.failed.is_empty(), "{:?}", written.failed);
    let chart = |name: &str| {
        let path = merged.dir.join("report/charts").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let ratios = chart("hosts-model-timer.svg");
    assert!(ratios.contains("timer churn against old, by host: 24 of 30"), "{ratios}");
    for shown in ["h00, 2 threads", "h23, 2 threads"] {
        assert!(ratios.contains(shown), "{shown}");
    }
    assert!(!ratios.contains("h24"), "more than are drawn");
    // One axis: the lines of the same ratio lie in the same place of each panel.
    let ones = ratios.matches("stroke=\"#202020\" stroke-width=\"1.5\"").count();
    assert_eq!(ones, 24, "{ratios}");
    let heat = chart("hosts-core-to-core-cas.svg");
    assert!(heat.contains("one-way latency, ns: 70 (light) to 93 (dark)"), "{heat}");
    let page = fs::read_to_string(merged.dir.join("report/index.html")).expect("a page");
    for file in ["index.html", "mail.txt", "github.md", "RESULTS.md"] {
        let text = fs::read_to_string(merged.dir.join("report").join(file)).expect(file);
        assert!(text.contains("6 further hosts in run.json."), "{file}");
    }
    assert!(page.contains("by host: 24 of 30") && page.contains("Core to core by host: cas"));
}
