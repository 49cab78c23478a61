//! The live view of a run: how far it is, a forest plot that grows, and what is not decided yet.
//!
//! Drawn between measurements by the thread that waits for them, as the progress bar is; rows are judged
//! once a round at most. Without a terminal there is a bar in its place, which without a terminal shows
//! nothing.

use std::cell::RefCell;
use std::io::{Stderr, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cellbench_plots::{number, report};
use cellbench_record::{Entry, Verdict};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Gauge, Paragraph};
use ratatui::{Frame, Terminal};

/// Time between two drawings.
const REDRAW_EVERY: Duration = Duration::from_millis(250);

/// Whether the terminal shows a live view now.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back as it was; for whoever ends the process in the middle of a run.
pub fn restore_terminal() {
    if IS_SHOWN.swap(false, Ordering::Relaxed) {
        // The process goes on, or ends with its own message: nothing is left to be done.
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    }
}

/// State that a view shows.
#[derive(Clone, Debug, Default)]
pub struct State {
    budget: Option<Duration>,
    elapsed: Duration,
    round: u32,
    place: usize,
    places: usize,
    baseline: String,
    entries: Vec<Entry>,
}

/// A view that is drawn on a terminal.
pub struct Watch<B: Backend> {
    terminal: Terminal<B>,
    state: State,
    drawn: Option<Instant>,
}

impl Watch<CrosstermBackend<Stderr>> {
    /// Takes over the terminal at standard error; `None` if it cannot be drawn on.
    pub fn open(baseline: &str, budget: Option<Duration>) -> Option<RefCell<Self>> {
        execute!(stderr(), EnterAlternateScreen).ok()?;
        IS_SHOWN.store(true, Ordering::Relaxed);
        let Ok(terminal) = Terminal::new(CrosstermBackend::new(stderr())) else {
            restore_terminal();
            return None;
        };
        let state = State { budget, baseline: baseline.to_owned(), ..State::default() };
        Some(RefCell::new(Self { terminal, state, drawn: None }))
    }
}

impl<B: Backend> Watch<B> {
    /// Shows that round `number` is at its `place`th batch of `places`.
    pub fn at(&mut self, number: u32, place: usize, places: usize, elapsed: Duration) {
        let state = &mut self.state;
        (state.round, state.place, state.places) = (number, place, places);
        state.elapsed = elapsed;
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_EVERY) {
            self.draw();
        }
    }

    /// Shows the rows as they are judged now.
    pub fn judged(&mut self, entries: Vec<Entry>) {
        self.state.entries = entries;
        self.draw();
    }

    fn draw(&mut self) {
        // A terminal that went away is no reason to end a run.
        let _ = self.terminal.draw(|frame| self.state.draw(frame));
        self.drawn = Some(Instant::now());
    }
}

impl<B: Backend> Drop for Watch<B> {
    fn drop(&mut self) {
        restore_terminal();
    }
}

impl State {
    fn draw(&self, frame: &mut Frame<'_>) {
        let block = self.block();
        let rows = block.len() as u16;
        let [bar, counts, forest, open] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(if rows == 0 { 0 } else { rows + 3 }),
            Constraint::Min(3),
        ])
        .areas(frame.area());
        self.draw_progress(frame, bar);
        frame.render_widget(Paragraph::new(self.counts()), counts);
        self.draw_forest(frame, forest, &block);
        self.draw_undecided(frame, open);
    }

    fn draw_progress(&self, frame: &mut Frame<'_>, area: Rect) {
        let place = format!("round {}, {}/{}", self.round + 1, self.place + 1, self.places);
        let (share, label) = match self.budget {
            Some(budget) => {
                let left = budget.saturating_sub(self.elapsed).as_secs();
                let share = self.elapsed.as_secs_f64() / budget.as_secs_f64().max(1e-9);
                (share, format!("{place}; at most {}:{:02} left", left / 60, left % 60))
            }
            None => (self.place as f64 / self.places.max(1) as f64, place),
        };
        let gauge = Gauge::default().ratio(share.clamp(0.0, 1.0)).label(label);
        frame.render_widget(gauge.gauge_style(Style::new().green()), area);
    }

    /// Returns a sentence on decided rows and disturbed rounds.
    fn counts(&self) -> String {
        let compared = self.entries.iter().filter(|entry| entry.verdict.is_some()).count();
        let rounds: u64 = self.entries.iter().map(|entry| u64::from(entry.rounds)).sum();
        let disturbed: u64 =
            self.entries.iter().map(|entry| u64::from(entry.rounds_disturbed)).sum();
        let share = disturbed as f64 / (rounds + disturbed).max(1) as f64;
        format!(
            "{} of {compared} comparisons decided; {disturbed} disturbed rounds ({})",
            compared - self.undecided().count(),
            number::percent(Some(share))
        )
    }

    fn undecided(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.verdict == Some(Verdict::Undecided))
    }

    /// Returns the compared rows of the block with the most threads; of several, one whose workload
    /// repeats what failed, so that every design does the same work.
    fn block(&self) -> Vec<&Entry> {
        let compared = || self.entries.iter().filter(|entry| entry.verdict.is_some());
        let rank =
            |entry: &&Entry| (entry.series.threads, entry.series.workload.ends_with("-retry"));
        // The first of equals.
        let best = compared().rev().max_by_key(rank).map(|entry| &entry.series);
        let same = |entry: &&Entry| {
            best.is_some_and(|best| {
                let own = &entry.series;
                (&own.kind, &own.workload, own.threads, &own.placement)
                    == (&best.kind, &best.workload, best.threads, &best.placement)
            })
        };
        compared().filter(same).collect()
    }

    fn draw_forest(&self, frame: &mut Frame<'_>, area: Rect, rows: &[&Entry]) {
        let Some(first) = rows.first() else { return };
        let title =
            format!("{}, {}", first.series.workload, number::count(first.series.threads, "thread"));
        let base = self.entries.iter().find(|entry| {
            entry.series.cell == self.baseline
                && entry.series.workload == first.series.workload
                && (&entry.series.kind, entry.series.threads)
                    == (&first.series.kind, first.series.threads)
        });
        let width = usize::from(area.width.saturating_sub(2));
        let bars = report::bars(&title, rows, base, width);
        let lines = bars.into_iter().enumerate().map(|(place, bar)| {
            let verdict = place.checked_sub(1).and_then(|row| rows[row].verdict);
            match verdict {
                Some(Verdict::Faster) => Line::from(bar).green(),
                Some(Verdict::Slower) => Line::from(bar).red(),
                _ => Line::from(bar),
            }
        });
        let heading = format!(" Goodput as a ratio to {} ", self.baseline);
        let frame_of = Block::default().borders(Borders::ALL).title(heading);
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(frame_of), area);
    }

    fn draw_undecided(&self, frame: &mut Frame<'_>, area: Rect) {
        let line = |entry: &Entry| {
            let more = match entry.rounds_needed {
                Some(needed) => number::count(needed, "round"),
                None => "unknown".to_owned(),
            };
            Line::from(format!(
                "{:<20} {:<16}{:>3}t {:>6}  {:<15} {more}",
                entry.series.cell,
                entry.series.workload,
                entry.series.threads,
                number::ratio(entry.ratio),
                number::interval(entry.ratio_low, entry.ratio_high),
            ))
        };
        let mut lines: Vec<Line<'_>> = self.undecided().map(line).collect();
        let room = usize::from(area.height.saturating_sub(2)).max(1);
        if lines.len() > room {
            let more = lines.len() - (room - 1);
            lines.truncate(room - 1);
            lines.push(Line::from(format!("and {more} more")));
        }
        let frame_of = Block::default()
            .borders(Borders::ALL)
            .title(" Undecided, and the rounds that would decide ");
        frame.render_widget(Paragraph::new(lines).block(frame_of), area);
    }
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Series, Source};
    use ratatui::backend::TestBackend;

    use super::*;

    fn entry(cell: &str, ratio: Option<f64>, verdict: Option<Verdict>) -> Entry {
        let series = Series::new(cell, Kind::Timer, "same-cell-retry", 2, "compact", Source::Model);
        Entry {
            ratio,
            ratio_low: ratio.map(|ratio| ratio * 0.9),
            ratio_high: ratio.map(|ratio| ratio * 1.1),
            verdict,
            rounds: 10,
            rounds_disturbed: 1,
            rounds_needed: (verdict == Some(Verdict::Undecided)).then_some(40),
            ..Entry::new(series)
        }
    }

    fn screen(width: u16, height: u16, entries: Vec<Entry>) -> String {
        let state = State {
            budget: Some(Duration::from_secs(280)),
            baseline: "spin-queued".to_owned(),
            ..State::default()
        };
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut watch = Watch { terminal, state, drawn: None };
        watch.at(11, 32, 120, Duration::from_secs(70));
        watch.judged(entries);
        let buffer = watch.terminal.backend().buffer().clone();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn a_view_shows_progress_the_forest_and_what_is_open() {
        let text = screen(
            80,
            24,
            vec![
                entry("spin-queued", None, None),
                entry("cmd-queue", Some(1.5), Some(Verdict::Faster)),
                entry("rqspin", Some(0.97), Some(Verdict::Undecided)),
            ],
        );
        assert!(text.contains("round 12, 33/120; at most 3:30 left"), "{text}");
        assert!(text.contains("1 of 2 comparisons decided; 3 disturbed rounds"), "{text}");
        assert!(text.contains("same-cell-retry, 2 threads"), "{text}");
        assert!(text.contains("cmd-queue") && text.contains("1.50 +"), "{text}");
        assert!(text.contains("40 rounds"), "{text}");
    }

    /// Draws before the first round, and in a terminal that is too small for anything.
    #[test]
    fn a_view_without_rows_or_room_is_drawn() {
        assert!(screen(80, 24, Vec::new()).contains("0 of 0 comparisons decided"));
        let rows =
            (0..40).map(|row| entry(&format!("cell-{row}"), Some(1.1), Some(Verdict::Undecided)));
        for (width, height) in [(1, 1), (20, 5), (80, 10)] {
            screen(width, height, rows.clone().collect());
        }
    }
}
