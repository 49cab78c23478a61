//! Cost of the instruments on this host, measured in the run that uses them.
//!
//! Through the very loops that measure: an empty operation goes through the same worker, batch and
//! clock as a cell, and the price of sampling latency is the difference that switching it off makes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use cellbench_impls::machine::Charges;
use cellbench_impls::platform::{Memory, Native};
use cellbench_record::{Calibration, Kind, Series, Source};
use cellbench_workloads::EngineNeed;
use cellbench_workloads::trial::Needs;
use serde::{Deserialize, Serialize};

use super::round::{Bench, Conditions, RoundError};
use crate::session::plan::Spec;
use crate::session::subject;
use cellbench_host::c2c::{C2cError, Effort};
use cellbench_host::clock::{Clock, median};
use cellbench_host::cpus::CpuId;
use cellbench_host::pin::{PinError, pin};
use cellbench_host::threads::together;
use cellbench_host::{Placement, Topology, limits};

/// CPUs between which line transfers are measured: pairs grow with the square.
const MOST_CPUS: usize = 16;
/// Pairs of rounds that show whether a charge arrives.
const CHARGE_PAIRS: usize = 9;
/// Times that a charge around a lock is corrected by what of it arrived.
const CORRECTIONS: usize = 3;
/// The lock whose charges stand for those of designs and locks that were not measured themselves.
const USUAL_LOCK: &str = "spin-queued";
/// Repetitions, of which the median counts.
const REPETITIONS: usize = 9;
/// Tries of each repetition to get an undisturbed one.
const TRIES: usize = 3;
/// The cell and workload whose throughput shows what sampling costs: a short operation.
const SAMPLED: (&str, &str) = ("spin-queued", "solo-start");

/// The host's own figures that rounds need, and those for the record.
#[derive(Clone, Debug)]
pub struct Instruments {
    /// For the record.
    pub calibration: Calibration,
    /// Length of a charge.
    pub lengths: Lengths,
}

/// The length of a turn and of a charge on this host, by which nanoseconds become turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Turns of `Memory::spend` in a microsecond.
    pub turns_per_us: u32,
    /// Nanoseconds of a charge of no turns: what its fences cost alone.
    pub charge_fixed_ns: f64,
    /// The same of the charge for masking interrupts around a lock, by its name: less than alone, since a
    /// locked instruction beside the charge has made the processor wait already.
    pub fixed_around_ns: BTreeMap<String, f64>,
}

impl Lengths {
    /// Relative difference of two calibrations of one host up to which they are taken for equal.
    const SAME_SHARE: f64 = 0.03;

    /// Returns the median of several calibrations, figure by figure.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn median_of(all: &[Self]) -> Self {
        let mut turns: Vec<f64> = all.iter().map(|one| f64::from(one.turns_per_us)).collect();
        let mut fixed_ns: Vec<f64> = all.iter().map(|one| one.charge_fixed_ns).collect();
        let turns_per_us = median(&mut turns).round() as u32;
        let locks = all.iter().flat_map(|one| one.fixed_around_ns.keys().cloned());
        let fixed_around_ns = locks.map(|lock| {
            let found = all.iter().filter_map(|one| one.fixed_around_ns.get(&lock).copied());
            let median = median(&mut found.collect::<Vec<f64>>());
            (lock, median)
        });
        let fixed_around_ns = fixed_around_ns.collect();
        Self { turns_per_us, charge_fixed_ns: median(&mut fixed_ns), fixed_around_ns }
    }

    /// Tells whether two calibrations found the same but for noise.
    #[must_use]
    pub fn agrees_with(&self, other: &Self) -> bool {
        let (one, two) = (f64::from(self.turns_per_us), f64::from(other.turns_per_us));
        let turn_ns = 1000.0 / one.min(two).max(1.0);
        (one - two).abs() <= Self::SAME_SHARE * one.max(two)
            && (self.charge_fixed_ns - other.charge_fixed_ns).abs() <= turn_ns
    }

    /// Returns the turns of `Memory::charge` that take `ns`; at least one where anything is
    /// charged.
    #[must_use]
    pub fn charge_turns(&self, ns: f64) -> u32 {
        self.turns_beyond(self.charge_fixed_ns, ns)
    }

    /// Returns the turns of `Memory::charge` by which masking interrupts around the lock named `lock` takes
    /// `ns` longer. Any other design is charged as the usual lock is.
    #[must_use]
    pub fn irq_save_turns(&self, ns: f64, lock: &str) -> u32 {
        let around = self.fixed_around_ns.get(lock).or(self.fixed_around_ns.get(USUAL_LOCK));
        self.turns_beyond(around.copied().unwrap_or(self.charge_fixed_ns), ns)
    }

    fn turns_beyond(&self, fixed_ns: f64, ns: f64) -> u32 {
        if ns <= 0.0 {
            return 0;
        }
        let turns = (ns - fixed_ns) * f64::from(self.turns_per_us) / 1000.0;
        (turns.round() as u32).max(1)
    }
}

/// Calibration failed.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// Measuring the host.
    #[error(transparent)]
    Host(#[from] C2cError),
    /// Measuring the harness.
    #[error(transparent)]
    Round(#[from] RoundError),
}

/// Measures on the CPUs that a run will use; takes some thirty windows, and no longer than `pairs_time` for
/// the distances between CPUs.
///
/// # Errors
/// [`CalibrateError`] if a CPU cannot be used.
pub fn calibrate(
    bench: &Bench,
    topology: &Topology,
    cpus: &[CpuId],
    window: Duration,
    pairs_time: Duration,
) -> Result<Instruments, CalibrateError> {
    let clock = bench.clock();
    let some: Vec<CpuId> = every_nth(cpus, MOST_CPUS);
    let limits = limits::measure(&some, Effort::QUICK, clock, pairs_time)?;
    let lengths = lengths(clock, some[0]).map_err(C2cError::from)?;
    let conditions = Conditions {
        warm_up: Duration::from_millis(1),
        window,
        sampled: true,
        turns_per_us: lengths.turns_per_us,
        charges: Charges::default(),
        interrupt_rate_hz: None,
    };
    let first = topology
        .place(Placement::Compact, 1)
        .ok()
        .and_then(|cpus| cpus.first().copied())
        .unwrap_or(some[0]);
    let ops_s = |cell, workload, sampled| -> Result<f64, RoundError> {
        let conditions = Conditions { sampled, ..conditions };
        let mut rate = 0.0;
        // What another task took is not what the harness costs: the next try may be free of it.
        for _ in 0..TRIES {
            let round =
                bench.measure(&spec(Kind::Timer, cell, workload, first), &conditions, 1)?.round;
            rate = round.attempts() as f64 / round.duration_s;
            if round.disturbed.is_empty() {
                break;
            }
        }
        Ok(rate)
    };
    let mut empty_ns = Vec::with_capacity(REPETITIONS);
    let mut costs = Vec::with_capacity(REPETITIONS);
    for repetition in 0..REPETITIONS {
        empty_ns.push(1e9 / ops_s(SAMPLED.0, "empty", true)?);
        // In turn, so that a drift of the host meets both.
        let first_sampled = repetition % 2 == 0;
        let one = ops_s(SAMPLED.0, SAMPLED.1, first_sampled)?;
        let other = ops_s(SAMPLED.0, SAMPLED.1, !first_sampled)?;
        let (with, without) = if first_sampled { (one, other) } else { (other, one) };
        costs.push(1.0 - with / without);
    }
    let calibration = Calibration {
        timestamp_ns: Some(limits.timestamp.pair_ns / 2.0),
        empty_op_ns: Some(median(&mut empty_ns)),
        uncontended_atomic_ns: Some(limits.uncontended_rmw_ns),
        line_transfer_ns: limits.line_transfer_ns(),
        // Noise may make it negative: no cost.
        sampling_cost_share: Some(median(&mut costs).max(0.0)),
        core_to_core: vec![limits.transfers.to_record()],
        ..Calibration::default()
    };
    Ok(Instruments { calibration, lengths })
}

/// Measures how long computing takes on `cpu`; some 5 ms.
///
/// # Errors
/// [`PinError`] if the CPU cannot be used.
pub fn lengths(clock: &Clock, cpu: CpuId) -> Result<Lengths, PinError> {
    let turns_per_us = turns_per_us(clock, cpu)?;
    let charge_fixed_ns = charge_fixed_ns(clock, cpu, turns_per_us)?;
    Ok(Lengths { turns_per_us, charge_fixed_ns, fixed_around_ns: BTreeMap::new() })
}

/// Measures what arrives of the charge for masking interrupts around `lock`, in nanoseconds: a
/// pair of
/// lock and unlock with interrupts masked, less a pair without, by medians.
///
/// # Errors
/// [`RoundError`] if the rounds cannot be measured.
fn charge_arrived(
    bench: &Bench,
    topology: &Topology,
    lock: &str,
    conditions: &Conditions,
) -> Result<f64, RoundError> {
    let place = topology.place(Placement::Compact, 1).ok();
    let Some(cpu) = place.and_then(|cpus| cpus.first().copied()) else { return Ok(0.0) };
    let pair_ns = |workload| -> Result<f64, RoundError> {
        let spec = spec(Kind::Lock, lock, workload, cpu);
        let round = bench.measure(&spec, conditions, 1)?.round;
        Ok(1e9 * round.duration_s / round.attempts().max(1) as f64)
    };
    let mut differences = Vec::with_capacity(CHARGE_PAIRS);
    for _ in 0..CHARGE_PAIRS {
        let plain = pair_ns("lock-0ns")?;
        differences.push(pair_ns("lock-irqsave")? - plain);
    }
    Ok(median(&mut differences))
}

/// Finds what a charge for masking interrupts costs around `lock` beyond its turns, and keeps it in
/// `lengths`; returns what of a charge of `ns` arrives then, in nanoseconds.
///
/// # Errors
/// [`RoundError`] if the rounds cannot be measured.
pub fn correct_charge(
    bench: &Bench,
    topology: &Topology,
    lock: &str,
    ns: f64,
    lengths: &mut Lengths,
    conditions: &Conditions,
) -> Result<f64, RoundError> {
    lengths.fixed_around_ns.insert(lock.to_owned(), lengths.charge_fixed_ns);
    let turn_ns = 1000.0 / f64::from(lengths.turns_per_us.max(1));
    let arrived = |turns: u32| {
        let charges = Charges { irq_save: turns, ..conditions.charges };
        charge_arrived(bench, topology, lock, &Conditions { charges, ..*conditions })
    };
    let mut turns = lengths.irq_save_turns(ns, lock);
    for _ in 0..CORRECTIONS {
        // Fences take time or none: less than that is noise of a busy host.
        let fixed_ns = (arrived(turns)? - f64::from(turns) * turn_ns).max(0.0);
        lengths.fixed_around_ns.insert(lock.to_owned(), fixed_ns);
        let corrected = lengths.irq_save_turns(ns, lock);
        if corrected == turns {
            break;
        }
        turns = corrected;
    }
    // Measured again: what ended the loop was chosen by its result.
    arrived(turns)
}

/// Measures what a charge costs beyond its turns.
fn charge_fixed_ns(clock: &Clock, cpu: CpuId, turns_per_us: u32) -> Result<f64, PinError> {
    const TIMES: u32 = 2_000;
    let measured = together(1, |_| {
        pin(cpu)?;
        let mut times_ns: Vec<f64> = (0..51)
            .map(|_| {
                let start = clock.start();
                for _ in 0..TIMES {
                    Native::charge(black_box(1));
                }
                clock.elapsed_ns(start, clock.stop()) / f64::from(TIMES)
            })
            .collect();
        Ok(median(&mut times_ns) - 1000.0 / f64::from(turns_per_us))
    });
    measured.map_err(PinError::from)?.remove(0)
}

fn spec(kind: Kind, name: &str, workload: &'static str, cpu: CpuId) -> Spec {
    let subject = subject::named(name)
        .into_iter()
        .find(|subject| subject.kind == kind)
        .expect("the registry has it as this kind");
    Spec {
        series: Series::new(name, kind, workload, 1, Placement::Compact.name(), Source::Model),
        subject,
        workload,
        engine: EngineNeed::Count,
        needs: Needs::NOTHING,
        cpus: vec![cpu],
    }
}

/// Returns how many turns of `spend` take a microsecond on `cpu`.
fn turns_per_us(clock: &Clock, cpu: CpuId) -> Result<u32, cellbench_host::pin::PinError> {
    const TURNS: u32 = 20_000;
    let measured = together(1, |_| {
        pin(cpu)?;
        let mut times_ns: Vec<f64> = (0..101)
            .map(|_| {
                let start = clock.start();
                Native::spend(black_box(TURNS));
                clock.elapsed_ns(start, clock.stop())
            })
            .collect();
        Ok((f64::from(TURNS) * 1000.0 / median(&mut times_ns)).round() as u32)
    });
    measured.map_err(PinError::from)?.remove(0)
}

/// Returns at most `most` of `cpus`, from all over the list.
fn every_nth(cpus: &[CpuId], most: usize) -> Vec<CpuId> {
    let step = cpus.len().div_ceil(most).max(1);
    cpus.iter().copied().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibrations_agree_within_noise_and_not_beyond() {
        let found = |turns_per_us, charge_fixed_ns| Lengths {
            turns_per_us,
            charge_fixed_ns,
            fixed_around_ns: BTreeMap::new(),
        };
        let one = found(1000, 4.0);
        assert!(one.agrees_with(&found(1020, 4.5)) && found(1020, 4.5).agrees_with(&one));
        assert!(!one.agrees_with(&found(1050, 4.0)), "another loop");
        assert!(!one.agrees_with(&found(1000, 6.0)), "other fences: two turns more in each charge");
        let all = [found(900, 4.0), found(1000, 3.0), found(1100, 5.0)];
        assert_eq!(Lengths::median_of(&all), one);
    }

    #[test]
    fn what_does_not_arrive_around_a_lock_is_charged_on_top_there() {
        let with = |around: &[(&str, f64)]| Lengths {
            turns_per_us: 1000,
            charge_fixed_ns: 4.0,
            fixed_around_ns: around.iter().map(|(lock, ns)| ((*lock).to_owned(), *ns)).collect(),
        };
        let lengths = with(&[("spin-queued", 0.4), ("rqspin", 2.8)]);
        assert_eq!(lengths.irq_save_turns(10.0, "spin-queued"), 10);
        assert_eq!(lengths.irq_save_turns(10.0, "rqspin"), 7);
        assert_eq!(lengths.irq_save_turns(10.0, "seqlock-pair"), 10, "as the usual lock");
        assert_eq!(lengths.charge_turns(10.0), 6, "charged elsewhere");
        assert_eq!(lengths.irq_save_turns(2.0, "rqspin"), 1, "more than it is to take");
        assert_eq!(lengths.irq_save_turns(0.0, "rqspin"), 0, "switched off");
        assert_eq!(with(&[]).irq_save_turns(10.0, "rqspin"), 6, "not measured");
        let all = [lengths, with(&[("spin-queued", 2.0)]), with(&[("spin-queued", 1.0)])];
        let median = Lengths::median_of(&all);
        assert_eq!(
            (median.fixed_around_ns["spin-queued"], median.fixed_around_ns["rqspin"]),
            (1.0, 2.8)
        );
    }

    #[test]
    fn a_few_of_many_cpus_come_from_all_over() {
        let cpus: Vec<CpuId> = (0..100).map(CpuId).collect();
        let some = every_nth(&cpus, 16);
        assert!(some.len() <= 16 && some.last().unwrap().0 > 80, "{some:?}");
        assert_eq!(every_nth(&cpus[..2], 16), &cpus[..2]);
    }
}
