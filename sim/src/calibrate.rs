//! From what can be measured on a machine to the figures of the model.
//!
//! An ownership window cannot be timed by itself; what is measured is a ping-pong between two cores.
//! These functions run the same thing on the model and find the figure at which it gives the measured
//! result, so that measurement and model mean the same.
//! The searches run without random variation of latencies; windows of ownership vary as they do.

use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use crate::machine::MachineModel;
use crate::simulation::{SimError, Simulation};
use crate::wait::wait_until;
use crate::word::SimU64;

/// Round trips of a simulated ping-pong: with so little random variation a few hundred are as good as
/// a million.
const ROUNDS: u64 = 300;
/// Halvings of the interval in a search: from one to a millionth.
const HALVINGS: u32 = 20;
/// Additions of each side of a simulated contention.
const ADDITIONS: u64 = 1_000;
/// The largest share for additions that is searched: model files allow no larger one.
const MOST_ADDITION_SHARE: f64 = 1.0;
/// Ownership shares below this are none.
const SHARE_RESOLUTION: f64 = 1e-6;

/// How the two sides of a ping-pong pass the ball.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PingPong {
    /// Each side repeats a compare-and-exchange, without a pause, until it succeeds.
    CompareExchange,
    /// Each side loads in a spin loop with a pause until it sees its turn, then stores.
    LoadStore,
    /// Each side stores to a line of its own and loads the other's, without a pause, until it sees
    /// the answer.
    TwoLines,
}

#[repr(align(64))]
struct Shared(SimU64);

/// Returns the time of one way of a ping-pong between two hardware threads on the model, in nanoseconds.
///
/// # Errors
/// As [`Simulation::spawn`] and [`Simulation::run`].
pub fn ping_pong_ns(
    machine: &MachineModel,
    cores: [usize; 2],
    style: PingPong,
) -> Result<f64, SimError> {
    let mut simulation = Simulation::new(&steady(machine), 1);
    let ball = Rc::new(Shared(SimU64::new("ball", 0)));
    let echo = Rc::new(Shared(SimU64::new("echo", 0)));
    for (side, core) in cores.into_iter().enumerate() {
        let (ball, echo) = (Rc::clone(&ball), Rc::clone(&echo));
        simulation.spawn(core, move || {
            for round in 0..ROUNDS {
                let turn = 2 * round + side as u64;
                match style {
                    // AcqRel: hands over what the test would pass along with the ball.
                    PingPong::CompareExchange => {
                        while ball.0.compare_exchange(turn, turn + 1, AcqRel, Relaxed).is_err() {}
                    }
                    // Acquire pairs with the other side's release.
                    PingPong::LoadStore => {
                        wait_until(|| (ball.0.load(Acquire) == turn).then_some(()));
                        ball.0.store(turn + 1, Release);
                    }
                    PingPong::TwoLines => {
                        let (mine, theirs) =
                            if side == 0 { (&ball, &echo) } else { (&echo, &ball) };
                        let answer = round + side as u64;
                        // Acquire pairs with the other side's release.
                        while theirs.0.load(Acquire) != answer {}
                        mine.0.store(round + 1, Release);
                    }
                }
            }
        })?;
    }
    simulation.start_spread_ns(0.0);
    let report = simulation.run()?;
    Ok(report.duration_ns / (2 * ROUNDS) as f64)
}

/// Finds the ownership share ([`crate::machine::DirectoryCosts::ownership_share`]) at which a ping-pong
/// on the model takes `measured_ns` one way, where the transfer cost is known by other means (a
/// load's latency to a modified line, for example). All other figures are taken from `machine`.
/// From 0, if the ping-pong is slower even without it, to 1, if it is faster even with it.
///
/// # Errors
/// As [`ping_pong_ns`].
pub fn ownership_share_from_ping_pong(
    machine: &MachineModel,
    cores: [usize; 2],
    style: PingPong,
    measured_ns: f64,
) -> Result<f64, SimError> {
    let share = search(1.0, |ownership_share| {
        let mut machine = machine.clone();
        machine.directory.ownership_share = ownership_share;
        Ok(ping_pong_ns(&machine, cores, style)? >= measured_ns)
    })?;
    // The search ends next to the border, not on it.
    Ok(if share < SHARE_RESOLUTION { 0.0 } else { share })
}

/// Returns the time of one of all the additions that two hardware threads make to one word, in
/// nanoseconds.
///
/// # Errors
/// As [`Simulation::spawn`] and [`Simulation::run`].
pub fn contended_addition_ns(machine: &MachineModel, cores: [usize; 2]) -> Result<f64, SimError> {
    let mut simulation = Simulation::new(&steady(machine), 1);
    let sum = Rc::new(Shared(SimU64::new("sum", 0)));
    for core in cores {
        let sum = Rc::clone(&sum);
        simulation.spawn(core, move || {
            for _ in 0..ADDITIONS {
                sum.0.fetch_add(1, SeqCst);
            }
        })?;
    }
    simulation.start_spread_ns(0.0);
    let report = simulation.run()?;
    Ok(report.duration_ns / (2 * ADDITIONS) as f64)
}

/// Finds the share for lines that were taken for an addition
/// ([`crate::machine::DirectoryCosts::addition_share`]) at which additions to one word by two hardware
/// threads take `measured_ns` each on the model. From 0, if additions are slower even without a window, to
/// 1, if they are faster even with one.
///
/// # Errors
/// As [`contended_addition_ns`].
pub fn addition_share_from_contention(
    machine: &MachineModel,
    cores: [usize; 2],
    measured_ns: f64,
) -> Result<f64, SimError> {
    search(MOST_ADDITION_SHARE, |addition_share| {
        let mut machine = machine.clone();
        machine.directory.addition_share = Some(addition_share);
        Ok(contended_addition_ns(&machine, cores)? <= measured_ns)
    })
}

/// Finds the smallest value up to `high` at which `reached` holds; it must hold from some value on.
fn search(
    mut high: f64,
    mut reached: impl FnMut(f64) -> Result<bool, SimError>,
) -> Result<f64, SimError> {
    let mut low = 0.0;
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if reached(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

fn steady(machine: &MachineModel) -> MachineModel {
    let mut machine = machine.clone();
    machine.core.jitter = 0.0;
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desktop() -> MachineModel {
        MachineModel::preset("desktop").expect("a built-in machine")
    }

    #[test]
    fn the_ownership_share_makes_up_the_rest_of_a_ping_pong() {
        let style = PingPong::CompareExchange;
        let one_way_ns = |share| {
            let mut machine = desktop();
            machine.directory.ownership_share = share;
            ping_pong_ns(&machine, [0, 1], style).expect("it runs")
        };
        let transfer_ns = desktop().transfer.same_llc_ns;
        let shares = [0.25, 0.5, 0.9].map(one_way_ns);
        assert!(shares.is_sorted() && shares[2] > shares[0] + 0.4 * transfer_ns, "{shares:?}");
        for measured_ns in shares {
            let found = ownership_share_from_ping_pong(&desktop(), [0, 1], style, measured_ns);
            let again_ns = one_way_ns(found.expect("it runs"));
            assert!((again_ns / measured_ns - 1.0).abs() < 0.05, "{again_ns} for {measured_ns}");
        }
        // Faster than the model can be, and slower.
        for (measured_ns, share) in [(0.4 * transfer_ns, 0.0), (2.0 * transfer_ns, 1.0)] {
            let found = ownership_share_from_ping_pong(&desktop(), [0, 1], style, measured_ns);
            assert!((found.expect("it runs") - share).abs() < 0.01);
        }
    }
}
