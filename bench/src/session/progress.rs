//! How far a run is, for whoever watches it: nothing unless standard error is a terminal.
//!
//! Drawn between measurements by the thread that waits for them; no thread of its own, which would
//! wake up within windows.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over the time budget.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    budget: Duration,
}

impl Progress {
    pub(crate) fn new(budget: Duration) -> Self {
        let length = budget.as_millis() as u64;
        // Four times a second is enough, and each drawing is a system call.
        let bar =
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(4));
        let style = ProgressStyle::with_template("{bar:30} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self { bar, budget }
    }

    /// Round `number` is at its `place`th block of `blocks`.
    pub(crate) fn at(&self, number: u32, place: usize, blocks: usize, elapsed: Duration) {
        self.bar.set_position(elapsed.as_millis() as u64);
        let left = self.budget.saturating_sub(elapsed).as_secs();
        self.bar.set_message(format!(
            "round {}, {}/{blocks}; at most {}:{:02} left",
            number + 1,
            place + 1,
            left / 60,
            left % 60
        ));
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
