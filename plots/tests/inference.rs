//! The inference as a whole on rounds whose truth is known: equal cells, planted differences, hosts
//! that drift and jump. Values are drawn slot by slot, as a host gives them, and only then is the
//! order within the round drawn: what the randomisation is for.

mod fixture;

use cellbench_plots::stats::random::SplitMix64;
use cellbench_plots::stats::two_sample::TwoSample;
use cellbench_plots::{Decision, Loaded, Options, Table, compare, summarise};
use cellbench_record::{Entry, Kind, OK, Round, Run, Series, Source, Summary, Verdict};
use proptest::prelude::*;

/// How a host changes from slot to slot.
#[derive(Clone, Copy, Debug)]
enum Host {
    /// Each slot for itself.
    Quiet,
    /// An autoregression with coefficient 0.95: neighbours are nearly one.
    Drifting,
    /// Two speeds, 40 % apart, that last for some slots each.
    Regimes,
}

struct Slots {
    random: SplitMix64,
    host: Host,
    level: f64,
}

impl Slots {
    /// Draws the logarithm of the speed of the next slot.
    fn next(&mut self) -> f64 {
        let [noise, own] = self.random.normal_pair();
        match self.host {
            Host::Quiet => 0.03 * noise,
            Host::Drifting => {
                self.level = 0.95 * self.level + 0.03 * noise;
                self.level + 0.005 * own
            }
            Host::Regimes => {
                if self.random.uniform() < 0.1 {
                    self.level = if self.level == 0.0 { 0.35 } else { 0.0 };
                }
                self.level + 0.01 * noise
            }
        }
    }
}

/// Returns rounds of `cells` in shuffled order, each so much faster than the slot it meets.
fn rounds(part: u64, host: Host, number: u32, cells: &[(&str, f64)]) -> Vec<Round> {
    let random = SplitMix64::for_part(90 + host as u64, part);
    let mut slots = Slots { random, host, level: 0.0 };
    let mut all = Vec::new();
    for round in 0..number {
        let mut order: Vec<usize> = (0..cells.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, (slots.random.uniform() * (last + 1) as f64) as usize);
        }
        for cell in order {
            let (name, log_speed) = cells[cell];
            all.push(one(name, "update", round, 1e7 * (slots.next() + log_speed).exp()));
        }
    }
    all
}

fn one(cell: &str, workload: &str, number: u32, rate_ops_s: f64) -> Round {
    let series = Series::new(cell, Kind::Timer, workload, 2, "compact", Source::Model);
    let mut round = Round::new(series, number, 1.0);
    round.count("start", OK, rate_ops_s as u64);
    round
}

fn options() -> Options {
    Options::of(&Run { seed: 1, ..Run::default() })
}

fn summary(rounds: &[Round]) -> Summary {
    summarise(&Run::default(), rounds, &options())
}

fn is_called(entry: &Entry) -> bool {
    matches!(entry.verdict, Some(Verdict::Faster | Verdict::Slower))
}

const HOSTS: [Host; 3] = [Host::Quiet, Host::Drifting, Host::Regimes];
const EQUAL: [(&str, f64); 5] =
    [("spin-queued", 0.0), ("a", 0.0), ("b", 0.0), ("c", 0.0), ("d", 0.0)];

#[test]
fn equal_cells_differ_in_at_most_5_percent_of_the_tables() {
    for host in HOSTS {
        let (mut wrong, mut rows, mut below) = (0, 0, 0);
        for part in 0..200 {
            let table = summary(&rounds(part, host, 20, &EQUAL));
            wrong += usize::from(table.entries.iter().any(is_called));
            rows += table.comparisons;
            below += table.entries.iter().filter(|entry| entry.p_value <= Some(0.05)).count()
                - table.entries.iter().filter(|entry| entry.p_value.is_none()).count();
        }
        assert_eq!(rows, 800);
        assert!(wrong <= 16, "{host:?}: {wrong} of 200 tables");
        // Of single rows 5 %, and not nearly none: a test that never errs does not look.
        assert!((16..=60).contains(&below), "{host:?}: {below} of 800 rows");
    }
}

#[test]
fn intervals_cover_what_was_planted_in_at_least_95_percent_of_the_tables() {
    let cells = [("spin-queued", 0.0), ("a", 0.05), ("b", -0.1), ("c", 0.7)];
    for host in HOSTS {
        let mut covered = 0;
        for part in 0..200 {
            let table = summary(&rounds(1_000 + part, host, 20, &cells));
            let covers = |entry: &Entry| {
                let truth = cells.iter().find(|(name, _)| *name == entry.series.cell).unwrap().1;
                let ends = entry.ratio_low.zip(entry.ratio_high);
                ends.is_none_or(|(low, high)| (low..=high).contains(&truth.exp()))
            };
            covered += usize::from(table.entries.iter().all(covers));
        }
        assert!(covered >= 184, "{host:?}: {covered} of 200 tables");
    }
}

#[test]
fn a_planted_slow_down_is_found_while_the_host_drifts() {
    for (host, log_speed) in [(Host::Quiet, -0.05), (Host::Drifting, -0.05), (Host::Regimes, -0.1)]
    {
        let mut found = 0;
        for part in 0..40 {
            let cells = [("spin-queued", 0.0), ("slow", log_speed)];
            let table = summary(&rounds(2_000 + part, host, 30, &cells));
            found += usize::from(
                table.entries.iter().any(|entry| entry.verdict == Some(Verdict::Slower)),
            );
        }
        assert!(found >= 36, "{host:?}: {found} of 40");
    }
}

#[test]
fn looking_after_every_round_does_not_invent_differences() {
    for host in HOSTS {
        let mut invented = 0;
        for part in 0..150 {
            let all = rounds(3_000 + part, host, 60, &EQUAL[..2]);
            let mut table = Table::new(options());
            for number in 0..60 {
                all.iter().filter(|it| it.round == number).for_each(|it| table.push(it));
                if table.decision() == Decision::Enough {
                    break;
                }
            }
            invented += usize::from(table.summary(&Run::default()).entries.iter().any(is_called));
        }
        assert!(invented <= 13, "{host:?}: {invented} of 150");
    }
}

/// Eight rounds can never be decided among hundreds of rows: they are surveyed, and those with rounds
/// enough are corrected for each other alone.
#[test]
fn rows_that_cannot_be_decided_take_nothing_from_the_others() {
    let cells = [("spin-queued", 0.0), ("a", 0.1), ("b", 0.1)];
    let mut all = rounds(1, Host::Quiet, 20, &cells);
    let decided = summary(&all);
    for workload in 0..200 {
        for round in 0..8 {
            for (cell, ratio) in [("spin-queued", 1.0), ("a", 3.0), ("b", 0.5)] {
                all.push(one(cell, &format!("survey-{workload}"), round, 1e6 * ratio));
            }
        }
    }
    let both = summary(&all);
    assert_eq!((decided.comparisons, both.comparisons), (2, 2));
    let of = |summary: &Summary, workload: &str| -> Vec<Entry> {
        let of = |entry: &&Entry| {
            entry.series.workload.starts_with(workload) && entry.baseline.is_some()
        };
        summary.entries.iter().filter(of).cloned().collect()
    };
    assert_eq!(of(&decided, "update"), of(&both, "update"));
    assert!(of(&both, "update").iter().all(|entry| entry.verdict == Some(Verdict::Faster)));
    let surveyed = of(&both, "survey");
    assert_eq!(surveyed.len(), 400);
    for entry in surveyed {
        assert!(entry.survey && entry.verdict.is_none() && entry.p_adjusted.is_none());
        assert!(entry.ratio_low.is_some() && entry.rounds_needed.is_none());
    }
}

/// Median rates that say something else than the ratio within rounds are marked.
#[test]
fn a_row_in_two_modes_is_marked() {
    let mut all = Vec::new();
    for number in 0..20 {
        // The baseline is slow in the rounds in which the other is fast, a little more than half of
        // them: the median rates are those of other rounds than the median ratio.
        let slow = number % 2 == 0 || number == 1;
        let (base, other) = if slow { (1e7, 1.02e7) } else { (2e7, 2.04e7) };
        all.push(one("spin-queued", "update", number, base));
        all.push(one(
            "a",
            "update",
            number,
            if number == 0 || number == 2 { 2.04e7 } else { other },
        ));
    }
    let table = summary(&all);
    let entry = table.entries.iter().find(|entry| entry.series.cell == "a").unwrap();
    assert!(entry.bimodal, "{entry:?}");
}

fn values() -> impl Strategy<Value = Vec<Vec<f64>>> {
    let value = prop_oneof![
        8 => (10.0..20.0_f64).prop_map(f64::exp),
        2 => Just(1e6),
        1 => Just(0.0),
    ];
    prop::collection::vec(prop::collection::vec(value, 0..40), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Verdict, interval, corrected probability and rates of any table say the same.
    #[test]
    fn nothing_in_a_table_contradicts_itself(rows in values(), spread in 0.001..3.0_f64) {
        let mut all = Vec::new();
        for (row, values) in rows.iter().enumerate() {
            for (number, value) in values.iter().enumerate() {
                let cell = if row == 0 { "spin-queued".to_owned() } else { format!("cell-{row}") };
                let value = if *value == 0.0 { 0.0 } else { 1e6 * (value / 1e6).powf(spread) };
                all.push(one(&cell, "update", number as u32, value));
            }
        }
        let table = summary(&all);
        let base = table.entries.iter().find(|entry| entry.series.cell == "spin-queued");
        let base = base.and_then(|entry| entry.goodput_ops_s);
        let threshold = 1.0 + table.threshold_share;
        for entry in &table.entries {
            let Some((low, high)) = entry.ratio_low.zip(entry.ratio_high) else {
                prop_assert!(entry.verdict.is_none(), "{entry:?}");
                continue;
            };
            let ratio = entry.ratio.unwrap();
            prop_assert!(low <= ratio && ratio <= high, "{entry:?}");
            let excludes = low > 1.0 || high < 1.0;
            let is_same = 1.0 / threshold <= low && high <= threshold;
            match entry.verdict {
                None => prop_assert!(entry.survey),
                Some(Verdict::Undecided) => prop_assert!(!excludes && !is_same, "{entry:?}"),
                Some(Verdict::Same) => prop_assert!(is_same, "{entry:?}"),
                Some(Verdict::Faster) => prop_assert!(low > 1.0 && !is_same, "{entry:?}"),
                Some(Verdict::Slower) => prop_assert!(high < 1.0 && !is_same, "{entry:?}"),
            }
            if let Some(p_adjusted) = entry.p_adjusted {
                prop_assert_eq!(excludes, p_adjusted <= 0.05, "{:?}", entry);
            }
            // A ratio that the rates beside it contradict is marked.
            if let (Some(goodput), Some(base)) = (entry.goodput_ops_s, base) && !entry.bimodal && base > 0.0 {
                let of_rates = goodput / base;
                let is_near = (of_rates / ratio).ln().abs() <= 1.03_f64.ln() + 1e-9;
                prop_assert!((low..=high).contains(&of_rates) || is_near, "{entry:?}");
            }
        }
    }
}

/// Two equal runs, by ranks of one against the other where they were measured and round by round where
/// they were simulated: each row errs now and then, and a comparison of many rows no more often.
#[test]
fn equal_runs_differ_in_at_most_5_percent_of_the_comparisons() {
    const CELLS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let dir = tempfile::tempdir().unwrap();
    for source in [Source::Model, Source::Sim] {
        let run = |part: u64| {
            let cells: Vec<(&str, f64)> = CELLS.iter().map(|cell| (*cell, 0.0)).collect();
            let mut rounds = rounds(9_000 + part, Host::Quiet, 16, &cells);
            rounds.iter_mut().for_each(|round| round.series.source = source.clone());
            let run = Run { seed: 7, baseline: "a".to_owned(), ..fixture::run() };
            let written =
                fixture::written(&dir.path().join(format!("{source}-{part}")), run, &rounds);
            Loaded::read(&written, |_| {}).unwrap()
        };
        let (mut wrong, mut rows) = (0, 0);
        for part in 0..40 {
            let found = compare(&run(2 * part), &run(2 * part + 1));
            let differing = found.count(Verdict::Faster) + found.count(Verdict::Slower);
            wrong += usize::from(differing > 0);
            rows += found.rows.len();
        }
        assert_eq!(rows, 40 * CELLS.len(), "{source}");
        assert!(wrong <= 6, "{source}: {wrong} of 40 comparisons");
    }
}

/// Two runs that drift within themselves by as much as they differ: the difference is not called one.
#[test]
fn what_a_run_drifts_by_widens_a_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, level: f64| {
        let mut random = SplitMix64::new(5);
        let rounds: Vec<Round> = (0..24)
            .map(|number| {
                let drift = if number < 12 { 0.0 } else { 0.2 };
                let noise = 0.01 * random.normal_pair()[0];
                one("a", "update", number, 1e7 * (level + drift + noise).exp())
            })
            .collect();
        let run = Run { seed: 7, baseline: "a".to_owned(), ..fixture::run() };
        let written = fixture::written(&dir.path().join(name), run, &rounds);
        Loaded::read(&written, |_| {}).unwrap()
    };
    let found = compare(&run("before", 0.0), &run("after", 0.19));
    assert_eq!(found.rows[0].verdict, Some(Verdict::Undecided), "{:?}", found.rows[0]);
    assert!(found.a_a_spread_share > Some(0.15), "{:?}", found.a_a_spread_share);
}

/// A cell as much faster as another is slower: neither verdict is easier to get.
#[test]
fn faster_and_slower_are_mirror_images() {
    for (size, noise) in [(0.004, 0.001), (0.02, 0.004), (0.02, 0.05), (0.3, 0.05), (0.06, 0.2)] {
        let table = |sign: f64| {
            let mut random = SplitMix64::new(11);
            let mut all = Vec::new();
            for number in 0..20 {
                let own = sign * (size + noise * random.normal_pair()[0]);
                all.push(one("spin-queued", "update", number, 1e9));
                all.push(one("a", "update", number, 1e9 * own.exp()));
            }
            summary(&all)
        };
        let [up, down] = [1.0, -1.0].map(|sign| {
            let table = table(sign);
            table.entries.iter().find(|entry| entry.series.cell == "a").unwrap().clone()
        });
        let mirrored = match down.verdict {
            Some(Verdict::Slower) => Some(Verdict::Faster),
            Some(Verdict::Faster) => Some(Verdict::Slower),
            other => other,
        };
        assert_eq!(up.verdict, mirrored, "{size} {noise}: {up:?} {down:?}");
        let turned = 1.0 / down.ratio.unwrap();
        assert!((up.ratio.unwrap() - turned).abs() < 1e-6, "{up:?} {down:?}");
    }
}

/// A row whose own probability is below alpha, in a table of many rows that show nothing: it is not
/// called different, and its corrected probability says so.
#[test]
fn a_row_that_surprises_alone_does_not_surprise_in_a_table() {
    let mut found = 0;
    for part in 0..40 {
        let cells: Vec<String> = (0..12).map(|cell| format!("c{cell}")).collect();
        let mut named: Vec<(&str, f64)> = vec![("spin-queued", 0.0)];
        named.extend(cells.iter().map(|cell| (cell.as_str(), 0.0)));
        let table = summary(&rounds(7_000 + part, Host::Quiet, 20, &named));
        for entry in table.entries.iter().filter(|entry| entry.p_value.is_some()) {
            // Between alpha over the number of rows and alpha.
            if entry.p_value > Some(0.01) && entry.p_value <= Some(0.04) {
                found += 1;
                assert!(entry.p_adjusted > Some(0.05), "{entry:?}");
                assert!(!is_called(entry), "{entry:?}");
            }
        }
    }
    assert!(found >= 5, "{found} rows that surprise alone");
}

/// A row whose own probability lies between alpha over the number of rows and alpha: it differs where it is
/// compared alone, and not among others. Both halves of each run are equal, so that nothing drifts.
#[test]
fn a_row_that_differs_alone_does_not_in_a_comparison_of_many() {
    const CELLS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let values = |part| {
        let mut random = SplitMix64::for_part(3, part);
        let half: Vec<f64> = (0..12).map(|_| 0.05 * random.normal_pair()[0]).collect();
        half.repeat(2)
    };
    let (before, drawn) = (values(0), values(1));
    let moved = |shift: f64| drawn.iter().map(|value| value + shift).collect::<Vec<f64>>();
    let after = (0..2_000)
        .map(|step| moved(f64::from(step) * 0.0002))
        .find(|after| {
            let test = TwoSample::new(after, &before).unwrap();
            test.interval(0.05).unwrap().low > 0.0 && test.p_value() > 0.02
        })
        .expect("a shift that just suffices");
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, cells: usize, first: &[f64]| {
        let mut all = Vec::new();
        for (index, cell) in CELLS.iter().take(cells).enumerate() {
            let values = if index == 0 { first } else { &before };
            for (number, value) in (0..).zip(values) {
                all.push(one(cell, "update", number, 1e9 * value.exp()));
            }
        }
        let run = Run { seed: 7, baseline: "a".to_owned(), ..fixture::run() };
        let written = fixture::written(&dir.path().join(name), run, &all);
        Loaded::read(&written, |_| {}).unwrap()
    };
    let verdict = |cells: usize| {
        let [one, other] = [("before", &before), ("after", &after)]
            .map(|(name, first)| run(&format!("{name}-{cells}"), cells, first));
        let found = compare(&one, &other);
        found.rows.iter().find(|row| row.series.cell == "a").unwrap().verdict
    };
    assert_eq!(verdict(1), Some(Verdict::Faster));
    assert_eq!(verdict(CELLS.len()), Some(Verdict::Undecided));
}
