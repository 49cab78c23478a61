//! A run from its beginning to its end: description, budget, rounds, record.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cellbench_plots::number;
use cellbench_record::{Run, RunWriter, Settings as RunSettings, WriteError};

use super::budget;
use super::ctrl_c::CtrlC;
use super::plan::{Plan, Shard};
use super::progress::View;
use super::recorder::Recorder;
use super::rounds::{ROUNDS_BETWEEN_LOOKS, Rounds};
use crate::backend::{Backend, BackendError, Pace};
use crate::rng::Rng;

pub use super::rounds::Ended;

/// The revision of the sources that this was built from; none outside a checkout.
pub const GIT_REVISION: Option<&str> = option_env!("CELLBENCH_GIT_REVISION");

/// Settings of a run that do not depend on the backend.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory that the run's own is made in.
    pub out: PathBuf,
    /// Seed of every random choice.
    pub seed: u64,
    /// Time for everything but the reports; none: no limit.
    pub time_budget: Option<Duration>,
    /// Length of a window; none: as the budget allows, or as the backend does.
    pub window: Option<Duration>,
    /// Part of the plan that is measured.
    pub shard: Shard,
    /// Rounds after which to stop, decided or not.
    pub most_rounds: Option<u32>,
    /// Whether to stop measuring what is decided.
    pub stops_when_decided: bool,
    /// Relative difference that matters.
    pub threshold_share: f64,
    /// Cell that the others are compared with.
    pub baseline: String,
    /// Name of the matrix, for the record.
    pub matrix: String,
    /// Command that repeats the run.
    pub command_line: String,
    /// Whether to show the live view, where there is a terminal.
    pub watch: bool,
    /// Told, before the first round, what the plan will be able to tell.
    pub announce: fn(&str),
}

impl Settings {
    /// Returns what is known of a run before its backend says more.
    #[must_use]
    pub fn describe(&self) -> Run {
        Run {
            git_revision: GIT_REVISION.map(str::to_owned),
            command_line: self.command_line.clone(),
            baseline: self.baseline.clone(),
            settings: RunSettings {
                time_budget_s: self.time_budget.map(|budget| budget.as_secs_f64()),
                threshold_share: self.threshold_share,
                matrix: self.matrix.clone(),
                ..RunSettings::default()
            },
            ..Run::new(env!("CARGO_PKG_VERSION"), self.seed)
        }
    }
}

/// Outcome of a session.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Directory of the run.
    pub dir: PathBuf,
    /// Rounds begun.
    pub rounds: u32,
    /// Why it ended.
    pub ended: Ended,
    /// Rows whose invariants broke, with what broke, the first time for each.
    pub violations: Vec<String>,
}

/// A session failed; what was recorded before stays readable.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The record could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The backend could not measure.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Every configuration turned out not to be measurable.
    #[error("nothing could be measured; the last reason: {reason}")]
    NothingLeft {
        /// Why the last one could not.
        reason: String,
    },
    /// It ended before its time, after measurements that stay readable.
    #[error("{source}; {} before it, kept: `cellbench report {}`", number::count(*measured, "measurement"), dir.display())]
    Cut {
        /// Directory of the run.
        dir: PathBuf,
        /// Measurements in its record.
        measured: u64,
        /// Error that ended it.
        source: Box<SessionError>,
    },
}

/// Measures `plan` with `backend` and records it.
///
/// # Errors
/// [`SessionError`]; rounds that were finished are on disk.
pub fn run<B: Backend>(
    mut plan: Plan<B::Spec>,
    backend: &mut B,
    settings: &Settings,
    ctrl_c: CtrlC,
) -> Result<Finished, SessionError> {
    let began = Instant::now();
    let mut run = settings.describe();
    backend.describe(&mut run);
    run.shard = settings.shard.record(plan.len());
    let mut writer = RunWriter::create(&settings.out, run)?;
    backend.prepare(expected_time(&plan, backend, settings))?;

    let mut window = settings.window;
    if let (Some(budget), Pace::Interleaved) = (settings.time_budget, backend.pace()) {
        let left = budget.saturating_sub(began.elapsed());
        let cost = |spec: &B::Spec, window| backend.cost(spec, window);
        budget::fit(&mut plan, left, &cost);
        window = Some(window.unwrap_or_else(|| budget::window(&plan, left, &cost)));
    }
    let window = window.unwrap_or_default();
    let mut planned = settings.most_rounds;
    if backend.pace() == Pace::Interleaved {
        let left = settings.time_budget.map(|budget| budget.saturating_sub(began.elapsed()));
        let cost = |spec: &B::Spec, window| backend.cost(spec, window);
        let fit = left.map_or(u32::MAX, |left| budget::rounds_in(&plan, window, left, &cost));
        let rounds = fit.min(settings.most_rounds.unwrap_or(u32::MAX));
        planned = Some(rounds.max(1)).filter(|rounds| *rounds < u32::MAX);
        (settings.announce)(&budget::outlook(&plan, rounds.max(1), window));
    } else if settings.shard == Shard::WHOLE
        && let Some(text) = settings.most_rounds.and_then(|most| budget::too_few(&plan, most))
    {
        // How far they vary nobody knows before; that so few can decide nothing is known. A part is
        // joined with others, and with further seeds.
        (settings.announce)(&text);
    }
    let skipped: Vec<String> =
        plan.skipped.iter().map(|what| format!("left out: {what}")).collect();
    let describe = |run: &mut Run, backend: &B| {
        run.notes.clear();
        backend.describe(run);
        run.notes.extend(skipped.iter().cloned());
    };
    writer.update_run(|run| {
        describe(run, backend);
        run.settings.window_s = window.as_secs_f64();
        run.settings.rounds = planned;
    })?;

    let baselines = plan.blocks.iter().map(|_| settings.baseline.as_str());
    let judges = settings.stops_when_decided.then(|| budget::comparisons(&plan));
    let view = View::new(settings.watch, &settings.baseline, settings.time_budget);
    let mut recorder = Recorder::new(&mut writer, baselines, judges).shown_by(&view);
    let rounds = Rounds {
        first: 0,
        most: settings.most_rounds.unwrap_or(u32::MAX),
        look_every: ROUNDS_BETWEEN_LOOKS,
        shard: settings.shard,
        window,
        began,
        time_budget: settings.time_budget,
        seed: settings.seed,
        stop: &|| ctrl_c.is_requested(),
        progress: &|number, place, places| view.at(number, place, places, began.elapsed()),
    };
    let mut rng = Rng::new(settings.seed);
    let outcome = rounds.run(&plan, backend, &mut recorder, &mut rng);
    let Recorder { violations, left_out, sampled_every, measured, .. } = recorder;
    view.finish();
    let (ended, rounds) = outcome.map_err(|error| cut(&mut writer, measured, error))?;
    writer.update_run(|run| {
        describe(run, backend);
        run.notes.extend(left_out.iter().map(|what| format!("left out: {what}")));
        run.settings.latency_sample_every = sampled_every;
        run.finished_unix_s = Some(unix_s());
        match ended {
            Ended::Interrupted => run.notes.push("interrupted by the user".to_owned()),
            Ended::Decided => {
                run.notes.push(format!("every comparison was decided after {rounds} rounds"));
            }
            Ended::Spent => {}
        }
    })?;
    writer.point_latest()?;
    Ok(Finished { dir: writer.dir().to_owned(), rounds, ended, violations })
}

/// Returns the time that a run will take, as far as it is known before its backend is prepared: its budget, or less
/// where rounds and window are given. None: it has no end of its own.
fn expected_time<B: Backend>(
    plan: &Plan<B::Spec>,
    backend: &B,
    settings: &Settings,
) -> Option<Duration> {
    let given = settings.most_rounds.zip(settings.window);
    let given = given.map(|(rounds, window)| {
        let cost = |spec: &B::Spec, window| backend.cost(spec, window);
        budget::total(plan, rounds, window, &cost)
    });
    [settings.time_budget, given].into_iter().flatten().min()
}

/// Notes in the record what ended a session before its time, and returns it with the place of what was
/// measured before.
fn cut(writer: &mut RunWriter, measured: u64, error: SessionError) -> SessionError {
    if measured == 0 {
        return error;
    }
    // Where this cannot be written either, the record says all the same that the run did not end.
    let _ = writer.update_run(|run| run.notes.push(format!("ended by an error: {error}")));
    SessionError::Cut { dir: writer.dir().to_owned(), measured, source: Box::new(error) }
}

/// Returns the time, in seconds since 1970.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use cellbench_record::{Kind, Round, RunReader, Series, Source};

    use super::*;
    use crate::backend::Measured;
    use crate::session::plan::Block;
    use crate::session::rounds::tests::Spec;

    /// Measures so often before its CPU goes away.
    struct Goes(u32);

    impl Backend for Goes {
        type Spec = Spec;

        fn pace(&self) -> Pace {
            Pace::Interleaved
        }

        fn describe(&self, _: &mut Run) {}

        fn cost(&self, _: &Spec, window: Duration) -> Duration {
            window
        }

        fn measure(
            &mut self,
            batch: &[&Spec],
            _: Duration,
            _: u64,
        ) -> Result<Vec<Measured>, BackendError> {
            let left = self.0.checked_sub(1);
            self.0 = left.ok_or_else(|| BackendError::failed(std::fmt::Error))?;
            let measured = |spec: &&Spec| Measured::of(Round::new(spec.0.clone(), 0, 1.0));
            Ok(batch.iter().map(measured).collect())
        }
    }

    fn settings() -> Settings {
        Settings {
            out: PathBuf::new(),
            seed: 7,
            time_budget: None,
            window: Some(Duration::from_millis(1)),
            shard: Shard::WHOLE,
            most_rounds: Some(9),
            stops_when_decided: false,
            threshold_share: 0.01,
            baseline: "one".to_owned(),
            matrix: "chosen".to_owned(),
            command_line: "cellbench run".to_owned(),
            watch: false,
            announce: |_| (),
        }
    }

    fn fails_after(measured: u32, out: PathBuf) -> SessionError {
        let spec = Spec(Series::new("one", Kind::Timer, "w", 1, "compact", Source::Model));
        let block = Block { specs: vec![spec], surveyed: false };
        let plan = Plan { blocks: vec![block], skipped: Vec::new() };
        let settings = Settings { out, ..settings() };
        let ctrl_c = CtrlC::install().unwrap();
        run(plan, &mut Goes(measured), &settings, ctrl_c).unwrap_err()
    }

    #[test]
    fn an_error_in_mid_run_says_where_the_measurements_before_it_are() {
        let out = tempfile::tempdir().unwrap();
        let error = fails_after(2, out.path().to_owned());
        let SessionError::Cut { dir, measured: 2, .. } = &error else { panic!("{error}") };
        let said = error.to_string();
        let asked = format!("2 measurements before it, kept: `cellbench report {}`", dir.display());
        assert!(said.contains(&asked), "{said}");
        let run = RunReader::open(dir).unwrap().run().clone();
        assert_eq!((run.finished_unix_s, run.settings.rounds), (None, Some(9)));
        assert!(run.notes.iter().any(|note| note.starts_with("ended by an error: ")), "{run:?}");
    }

    /// Preparations do not take minutes where the measurement takes seconds.
    #[test]
    fn preparations_follow_what_is_measured() {
        let spec = |name| Spec(Series::new(name, Kind::Timer, "w", 1, "compact", Source::Model));
        let specs = vec![spec("one"), spec("other")];
        let plan = Plan { blocks: vec![Block { specs, surveyed: false }], skipped: Vec::new() };
        let expected = |time_budget, most_rounds, window_ms: Option<u64>| {
            let window = window_ms.map(Duration::from_millis);
            let settings = Settings { time_budget, most_rounds, window, ..settings() };
            expected_time(&plan, &Goes(0), &settings).map(|time| time.as_millis())
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(expected(minute, Some(3), Some(2)), Some(12));
        assert_eq!(expected(None, Some(3), Some(2)), Some(12));
        assert_eq!(expected(minute, Some(1_000_000), Some(2)), Some(60_000));
        assert_eq!(expected(minute, Some(3), None), Some(60_000));
        assert_eq!(expected(None, None, Some(2)), None);
    }

    #[test]
    fn an_error_before_the_first_measurement_promises_nothing() {
        let out = tempfile::tempdir().unwrap();
        let error = fails_after(0, out.path().to_owned());
        assert!(matches!(error, SessionError::Backend(_)), "{error}");
    }
}
