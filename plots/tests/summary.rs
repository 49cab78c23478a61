//! Summaries of rounds whose truth is known.

mod fixture;

use cellbench_plots::stats::random::SplitMix64;
use cellbench_plots::{Decision, Options, Table, summarise};
use cellbench_record::{Counter, Entry, OK, Round, Run, Source, Summary, Verdict};
use fixture::{Behaviour, round, series};

fn options() -> Options {
    Options::of(&Run { seed: 1, ..Run::default() })
}

fn find<'a>(summary: &'a Summary, cell: &str) -> &'a Entry {
    summary.entries.iter().find(|entry| entry.series.cell == cell).unwrap()
}

/// Returns rounds of cell `slow`, slower than the baseline by `slowdown`, on a host that drifts.
fn planted(random: &mut SplitMix64, rounds: u32, slowdown: f64, noise: f64) -> Vec<Round> {
    let mut weather: f64 = 0.0;
    let mut all = Vec::new();
    for number in 0..rounds {
        weather = 0.8 * weather + 0.05 * random.normal_pair()[0];
        let rate = 1e7 * weather.exp();
        for (cell, speed) in [("spin-queued", 1.0), ("slow", 1.0 / (1.0 + slowdown))] {
            let behaviour = Behaviour { cell, speed, noise, failures: 0.0 };
            let series = series(cell, "update", 2, Source::Model);
            all.push(round(random, series, number, rate, &behaviour));
        }
    }
    all
}

fn verdicts(tries: u64, rounds: u32, slowdown: f64, noise: f64) -> Vec<Entry> {
    (0..tries)
        .map(|part| {
            let mut random = SplitMix64::for_part(77, part);
            let rounds = planted(&mut random, rounds, slowdown, noise);
            find(&summarise(&Run::default(), &rounds, &options()), "slow").clone()
        })
        .collect()
}

#[test]
fn a_planted_slow_down_is_found_and_its_interval_covers_it() {
    let entries = verdicts(40, 20, 0.05, 0.02);
    let found = entries.iter().filter(|entry| entry.verdict == Some(Verdict::Slower)).count();
    assert!(found >= 38, "{found} of 40");
    let truth = 1.0 / 1.05;
    let covered = entries
        .iter()
        .filter(|e| (e.ratio_low.unwrap()..=e.ratio_high.unwrap()).contains(&truth))
        .count();
    assert!(covered >= 35, "{covered} of 40");
}

#[test]
fn pairing_removes_what_meets_both_cells() {
    // The host halves its speed half-way. Unpaired, nothing could be said; paired, 2 % is seen.
    let mut random = SplitMix64::new(5);
    let mut rounds = Vec::new();
    for number in 0..30 {
        let rate = if number < 15 { 1e7 } else { 5e6 };
        for (cell, speed) in [("spin-queued", 1.0), ("cmd-queue", 1.04)] {
            let behaviour = Behaviour { cell, speed, noise: 0.005, failures: 0.0 };
            let series = series(cell, "update", 2, Source::Model);
            rounds.push(round(&mut random, series, number, rate, &behaviour));
        }
    }
    let summary = summarise(&Run::default(), &rounds, &options());
    let entry = find(&summary, "cmd-queue");
    assert_eq!(entry.verdict, Some(Verdict::Faster));
    assert!((entry.ratio.unwrap() - 1.04).abs() < 0.01, "{:?}", entry.ratio);
    // Order of the lines does not matter.
    let mut reversed = rounds.clone();
    reversed.reverse();
    assert_eq!(summarise(&Run::default(), &reversed, &options()), summary);
}

#[test]
fn a_disturbed_round_leaves_both_sides_of_its_pair() {
    let mut rounds = planted(&mut SplitMix64::new(6), 10, 0.0, 0.01);
    // So far off that it would move the median of ten if it stayed.
    for round in rounds.iter_mut().filter(|r| r.round < 3 && r.series.cell == "slow") {
        round.disturbed.push("steal 9 ms".into());
        round.count("start", OK, 1_000_000_000);
    }
    let summary = summarise(&Run::default(), &rounds, &options());
    let slow = find(&summary, "slow");
    assert_eq!((slow.rounds, slow.rounds_disturbed), (7, 3));
    assert_eq!((slow.pairs, slow.pairs_disturbed), (7, 3));
    assert!(slow.ratio_high.unwrap() < 1.1, "{:?}", slow.ratio_high);
    let base = find(&summary, "spin-queued");
    assert_eq!((base.rounds, base.rounds_disturbed), (10, 0));
    assert_eq!(summary.rounds_disturbed, 3);
}

#[test]
fn a_broken_invariant_is_an_error_and_not_a_result() {
    let mut rounds = planted(&mut SplitMix64::new(7), 20, 0.0, 0.01);
    let wrong = rounds.iter_mut().find(|r| r.round == 4 && r.series.cell == "slow").unwrap();
    wrong.invariants.violations.push("callback ran twice".into());
    let summary = summarise(&Run::default(), &rounds, &options());
    let slow = find(&summary, "slow");
    assert_eq!(slow.violations, ["round 4: callback ran twice"]);
    assert_eq!((slow.verdict, slow.ratio), (None, None));
    assert_eq!(summary.comparisons, 0);
}

#[test]
fn a_cell_without_any_success_is_slower_not_an_infinity() {
    let mut rounds = planted(&mut SplitMix64::new(8), 20, 0.0, 0.01);
    for round in rounds.iter_mut().filter(|round| round.series.cell == "slow") {
        round.ops.clear();
        round.count("set_callback", "EBUSY", 1_000);
    }
    let summary = summarise(&Run::default(), &rounds, &options());
    let slow = find(&summary, "slow");
    assert_eq!(slow.goodput_ops_s, Some(0.0));
    assert_eq!(slow.failure_share, Some(1.0));
    assert_eq!(slow.verdict, Some(Verdict::Slower));
    assert!(slow.ratio.unwrap() > 0.0 && slow.ratio.unwrap() < 1e-5, "{:?}", slow.ratio);
}

#[test]
fn a_round_without_any_success_on_either_side_says_nothing() {
    let mut random = SplitMix64::new(8);
    let mut rounds = planted(&mut random, 20, 0.0, 0.01);
    for round in rounds.iter_mut().filter(|round| round.round < 4) {
        round.ops.clear();
        round.count("set_callback", "EBUSY", 1_000);
    }
    let summary = summarise(&Run::default(), &rounds, &options());
    assert_eq!(find(&summary, "slow").pairs, 16);
}

#[test]
fn few_rounds_are_a_survey() {
    let rounds = planted(&mut SplitMix64::new(9), 4, 0.5, 0.01);
    let summary = summarise(&Run::default(), &rounds, &options());
    let slow = find(&summary, "slow");
    assert_eq!((slow.verdict, slow.survey), (None, true));
    assert_eq!((slow.ratio_low, slow.p_adjusted), (None, None));
    assert!(slow.ratio.is_some());
}

#[test]
fn another_baseline_can_be_chosen() {
    let rounds = planted(&mut SplitMix64::new(10), 20, 0.3, 0.01);
    let options = Options { baseline: "slow".into(), ..options() };
    let summary = summarise(&Run::default(), &rounds, &options);
    assert_eq!(find(&summary, "slow").verdict, None);
    let faster = find(&summary, "spin-queued");
    assert_eq!(faster.verdict, Some(Verdict::Faster));
    assert!((faster.ratio.unwrap() - 1.3).abs() < 0.02);
    let none = Options { baseline: "no such cell".into(), ..options };
    let summary = summarise(&Run::default(), &rounds, &none);
    assert!(summary.entries.iter().all(|entry| entry.verdict.is_none()));
}

#[test]
fn the_first_of_two_lines_for_a_round_counts() {
    let rounds = planted(&mut SplitMix64::new(11), 10, 0.0, 0.01);
    let expected = summarise(&Run::default(), &rounds, &options());
    let mut twice = rounds.clone();
    for mut round in rounds {
        round.count("start", OK, 1_000_000);
        twice.push(round);
    }
    assert_eq!(summarise(&Run::default(), &twice, &options()), expected);
}

#[test]
fn counters_are_per_attempt_and_missing_ones_have_a_reason() {
    let mut rounds = planted(&mut SplitMix64::new(12), 6, 0.0, 0.01);
    for round in &mut rounds {
        let value = round.attempts();
        round
            .counters
            .insert("hitm".into(), Counter::Counted { value, enabled_ns: 200, running_ns: 100 });
        round.counters.insert(
            "starved".into(),
            Counter::Counted { value: 0, enabled_ns: 200, running_ns: 0 },
        );
    }
    let summary = summarise(&Run::default(), &rounds, &options());
    let entry = find(&summary, "slow");
    assert!((entry.counters_per_op["hitm"] - 2.0).abs() < 1e-9);
    assert_eq!(entry.counters_multiplexed, ["hitm"]);
    assert!(!entry.counters_per_op.contains_key("cycles"));
    assert_eq!(entry.counters_missing["cycles"], "no PMU in this virtual machine");
    assert_eq!(entry.counters_missing["starved"], "never got onto a hardware counter");
}

#[test]
fn shares_fairness_and_the_line_transfer_bound() {
    let run = fixture::run();
    let summary = summarise(&run, fixture::rounds(), &Options::of(&run));
    let entry = summary
        .entries
        .iter()
        .find(|e| e.series == series("cmpxchg-state", "update", 2, Source::Model))
        .unwrap();
    // 41 % of one of two operations: the other half never fails.
    let share = entry.failure_share.unwrap();
    assert!((share - 0.41 / (0.41 + 2.0 * 0.59)).abs() < 1e-3, "{share}");
    // One thread has twice the other: (2 + 1)^2 / (2 (4 + 1)) = 0.9; the worst has 2/3 of the mean.
    assert!((entry.fairness_jain.unwrap() - 0.9).abs() < 1e-6);
    assert!((entry.worst_thread_share.unwrap() - 2.0 / 3.0).abs() < 1e-6);
    let bound = entry.goodput_ops_s.unwrap() * 61e-9;
    assert!((entry.line_transfer_share.unwrap() - bound).abs() < 1e-12);
    let alone = summary.entries.iter().find(|e| e.series.threads == 1).unwrap();
    assert_eq!(alone.line_transfer_share, None);
    let simulated = summary.entries.iter().find(|e| e.series.source == Source::Sim).unwrap();
    assert_eq!(simulated.line_transfer_share, None);
    assert!((simulated.line_transfers_per_op["lock"] - 2.0).abs() < 1e-9);
    assert!((simulated.line_wait_shares["lock"] - 0.9).abs() < 1e-6);
}

#[test]
fn measuring_stops_when_the_table_is_decided_and_not_before() {
    let mut table = Table::new(options());
    let rounds = planted(&mut SplitMix64::new(13), 60, 0.05, 0.01);
    let mut stopped = None;
    for number in 0..60 {
        rounds.iter().filter(|round| round.round == number).for_each(|round| table.push(round));
        match table.decision() {
            Decision::Enough => {
                stopped = Some(number + 1);
                break;
            }
            Decision::More(more) => assert!(more >= 1),
        }
    }
    let stopped = stopped.expect("5 % at 1 % noise is decided within 60 rounds");
    assert!([10, 15, 20, 30].contains(&stopped), "{stopped}: looks are at set numbers");
    let entry = table.summary(&Run::default());
    assert_eq!(find(&entry, "slow").verdict, Some(Verdict::Slower));
}

#[test]
fn nothing_to_compare_is_enough() {
    let mut table = Table::new(options());
    assert_eq!(table.decision(), Decision::Enough);
    let rounds = planted(&mut SplitMix64::new(15), 3, 0.0, 0.01);
    rounds.iter().filter(|r| r.series.cell == "slow").for_each(|round| table.push(round));
    assert_eq!(table.decision(), Decision::Enough);
    rounds.iter().filter(|r| r.series.cell != "slow").for_each(|round| table.push(round));
    assert_eq!(table.decision(), Decision::More(7), "to the first look, after 10");
}
