//! A run read from its records: what charts and formats are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cellbench_record::{
    Damage, Latency, Named, ReadError, Run, RunReader, Series, Summary, latency_log,
    read_latency_log,
};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::designs::Designs;
use crate::hosts::over_hosts;
use crate::options::Options;
use crate::summarise::Pooled;
use crate::table::Table;

/// Everything a chart or a format may use.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its summary.
    pub summary: &'a Summary,
    /// Its rounds, gathered.
    pub table: &'a Table,
    /// Order and looks of its cells and locks.
    pub designs: &'a Designs,
    /// Directory of the run, below which the latency logs lie.
    pub dir: &'a Path,
    /// Parts of the records that could not be used.
    pub damage: &'a DamageList,
}

impl<'a> Report<'a> {
    /// Returns the same run with another summary, such as one of fewer rows.
    #[must_use]
    pub fn with_summary(self, summary: &'a Summary) -> Self {
        Self { summary, ..self }
    }
}

/// Damage found, the first of it word for word: a foreign file may have a million such lines.
#[derive(Clone, Debug, Default)]
pub struct DamageList {
    /// The first of it.
    pub first: Vec<Damage>,
    /// All of it, by number.
    pub total: u64,
}

impl DamageList {
    const KEPT: usize = 20;

    /// Notes a damage.
    pub fn push(&mut self, damage: Damage) {
        if self.first.len() < Self::KEPT {
            self.first.push(damage);
        }
        self.total += 1;
    }
}

/// A run read from its records.
#[derive(Debug)]
pub struct Loaded {
    /// Directory of the run.
    pub dir: PathBuf,
    /// The run.
    pub run: Run,
    /// Its rounds, gathered.
    pub table: Table,
    /// Their summary, made anew.
    pub summary: Summary,
    /// Order and looks of its cells and locks.
    pub designs: Designs,
    /// Parts that could not be used.
    pub damage: DamageList,
}

impl Loaded {
    /// Reads a run and summarises it; `options` may change what the run itself says.
    ///
    /// # Errors
    /// [`ReadError`] if there is no run, or one of a newer schema.
    pub fn read(run_dir: &Path, options: impl FnOnce(&mut Options)) -> Result<Self, ReadError> {
        let reader = RunReader::open(run_dir)?;
        let run = reader.run().clone();
        let mut damage = DamageList::default();
        for found in reader.damage() {
            damage.push(found.clone());
        }
        let mut chosen = Options::of(&run);
        options(&mut chosen);
        let mut table = Table::new(chosen);
        for round in reader.rounds()? {
            match round {
                Ok(round) => table.push(&round),
                Err(found) => damage.push(found),
            }
        }
        let (pooled, found) = pool(reader.dir(), &run, &table);
        found.into_iter().for_each(|found| damage.push(found));
        let (table, mut summary) = table.finish(&run, &pooled);
        let rows = over_hosts(&summary);
        if !rows.is_empty() {
            summary.extra.insert("over_hosts".to_owned(), serde_json::json!(rows));
        }
        let rows = summary.entries.iter().map(|entry| &entry.series);
        let designs = Designs::of(&run, &summary.baseline, rows);
        Ok(Self { dir: reader.dir().to_owned(), run, table, summary, designs, damage })
    }

    /// Returns the view of the run that charts and formats take.
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report {
            run: &self.run,
            summary: &self.summary,
            table: &self.table,
            designs: &self.designs,
            dir: &self.dir,
            damage: &self.damage,
        }
    }
}

/// Pools the latency logs that the rows of a table name, where there are none what the run itself
/// holds; also what of the logs could not be read.
fn pool(dir: &Path, run: &Run, table: &Table) -> (Pooled, Vec<Damage>) {
    let mut rows: Vec<_> = table.rows.iter().collect();
    rows.sort_unstable_by(|a, b| a.series.cmp(&b.series));
    let read: Vec<(Series, Named<Latency>, Vec<Damage>)> = rows
        .into_par_iter()
        .map(|row| {
            let logs: BTreeSet<&String> =
                row.sums.latency.values().flatten().filter_map(|it| it.hlog.as_ref()).collect();
            let mut by_op = BTreeMap::new();
            let mut damage = Vec::new();
            for log in logs {
                let path = latency_log(dir, log);
                let intervals = match read_latency_log(&path) {
                    Ok((intervals, found)) => {
                        damage.extend(found);
                        intervals
                    }
                    Err(error) => {
                        damage.push(Damage { path, line: None, what: error.to_string() });
                        continue;
                    }
                };
                for interval in intervals {
                    if interval.disturbed || row.was_disturbed_at(interval.start_s) {
                        continue;
                    }
                    match by_op.get_mut(&interval.op) {
                        None => {
                            by_op.insert(interval.op, interval.histogram);
                        }
                        // Values beyond the first histogram's range: it does not grow by itself.
                        Some(sum) => {
                            sum.auto(true);
                            if let Err(error) = sum.add(&interval.histogram) {
                                let what = format!("histograms do not add up: {error}");
                                damage.push(Damage { path: path.clone(), line: None, what });
                            }
                        }
                    }
                }
            }
            let mut pooled = Named::new();
            for (op, histogram) in by_op.into_iter().filter(|(_, all)| !all.is_empty()) {
                let hlog =
                    row.sums.latency.get(&op).and_then(|rounds| rounds.first()?.hlog.clone());
                *pooled.or_default(&op) = Latency { hlog, ..Latency::of(&histogram) };
            }
            (row.series.clone(), pooled, damage)
        })
        .collect();
    let mut by_row = Pooled::new();
    for kept in std::iter::once(run).chain(&run.merged_from).flat_map(|run| &run.pooled_latency) {
        by_row.insert(kept.series.clone(), kept.latency.clone());
    }
    let mut damage = Vec::new();
    for (series, latency, found) in read {
        damage.extend(found);
        if !latency.is_empty() {
            by_row.insert(series, latency);
        }
    }
    (by_row, damage)
}
