//! Microbenchmarks: loops of one CPU, and games of two, on a line or two. What they find makes this host a
//! simulated machine (`cellbench sim --machine host`).
//!
//! They stand here, and not beside their user, because a loop of one instruction takes what the compiler
//! makes of the loop: this crate is optimised as the measured code is.

mod window;

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use cellbench_impls::CellKind;
use cellbench_impls::platform::{Memory, Native, SplitWord, Word};
use cellbench_trials_native::Compiled;
use cellbench_workloads::{Params, Subject, Worker};
use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use cellbench_host::Clock;
use cellbench_host::clock::median;
use cellbench_host::cpus::CpuId;
use cellbench_host::pin::{PinError, pin};
use cellbench_host::threads::together;

use crate::rng::Rng;

/// Window of each microbenchmark of one CPU.
const WINDOW: Duration = Duration::from_millis(2);
/// Window of the additions of two CPUs, which share the line by turns of some microseconds.
const ADDITIONS_WINDOW: Duration = Duration::from_millis(5);
/// Windows of each, of which the median counts.
const WINDOWS: usize = 5;
/// The design, kind and workload whose operations are refused: on a cell that nobody initialised.
const REFUSED: (&str, Subject, &str) =
    ("cmpxchg-state", Subject::Cell(CellKind::Timer), "same-cell");
/// Lines of a chain: more than are under way at once, and far less than a cache.
const CHAIN_LINES: usize = 64;
/// Times that each CPU follows the chain; the median counts.
const CHAIN_ROUNDS: u64 = 100;
/// Additions to each of two lines in a row, with reads by another CPU or without.
const DISTURBED_STEPS: u64 = 4_000;
/// Times that both are done; the median counts.
const DISTURBED_ROUNDS: u64 = 100;
/// Turns of [`Memory::spend`] between two of the reads: far more than a disturbance takes.
const BETWEEN_READS_TURNS: u32 = 500;
/// Round trips of a ping-pong on one line; half of them before time is taken.
const ROUND_TRIPS: u64 = 2_000;
/// A seed that is not zero, and a bit of the numbers that it begins.
const RANDOM_SEED: u64 = 88_172_645_463_325_252;
const RANDOM_BIT: u64 = 0x100;
/// Turns of [`Memory::spend`] in a step.
const TURNS: u32 = 1_000;

/// Costs on one CPU that owns the line it uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alone {
    /// A load.
    pub load_ns: f64,
    /// A store.
    pub store_ns: f64,
    /// A fetch-add whose result is used.
    pub atomic_ns: f64,
    /// A full fence after a store, beyond the store.
    pub fence_ns: f64,
    /// Delay of a compare-exchange by a byte store to the same word just before it.
    pub partial_store_ns: f64,
    /// The spin-loop hint.
    pub pause_ns: f64,
    /// Reading the clock.
    pub clock_ns: f64,
    /// A branch that was predicted wrongly, beyond one that was not.
    pub mispredict_ns: f64,
    /// A step of a workload whose operation is refused at once.
    pub operation_ns: f64,
    /// A turn of [`Memory::spend`].
    pub turn_ns: f64,
}

/// Measures what one CPU does alone.
///
/// # Errors
/// [`PinError`] if the CPU cannot be used.
pub fn alone(cpu: CpuId, clock: &Clock) -> Result<Alone, PinError> {
    let word = CachePadded::new(AtomicU64::new(0));
    let step_ns = |batch: &(dyn Fn(usize, u32) + Sync)| -> Result<f64, PinError> {
        let windows: Result<Vec<f64>, PinError> = (0..WINDOWS)
            .map(|_| Ok(window::measure(&[cpu], clock, WINDOW, batch)?.step_ns))
            .collect();
        Ok(median(&mut windows?))
    };
    // Relaxed, but where the ordering is what is measured: there is one thread.
    let load_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            black_box(word.load(Relaxed));
        }
    })?;
    let store_ns = step_ns(&|_, steps| {
        for step in 0..steps {
            word.store(u64::from(step), Release);
        }
    })?;
    let fenced_ns = step_ns(&|_, steps| {
        for step in 0..steps {
            word.store(u64::from(step), Release);
            fence(SeqCst);
        }
    })?;
    let atomic_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            black_box(word.fetch_add(1, SeqCst));
        }
    })?;
    let lock = CachePadded::new(<<Native as Memory>::U32 as Word<u32>>::new("lock", 0));
    let byte_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            let _ = black_box(lock.cas(0, 1, Acquire, Relaxed));
            lock.clear_low_byte_release();
        }
    })?;
    let whole_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            let _ = black_box(lock.cas(0, 1, Acquire, Relaxed));
            lock.store(0, Release);
        }
    })?;
    let pause_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            Native::relax();
        }
    })?;
    let clock_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            black_box(Native::now_ns());
        }
    })?;
    // Every other one of the random branches is predicted wrongly.
    let (unpredictable_ns, predictable_ns) =
        (step_ns(&branches(RANDOM_BIT))?, step_ns(&branches(0))?);
    let turn_ns = step_ns(&|_, steps| {
        for _ in 0..steps {
            Native::spend(TURNS);
        }
    })? / f64::from(TURNS);
    Ok(Alone {
        load_ns,
        store_ns,
        atomic_ns,
        fence_ns: (fenced_ns - store_ns).max(0.0),
        partial_store_ns: (byte_ns - whole_ns).max(0.0),
        pause_ns,
        clock_ns,
        mispredict_ns: (2.0 * (unpredictable_ns - predictable_ns)).max(0.0),
        operation_ns: step_ns(&refused())?,
        turn_ns,
    })
}

/// Branches on the bits of `mask` in random numbers.
fn branches(mask: u64) -> impl Fn(usize, u32) + Sync {
    let state = AtomicU64::new(RANDOM_SEED);
    move |_, steps| {
        // The mask is not known to the compiler: it branches whatever the mask is.
        let mask = black_box(mask);
        // Other numbers each time, or they would be learnt. Relaxed: there is one thread.
        let mut random = state.load(Relaxed);
        let mut sum = 0_u64;
        for _ in 0..steps {
            // G. Marsaglia, "Xorshift RNGs", 2003.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            sum = if random & mask != 0 { black_box(sum + 1) } else { black_box(sum + 3) };
        }
        black_box(sum);
        state.store(random, Relaxed);
    }
}

/// Steps whose operation is refused at once.
fn refused() -> impl Fn(usize, u32) + Sync {
    let (cell, kind, workload) = REFUSED;
    let params = Params::new(1, RANDOM_SEED);
    let trial = Native::trial(cell, kind, workload, &params).expect("in the registries");
    move |_, steps| {
        let cpu = trial.machine().cpu(cellbench_impls::CpuId(0));
        // It does not enter, which would initialise the cell.
        trial.batch(&cpu, &mut Worker::new(0, RANDOM_SEED), steps);
    }
}

/// Measures the time of one of all additions that two CPUs make to one word as fast as they can.
///
/// # Errors
/// [`PinError`] if one of the CPUs cannot be used.
pub fn additions(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let word = CachePadded::new(AtomicU64::new(0));
    let windows: Result<Vec<f64>, PinError> = (0..WINDOWS)
        .map(|_| {
            let batch = |_: usize, steps: u32| {
                for _ in 0..steps {
                    black_box(word.fetch_add(1, SeqCst));
                }
            };
            Ok(window::measure(cpus, clock, ADDITIONS_WINDOW, &batch)?.step_ns)
        })
        .collect();
    Ok(median(&mut windows?))
}

/// Measures how long two CPUs take to pass one word by loads and stores, one way; the median of some.
///
/// # Errors
/// [`PinError`] if one of the CPUs cannot be used.
pub fn one_line(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let play = || -> Result<f64, PinError> {
        let ball = CachePadded::new(AtomicU64::new(0));
        let meeting = Barrier::new(2);
        let side = |side: u64| -> Result<f64, PinError> {
            let pinned = pin(cpus[side as usize]);
            meeting.wait();
            let mut start = clock.start();
            // Who could not be pinned plays on, so that the other one ends.
            for round in 0..ROUND_TRIPS {
                if round == ROUND_TRIPS / 2 {
                    start = clock.start();
                }
                let turn = 2 * round + side;
                // Acquire pairs with the other side's release.
                Native::wait_until(|| (ball.load(Acquire) == turn).then_some(()));
                ball.store(turn + 1, Release);
            }
            let timed = ROUND_TRIPS - ROUND_TRIPS / 2;
            pinned.map(|()| clock.elapsed_ns(start, clock.stop()) / (2 * timed) as f64)
        };
        let sides: Result<Vec<f64>, PinError> =
            together(2, |number| side(number as u64))?.into_iter().collect();
        Ok(sides?[0])
    };
    let times: Result<Vec<f64>, PinError> = (0..WINDOWS).map(|_| play()).collect();
    Ok(median(&mut times?))
}

/// Returns the successors of the numbers below `count` in a random cycle over all of them (S.
/// Sattolo, "An
/// algorithm to generate a random cyclic permutation", 1986): no two steps have one stride, which a
/// prefetcher would follow.
fn cycle(count: usize) -> Vec<usize> {
    let mut rng = Rng::new(RANDOM_SEED);
    let mut next: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        next.swap(last, rng.below(last as u32) as usize);
    }
    next
}

/// Lets two CPUs take turns to follow a chain of lines, writing to each; a load, the median of all
/// turns.
///
/// # Errors
/// [`PinError`] if one of the CPUs cannot be used.
pub fn chain(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let words = || [AtomicU64::new(0), AtomicU64::new(0)];
    let lines: Vec<CachePadded<[AtomicU64; 2]>> =
        (0..CHAIN_LINES).map(|_| CachePadded::new(words())).collect();
    for (line, next) in lines.iter().zip(cycle(CHAIN_LINES)) {
        // Relaxed: there are no threads yet.
        line[0].store(next as u64, Relaxed);
    }
    let turn = CachePadded::new(AtomicU64::new(0));
    let follow = |side: u64| -> Result<Vec<f64>, PinError> {
        let pinned = pin(cpus[side as usize]);
        let mut times_ns = Vec::with_capacity(CHAIN_ROUNDS as usize);
        // Who could not be pinned takes part, so that the other one ends.
        for round in 0..CHAIN_ROUNDS {
            let mine = 2 * round + side;
            // Acquire pairs with the other side's release.
            Native::wait_until(|| (turn.load(Acquire) == mine).then_some(()));
            let start = clock.start();
            let mut here = 0;
            for _ in 0..CHAIN_LINES {
                let line = &lines[here as usize % CHAIN_LINES];
                // Relaxed: ordered by the turn.
                here = line[0].load(Relaxed);
                line[1].store(mine, Relaxed);
            }
            black_box(here);
            times_ns.push(clock.elapsed_ns(start, clock.stop()) / CHAIN_LINES as f64);
            turn.store(mine + 1, Release);
        }
        pinned.map(|()| times_ns)
    };
    let sides: Result<Vec<Vec<f64>>, PinError> =
        together(2, |side| follow(side as u64))?.into_iter().collect();
    Ok(median(&mut sides?.concat()))
}

/// Returns what one CPU, which adds to two lines in turn, loses by each read of the first one by
/// the other.
///
/// # Errors
/// [`PinError`] if one of the CPUs cannot be used.
pub fn disturbed(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let [read, other] = [0, 1].map(|_| CachePadded::new(AtomicU64::new(0)));
    let [phase, reads] = [0, 1].map(|_| CachePadded::new(AtomicU64::new(0)));
    // Four phases a round: the reader is called, reads, is to stop, has counted. Acquire and release
    // on the phase, by which both sides go on; Relaxed elsewhere.
    let reader = || -> Result<f64, PinError> {
        let pinned = pin(cpus[1]);
        // Who could not be pinned takes part, so that the other one ends.
        for round in 0..DISTURBED_ROUNDS {
            Native::wait_until(|| (phase.load(Acquire) == 4 * round + 1).then_some(()));
            phase.store(4 * round + 2, Release);
            let mut count = 0;
            while phase.load(Acquire) == 4 * round + 2 {
                black_box(read.load(Relaxed));
                Native::spend(BETWEEN_READS_TURNS);
                count += 1;
            }
            reads.store(count, Relaxed);
            phase.store(4 * round + 4, Release);
        }
        pinned.map(|()| 0.0)
    };
    let adds_ns = || {
        let start = clock.start();
        for _ in 0..DISTURBED_STEPS {
            black_box(read.fetch_add(1, SeqCst));
            black_box(other.fetch_add(1, SeqCst));
        }
        clock.elapsed_ns(start, clock.stop())
    };
    let adder = || -> Result<f64, PinError> {
        let pinned = pin(cpus[0]);
        let mut losses_ns = Vec::with_capacity(DISTURBED_ROUNDS as usize);
        for round in 0..DISTURBED_ROUNDS {
            let alone_ns = adds_ns();
            phase.store(4 * round + 1, Release);
            Native::wait_until(|| (phase.load(Acquire) == 4 * round + 2).then_some(()));
            let disturbed_ns = adds_ns();
            phase.store(4 * round + 3, Release);
            Native::wait_until(|| (phase.load(Acquire) == 4 * round + 4).then_some(()));
            losses_ns.push((disturbed_ns - alone_ns) / reads.load(Relaxed).max(1) as f64);
        }
        pinned.map(|()| median(&mut losses_ns))
    };
    let sides: Result<Vec<f64>, PinError> =
        together(2, |side| if side == 0 { adder() } else { reader() })?.into_iter().collect();
    Ok(sides?[0])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Crates whose code is timed on this host, or runs against it while it is.
    const TIMED: [&str; 6] =
        ["impls", "workloads", "trials/native", "host", "measure", "criterion"];

    /// Returns the source files below a folder.
    fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = |path: std::path::PathBuf| match path.extension() {
            Some(extension) if extension == "rs" => vec![path],
            _ => sources(&path),
        };
        entries.flat_map(|entry| below(entry.path())).collect()
    }

    /// Loops of single instructions, in a crate that is hardly optimised, took 4 ns a step for a load of
    /// 0.4: the simulator calibrated by them was wrong by 42 % in the median, and by 10 % with these.
    #[test]
    fn timed_code_is_in_crates_that_are_optimised_for_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let manifest =
            fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
        for name in TIMED {
            let package = name.replace('/', "-");
            let section = format!("[profile.release.package.cellbench-{package}]\nopt-level = 3\n");
            assert!(manifest.contains(&section), "{name} is timed, and not at level 3");
        }
        let members = manifest.split("members = [").nth(1).expect("members");
        let members =
            members.split(']').next().expect("an end of them").split('"').skip(1).step_by(2);
        for name in members.filter(|name| !TIMED.contains(name)) {
            for file in sources(&root.join(name).join("src")) {
                let text = fs::read_to_string(&file).expect("a source file");
                // What hides a value from the compiler is there to be timed.
                assert!(
                    !text.contains("hint::black_box"),
                    "{} is timed, or is it?",
                    file.display()
                );
            }
        }
    }

    #[test]
    fn a_chain_visits_each_line_once_and_has_no_stride() {
        let next = cycle(CHAIN_LINES);
        let mut here = 0;
        let mut strides = std::collections::BTreeSet::new();
        for step in 1..=CHAIN_LINES {
            strides.insert((next[here] + CHAIN_LINES - here) % CHAIN_LINES);
            here = next[here];
            assert_eq!(here == 0, step == CHAIN_LINES, "back at the first after {step}");
        }
        assert!(strides.len() > CHAIN_LINES / 4, "{strides:?}");
    }
}
