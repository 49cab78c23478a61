//! Round trips: records are read back, unknown fields included, and nothing of an earlier run is touched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cellbench_record::{
    Counter, Entry, Kind, Latency, OK, Round, Run, RunReader, RunWriter, Series, Source, Summary,
    Verdict, WriteError,
};
use serde_json::json;

fn series(cell: &str) -> Series {
    Series::new(cell, Kind::TaskWork, "update", 2, "compact", Source::Model)
}

fn full_round(number: u32) -> Round {
    let mut round = Round::new(series("task-work"), number, 0.25);
    round.series.engine = "live".into();
    round.series.offered_ops_s = Some(1_000_000);
    round.cpus = vec![0, 2];
    round.count("schedule", OK, 100);
    round.count("schedule", "EBUSY", 50);
    round.count("schedule", OK, 1);
    round
        .counters
        .insert("cycles".into(), Counter::Counted { value: 10, enabled_ns: 200, running_ns: 100 });
    round.counters.insert("hitm".into(), Counter::Unavailable { unavailable: "no PMU".into() });
    round.disturbed.push("steal 3.1 ms".into());
    round.steal_ns = Some(3_100_000);
    round.extra.insert("a_newer_field".into(), json!({"deep": [1, 2]}));
    round
}

fn read(dir: &Path) -> Vec<Round> {
    RunReader::open(dir).unwrap().rounds().unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_round_survives_with_its_unknown_fields() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    let rounds: Vec<Round> = (0..3).map(full_round).collect();
    for round in &rounds {
        writer.append(round).unwrap();
        // Flushed after each round: readable while the writer still runs.
        assert_eq!(read(writer.dir()).last(), Some(round));
    }
    assert!(fs::read_link(out.path().join("latest")).is_err(), "it has not ended");
    writer.point_latest().unwrap();
    assert_eq!(read(&out.path().join("latest")), rounds);
}

#[test]
fn counts_add_up_and_only_ok_is_goodput() {
    let round = full_round(0);
    assert_eq!((round.attempts(), round.ok()), (151, 101));
    assert_eq!(round.goodput_ops_s(), Some(404.0));
    assert!(!round.is_usable());
}

#[test]
fn a_multiplexed_counter_is_scaled_and_an_unknown_one_is_never_zero() {
    let round = full_round(0);
    assert_eq!(round.counters["cycles"].scaled(), Some(20.0));
    assert!(round.counters["cycles"].is_multiplexed());
    assert_eq!(round.counters["hitm"].scaled(), None);
    let never_ran = Counter::Counted { value: 0, enabled_ns: 100, running_ns: 0 };
    assert_eq!(never_ran.scaled(), None);
}

#[test]
fn runs_of_the_same_second_get_their_own_directories() {
    let out = tempfile::tempdir().unwrap();
    let run = Run { started_unix_s: 1_795_252_223, ..Run::default() };
    let mut first = RunWriter::create(out.path(), run.clone()).unwrap();
    first.append(&full_round(0)).unwrap();
    let before = fs::metadata(first.dir().join("rounds.jsonl")).unwrap();
    let second = RunWriter::create(out.path(), run).unwrap();
    assert_eq!(first.run().run_id, "20261121T091023Z");
    assert_eq!(second.run().run_id, "20261121T091023Z-2");
    let after = fs::metadata(first.dir().join("rounds.jsonl")).unwrap();
    assert_eq!((before.len(), before.ino()), (after.len(), after.ino()));
    second.point_latest().unwrap();
    assert_eq!(fs::read_link(out.path().join("latest")).unwrap(), Path::new("20261121T091023Z-2"));
}

#[test]
fn run_json_is_replaced_whole_and_leaves_nothing_beside_it() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    writer
        .update_run(|run| {
            run.run_id = "elsewhere".into();
            run.finished_unix_s = Some(9);
            run.extra.insert("later".into(), json!(1));
        })
        .unwrap();
    let reader = RunReader::open(&writer.dir().join("run.json")).unwrap();
    assert_eq!(reader.run(), writer.run());
    assert_eq!(reader.run().finished_unix_s, Some(9));
    assert_ne!(reader.run().run_id, "elsewhere");
    assert!(reader.damage().is_empty());
    let mut names: Vec<_> =
        fs::read_dir(writer.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["rounds.jsonl", "run.json"]);
}

#[test]
fn summary_has_the_promised_names() {
    let mut entry = Entry::new(series("task-work"));
    entry.verdict = Some(Verdict::Faster);
    entry.extra.insert("newer".into(), json!(true));
    let summary = Summary { entries: vec![entry], ..Summary::default() };
    let out = tempfile::tempdir().unwrap();
    let writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    writer.write_summary(&summary).unwrap();
    assert_eq!(RunReader::open(writer.dir()).unwrap().summary().unwrap(), summary);

    let text = fs::read_to_string(writer.dir().join("summary.json")).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"cell\"")).count(), 1, "{text}");
    assert!(text.starts_with("{\n\"schema\":\"1.1\",\n\"run_id\":"), "{text}");

    let value = serde_json::to_value(&summary).unwrap();
    let fields = value["entries"][0].as_object().unwrap();
    for name in [
        "cell",
        "kind",
        "workload",
        "threads",
        "placement",
        "source",
        "goodput_ops_s",
        "attempts_ops_s",
        "failure_share",
        "outcomes",
        "p50_ns",
        "p99_ns",
        "p999_ns",
        "max_ns",
        "fairness_jain",
        "counters_per_op",
        "ratio",
        "ratio_low",
        "ratio_high",
        "p_adjusted",
        "verdict",
    ] {
        assert!(fields.contains_key(name), "{name} is missing");
    }
    assert_eq!(fields["kind"], "task_work");
    assert_eq!(fields["source"], "model");
    assert_eq!(fields["verdict"], "faster");
}

#[test]
fn a_full_disk_is_named_with_the_file() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    // The log of this series is a link to the device that is always full.
    let series = series("task-work");
    let log = writer.dir().join("latency").join(format!("{}.hlog", series.file_stem()));
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let interval = cellbench_record::Interval {
        op: "schedule".into(),
        start_s: 0.0,
        duration_s: 1.0,
        disturbed: false,
        histogram: hdrhistogram::Histogram::new(3).unwrap(),
    };
    let error = writer.append_latency(&series, &[interval]).unwrap_err();
    assert!(matches!(&error, WriteError::DiskFull { path } if *path == log), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
}

/// Writers of version 1.0 put these beside the fields of the schema, some under other names.
#[test]
fn undeclared_fields_of_version_1_0_are_read_into_their_own() {
    let out = tempfile::tempdir().unwrap();
    let model = json!({
        "cell": "a", "kind": "timer", "workload": "nmi", "threads": 2, "placement": "compact",
        "source": "model", "round": 0, "duration_s": 0.5, "latency_sample_every": 40,
        "unserved": 3, "context_ops": {"nmi": {"start": {"ok": 7}}}, "interruptions_let_go": 2,
        "coherence": {
            "fields": {"cell.state": {"loads": 4, "wait_ns": 12.0}},
            "lines": [{"fields": [{"label": "cell.state", "offset": 8}], "lines": 1}],
            "false_sharing": [],
        },
    });
    let kernel = json!({
        "cell": "locked", "kind": "timer", "workload": "solo-start", "threads": 1,
        "placement": "compact", "source": "kernel", "round": 0, "duration_s": 0.5,
        "operation": "timer-start", "layout": "same-cell", "sample_every": 64,
        "timing_cost_ns": 30.5, "elapsed_in_kernel_ns": 180,
    });
    fs::write(out.path().join("rounds.jsonl"), format!("{model}\n{kernel}\n")).unwrap();
    let speed = json!({"accesses": 5, "spin_loads": 6, "processor_s": 0.5});
    let run = json!({"schema": "1.0", "simulated": speed, "simulated_machine": "title = \"x\""});
    fs::write(out.path().join("run.json"), run.to_string()).unwrap();

    let reader = RunReader::open(out.path()).unwrap();
    assert!(reader.damage().is_empty(), "{:?}", reader.damage());
    assert!(reader.run().extra.is_empty(), "{:?}", reader.run().extra);
    assert_eq!(reader.run().simulated.map(|speed| speed.spin_loads), Some(6));
    assert_eq!(reader.run().simulated_machine.as_deref(), Some("title = \"x\""));
    let [model, kernel] = &read(out.path())[..] else { panic!("two rounds") };
    assert!(model.extra.is_empty() && kernel.extra.is_empty());
    assert_eq!((model.latency_sample_every, kernel.latency_sample_every), (Some(40), Some(64)));
    assert_eq!((model.unserved, model.interruptions_missed), (Some(3), Some(2)));
    assert_eq!(model.context_ops["nmi"]["start"]["ok"], 7);
    let coherence = model.coherence.as_ref().unwrap();
    assert_eq!(coherence.fields["cell.state"].loads, 4);
    assert_eq!(coherence.lines[0].fields[0].offset, 8);
    assert_eq!(kernel.operation.as_deref(), Some("timer-start"));
    assert_eq!(kernel.layout.as_deref(), Some("same-cell"));
    assert_eq!((kernel.timing_cost_ns, kernel.elapsed_in_kernel_ns), (Some(30.5), Some(180)));
}

#[test]
fn a_measured_round_names_its_log_and_keeps_an_exact_summary() {
    let out = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::create(out.path(), Run::new("0.1.0", 7)).unwrap();
    let histogram = || {
        let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
        histogram.record(100).unwrap();
        histogram
    };
    let latencies = [("start".to_owned(), histogram()), ("cancel".to_owned(), histogram())];
    let mut round = Round::new(series("a"), 0, 0.5);
    let exact = Latency { samples: 1, mean_ns: 100.4, ..Latency::default() };
    round.latency.insert("cancel".to_owned(), exact);
    writer.append_measured(&mut round, &latencies).unwrap();
    let [read] = &read(writer.dir())[..] else { panic!("one round") };
    assert_eq!(read.latency["start"].p50_ns, 100);
    assert_eq!(read.latency["cancel"].mean_ns, 100.4);
    for latency in read.latency.values() {
        assert!(writer.dir().join(latency.hlog.as_ref().unwrap()).is_file());
    }
}
