//! Account of a stress run: operations on each cell, and violations, for the record and for the eye.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use cellbench_impls::Context;
use cellbench_record::{ContextOps, Host};
use serde::{Deserialize, Serialize};

use super::slice::{Order, Outcome};

/// One cell's account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Cell or lock.
    pub cell: String,
    /// Its kind.
    pub kind: String,
    /// Slices by workload.
    pub slices: BTreeMap<String, u64>,
    /// Operations, in all contexts and with every outcome.
    pub operations: u64,
    /// Those that handlers made on top of others.
    pub interruptions: u64,
    /// Signals that found their worker between two batches and were let go.
    pub interruptions_missed: u64,
    /// Control blocks and commands that were handed out.
    pub objects: u64,
    /// Those that did not come back.
    pub leaks: u64,
    /// Slices in which something broke.
    pub violations: u64,
    /// Operations by context, operation and outcome.
    pub counts: ContextOps,
}

/// Something broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Description of the violation.
    pub what: String,
    /// In which slice; `cellbench stress --order` takes it.
    pub order: Order,
}

/// A stress run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Command that repeats the run.
    pub command_line: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// When it began, in seconds since 1970.
    pub started_unix_s: u64,
    /// How long it took.
    pub elapsed_s: f64,
    /// Workers in each slice.
    pub threads: u32,
    /// The host.
    pub host: Host,
    /// One account for each cell and kind.
    pub cells: Vec<Account>,
    /// Violations that were found.
    pub violations: Vec<Found>,
    /// The user ended it early.
    pub interrupted: bool,
}

impl Account {
    /// Returns an empty account.
    #[must_use]
    pub fn new(cell: &str, kind: &str) -> Self {
        Self { cell: cell.to_owned(), kind: kind.to_owned(), ..Self::default() }
    }

    fn add(&mut self, order: &Order, outcome: &Outcome) {
        *self.slices.entry(order.workload.clone()).or_default() += 1;
        for (context, ops) in &outcome.counts {
            for (op, outcomes) in ops {
                for (name, count) in outcomes {
                    let of_op = self.counts.entry(context.clone()).or_default();
                    *of_op.entry(op.clone()).or_default().entry(name.clone()).or_default() += count;
                    self.operations += count;
                    if context != Context::Task.name() {
                        self.interruptions += count;
                    }
                }
            }
        }
        self.interruptions_missed += outcome.interruptions_missed;
        self.objects += outcome.objects_allocated;
        self.leaks += outcome.objects_allocated - outcome.objects_freed;
        self.violations += u64::from(!outcome.violations.is_empty());
    }
}

impl Report {
    /// Enters a slice.
    ///
    /// # Panics
    /// If the cell has no account.
    pub fn enter(&mut self, order: &Order, outcome: &Outcome) {
        let account =
            self.cells.iter_mut().find(|of| of.cell == order.cell && of.kind == order.kind);
        account.expect("every chosen cell has an account").add(order, outcome);
        let found = |what: &String| Found { what: what.clone(), order: order.clone() };
        self.violations.extend(outcome.violations.iter().map(found));
    }

    /// Returns the cells that had no slice.
    pub fn without_slices(&self) -> impl Iterator<Item = &Account> {
        self.cells.iter().filter(|cell| cell.slices.is_empty())
    }

    /// Returns operations on all cells.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.cells.iter().map(|cell| cell.operations).sum()
    }

    /// Writes it for a reader.
    ///
    /// # Errors
    /// None that a `String` has.
    pub fn to_text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{:<22} {:<9} {:>6} {:>14} {:>13} {:>11} {:>5} {:>10}",
            "cell",
            "kind",
            "slices",
            "operations",
            "interruptions",
            "objects",
            "leaks",
            "violations"
        )?;
        for cell in &self.cells {
            let slices: u64 = cell.slices.values().sum();
            writeln!(
                text,
                "{:<22} {:<9} {slices:>6} {:>14} {:>13} {:>11} {:>5} {:>10}",
                cell.cell,
                cell.kind,
                cell.operations,
                cell.interruptions,
                cell.objects,
                cell.leaks,
                cell.violations
            )?;
            for (context, ops) in &cell.counts {
                writeln!(text, "  {context:<8} {}", outcomes(ops))?;
            }
        }
        let sum = |of: fn(&Account) -> u64| -> u64 { self.cells.iter().map(of).sum() };
        writeln!(
            text,
            "{} operations ({} in handlers) in {} slices and {:.0} s with {} threads: \
             {} violations, {} leaks of {} objects",
            self.operations(),
            sum(|cell| cell.interruptions),
            sum(|cell| cell.slices.values().sum()),
            self.elapsed_s,
            self.threads,
            self.violations.len(),
            sum(|cell| cell.leaks),
            sum(|cell| cell.objects)
        )?;
        let never: Vec<String> = self
            .without_slices()
            .map(|Account { cell, kind, .. }| format!("{cell} ({kind})"))
            .collect();
        if !never.is_empty() {
            writeln!(text, "NOT RUN for lack of time: {}", never.join(", "))?;
        }
        for found in &self.violations {
            let Order { cell, kind, workload, .. } = &found.order;
            writeln!(text, "VIOLATION {cell} ({kind}) under {workload}: {}", found.what)?;
            let order = serde_json::to_string(&found.order).map_err(|_| fmt::Error)?;
            writeln!(text, "  again: cellbench stress --order '{order}'")?;
        }
        Ok(text)
    }
}

/// Returns the shares of all outcomes over all operations of a context.
fn outcomes(ops: &BTreeMap<String, BTreeMap<String, u64>>) -> String {
    let mut by_outcome: BTreeMap<&str, u64> = BTreeMap::new();
    for (outcome, count) in ops.values().flatten() {
        *by_outcome.entry(outcome).or_default() += count;
    }
    let all: u64 = by_outcome.values().sum();
    let mut shares: Vec<_> = by_outcome.into_iter().collect();
    shares.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let share = |(name, count): (&str, u64)| {
        format!("{name} {count} ({:.2} %)", 100.0 * count as f64 / all.max(1) as f64)
    };
    shares.into_iter().map(share).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(violations: &[&str]) -> Outcome {
        let counts = |context: &str, ok, busy| {
            let outcomes = BTreeMap::from([("ok".to_owned(), ok), ("EBUSY".to_owned(), busy)]);
            (context.to_owned(), BTreeMap::from([("start".to_owned(), outcomes)]))
        };
        Outcome {
            counts: BTreeMap::from([counts("task", 10, 0), counts("nmi", 3, 1)]),
            interruptions_missed: 2,
            objects_allocated: 9,
            objects_freed: 8,
            violations: violations.iter().map(|what| (*what).to_owned()).collect(),
        }
    }

    #[test]
    fn slices_add_up_and_what_broke_can_be_repeated() {
        let order = Order {
            cell: "a".to_owned(),
            kind: "timer".to_owned(),
            workload: "churn".to_owned(),
            cpus: vec![0, 0],
            window_ms: 1,
            seed: 7,
            interrupt_rate_hz: None,
            stepped: false,
            planted: None,
        };
        let mut report = Report {
            command_line: "cellbench stress".to_owned(),
            seed: 7,
            started_unix_s: 0,
            elapsed_s: 1.0,
            threads: 2,
            host: Host::default(),
            cells: vec![Account::new("b", "wq"), Account::new("a", "timer")],
            violations: Vec::new(),
            interrupted: false,
        };
        report.enter(&order, &outcome(&[]));
        report.enter(&order, &outcome(&["broken"]));
        let account = &report.cells[1];
        assert_eq!(
            (account.operations, account.interruptions, account.interruptions_missed),
            (28, 8, 4)
        );
        assert_eq!((account.objects, account.leaks, account.violations), (18, 2, 1));
        assert_eq!(account.slices["churn"], 2);
        assert_eq!(report.cells[0], Account::new("b", "wq"));
        assert_eq!(report.violations, [Found { what: "broken".to_owned(), order }]);
        let text = report.to_text().unwrap();
        assert!(text.contains("  nmi      ok 6 (75.00 %)  EBUSY 2 (25.00 %)\n"), "{text}");
        assert!(text.contains("NOT RUN for lack of time: b (wq)\n"), "{text}");
        assert!(text.contains("28 operations (8 in handlers) in 2 slices"), "{text}");
        assert!(text.contains("VIOLATION a (timer) under churn: broken\n"), "{text}");
        assert!(text.contains("--order '{\"cell\":\"a\""), "{text}");
    }
}
