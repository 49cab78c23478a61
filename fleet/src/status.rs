//! States of the tasks, from their markers and from the scheduler.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::slurm::{self, Queue, Queued};
use crate::store::Outcome;
use crate::{FleetError, Store, Work};

/// State of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Finished, with everything there.
    Complete {
        /// Name of the node.
        node: String,
        /// An invariant broke.
        violations: bool,
    },
    /// At work.
    Running {
        /// Name of the node.
        node: String,
        /// Time since its start, as Slurm writes it.
        elapsed: String,
    },
    /// Waiting for a node; why.
    Pending(String),
    /// Its host is unfit; why.
    Unfit(String),
    /// Begun, and ended without a result; why.
    Failed(String),
    /// Not begun, and not with the scheduler.
    Missing,
}

/// States of all tasks.
#[derive(Debug)]
pub struct Status {
    /// State of each task, by its number.
    pub tasks: Vec<State>,
    /// Why the scheduler was not asked, if it was not.
    pub no_queue: Option<String>,
    /// Entry and part of each task, for people.
    names: Vec<String>,
}

impl Status {
    /// Returns whether all tasks are complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.tasks.iter().all(|state| matches!(state, State::Complete { .. }))
    }

    /// Returns whether the scheduler still has work to do.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        let at_work = |state: &State| matches!(state, State::Running { .. } | State::Pending(_));
        self.tasks.iter().any(at_work)
    }
}

/// Looks at the markers and asks the scheduler: `squeue` for what waits and runs, `sacct`, where
/// there
/// is accounting, for why a task that left no reason ended.
///
/// # Errors
/// [`FleetError::Io`] if the storage cannot be read. A scheduler that is not reached is no error.
pub fn status(store: &Store) -> Result<Status, FleetError> {
    // First the scheduler, then the markers: a task that ends in between is then seen as complete.
    let (queue, no_queue) = match slurm::squeue(&store.fleet) {
        Ok(queue) => (queue, None),
        Err(error) => (Queue::new(), Some(error.to_string())),
    };
    let mut accounting = None;
    let mut states = Vec::with_capacity(store.fleet.tasks.len());
    for task in &store.fleet.tasks {
        let attempts = store.attempts(task.number)?;
        let queued = queue.get(&task.number);
        let state = match (attempts.iter().find_map(complete), queued) {
            (Some(complete), _) => complete,
            (None, Some(queued)) if queued.is_pending() => State::Pending(queued.reason.clone()),
            (None, Some(queued)) if queued.is_active() => {
                State::Running { node: queued.node.clone(), elapsed: queued.elapsed.clone() }
            }
            (None, queued) => {
                let accounting = || {
                    let asked = accounting
                        .get_or_insert_with(|| slurm::sacct(&store.fleet).unwrap_or_default());
                    asked.get(&task.number).cloned()
                };
                ended(attempts.last().map(|last| &last.outcome), queued.cloned(), accounting)
            }
        };
        states.push(state);
    }
    Ok(Status { tasks: states, no_queue, names: store.fleet.tasks.iter().map(name).collect() })
}

fn complete(attempt: &crate::store::Attempt) -> Option<State> {
    match &attempt.outcome {
        Outcome::Complete(complete) => {
            let (node, violations) = (complete.node.clone(), complete.violations);
            Some(State::Complete { node, violations })
        }
        _ => None,
    }
}

/// Returns the state of a task that is not at work, from its last attempt and from what the scheduler says.
fn ended(
    last: Option<&Outcome>,
    queued: Option<Queued>,
    accounting: impl FnOnce() -> Option<Queued>,
) -> State {
    let reason = match last {
        Some(Outcome::Unfit(why)) => return State::Unfit(why.clone()),
        Some(Outcome::Incomplete(why)) => Some(why.clone()),
        _ => None,
    };
    let scheduler = queued.or_else(accounting).filter(|queued| !queued.is_active());
    let scheduler = scheduler.filter(|queued| queued.state != "COMPLETED").map(|queued| {
        let reason = Some(queued.reason).filter(|reason| !reason.is_empty() && reason != "None");
        let reason = reason.map_or(String::new(), |reason| format!(", {reason}"));
        format!("{}{reason} ({})", queued.state, queued.id)
    });
    match (reason, scheduler) {
        (None, None) => State::Missing,
        (Some(why), None) | (None, Some(why)) => State::Failed(why),
        (Some(why), Some(scheduler)) => State::Failed(format!("{why}; Slurm: {scheduler}")),
    }
}

fn name(task: &crate::Task) -> String {
    match &task.work {
        Work::Measure { .. } | Work::Kernel { .. } => task.entry.clone(),
        Work::Kernels { kernels, .. } => format!("{}: {}", task.entry, kernels.join(", ")),
        Work::Simulate { machine, seed, shard, of } => {
            format!("{}: {machine}, seed {seed}, {shard}/{of}", task.entry)
        }
    }
}

/// Lines of one kind that are shown; the others are counted.
const SHOWN: usize = 20;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (number, (state, name)) in self.tasks.iter().zip(&self.names).enumerate() {
            let (word, about) = match state {
                State::Complete { violations: false, .. } => ("complete", None),
                State::Complete { node, violations: true } => {
                    ("complete", Some(format!("on {node}: an invariant broke, see its run")))
                }
                State::Running { node, elapsed } => {
                    ("running", Some(format!("on {node} for {elapsed}")))
                }
                State::Pending(why) => ("pending", Some(why.clone())),
                State::Unfit(why) => ("unfit", Some(why.clone())),
                State::Failed(why) => ("failed", Some(why.clone())),
                State::Missing => ("missing", Some("not submitted, or ended unseen".to_owned())),
            };
            *counts.entry(word).or_default() += 1;
            if let Some(about) = about {
                let mut line = String::new();
                write!(line, "{word:<8} {number:>4} {name}: {about}")?;
                lines.entry(word).or_default().push(line);
            }
        }
        let all = self.tasks.len();
        write!(f, "{} of {all} tasks complete", counts.remove("complete").unwrap_or(0))?;
        for (word, count) in &counts {
            write!(f, ", {count} {word}")?;
        }
        writeln!(f)?;
        for (word, lines) in &lines {
            for line in lines.iter().take(SHOWN) {
                writeln!(f, "{line}")?;
            }
            if lines.len() > SHOWN {
                writeln!(f, "{word:<8} {} more", lines.len() - SHOWN)?;
            }
        }
        if let Some(why) = &self.no_queue {
            writeln!(f, "the scheduler was not asked: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(state: &str, reason: &str) -> Queued {
        Queued {
            id: "7_1".into(),
            state: state.into(),
            node: "n1".into(),
            elapsed: "1:00".into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn the_reason_comes_from_the_task_and_from_the_scheduler() {
        let began = Outcome::Incomplete("began and did not end".into());
        let state = ended(Some(&began), Some(queued("NODE_FAIL", "None")), || panic!("asked"));
        let expected = "began and did not end; Slurm: NODE_FAIL (7_1)";
        assert_eq!(state, State::Failed(expected.into()));
        // Without accounting the marker alone tells.
        let state = ended(Some(&began), None, || None);
        assert_eq!(state, State::Failed("began and did not end".into()));
        let state = ended(None, None, || Some(queued("TIMEOUT", "exit status 0:15")));
        assert_eq!(state, State::Failed("TIMEOUT, exit status 0:15 (7_1)".into()));
        assert_eq!(ended(None, None, || None), State::Missing);
        let unfit = Outcome::Unfit("n1: busy".into());
        assert_eq!(ended(Some(&unfit), None, || None), State::Unfit("n1: busy".into()));
    }

    #[test]
    fn what_matters_is_listed_and_the_rest_counted() {
        let mut tasks = vec![State::Complete { node: "n1".into(), violations: false }];
        tasks.extend((0..30).map(|_| State::Failed("no".into())));
        let names = (0..31).map(|number| format!("t{number}")).collect();
        let status = Status { tasks, no_queue: None, names };
        let text = status.to_string();
        assert!(text.starts_with("1 of 31 tasks complete, 30 failed\n"), "{text}");
        assert!(
            text.contains("failed      1 t1: no\n") && text.ends_with("failed   10 more\n"),
            "{text}"
        );
        assert!(!status.is_complete() && !status.is_at_work());
    }
}
