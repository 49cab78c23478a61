//! Timeline of one line, event by event, to be drawn.

use serde::{Deserialize, Serialize};

use crate::costs::Ps;

/// A kind of event in the life of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimelineEvent {
    /// The core performed an access on its own copy.
    Hit,
    /// The core asked the directory for the line.
    Request,
    /// The line is at the core. (Recorded when it is granted, so possibly before earlier hits.)
    Arrival,
    /// The core performed the access it had requested the line for.
    Access,
    /// The core's store entered its store buffer, and the line was asked for.
    Store,
    /// The core went to sleep, watching the line.
    Sleep,
    /// The core, asleep on the line, lost it or saw it change.
    Wake,
}

/// One recorded event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) at: Ps,
    pub(crate) core: u16,
    pub(crate) row: u32,
    pub(crate) event: TimelineEvent,
}

/// The recording of one line.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    label: Option<String>,
    capacity: usize,
    line: Option<u32>,
    pub(crate) events: Vec<Recorded>,
    /// Events that did not fit.
    pub(crate) lost: u64,
}

impl Timeline {
    pub(crate) fn of_label(label: &str, capacity: usize) -> Self {
        Self { label: Some(label.to_owned()), capacity, ..Self::default() }
    }

    pub(crate) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns whether to record this line: the first one with a word of the wanted label.
    pub(crate) fn wants(&mut self, line: u32, label: &str) -> bool {
        if self.line.is_none() && self.label.as_deref() == Some(label) {
            self.line = Some(line);
        }
        self.line == Some(line)
    }

    pub(crate) fn record(&mut self, at: Ps, core: u16, row: u32, event: TimelineEvent) {
        if self.events.len() < self.capacity {
            self.events.push(Recorded { at, core, row, event });
        } else {
            self.lost += 1;
        }
    }
}
