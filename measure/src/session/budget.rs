//! Dividing the time: how long a window, and what is left out when time is short.

use std::time::Duration;

use cellbench_plots::number;
use cellbench_plots::options::ALPHA;
use cellbench_plots::stats::power;
use cellbench_record::Kind;

use super::plan::{Block, Plan};
use crate::backend::Configuration;

/// Standard deviation of a round's log ratio that plans reckon with: three of four compared rows of
/// a quiet host vary less.
pub const NOISE: f64 = 0.04;
/// Differences from this ratio on are to be found.
const RATIO: f64 = 1.05;
/// Rounds that a surveyed block gets before the compared ones have theirs.
pub const SURVEY_ROUNDS: u32 = 8;
/// Rounds without which measuring a compared block is not worth beginning.
const LEAST_ROUNDS: u32 = 12;
/// Shorter windows measure the harness.
const SHORTEST: Duration = Duration::from_millis(3);
/// Longer ones gather more disturbances than they average out, and under contention a window lies
/// in
/// one regime or another however long it is: the time is better spent on more rounds.
const LONGEST: Duration = Duration::from_millis(20);

/// Returns the time before a window of this length.
#[must_use]
pub fn warm_up(window: Duration) -> Duration {
    (window / 10).clamp(Duration::from_millis(1), Duration::from_millis(3))
}

/// Estimates what a measurement takes with a window of some length.
pub type Cost<'a, S> = &'a dyn Fn(&S, Duration) -> Duration;

/// Estimates what a round of these blocks takes.
fn cost_of<'a, S: 'a>(
    blocks: impl Iterator<Item = &'a Block<S>>,
    window: Duration,
    cost: Cost<'_, S>,
) -> Duration {
    blocks.flat_map(|block| &block.specs).map(|spec| cost(spec, window)).sum()
}

/// Returns the number of comparisons that a plan is to decide.
#[must_use]
pub fn comparisons<S>(plan: &Plan<S>) -> u32 {
    let compared = plan.blocks.iter().filter(|block| !block.surveyed);
    compared.map(|block| block.specs.len().saturating_sub(1) as u32).sum()
}

/// Returns the rounds that find differences of 5 % in a plan, where rounds vary by [`NOISE`].
#[must_use]
pub fn rounds<S>(plan: &Plan<S>) -> u32 {
    power::rounds_to_detect(RATIO, comparisons(plan), ALPHA, NOISE)
}

/// Says what a plan will be able to tell with `rounds` rounds, in a sentence.
#[must_use]
pub fn outlook<S: Configuration>(plan: &Plan<S>, rounds: u32, window: Duration) -> String {
    let comparisons = comparisons(plan);
    let what = format!(
        "{}, {}, about {} of {} ms windows",
        number::count(plan.len() as u64, "row"),
        number::count(comparisons, "comparison"),
        number::count(rounds, "round"),
        window.as_millis(),
    );
    match power::detectable_ratio(rounds, comparisons, ALPHA, NOISE) {
        _ if comparisons == 0 => format!("{what}: figures and intervals, no verdicts"),
        Some(ratio) => format!(
            "{what}: tells ratios beyond {:.0} % where rounds vary by {:.0} %",
            (ratio - 1.0) * 100.0,
            NOISE * 100.0
        ),
        None => format!(
            "{what}: too few to decide any; {} rounds are the least, so figures and intervals \
             without verdicts (fewer cells or workloads, or a longer --time-budget, decide)",
            power::rounds_needed(comparisons, ALPHA)
        ),
    }
}

/// Returns the least rounds that can decide each of a plan's comparisons, at least 10.
#[must_use]
pub fn least_to_decide<S>(plan: &Plan<S>) -> u32 {
    power::rounds_needed(comparisons(plan), ALPHA).max(10)
}

/// Says that `rounds` rounds decide none of a plan's comparisons, if that is so.
#[must_use]
pub fn too_few<S>(plan: &Plan<S>, rounds: u32) -> Option<String> {
    let comparisons = comparisons(plan);
    if comparisons == 0 || power::decidable(rounds, comparisons, ALPHA) {
        return None;
    }
    Some(format!(
        "{} can decide none of {}; {} are the least, so figures and intervals without verdicts \
         (fewer cells, workloads or thread counts, or more --rounds, decide)",
        number::count(rounds, "round"),
        number::count(comparisons, "comparison"),
        power::rounds_needed(comparisons, ALPHA),
    ))
}

/// Returns the rounds of a plan that fit into `budget`.
#[must_use]
pub fn rounds_in<S>(plan: &Plan<S>, window: Duration, budget: Duration, cost: Cost<'_, S>) -> u32 {
    let compared = cost_of(plan.blocks.iter().filter(|block| !block.surveyed), window, cost);
    let surveyed = cost_of(plan.blocks.iter().filter(|block| block.surveyed), window, cost);
    let left = budget.saturating_sub(surveyed * SURVEY_ROUNDS);
    if compared.is_zero() {
        return SURVEY_ROUNDS;
    }
    (left.as_secs_f64() / compared.as_secs_f64()) as u32
}

/// Estimates what so many rounds of a plan take, with windows of this length.
#[must_use]
pub fn total<S>(plan: &Plan<S>, rounds: u32, window: Duration, cost: Cost<'_, S>) -> Duration {
    let compared = cost_of(plan.blocks.iter().filter(|block| !block.surveyed), window, cost);
    let surveyed = cost_of(plan.blocks.iter().filter(|block| block.surveyed), window, cost);
    compared * rounds + surveyed * SURVEY_ROUNDS.min(rounds)
}

/// Returns the longest window with which the rounds of `plan` fit into `budget`.
#[must_use]
pub fn window<S>(plan: &Plan<S>, budget: Duration, cost: Cost<'_, S>) -> Duration {
    let rounds = rounds(plan);
    let fits = |window: &Duration| total(plan, rounds, *window, cost) <= budget;
    candidates().find(fits).unwrap_or(SHORTEST)
}

/// Leaves out the least important blocks until the rest fits into `budget` with the shortest
/// windows; notes in the plan what went. One block always stays.
pub fn fit<S: Configuration>(plan: &mut Plan<S>, budget: Duration, cost: Cost<'_, S>) {
    let needed = total(plan, LEAST_ROUNDS, SHORTEST, cost);
    if needed <= budget {
        return;
    }
    let before = plan.len();
    let mut blocks: Vec<(usize, Block<S>)> =
        std::mem::take(&mut plan.blocks).into_iter().enumerate().collect();
    let all = blocks.iter().map(|(_, block)| block.threads()).max().unwrap_or(1);
    // Most important first; among equals the order of the plan.
    blocks.sort_by_key(|(place, block)| (unimportance(block, all), *place));
    let mut blocks: Vec<Block<S>> = blocks.into_iter().map(|(_, block)| block).collect();
    let mut time = Duration::ZERO;
    let mut kept = 0;
    for block in &blocks {
        let rounds = if block.surveyed { SURVEY_ROUNDS } else { LEAST_ROUNDS };
        time += cost_of(std::iter::once(block), SHORTEST, cost) * rounds;
        if time > budget && kept > 0 {
            break;
        }
        kept += 1;
    }
    blocks.truncate(kept);
    plan.blocks = blocks;
    plan.skipped.push(format!(
        "{} of {before} configurations, to fit into {} s; --time-budget {}s covers all",
        before - plan.len(),
        budget.as_secs(),
        needed.as_secs() + 1
    ));
}

/// Fits `rounds` rounds of every block into `budget`: leaves out what must be, and returns the
/// window.
#[must_use]
pub fn fit_rounds<S>(
    plan: &mut Plan<S>,
    rounds: u32,
    budget: Duration,
    cost: Cost<'_, S>,
) -> Duration {
    let needed = |window| cost_of(plan.blocks.iter(), window, cost) * rounds;
    let longest = candidates().find(|window| needed(*window) <= budget);
    longest.unwrap_or_else(|| {
        let mut time = Duration::ZERO;
        let fits = |block: &&Block<S>| {
            time += cost_of(std::iter::once(*block), SHORTEST, cost) * rounds;
            time <= budget
        };
        let kept = plan.blocks.iter().take_while(fits).count().max(1);
        plan.blocks.truncate(kept);
        SHORTEST
    })
}

/// Returns the windows from the longest to the shortest.
fn candidates() -> impl Iterator<Item = Duration> {
    let (least, most) = (SHORTEST.as_micros() as u64, LONGEST.as_micros() as u64);
    (least..=most).rev().step_by(500).map(Duration::from_micros)
}

/// Returns the place of a block in the order of importance: whatever is largest goes first.
fn unimportance<S: Configuration>(block: &Block<S>, all: u32) -> u32 {
    let threads = block.threads();
    let kind = block.specs.first().map(|spec| &spec.series().kind);
    let mut rank = 0;
    if block.surveyed {
        rank += 4;
    }
    if threads != 1 && threads != all {
        rank += if threads == 2 { 1 } else { 2 };
    }
    if kind == Some(&Kind::Wq) {
        rank += 3;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cores;
    use crate::session::plan::{Matrix, Selection};
    use cellbench_host::Topology;

    fn plan() -> Plan {
        Plan::new(&Selection::of(Matrix::Headline), &Topology::read().unwrap()).unwrap()
    }

    #[test]
    fn more_time_makes_longer_windows_within_bounds() {
        let plan = plan();
        let windows =
            [1, 60, 600, 6000].map(|s| window(&plan, Duration::from_secs(s), &cores::cost));
        assert!(windows.is_sorted(), "{windows:?}");
        assert_eq!((windows[0], windows[3]), (SHORTEST, LONGEST));
        // What was found fits.
        let budget = Duration::from_secs(600);
        let needed = total(&plan, rounds(&plan), windows[2], &cores::cost);
        assert!(windows[2] == SHORTEST || needed <= budget);
    }

    #[test]
    fn what_can_be_told_is_said_beforehand() {
        let plan = plan();
        let enough = rounds(&plan);
        let said = outlook(&plan, enough, SHORTEST);
        assert!(said.contains("beyond 5 %") && said.contains("comparisons"), "{said}");
        let said = outlook(&plan, 8, SHORTEST);
        assert!(said.contains("too few to decide any"), "{said}");
    }

    #[test]
    fn rounds_that_decide_nothing_are_named() {
        let plan = plan();
        let least = least_to_decide(&plan);
        assert!(least >= 10);
        assert_eq!(too_few(&plan, least), None);
        let said = too_few(&plan, least - 1).filter(|_| least > 10);
        assert_eq!(said.is_some(), least > 10, "{said:?}");
        let said = too_few(&plan, 3).unwrap();
        assert!(
            said.contains("3 rounds can decide none") && said.contains("are the least"),
            "{said}"
        );
    }

    #[test]
    fn what_does_not_fit_goes_least_important_first_and_is_counted() {
        let mut plan = plan();
        let (before, time) = (plan.len(), total(&plan, LEAST_ROUNDS, SHORTEST, &cores::cost));
        fit(&mut plan, time, &cores::cost);
        assert_eq!(plan.len(), before, "all of it fits");
        fit(&mut plan, time / 4, &cores::cost);
        assert!(plan.len() < before && !plan.is_empty());
        assert!(plan.blocks.iter().any(|block| !block.surveyed));
        let note = plan.skipped.last().unwrap();
        assert!(note.starts_with(&format!("{} of {before}", before - plan.len())), "{note}");
        fit(&mut plan, Duration::ZERO, &cores::cost);
        assert_eq!(plan.blocks.len(), 1, "one block always stays");
    }

    #[test]
    fn rounds_that_fit_leave_blocks_out_only_when_they_must() {
        let mut plan = plan();
        let before = plan.len();
        assert_eq!(fit_rounds(&mut plan, 6, Duration::from_secs(100_000), &cores::cost), LONGEST);
        assert_eq!(plan.len(), before);
        assert_eq!(fit_rounds(&mut plan, 6, Duration::ZERO, &cores::cost), SHORTEST);
        assert_eq!(plan.blocks.len(), 1);
    }
}
