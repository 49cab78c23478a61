//! Whatever a file claims, reports are made of it: no panic, and the summary reads back.

mod fixture;

use cellbench_plots::chart::Drawings;
use cellbench_plots::report::{FORMATS, comparison, terminal};
use cellbench_plots::{Decision, Loaded, Options, Table, compare};
use cellbench_record::{
    Counter, Kind, Latency, Round, Run, RunReader, Series, Source, ThreadCount,
};
use proptest::prelude::*;

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0),
        4 => Just(1),
        8 => 2..1_000_000_u64,
        4 => Just(9_000_000_000_000),
        1 => Just(u64::MAX),
    ]
}

fn seconds() -> impl Strategy<Value = f64> {
    prop_oneof![2 => Just(0.0), 2 => Just(1e-9), 8 => 0.001..1.0_f64, 2 => Just(1e7), 1 => Just(1e308)]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("spin-queued".to_owned()),
        Just("cmpxchg-state".to_owned()),
        Just(String::new()),
        Just("a|b\n\u{1b}[31m \u{202e}<script>,\"".to_owned()),
    ]
}

prop_compose! {
    fn round()(
        cell in name(),
        workload in name(),
        threads in prop_oneof![1 => Just(0_u32), 20 => 1..4_u32, 1 => Just(u32::MAX)],
        number in prop_oneof![0..12_u32, Just(u32::MAX)],
        duration_s in seconds(),
        outcomes in prop::collection::vec((name(), prop_oneof![Just("ok"), Just("EBUSY"), Just("")], count()), 0..4),
        counts in prop::array::uniform4(count()),
        disturbed in any::<bool>(),
        source in prop_oneof![Just(Source::Model), Just(Source::Sim), Just(Source::Other("x".into()))],
    ) -> Round {
        let mut series = Series::new(cell, Kind::Other(String::new()), workload, threads, "", source);
        series.offered_ops_s = (counts[0] == 1).then_some(u64::MAX);
        let mut round = Round::new(series, number, duration_s);
        for (op, outcome, count) in outcomes {
            let sum = round.ops.entry(op).or_default().entry(outcome.to_owned()).or_default();
            *sum = sum.saturating_add(count);
        }
        let [a, b, c, d] = counts;
        round.per_thread = vec![ThreadCount { cpu: 0, attempts: a, ok: b }; (c % 3) as usize];
        round.counters.insert("c".into(), Counter::Counted { value: a, enabled_ns: b, running_ns: c });
        round.line_transfers.insert("line".into(), d);
        round.line_waits_ns.insert("line".into(), d);
        let latency = Latency { samples: a, p50_ns: b, p99_ns: c, max_ns: d, ..Latency::default() };
        round.latency.insert("op".into(), latency);
        if disturbed {
            round.disturbed.push(String::new());
        }
        round
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_rounds_make_reports(rounds in prop::collection::vec(round(), 0..60)) {
        let run = Run { settings: fixture::run().settings, ..Run::default() };
        let mut table = Table::new(Options::of(&run));
        rounds.iter().for_each(|round| table.push(round));
        let decision = table.decision();
        prop_assert!(!matches!(decision, Decision::More(0)));

        let out = tempfile::tempdir().unwrap();
        let dir = fixture::written(out.path(), run, &rounds);
        let loaded = Loaded::read(&dir, |_| ()).unwrap();
        // What is left out is what no measurement can have written.
        let is_implausible = |damage: &cellbench_record::Damage| damage.what.starts_with("implausible");
        prop_assert!(loaded.damage.first.iter().all(is_implausible), "{:?}", loaded.damage.first);
        loaded.summary.write(&dir).unwrap();
        let read = RunReader::open(&dir).unwrap().summary().unwrap();
        prop_assert_eq!(read.entries.len(), loaded.summary.entries.len());
        for entry in &read.entries {
            prop_assert!(entry.failure_share.is_none_or(|share| (0.0..=1.0).contains(&share)));
            if let (Some(low), Some(high)) = (entry.ratio_low, entry.ratio_high) {
                prop_assert!(low <= high, "{low} .. {high}");
            }
        }
        let drawings = Drawings::of(loaded.report());
        for format in FORMATS.iter().filter(|format| !format.is_on_demand()) {
            format.render(&loaded.report(), &drawings).unwrap();
        }
        let text = terminal(&loaded.report(), false) + &comparison(&compare(&loaded, &loaded));
        let is_plain = text.is_ascii() && !text.contains('\u{1b}');
        prop_assert!(is_plain);
    }
}
