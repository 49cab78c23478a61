//! How far a run is, for whoever watches it: nothing unless standard error is a terminal.
//!
//! Drawn between measurements by the thread that waits for them; no thread of its own, which would
//! wake up within windows.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over the time budget, or over the places of a round where there is none.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    budget: Option<Duration>,
}

impl Progress {
    pub(crate) fn new(budget: Option<Duration>) -> Self {
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
    pub(crate) fn at(&self, number: u32, place: usize, places: usize, elapsed: Duration) {
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
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
