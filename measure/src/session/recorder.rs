//! Writes the results of a loop to disk and keeps what is needed to judge them.

use cellbench_plots::{Decision, Options, Table};
use cellbench_record::{Entry, RunWriter};

use super::progress::View;
use super::rounds::Observer;
use super::run::SessionError;
use crate::alloc;
use crate::backend::{Configuration, Measured};

/// The record of a run, with a table for each block of the plan.
pub struct Recorder<'a> {
    writer: &'a mut RunWriter,
    /// Shown the rows after each round.
    view: Option<&'a View>,
    tables: Vec<Table>,
    judges: bool,
    /// Rows whose invariants broke, with what broke, the first time for each.
    pub violations: Vec<String>,
    /// Configurations that could not be measured, each once.
    pub left_out: Vec<String>,
    /// The smallest sampling interval of any round; 0 if no latency was sampled.
    pub sampled_every: u32,
    /// Measurements written.
    pub measured: u64,
}

impl<'a> Recorder<'a> {
    /// Prepares to record blocks whose cells are compared with these baselines, one for each block.
    /// `judges`: a block
    /// ends when it is decided, and a look at one spends its part of the error of so many comparisons.
    pub fn new<'b>(
        writer: &'a mut RunWriter,
        baselines: impl Iterator<Item = &'b str>,
        judges: Option<u32>,
    ) -> Self {
        let options = Options::of(writer.run());
        let comparisons = judges.unwrap_or(options.comparisons);
        let options = Options { comparisons, ..options };
        let table = |baseline: &str| {
            Table::new(Options { baseline: baseline.to_owned(), ..options.clone() })
        };
        Self {
            tables: baselines.map(table).collect(),
            writer,
            view: None,
            judges: judges.is_some(),
            violations: Vec::new(),
            left_out: Vec::new(),
            sampled_every: 0,
            measured: 0,
        }
    }

    /// Has `view` shown the rows after each round.
    pub fn shown_by(self, view: &'a View) -> Self {
        Self { view: Some(view), ..self }
    }

    /// Returns the entries of every block so far, judged.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let run = self.writer.run();
        self.tables.iter().flat_map(|table| table.summary(run).entries).collect()
    }
}

impl<S: Configuration> Observer<S> for Recorder<'_> {
    fn measured(&mut self, block: usize, _: &S, measured: Measured) -> Result<(), SessionError> {
        let Measured { mut round, latencies, .. } = measured;
        self.writer.append_measured(&mut round, &latencies)?;
        self.measured += 1;
        if self.measured == 1 {
            alloc::keeps(self.writer.dir());
        }
        if let Some(violation) = round.invariants.violations.first() {
            let row = round.series.to_string();
            if !self.violations.iter().any(|known| known.starts_with(&row)) {
                self.violations.push(format!("{row}: {violation}"));
            }
        }
        let every = round.latency_sample_every.unwrap_or(0);
        if every > 0 && (self.sampled_every == 0 || every < self.sampled_every) {
            self.sampled_every = every;
        }
        self.tables[block].push(&round);
        Ok(())
    }

    fn left_out(&mut self, what: String) {
        if !self.left_out.contains(&what) {
            self.left_out.push(what);
        }
    }

    fn round_ended(&mut self) -> Result<(), SessionError> {
        if let Some(view) = self.view {
            view.judged(|| self.entries());
        }
        Ok(())
    }

    fn is_decided(&mut self, block: usize) -> bool {
        self.judges && self.tables[block].decision() == Decision::Enough
    }
}
