//! Can this tool be believed on this host? Two experiments whose outcome is known:
//!
//! - A/A: every row of the matrix against itself under a second name. Nothing differs, so at the 5 %
//!   level at most 5 % of the comparisons may be called different, and none after correction.
//! - Planted: a cell against itself slowed by 2, 5 and 10 %, again and again. The slow-down is work
//!   added to the cell's interrupt-off section; how much it slows is measured over many more rounds
//!   than a try has.

use std::time::{Duration, Instant};

use cellbench_plots::stats::median;
use cellbench_record::{AaCheck, Entry, PlantedCheck, Run, RunWriter, SelfTest, Verdict};

use cellbench_measure::backend::Measured;
use cellbench_measure::backend::cores::{self, Cores};
use cellbench_measure::rng::Rng;
use cellbench_measure::session::plan::{Block, Plan, Shard, Spec};
use cellbench_measure::session::recorder::Recorder;
use cellbench_measure::session::rounds::{Ended, Observer, ROUNDS_BETWEEN_LOOKS, Rounds};
use cellbench_measure::session::run::SessionError;
use cellbench_measure::session::subject::TWIN;

/// Significance level of a single comparison.
const LEVEL: f64 = 0.05;
/// Share of the tries in which a planted slow-down must be found, by its size in percent.
const MUST_FIND: &[(f64, f64)] = &[(2.0, 0.5), (5.0, 0.95), (10.0, 0.95)];
/// Rounds over which a planted slow-down is measured.
const TRUTH_ROUNDS: u32 = 150;
/// Most turns tried to reach a slow-down.
const MOST_TURNS: u32 = 64;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each comparison: the tool's own default.
    pub rounds: u32,
    /// Tries of each planted slow-down.
    pub tries: u32,
}

impl Effort {
    /// Returns the time that the planted slow-downs of `spec` take.
    #[must_use]
    pub fn planted_time(self, spec: &Spec, window: Duration) -> Duration {
        let sizes = MUST_FIND.len() as u32;
        let bisection = sizes * MOST_TURNS.ilog2() * TRUTH_ROUNDS * 2;
        cores::cost(spec, window) * (bisection + self.tries * self.rounds * (sizes + 1))
    }
}

/// Returns whether every slow-down was tried.
#[must_use]
pub fn is_finished(outcome: &SelfTest) -> bool {
    let planted = &outcome.planted;
    outcome.aa.comparisons > 0
        && planted.len() == MUST_FIND.len()
        && planted.iter().all(|check| check.tries > 0)
}

/// Shows what is being done, and how much of it.
pub type Tell<'a> = &'a dyn Fn(&str, u32, u32);

/// A self-test under way.
pub struct SelfTester<'a, 't> {
    /// For measuring.
    pub cores: &'a mut Cores<'t>,
    /// Length of a window.
    pub window: Duration,
    /// Where rounds go.
    pub writer: &'a mut RunWriter,
    /// Seed of every random choice.
    pub seed: u64,
    /// Asked before each measurement whether to stop.
    pub stop: &'a dyn Fn() -> bool,
}

/// Goodput of a cell and of the same slowed, round by round.
#[derive(Default)]
struct Goodputs {
    usual: Vec<f64>,
    slowed: Vec<f64>,
}

impl Goodputs {
    /// Returns the median slow-down in percent, over rounds with success on both sides; none if there is
    /// no such round.
    fn slowdown_percent(&self) -> Option<f64> {
        let pairs = self.slowed.iter().zip(&self.usual);
        let both = pairs.filter(|(slowed, usual)| **slowed > 0.0 && **usual > 0.0);
        let mut shares: Vec<f64> = both.map(|(slowed, usual)| slowed / usual).collect();
        median(&mut shares).map(|share| (1.0 - share) * 100.0)
    }
}

impl Observer<Spec> for Goodputs {
    fn measured(&mut self, _: usize, spec: &Spec, found: Measured) -> Result<(), SessionError> {
        let goodput = found.round.goodput_ops_s().unwrap_or(0.0);
        if spec.subject.extra_turns > 0 { &mut self.slowed } else { &mut self.usual }.push(goodput);
        Ok(())
    }
}

/// Returns a plan in which every row stands twice, with blocks of two.
#[must_use]
pub fn twins(plan: &Plan) -> Plan {
    let pair = |spec: &Spec| {
        let subject = spec.subject.twin();
        let series = spec.series.with_cell(&subject.name);
        let twin = Spec { series, subject, ..spec.clone() };
        Block { specs: vec![spec.clone(), twin], surveyed: false }
    };
    let blocks = plan.blocks.iter().flat_map(|block| block.specs.iter().map(pair)).collect();
    Plan { blocks, skipped: plan.skipped.clone() }
}

impl SelfTester<'_, '_> {
    /// Measures every pair of `plan` (see [`twins`]) in so many rounds.
    ///
    /// # Errors
    /// [`SessionError`] if a round could not be measured or recorded.
    pub fn a_a(
        &mut self,
        plan: &Plan,
        rounds: u32,
        tell: Tell<'_>,
    ) -> Result<AaCheck, SessionError> {
        let baselines: Vec<&str> =
            plan.blocks.iter().map(|block| block.specs[0].series.cell.as_str()).collect();
        let mut recorder = Recorder::new(self.writer, baselines.into_iter(), None);
        let progress = |number, _, _| tell("A/A, round", number + 1, rounds);
        let bounds = bounds(self.window, self.seed, 0, rounds, self.stop, &progress);
        bounds.run(plan, self.cores, &mut recorder, &mut Rng::new(self.seed))?;
        let entries = recorder.entries().into_iter();
        let p_values: Vec<f64> = entries
            .filter(|entry| entry.series.cell.ends_with(TWIN))
            .filter_map(|entry| entry.p_value)
            .collect();
        let below = |p_values: &[f64]| p_values.iter().filter(|p| **p < LEVEL).count() as u32;
        Ok(AaCheck {
            comparisons: p_values.len() as u32,
            different_uncorrected: below(&p_values),
            // Each block is a table of its own here, with the row itself for a baseline: Bonferroni.
            different: p_values.iter().filter(|p| **p * p_values.len() as f64 <= LEVEL).count()
                as u32,
        })
    }

    /// Tries slow-downs of `spec`, a locked cell, of about 2, 5 and 10 %, each so many times. A
    /// slow-down whose size could not be measured in time is left out.
    ///
    /// # Errors
    /// [`SessionError`] if a round could not be measured or recorded.
    pub fn planted(
        &mut self,
        spec: &Spec,
        effort: Effort,
        tell: Tell<'_>,
    ) -> Result<Vec<PlantedCheck>, SessionError> {
        let mut rng = Rng::new(self.seed ^ 1);
        let mut specs = vec![spec.clone()];
        let mut checks = Vec::new();
        for (percent, _) in MUST_FIND {
            // Without a slow-down that could be measured there is none to look for; the check fails.
            let found = self.turns_for(spec, *percent, &mut rng, tell)?;
            let (Some((turns, measured_percent)), false) = (found, (self.stop)()) else {
                return Ok(Vec::new());
            };
            specs.push(slowed(spec, *percent, turns));
            checks.push(PlantedCheck {
                cell: spec.series.cell.clone(),
                workload: spec.workload.to_owned(),
                slowdown_percent: (measured_percent * 10.0).round() / 10.0,
                ..PlantedCheck::default()
            });
        }
        let plan = one_block(specs);
        for one in 0..effort.tries {
            tell("planted slow-downs, try", one + 1, effort.tries);
            let baselines = std::iter::once(spec.series.cell.as_str());
            let mut recorder = Recorder::new(self.writer, baselines, None);
            let first = one * effort.rounds;
            let bounds =
                bounds(self.window, self.seed, first, effort.rounds, self.stop, &|_, _, _| ());
            let (ended, _) = bounds.run(&plan, self.cores, &mut recorder, &mut rng)?;
            if ended == Ended::Interrupted {
                return Ok(checks);
            }
            let entries = recorder.entries();
            for (check, slowed) in checks.iter_mut().zip(&plan.blocks[0].specs[1..]) {
                let is_it = |entry: &&Entry| entry.series == slowed.series;
                let verdict = entries.iter().find(is_it).and_then(|entry| entry.verdict);
                check.tries += 1;
                check.found += u32::from(verdict == Some(Verdict::Slower));
            }
        }
        Ok(checks)
    }

    /// Finds the turns of extra work that come closest to `percent`, and what they amount to; none if no
    /// round with success was measured.
    fn turns_for(
        &mut self,
        spec: &Spec,
        percent: f64,
        rng: &mut Rng,
        tell: Tell<'_>,
    ) -> Result<Option<(u32, f64)>, SessionError> {
        let mut best: Option<(u32, f64)> = None;
        // The slow-down grows with the turns: bisection, then a look at both ends.
        let (mut low, mut high) = (0, MOST_TURNS);
        while high - low > 1 {
            let turns = low.midpoint(high);
            tell(&format!("measuring a slow-down of {percent} %, turns"), turns, MOST_TURNS);
            let Some(found) = self.slowdown_percent(spec, turns, rng)? else { break };
            if best.is_none_or(|(_, best)| (found - percent).abs() < (best - percent).abs()) {
                best = Some((turns, found));
            }
            if (self.stop)() {
                break;
            }
            if found < percent { low = turns } else { high = turns }
        }
        Ok(best)
    }

    /// Measures how much `turns` turns slow the cell down: median over many rounds, in percent of
    /// goodput; none if no round had success on both sides. These rounds are not recorded.
    fn slowdown_percent(
        &mut self,
        spec: &Spec,
        turns: u32,
        rng: &mut Rng,
    ) -> Result<Option<f64>, SessionError> {
        let plan = one_block(vec![spec.clone(), slowed(spec, 0.0, turns)]);
        let mut goodputs = Goodputs::default();
        let bounds = bounds(self.window, self.seed, 0, TRUTH_ROUNDS, self.stop, &|_, _, _| ());
        bounds.run(&plan, self.cores, &mut goodputs, rng)?;
        Ok(goodputs.slowdown_percent())
    }
}

/// Returns the bounds of a loop without a time budget: who stops it looks at the clock.
fn bounds<'a>(
    window: Duration,
    seed: u64,
    first: u32,
    most: u32,
    stop: &'a dyn Fn() -> bool,
    progress: &'a dyn Fn(u32, usize, usize),
) -> Rounds<'a> {
    Rounds {
        first,
        most,
        look_every: ROUNDS_BETWEEN_LOOKS,
        shard: Shard::WHOLE,
        window,
        began: Instant::now(),
        time_budget: None,
        seed,
        stop,
        progress,
    }
}

fn one_block(specs: Vec<Spec>) -> Plan {
    Plan { blocks: vec![Block { specs, surveyed: false }], skipped: Vec::new() }
}

fn slowed(spec: &Spec, percent: f64, turns: u32) -> Spec {
    let subject = spec.subject.slowed(percent, turns);
    let series = spec.series.with_cell(&subject.name);
    Spec { series, subject, ..spec.clone() }
}

/// Judges both parts together.
#[must_use]
pub fn judge(aa: AaCheck, planted: Vec<PlantedCheck>, run: &Run) -> SelfTest {
    let aa_holds = aa.comparisons > 0
        && aa.different == 0
        && f64::from(aa.different_uncorrected) <= LEVEL * f64::from(aa.comparisons);
    let enough = |(check, (_, share)): (&PlantedCheck, &(f64, f64))| {
        check.tries > 0 && f64::from(check.found) >= share * f64::from(check.tries)
    };
    let planted_holds =
        planted.len() == MUST_FIND.len() && planted.iter().zip(MUST_FIND).all(enough);
    SelfTest {
        aa,
        planted,
        passed: aa_holds && planted_holds,
        command_line: run.command_line.clone(),
        ..SelfTest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(found: [u32; 3]) -> Vec<PlantedCheck> {
        found
            .into_iter()
            .map(|found| PlantedCheck { tries: 40, found, ..PlantedCheck::default() })
            .collect()
    }

    #[test]
    fn every_bound_must_be_met() {
        let aa = AaCheck { comparisons: 200, different_uncorrected: 10, different: 0 };
        let run = Run::default();
        let passed = |aa: &AaCheck, found| judge(aa.clone(), planted(found), &run).passed;
        assert!(passed(&aa, [20, 38, 38]));
        assert!(!passed(&aa, [19, 38, 38]), "2 % in half of the tries");
        assert!(!passed(&aa, [20, 37, 38]), "5 % in 95 %");
        assert!(!passed(&AaCheck { different_uncorrected: 11, ..aa.clone() }, [40, 40, 40]));
        assert!(!passed(&AaCheck { different: 1, ..aa.clone() }, [40, 40, 40]));
        assert!(!passed(&AaCheck::default(), [40, 40, 40]), "nothing compared proves nothing");
        let unfinished = judge(aa, Vec::new(), &run);
        assert!(!unfinished.passed && !is_finished(&unfinished));
    }

    #[test]
    fn rounds_without_success_have_no_slow_down() {
        let slowdown = |slowed: &[f64], usual: &[f64]| {
            Goodputs { slowed: slowed.to_vec(), usual: usual.to_vec() }.slowdown_percent()
        };
        assert_eq!(slowdown(&[], &[]), None);
        assert_eq!(slowdown(&[0.0, 0.0], &[0.0, 4.0]), None);
        assert_eq!(slowdown(&[0.0, 3.0], &[0.0, 4.0]), Some(25.0));
    }

    #[test]
    fn twins_stand_beside_the_row_they_repeat() {
        use cellbench_host::Topology;
        use cellbench_measure::session::plan::{Matrix, Selection};
        let plan = Plan::new(&Selection::of(Matrix::Quick), &Topology::read().unwrap()).unwrap();
        let doubled = twins(&plan);
        assert_eq!(doubled.len(), 2 * plan.len());
        for block in &doubled.blocks {
            let [one, twin] = &block.specs[..] else { panic!("a pair") };
            assert_eq!(one.series.with_cell(&twin.series.cell), twin.series);
            assert_eq!(format!("{}{TWIN}", one.series.cell), twin.series.cell);
        }
    }
}
