//! One comparison over several builds of the same sources.
//!
//! Where a loop lies in memory moves its speed by some percent: what else is compiled, or the order in
//! which the linker puts functions, decides over a difference of that size (Mytkowicz, Diwan,
//! Hauswirth and Sweeney, "Producing wrong data without doing anything obviously wrong!", ASPLOS
//! 2009). Rounds of one build all have one placement, so that no number of them shows it. Builds whose
//! functions were shuffled are draws from all placements (Curtsinger and Berger, "STABILIZER",
//! ASPLOS 2013): each gives one value, its median ratio, and the interval is over builds.

use cellbench_record::{Series, Verdict};
use serde::Serialize;

use crate::run::Loaded;
use crate::stats::interval::{Interval, MIN_VALUES};
use crate::stats::signed_rank::SignedRank;
use crate::stats::simultaneous::{Member, Simultaneous};
use crate::stats::{median, power};
use crate::table::Paired;

/// A cell and the one it is compared with, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The cell whose rate is the numerator.
    pub cell: String,
    /// The cell it is divided by.
    pub against: String,
}

/// Comparisons over builds.
#[derive(Clone, Debug, Serialize)]
pub struct OverBuilds {
    /// Number of runs, each of a build of its own.
    pub builds: usize,
    /// Number that can decide so many comparisons.
    pub builds_needed: u32,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Comparisons, those of one pair together.
    pub rows: Vec<PairOverBuilds>,
}

/// One comparison over builds.
#[derive(Clone, Debug, Serialize)]
pub struct PairOverBuilds {
    /// The row of the cell.
    pub series: Series,
    /// The cell it is compared with.
    pub against: String,
    /// Median ratio within rounds of each build, in the order of the runs; none where a build has fewer
    /// than six pairs of rounds, or broke an invariant.
    pub ratios: Vec<Option<f64>>,
    /// Ratio over builds; above 1 is faster.
    pub ratio: Option<f64>,
    /// Lower end of the 95 % interval over builds, simultaneous over all rows. None where builds are too
    /// few for it.
    pub ratio_low: Option<f64>,
    /// Upper end.
    pub ratio_high: Option<f64>,
    /// The verdict on the cell, from the interval alone.
    pub verdict: Option<Verdict>,
}

impl OverBuilds {
    /// Returns the number of rows with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == Some(verdict)).count()
    }
}

/// Compares the cells of each pair in every row of the first run, over all runs; without pairs, each cell
/// with the baseline of the first run.
#[must_use]
pub fn over_builds(runs: &[Loaded], pairs: &[Pair]) -> OverBuilds {
    let Some(first) = runs.first() else {
        return OverBuilds { builds: 0, builds_needed: 0, threshold_share: 0.0, rows: Vec::new() };
    };
    let options = &first.table.options;
    let mut rows = Vec::new();
    let mut push = |cell: &str, against: &str| {
        for row in first.table.rows.iter().filter(|row| row.series.cell == cell) {
            let base = row.series.with_cell(against);
            if first.table.row(&base).is_some() {
                let ratios = runs.iter().map(|run| in_build(run, &row.series, &base));
                rows.push((row.series.clone(), against.to_owned(), ratios.collect::<Vec<_>>()));
            }
        }
    };
    if pairs.is_empty() {
        let mut cells: Vec<&str> = first.table.rows.iter().map(|row| &*row.series.cell).collect();
        cells.sort_by_key(|cell| (first.designs.rank(cell), *cell));
        cells.dedup();
        for cell in cells.into_iter().filter(|cell| *cell != options.baseline) {
            push(cell, &options.baseline);
        }
    }
    for Pair { cell, against } in pairs {
        push(cell, against);
    }
    let members: Vec<Member> = rows
        .iter()
        .map(|(_, _, ratios)| {
            let numbered =
                (0_u32..).zip(ratios).filter_map(|(build, ratio)| Some((build, (*ratio)?)));
            let (rounds, differences) = numbered.unzip();
            // A build places the code of all rows at once: its values belong together.
            Member { group: 0, rounds, differences }
        })
        .filter(|member: &Member| member.differences.len() >= MIN_VALUES)
        .collect();
    let level = Simultaneous::new(options.seed, &members).level(options.alpha);
    let rule = options.rule();
    let rows: Vec<PairOverBuilds> = rows
        .into_iter()
        .map(|(series, against, ratios)| {
            let known: Vec<f64> = ratios.iter().flatten().copied().collect();
            let interval = SignedRank::new(&known).and_then(|test| test.interval(level));
            let estimate =
                interval.map(|found| found.estimate).or_else(|| median(&mut known.clone()));
            let ends = interval.map(Interval::exp);
            PairOverBuilds {
                series,
                against,
                ratios: ratios.into_iter().map(|ratio| ratio.map(libm::exp)).collect(),
                ratio: estimate.map(libm::exp),
                ratio_low: ends.map(|ends| ends.low),
                ratio_high: ends.map(|ends| ends.high),
                verdict: interval.map(|found| rule.judge(&found)),
            }
        })
        .collect();
    let builds_needed = power::rounds_needed(rows.len() as u32, options.alpha);
    OverBuilds { builds: runs.len(), builds_needed, threshold_share: options.threshold_share, rows }
}

/// Returns the median log ratio within the rounds of one build.
fn in_build(run: &Loaded, series: &Series, base: &Series) -> Option<f64> {
    let paired = Paired::new(run.table.row(series)?, run.table.row(base)?);
    if paired.error.is_some() || paired.log_ratios.len() < MIN_VALUES {
        return None;
    }
    median(&mut paired.log_ratios.clone())
}
