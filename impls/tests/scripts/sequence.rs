//! Recorded accesses, in the words of the scripts.

use cellbench_impls::platform::Ordering;
use cellbench_impls::platform::observed::{Barrier, Operation};
use cellbench_impls::platform::recorded::Event;

/// Words of what is not part of any design: a run of accesses to them is one call.
const MECHANISMS: &[(&str, &[&str])] = &[
    ("engine", &["timer.", "base.", "work.", "engine."]),
    ("slab", &["heap."]),
    ("rcu", &["rcu."]),
    ("task", &["task.works", "task_item.", "task.pi_lock"]),
];
/// The same in the scripts of cells, which leave the lock's accesses to those of locks.
const LOCK: (&str, &[&str]) = ("lock", &["lock.", "held.", "node."]);

/// Turns events into lines.
pub(crate) struct Words {
    cells: bool,
    /// The mechanism that the last event belonged to.
    inside: Option<&'static str>,
    pub(crate) lines: Vec<String>,
}

impl Words {
    /// Starts an empty sequence, for cells or for locks.
    pub(crate) fn new(cells: bool) -> Self {
        Self { cells, inside: None, lines: Vec::new() }
    }

    /// Returns the line that an event begins, if it begins one.
    pub(crate) fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Access("cpu.irq_works", Operation::Load, _) => None,
            Event::Access(label, operation, order) => match self.mechanism(label) {
                Some(mechanism) if self.inside == Some(mechanism) => None,
                Some(mechanism) => Some(format!("call {mechanism}")),
                None => Some(format!("{label} {} {}", operation.name(), order_name(*order))),
            },
            Event::Fence(Barrier::Full) => Some("fence full".to_owned()),
            Event::Fence(Barrier::AfterRmw) => Some("fence rmw".to_owned()),
            Event::Fence(Barrier::Writes) => Some("fence writes".to_owned()),
            Event::Fence(Barrier::Reads) => Some("fence reads".to_owned()),
            Event::Note(text) => Some((*text).to_owned()),
        }
    }

    /// Takes an event.
    pub(crate) fn take(&mut self, event: &Event) {
        self.lines.extend(self.line(event));
        self.inside = match event {
            Event::Access("cpu.irq_works", Operation::Load, _) => self.inside,
            Event::Access(label, ..) => self.mechanism(label),
            _ => None,
        };
    }

    fn mechanism(&self, label: &str) -> Option<&'static str> {
        let lock = self.cells.then_some(&LOCK);
        let found = MECHANISMS
            .iter()
            .chain(lock)
            .find(|(_, prefixes)| prefixes.iter().any(|prefix| label.starts_with(prefix)));
        found.map(|(name, _)| *name)
    }
}

fn order_name(order: Ordering) -> &'static str {
    match order {
        Ordering::Relaxed => "relaxed",
        Ordering::Acquire => "acquire",
        Ordering::Release => "release",
        Ordering::AcqRel => "acq_rel",
        Ordering::SeqCst => "full",
        _ => unreachable!("there are no others"),
    }
}
