//! The loop over rounds, for every backend and every use: shuffles, measures, numbers, and asks
//! whether it is enough.
//!
//! Each round goes once over the blocks that are not decided yet. Where time matters
//! ([`Pace::Interleaved`]) blocks come in shuffled order, and within a block its configurations: what
//! is compared runs within a second of each other, and none always runs first. Every result is
//! handed to the [`Observer`] before the next is measured.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::budget::SURVEY_ROUNDS;
use super::plan::{Plan, Shard};
use super::run::SessionError;
use crate::backend::{Backend, BackendError, Configuration, Measured, Pace};
use crate::rng::{Rng, round_seed};

/// Rounds between two looks whether a block is decided: looking often finds what is not there.
pub const ROUNDS_BETWEEN_LOOKS: u32 = 5;

/// Whoever takes the results of a loop.
pub trait Observer<S> {
    /// Takes a result; `block` is the index in the plan.
    ///
    /// # Errors
    /// [`SessionError`] ends the loop.
    fn measured(&mut self, block: usize, spec: &S, measured: Measured) -> Result<(), SessionError>;

    /// Learns that a configuration could not be measured, in a sentence.
    fn left_out(&mut self, what: String) {
        let _ = what;
    }

    /// Says whether a block needs no more rounds.
    fn is_decided(&mut self, block: usize) -> bool {
        let _ = block;
        false
    }

    /// Learns that a round is over.
    ///
    /// # Errors
    /// [`SessionError`] ends the loop.
    fn round_ended(&mut self) -> Result<(), SessionError> {
        Ok(())
    }
}

/// Why a loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every block is decided.
    Decided,
    /// The time budget, or the number of rounds, is used up.
    Spent,
    /// The user interrupted.
    Interrupted,
}

/// Bounds of a loop.
pub struct Rounds<'a> {
    /// Number of the first round in records.
    pub first: u32,
    /// Most rounds.
    pub most: u32,
    /// Rounds between two looks whether blocks are decided.
    pub look_every: u32,
    /// Part of the plan that is measured; positions are those in the whole.
    pub shard: Shard,
    /// Length of a window.
    pub window: Duration,
    /// When the session began.
    pub began: Instant,
    /// Time since then in which the loop must end; none: no limit.
    pub time_budget: Option<Duration>,
    /// Seed of backends that take one for a whole round.
    pub seed: u64,
    /// Asked before each batch whether the user wants to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Told the index of the round, the place in it and the number of places.
    pub progress: &'a dyn Fn(u32, usize, usize),
}

/// One configuration's turn in a round.
#[derive(Clone, Copy)]
struct Turn {
    block: usize,
    spec: usize,
    position: u32,
    seed: u64,
}

impl Rounds<'_> {
    /// Runs the loop; returns why it ended and how many rounds were begun.
    ///
    /// # Errors
    /// [`SessionError`]; what was observed before stays.
    pub fn run<B: Backend>(
        &self,
        plan: &Plan<B::Spec>,
        backend: &mut B,
        observer: &mut dyn Observer<B::Spec>,
        rng: &mut Rng,
    ) -> Result<(Ended, u32), SessionError> {
        let spec = |turn: &Turn| &plan.blocks[turn.block].specs[turn.spec];
        let mut decided = vec![false; plan.blocks.len()];
        let held = plan.held(self.shard);
        let mut left_out: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut last_reason = String::new();
        let mut pace = Observed::new(plan.blocks.len());
        for number in 0..self.most {
            let due = due(plan, &decided, number);
            if due.is_empty() {
                return Ok((Ended::Decided, number));
            }
            let mut turns = self.turns(plan, due.clone(), backend.pace(), number, rng);
            turns.retain(|turn| {
                let place = (turn.block, turn.spec);
                held.contains(&place) && !left_out.contains(&place)
            });
            let size = match backend.pace() {
                Pace::Interleaved => 1,
                Pace::Batches(size) => size,
            };
            let mut block = None;
            for (place, batch) in turns.chunks(size).enumerate() {
                if (self.stop)() {
                    return Ok((Ended::Interrupted, number + u32::from(place > 0)));
                }
                // What is compared is measured as a whole or not at all: a block, or a whole round.
                let begins = match backend.pace() {
                    Pace::Interleaved => block.replace(batch[0].block) != Some(batch[0].block),
                    Pace::Batches(_) => place == 0,
                };
                let first = number == 0 && place == 0;
                if begins && !first {
                    let unit = turns.iter().filter(|turn| size > 1 || turn.block == batch[0].block);
                    let cost = unit.map(|turn| backend.cost(spec(turn), self.window)).sum();
                    if self.is_spent(pace.expected(batch[0].block, cost)) {
                        return Ok((Ended::Spent, number + u32::from(place > 0)));
                    }
                }
                (self.progress)(number, place, turns.len().div_ceil(size));
                let start_s = self.began.elapsed().as_secs_f64();
                let specs: Vec<&B::Spec> = batch.iter().map(spec).collect();
                let estimated = specs.iter().map(|spec| backend.cost(spec, self.window)).sum();
                let before = Instant::now();
                let outcome = backend.measure(&specs, self.window, batch[0].seed);
                pace.took(batch[0].block, estimated, before.elapsed());
                match outcome {
                    Ok(all) => {
                        for (turn, mut measured) in batch.iter().zip(all) {
                            measured.round.round = self.first + number;
                            measured.round.position = turn.position;
                            if backend.pace() == Pace::Interleaved {
                                measured.round.start_s = start_s;
                            }
                            observer.measured(turn.block, spec(turn), measured)?;
                        }
                    }
                    Err(BackendError::LeftOut { what, reason, for_good }) => {
                        last_reason = format!("{what}: {reason}");
                        observer.left_out(last_reason.clone());
                        if for_good {
                            left_out.extend(batch.iter().map(|turn| (turn.block, turn.spec)));
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if left_out.len() == held.len() {
                return Err(SessionError::NothingLeft { reason: last_reason });
            }
            backend.end_round()?;
            observer.round_ended()?;
            if (number + 1).is_multiple_of(self.look_every) {
                for block in due {
                    decided[block] = observer.is_decided(block);
                }
            }
        }
        Ok((Ended::Spent, self.most))
    }

    /// Returns the turns of a round in their order.
    fn turns<S: Configuration>(
        &self,
        plan: &Plan<S>,
        mut blocks: Vec<usize>,
        pace: Pace,
        number: u32,
        rng: &mut Rng,
    ) -> Vec<Turn> {
        if pace == Pace::Interleaved {
            rng.shuffle(&mut blocks);
        }
        let mut turns = Vec::with_capacity(plan.len());
        for block in blocks {
            let mut order: Vec<usize> = (0..plan.blocks[block].specs.len()).collect();
            // The same for all of a block: their workloads make the same choices.
            let seed = match pace {
                Pace::Interleaved => {
                    rng.shuffle(&mut order);
                    rng.number()
                }
                Pace::Batches(_) => round_seed(self.seed, number),
            };
            let turn = |(position, spec)| Turn { block, spec, position, seed };
            turns.extend((0..).zip(order).map(turn));
        }
        turns
    }

    /// Says whether there is no time left for what takes `cost`.
    fn is_spent(&self, cost: Duration) -> bool {
        self.time_budget.is_some_and(|budget| self.began.elapsed().saturating_add(cost) > budget)
    }
}

/// Durations of measurements beside their estimates: a host may be slower by far (an emulated
/// one, or one with fewer processors than it shows), and a budget is to hold there too.
struct Observed {
    /// By block, with a whole plan's at the end: the estimates, and what it was.
    sums: Vec<(Duration, Duration)>,
}

impl Observed {
    fn new(blocks: usize) -> Self {
        Self { sums: vec![(Duration::ZERO, Duration::ZERO); blocks + 1] }
    }

    /// Learns what something of a block took.
    fn took(&mut self, block: usize, estimated: Duration, took: Duration) {
        let all = self.sums.len() - 1;
        for of in [block, all] {
            self.sums[of].0 += estimated;
            self.sums[of].1 += took;
        }
    }

    /// Returns what is to be expected of something in a block that is estimated to take `cost`: no less, and
    /// longer by as much as the block did before; one that was not measured yet, by as much as the others.
    fn expected(&self, block: usize, cost: Duration) -> Duration {
        let known = [self.sums.get(block), self.sums.last()].into_iter().flatten();
        let slower = known
            .filter(|(estimated, _)| !estimated.is_zero())
            .map(|(estimated, took)| took.as_secs_f64() / estimated.as_secs_f64())
            .next()
            .unwrap_or(1.0);
        Duration::try_from_secs_f64(cost.as_secs_f64() * slower.max(1.0)).unwrap_or(Duration::MAX)
    }
}

/// Returns the blocks of a round: first all, then those that are compared, then those that are
/// surveyed, each until it is decided.
fn due<S>(plan: &Plan<S>, decided: &[bool], number: u32) -> Vec<usize> {
    let undecided = |surveyed: Option<bool>| -> Vec<usize> {
        (0..plan.blocks.len())
            .filter(|index| {
                let block = &plan.blocks[*index];
                !decided[*index] && surveyed.is_none_or(|surveyed| block.surveyed == surveyed)
            })
            .collect()
    };
    if number < SURVEY_ROUNDS {
        return undecided(None);
    }
    let compared = undecided(Some(false));
    if compared.is_empty() { undecided(Some(true)) } else { compared }
}

#[cfg(test)]
pub mod tests;
