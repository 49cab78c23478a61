//! How far a run is, for whoever watches it: nothing unless standard error is a terminal.
//!
//! Drawn between measurements by the thread that waits for them; no thread of its own, which would
//! wake up within windows.

use std::cell::RefCell;
use std::io::{IsTerminal, Stderr, stderr};
use std::time::Duration;

use cellbench_record::Entry;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use ratatui::backend::CrosstermBackend;

use super::watch::Watch;

/// View of a session while it measures.
pub enum View {
    /// A bar.
    Bar(Progress),
    /// The live view.
    Live(Box<RefCell<Watch<CrosstermBackend<Stderr>>>>),
}

impl View {
    /// Opens the live view if `watch` and standard error is a terminal, else a bar.
    pub fn new(watch: bool, baseline: &str, budget: Option<Duration>) -> Self {
        let wanted = watch && stderr().is_terminal();
        let live = wanted.then(|| Watch::open(baseline, budget)).flatten().map(Box::new);
        live.map_or_else(|| Self::Bar(Progress::new(budget)), Self::Live)
    }

    /// Shows that round `number` is at its `place`th batch of `places`.
    pub fn at(&self, number: u32, place: usize, places: usize, elapsed: Duration) {
        match self {
            Self::Bar(bar) => bar.at(number, place, places, elapsed),
            Self::Live(watch) => watch.borrow_mut().at(number, place, places, elapsed),
        }
    }

    /// Shows the rows as they are judged after a round; `entries` is asked only where they are shown.
    pub fn judged(&self, entries: impl FnOnce() -> Vec<Entry>) {
        if let Self::Live(watch) = self {
            watch.borrow_mut().judged(entries());
        }
    }

    /// Removes the view.
    pub fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish();
        }
    }
}

/// A bar over the time budget, or over the places of a round where there is none.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    budget: Option<Duration>,
}

impl Progress {
    fn new(budget: Option<Duration>) -> Self {
        let length = budget.map_or(1, |budget| budget.as_millis() as u64);
        // Four times a second is enough, and each drawing is a system call.
        let bar =
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(4));
        let style = ProgressStyle::with_template("{bar:30} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self { bar, budget }
    }

    /// Shows that round `number` is at its `place`th batch of `places`.
    fn at(&self, number: u32, place: usize, places: usize, elapsed: Duration) {
        let round = format!("round {}, {}/{places}", number + 1, place + 1);
        let Some(budget) = self.budget else {
            self.bar.set_length(places as u64);
            self.bar.set_position(place as u64);
            return self.bar.set_message(round);
        };
        self.bar.set_position(elapsed.as_millis() as u64);
        let left = budget.saturating_sub(elapsed).as_secs();
        self.bar.set_message(format!("{round}; at most {}:{:02} left", left / 60, left % 60));
    }

    /// Removes the bar.
    fn finish(self) {
        self.bar.finish_and_clear();
    }
}
