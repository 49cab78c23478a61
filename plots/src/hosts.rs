//! Verdicts over hosts: where the hosts of a merged run agree, and which do not.
//!
//! Hosts of a merged run are chosen, not drawn at random from anything; so no probability is computed
//! over them. A row has a verdict over hosts if every host has that verdict for itself, after the
//! correction over the whole table; the ratios are given as a range with the hosts at its ends.

use std::collections::HashMap;

use cellbench_record::{Entry, Series, Summary, Verdict};
use serde::Serialize;

use crate::number;

/// Hosts that a sentence names of each verdict; the others are counted.
const NAMED: usize = 6;

/// How the rows over hosts are to be read.
pub const READING: &str = "A verdict over hosts is one that every host has for itself; the ratios are \
     the lowest and the highest, with their hosts. Hosts are chosen, not drawn at random: no \
     probability is computed over them.";

/// One row on all hosts that measured it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverHosts {
    /// The row, without a host.
    #[serde(flatten)]
    pub series: Series,
    /// The outcome over all of them.
    pub agreement: Agreement,
    /// Verdict of most of the hosts that have one, where one has more than any other.
    pub majority: Option<Verdict>,
    /// Each host, in the order of the summary.
    pub hosts: Vec<OnHost>,
}

/// A row on one host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnHost {
    /// Label of the host.
    pub host: String,
    /// Its verdict; none if an invariant broke there.
    pub verdict: Option<Verdict>,
    /// Its ratio.
    pub ratio: Option<f64>,
}

/// Whether the hosts that measured a row have one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// All have the majority's.
    Agree,
    /// Two have different ones, both decided.
    Disagree,
    /// Some are undecided, and those that are decided have one verdict.
    Undecided,
    /// An invariant broke on some host.
    Error,
}

/// Returns every compared row that two hosts or more have, in the order of the summary.
#[must_use]
pub fn over_hosts(summary: &Summary) -> Vec<OverHosts> {
    let mut rows: Vec<(Series, Vec<OnHost>)> = Vec::new();
    let mut index: HashMap<Series, usize> = HashMap::new();
    for entry in &summary.entries {
        let Some(host) = &entry.series.host else { continue };
        if entry.verdict.is_none() && entry.violations.is_empty() {
            continue;
        }
        let series = Series { host: None, ..entry.series.clone() };
        let row = *index.entry(series).or_insert_with_key(|series| {
            rows.push((series.clone(), Vec::new()));
            rows.len() - 1
        });
        rows[row].1.push(on_host(host, entry));
    }
    rows.retain(|(_, hosts)| hosts.len() >= 2);
    rows.into_iter().map(|(series, hosts)| judge(series, hosts)).collect()
}

fn on_host(host: &str, entry: &Entry) -> OnHost {
    let is_whole = entry.violations.is_empty();
    OnHost {
        host: host.to_owned(),
        verdict: entry.verdict.filter(|_| is_whole),
        ratio: entry.ratio.filter(|_| is_whole),
    }
}

fn judge(series: Series, hosts: Vec<OnHost>) -> OverHosts {
    let count = |verdict| hosts.iter().filter(|on| on.verdict == Some(verdict)).count();
    let mut decided: Vec<(usize, Verdict)> = [Verdict::Faster, Verdict::Slower, Verdict::Same]
        .map(|verdict| (count(verdict), verdict))
        .into_iter()
        .filter(|(hosts, _)| *hosts > 0)
        .collect();
    decided.sort_by_key(|(hosts, _)| std::cmp::Reverse(*hosts));
    let agreement = if hosts.iter().any(|on| on.verdict.is_none()) {
        Agreement::Error
    } else if decided.len() > 1 {
        Agreement::Disagree
    } else if decided.first().is_some_and(|(agreeing, _)| *agreeing == hosts.len()) {
        Agreement::Agree
    } else {
        Agreement::Undecided
    };
    let majority = match decided[..] {
        [(first, verdict), (second, _), ..] if first > second => Some(verdict),
        [(_, verdict)] => Some(verdict),
        _ => None,
    };
    OverHosts { series, agreement, majority, hosts }
}

impl OverHosts {
    /// Returns the hosts whose verdict is decided and not the majority's; where no verdict has the
    /// majority,
    /// all that are decided.
    pub fn disagreeing(&self) -> impl Iterator<Item = &OnHost> {
        let is_disagreement = self.agreement == Agreement::Disagree;
        self.hosts.iter().filter(move |on| {
            is_disagreement
                && on.verdict.is_some_and(|verdict| verdict != Verdict::Undecided)
                && on.verdict != self.majority
        })
    }

    /// Returns the outcome in words, with hosts: `faster on all 3 hosts, 1.10x (b) to 1.52x (a)`.
    #[must_use]
    pub fn words(&self) -> String {
        let all = self.hosts.len();
        let range = self.range();
        match (self.agreement, self.majority) {
            (Agreement::Agree, Some(verdict)) => format!("{verdict} on all {all} hosts{range}"),
            (Agreement::Disagree, _) => format!("hosts disagree: {}{range}", self.by_verdict()),
            _ => format!("{}{range}", self.by_verdict()),
        }
    }

    /// Writes `faster on 2 of 3 hosts; slower on c`: the majority by its number, the others by name.
    fn by_verdict(&self) -> String {
        let all = self.hosts.len();
        let verdicts = [
            (Some(Verdict::Faster), "faster"),
            (Some(Verdict::Slower), "slower"),
            (Some(Verdict::Same), "same"),
            (Some(Verdict::Undecided), "undecided"),
            (None, "ERROR"),
        ];
        let mut parts = Vec::new();
        for (verdict, word) in verdicts {
            let on: Vec<&OnHost> = self.hosts.iter().filter(|on| on.verdict == verdict).collect();
            if on.is_empty() {
                continue;
            }
            if verdict.is_some() && verdict == self.majority || on.len() == all {
                parts.insert(0, format!("{word} on {} of {all} hosts", on.len()));
                continue;
            }
            let mut names: Vec<&str> = on.iter().take(NAMED).map(|on| on.host.as_str()).collect();
            let more = format!("{} more", on.len().saturating_sub(NAMED));
            if on.len() > NAMED {
                names.push(&more);
            }
            parts.push(format!("{word} on {}", names.join(", ")));
        }
        parts.join("; ")
    }

    /// Returns the lowest and the highest ratio, each with its host.
    fn range(&self) -> String {
        let with_ratio = || self.hosts.iter().filter_map(|on| Some((on.ratio?, on.host.as_str())));
        let lowest = with_ratio().min_by(|a, b| a.0.total_cmp(&b.0));
        let highest = with_ratio().max_by(|a, b| a.0.total_cmp(&b.0));
        let end = |(ratio, host): (f64, &str)| format!("{}x ({host})", number::ratio(Some(ratio)));
        match lowest.zip(highest) {
            Some((lowest, highest)) => format!(", {} to {}", end(lowest), end(highest)),
            None => String::new(),
        }
    }
}

/// Returns the rows in the order in which a reader wants them: errors, then what hosts disagree
/// on, then what
/// is undecided on some, then what all agree on.
#[must_use]
pub fn by_agreement(rows: &[OverHosts]) -> Vec<&OverHosts> {
    let mut rows: Vec<&OverHosts> = rows.iter().collect();
    rows.sort_by_key(|row| match row.agreement {
        Agreement::Error => 0,
        Agreement::Disagree => 1,
        Agreement::Undecided => 2,
        Agreement::Agree => 3,
    });
    rows
}

/// Returns one sentence for each cell: on how many rows the hosts agree, and which hosts do not.
#[must_use]
pub fn headlines(rows: &[OverHosts]) -> Vec<String> {
    let mut cells: Vec<Vec<&OverHosts>> = Vec::new();
    let mut index = HashMap::new();
    for row in rows {
        let series = &row.series;
        let key = (&series.source, &series.machine, &series.kind, &series.cell);
        let place = *index.entry(key).or_insert_with(|| {
            cells.push(Vec::new());
            cells.len() - 1
        });
        cells[place].push(row);
    }
    cells.iter().map(|rows| headline(rows)).collect()
}

fn headline(rows: &[&OverHosts]) -> String {
    let series = &rows[0].series;
    let hosts = rows.iter().map(|row| row.hosts.len()).max().unwrap_or(0);
    let count = |agreement| rows.iter().filter(|row| row.agreement == agreement).count();
    let agreed = |verdict| {
        let is_agreed =
            |row: &&&OverHosts| row.agreement == Agreement::Agree && row.majority == Some(verdict);
        rows.iter().filter(is_agreed).count()
    };
    let mut parts: Vec<String> = [
        (agreed(Verdict::Faster), "faster on all in"),
        (agreed(Verdict::Slower), "slower on all in"),
        (agreed(Verdict::Same), "the same on all in"),
        (count(Agreement::Undecided), "not decided on all in"),
        (count(Agreement::Error), "broke an invariant in"),
        (count(Agreement::Disagree), "hosts disagree in"),
    ]
    .into_iter()
    .filter(|(rows, _)| *rows > 0)
    .map(|(rows, words)| format!("{words} {rows}"))
    .collect();
    let mut by_host: Vec<(&str, usize)> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    for on in rows.iter().flat_map(|row| row.disagreeing()) {
        let at = *place.entry(&on.host).or_insert_with(|| {
            by_host.push((&on.host, 0));
            by_host.len() - 1
        });
        by_host[at].1 += 1;
    }
    by_host.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    if let Some(last) = parts.last_mut().filter(|_| !by_host.is_empty()) {
        let named: Vec<String> =
            by_host.iter().take(NAMED).map(|(host, rows)| format!("{host} in {rows}")).collect();
        let more = by_host.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        *last += &format!(" ({}{more})", named.join(", "));
    }
    format!(
        "Over {hosts} hosts, {} ({}) in {}: {}.",
        series.cell,
        series.kind,
        number::count(rows.len() as u64, "row"),
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Source};

    use super::*;

    fn summary(rows: &[(&str, &str, Option<Verdict>, f64)]) -> Summary {
        let entries = rows.iter().map(|(host, workload, verdict, ratio)| {
            let series = Series::new("new", Kind::Timer, *workload, 2, "compact", Source::Model);
            let mut entry = Entry::new(Series { host: Some((*host).to_owned()), ..series });
            entry.verdict = *verdict;
            entry.ratio = Some(*ratio);
            if verdict.is_none() {
                entry.violations.push("broken".to_owned());
            }
            entry
        });
        Summary { entries: entries.collect(), ..Summary::default() }
    }

    const FASTER: Option<Verdict> = Some(Verdict::Faster);
    const SLOWER: Option<Verdict> = Some(Verdict::Slower);
    const UNDECIDED: Option<Verdict> = Some(Verdict::Undecided);

    #[test]
    fn hosts_that_disagree_are_named() {
        let rows = over_hosts(&summary(&[
            ("a", "w", FASTER, 1.5),
            ("b", "w", FASTER, 1.2),
            ("c", "w", SLOWER, 0.8),
            ("a", "v", FASTER, 1.5),
            ("b", "v", FASTER, 1.25),
            ("c", "v", UNDECIDED, 1.01),
            ("a", "u", FASTER, 1.5),
            ("b", "u", FASTER, 1.5),
            ("a", "t", FASTER, 1.5),
            ("a", "s", FASTER, 1.5),
            ("b", "s", SLOWER, 0.5),
            ("a", "r", FASTER, 1.5),
            ("b", "r", None, 9.0),
        ]));
        let words: Vec<String> = rows.iter().map(OverHosts::words).collect();
        assert_eq!(
            words,
            [
                "hosts disagree: faster on 2 of 3 hosts; slower on c, 0.80x (c) to 1.50x (a)",
                "faster on 2 of 3 hosts; undecided on c, 1.010x (c) to 1.50x (a)",
                "faster on all 2 hosts, 1.50x (a) to 1.50x (b)",
                "hosts disagree: faster on a; slower on b, 0.50x (b) to 1.50x (a)",
                "faster on 1 of 2 hosts; ERROR on b, 1.50x (a) to 1.50x (a)",
            ]
        );
        let agreements: Vec<Agreement> = rows.iter().map(|row| row.agreement).collect();
        use Agreement::{Agree, Disagree, Error, Undecided};
        assert_eq!(agreements, [Disagree, Undecided, Agree, Disagree, Error]);
        // Without a majority nobody can be the one who disagrees.
        assert_eq!((rows[3].majority, rows[3].disagreeing().count()), (None, 2));
        assert_eq!(
            headlines(&rows),
            ["Over 3 hosts, new (timer) in 5 rows: faster on all in 1, not decided on all in 1, \
              broke an invariant in 1, hosts disagree in 2 (a in 1, b in 1, c in 1)."]
        );
    }

    #[test]
    fn one_host_is_no_dimension() {
        assert!(
            over_hosts(&summary(&[("a", "w", FASTER, 1.5), ("a", "v", FASTER, 1.5)])).is_empty()
        );
        assert!(headlines(&[]).is_empty());
    }

    #[test]
    fn a_thousand_hosts_are_not_all_named() {
        let names: Vec<String> = (0..1000).map(|number| format!("h{number}")).collect();
        let rows: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let verdict = if number % 3 == 0 { SLOWER } else { FASTER };
                (name.as_str(), "w", verdict, 1.0)
            })
            .collect();
        let rows = over_hosts(&summary(&rows));
        assert!(rows[0].words().len() < 200, "{}", rows[0].words());
        assert!(headlines(&rows)[0].contains("328 more"), "{}", headlines(&rows)[0]);
    }
}
