//! The host as a simulated machine: a few microbenchmarks, none of which is a lock or a cell, and
//! the model at which they come out as measured.
//!
//! | measured | by | figure of the model |
//! |---|---|---|
//! | load, store, atomic, fence, pause, clock | one CPU, an owned line | costs of hits |
//! | branches that nobody can predict | one CPU | what a core loses when a line arrives |
//! | an operation that is refused at once | one CPU | code between operations |
//! | loads of lines that the other wrote, each found in the one before | two CPUs | transfer |
//! | additions to two lines in turn, one of which the other reads now and then | two CPUs | what a disturbed core loses |
//! | ping-pong by compare-exchange, one line | two CPUs | ownership share |
//! | ping-pong by loads and stores, one line and two lines | two CPUs | whether lines migrate |
//!
//! Such a chain of loads takes a transfer for each line, as nothing in it overlaps. The
//! ownership share is the figure at which the model gives the measured ping-pong. Where lines
//! migrate, a ping-pong takes one transfer on one line and two on two lines. Between other CPUs than
//! the first two, transfers are those of the ping-pongs, in the same ratio. What cannot be measured so
//! (store buffer, memory, interrupts) is taken from the built-in machine of the same vendor, and the
//! machine's sources say so.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use cellbench_impls::platform::{Memory, Native, SplitWord, Word};
use cellbench_sim::calibrate::{PingPong, ownership_share_from_ping_pong};
use cellbench_sim::machine::{
    Distance, HitCosts, HostMeasurements, MachineError, Place, Source, SourceKind,
};
use cellbench_sim::{MachineModel, SimError};
use cellbench_workloads::registry::trial;
use cellbench_workloads::{Params, Worker};
use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use super::primitive;
use crate::host::c2c::{self, C2cError, Effort, Matrix, Method};
use crate::host::clock::median;
use crate::host::cpus::CpuId;
use crate::host::describe::describe;
use crate::host::pin::{PinError, pin};
use crate::host::{Clock, Roots, Topology};

/// Window of each microbenchmark of one CPU.
const WINDOW: Duration = Duration::from_millis(2);
/// Windows of each, of which the median counts.
const WINDOWS: usize = 5;
/// A ping-pong that takes less than this share of the time on one line moves the line once where the
/// other moves it twice: half the time, but for what both spend in their loops.
const MIGRATORY_SHARE: f64 = 0.75;
/// The design, kind and workload whose operations are refused: on a cell that nobody initialised.
const REFUSED: (&str, &str, &str) = ("cmpxchg-state", "timer", "same-cell");
/// Lines of a chain, a power of two: more than are under way at once, and far less than a cache.
const CHAIN_LINES: usize = 64;
/// Steps from one line of the chain to the next: odd, so that all are visited, and not what a
/// prefetcher would guess.
const CHAIN_STRIDE: usize = 27;
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

/// What microbenchmarks found on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Microbenchmarks {
    /// CPU model, as the host names it.
    pub cpu_model: String,
    /// CPUs that were measured, by the host's numbers.
    pub cpus: Vec<u32>,
    /// Where each of them is.
    pub places: Vec<Place>,
    /// What one CPU does alone.
    pub alone: Alone,
    /// One way of a ping-pong by compare-exchange on one line, between each two of the CPUs.
    pub compare_exchange_ns: Vec<Vec<Option<f64>>>,
    /// One way of a ping-pong by loads and stores on two lines.
    pub read_write_ns: Vec<Vec<Option<f64>>>,
    /// One way of a ping-pong by loads and stores on one line, between the first two CPUs.
    pub one_line_ns: f64,
    /// A load of a line that the other of the first two CPUs wrote, whose address stands in such a
    /// line.
    pub chain_ns: f64,
    /// What the first CPU, which adds to two lines in turn, loses by a read of one of them by the
    /// second one: the transfer, and what it had executed ahead.
    pub disturbed_ns: f64,
}

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
    /// What a compare-exchange waits for a byte store to the same word before it.
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

/// The host cannot be made a machine.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A ping-pong.
    #[error(transparent)]
    C2c(#[from] C2cError),
    /// A CPU cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The model refuses what was measured.
    #[error("what was measured on the host makes no machine: {0}; measure again undisturbed")]
    Machine(#[from] MachineError),
    /// The search for the model's figures.
    #[error(transparent)]
    Simulation(#[from] SimError),
    /// One CPU alone.
    #[error("only one CPU is usable: a machine to simulate needs a distance between two")]
    OneCpu,
}

/// Measures on `cpus`.
///
/// # Errors
/// [`HostError`] if one of them cannot be used, or there is only one.
pub fn measure(
    topology: &Topology,
    cpus: &[CpuId],
    effort: Effort,
    clock: &Clock,
) -> Result<Microbenchmarks, HostError> {
    let [first, _, ..] = *cpus else { return Err(HostError::OneCpu) };
    let place = |cpu: &CpuId| {
        let found = topology.cpu(*cpu);
        let package = found.and_then(|cpu| cpu.package).unwrap_or(0);
        Place {
            core: found.map_or(cpu.0, |cpu| cpu.core),
            llc: found.and_then(|cpu| cpu.llc).unwrap_or(package),
            socket: package,
        }
    };
    let matrix = |method| c2c::measure(cpus, method, effort, clock);
    let used = cpus.iter().copied().collect();
    Ok(Microbenchmarks {
        cpu_model: describe(&Roots::live(), topology, &used)
            .cpu_model
            .unwrap_or_else(|| "unknown CPU".to_owned()),
        cpus: cpus.iter().map(|cpu| cpu.0).collect(),
        places: cpus.iter().map(place).collect(),
        alone: alone(first, clock)?,
        compare_exchange_ns: matrix(Method::CompareExchange)?.one_way_ns,
        read_write_ns: matrix(Method::ReadWrite)?.one_way_ns,
        one_line_ns: one_line(&cpus[..2], clock)?,
        chain_ns: chain(&cpus[..2], clock)?,
        disturbed_ns: disturbed(&cpus[..2], clock)?,
    })
}

fn alone(cpu: CpuId, clock: &Clock) -> Result<Alone, PinError> {
    let word = CachePadded::new(AtomicU64::new(0));
    let step_ns = |batch: &(dyn Fn(usize, u32) + Sync)| -> Result<f64, PinError> {
        let windows: Result<Vec<f64>, PinError> = (0..WINDOWS)
            .map(|_| Ok(primitive::measure(&[cpu], clock, WINDOW, batch)?.step_ns))
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
    let trial = trial::<Native>(cell, kind, workload, &params).expect("in the registries");
    move |_, steps| {
        let cpu = trial.machine().cpu(cellbench_impls::CpuId(0));
        // It does not enter, which would initialise the cell.
        trial.batch(&cpu, &mut Worker::new(0, RANDOM_SEED), steps);
    }
}

/// Two CPUs pass one word back and forth by loads and stores; one way, the median of some.
fn one_line(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
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
        let side = &side;
        std::thread::scope(|scope| {
            let sides = [0, 1].map(|number| scope.spawn(move || side(number)));
            let [ping, pong] = sides.map(|side| side.join().expect("a ping-pong does not panic"));
            pong?;
            ping
        })
    };
    let times: Result<Vec<f64>, PinError> = (0..WINDOWS).map(|_| play()).collect();
    Ok(median(&mut times?))
}

/// Two CPUs take turns to follow a chain of lines, writing to each; a load, the median of all turns.
fn chain(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let words = || [AtomicU64::new(0), AtomicU64::new(0)];
    let lines: Vec<CachePadded<[AtomicU64; 2]>> =
        (0..CHAIN_LINES).map(|_| CachePadded::new(words())).collect();
    for (number, line) in lines.iter().enumerate() {
        // Relaxed: there are no threads yet.
        line[0].store(((number + CHAIN_STRIDE) % CHAIN_LINES) as u64, Relaxed);
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
    let follow = &follow;
    std::thread::scope(|scope| {
        let sides = [0, 1].map(|side| scope.spawn(move || follow(side)));
        let [ping, pong] = sides.map(|side| side.join().expect("following does not panic"));
        let mut times_ns = ping?;
        times_ns.extend(pong?);
        Ok(median(&mut times_ns))
    })
}

/// What one CPU, which adds to two lines in turn, loses by each read of the first one by the other.
fn disturbed(cpus: &[CpuId], clock: &Clock) -> Result<f64, PinError> {
    let [read, other] = [0, 1].map(|_| CachePadded::new(AtomicU64::new(0)));
    let [phase, reads] = [0, 1].map(|_| CachePadded::new(AtomicU64::new(0)));
    // In odd phases there are reads. Acquire and release on the phase, by which both sides go on.
    let reader = || -> Result<(), PinError> {
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
        pinned
    };
    let adds_ns = || {
        let start = clock.start();
        for _ in 0..DISTURBED_STEPS {
            black_box(read.fetch_add(1, SeqCst));
            black_box(other.fetch_add(1, SeqCst));
        }
        clock.elapsed_ns(start, clock.stop())
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(reader);
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
        reader.join().expect("reading does not panic")?;
        pinned?;
        Ok(median(&mut losses_ns))
    })
}

impl Microbenchmarks {
    /// The median of several measurements of the same CPUs, figure by figure.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn median_of(all: &[Self]) -> Self {
        let mut result = all.first().expect("something was measured").clone();
        let middle = |figure: &dyn Fn(&Self) -> f64| {
            median(&mut all.iter().map(figure).collect::<Vec<f64>>())
        };
        result.alone = Alone {
            load_ns: middle(&|one| one.alone.load_ns),
            store_ns: middle(&|one| one.alone.store_ns),
            atomic_ns: middle(&|one| one.alone.atomic_ns),
            fence_ns: middle(&|one| one.alone.fence_ns),
            partial_store_ns: middle(&|one| one.alone.partial_store_ns),
            pause_ns: middle(&|one| one.alone.pause_ns),
            clock_ns: middle(&|one| one.alone.clock_ns),
            mispredict_ns: middle(&|one| one.alone.mispredict_ns),
            operation_ns: middle(&|one| one.alone.operation_ns),
            turn_ns: middle(&|one| one.alone.turn_ns),
        };
        result.one_line_ns = middle(&|one| one.one_line_ns);
        result.chain_ns = middle(&|one| one.chain_ns);
        result.disturbed_ns = middle(&|one| one.disturbed_ns);
        for from in 0..result.cpus.len() {
            for to in (0..result.cpus.len()).filter(|&to| to != from) {
                let at = |matrix: &Vec<Vec<Option<f64>>>| matrix[from][to].unwrap_or(0.0);
                result.compare_exchange_ns[from][to] =
                    Some(middle(&|one| at(&one.compare_exchange_ns)));
                result.read_write_ns[from][to] = Some(middle(&|one| at(&one.read_write_ns)));
            }
        }
        result
    }

    /// The machine at which the model gives what was measured; its hardware threads are the
    /// measured CPUs in their order.
    ///
    /// # Errors
    /// [`HostError`] if the figures are impossible.
    pub fn machine(&self) -> Result<MachineModel, HostError> {
        let typical = |one_way_ns: &[Vec<Option<f64>>]| {
            median(&mut self.pairs().filter_map(|(a, b)| one_way_ns[a][b]).collect::<Vec<f64>>())
        };
        let (a, b) = self.pairs().next().ok_or(HostError::OneCpu)?;
        let compare_exchange_ns = typical(&self.compare_exchange_ns);
        let base = self.vendor()?;
        let Alone { load_ns, store_ns, atomic_ns, fence_ns, partial_store_ns, .. } = self.alone;
        let Alone { pause_ns, clock_ns, .. } = self.alone;
        let read_write_ns = typical(&self.read_write_ns);
        let migratory = self.one_line_ns < MIGRATORY_SHARE * read_write_ns;
        let transfer_ns = self.chain_ns - load_ns;
        let measured = |transfers_ns: Vec<Vec<f64>>, ownership_share| {
            let mut model = MachineModel::from_host(HostMeasurements {
                cpu_model: self.cpu_model.clone(),
                threads: self.places.clone(),
                transfer_ns: transfers_ns,
                protocol: base.protocol,
                hit: HitCosts { load_ns, store_ns, atomic_ns, partial_store_ns, fence_ns },
                fill: base.fill,
                directory: cellbench_sim::machine::DirectoryCosts {
                    ownership_share,
                    migratory,
                    ..base.directory
                },
                store_buffer: base.store_buffer,
                core: cellbench_sim::machine::CoreCosts {
                    pause_ns,
                    clock_ns,
                    restart_ns: self.alone.mispredict_ns,
                    disturbed_ns: (self.disturbed_ns - transfer_ns).max(0.0),
                    operation_ns: self.alone.operation_ns,
                    ..base.core
                },
            })?;
            model.sources = sources(&base);
            Ok::<_, HostError>(model)
        };
        // Hits are a small part of a ping-pong: other pairs differ by their transfer.
        let first_ns = self.compare_exchange_ns[a][b].unwrap_or(compare_exchange_ns);
        let scale = transfer_ns / first_ns;
        let row = |row: &Vec<Option<f64>>| {
            row.iter().map(|ns| ns.map_or(0.0, |ns| ns * scale)).collect::<Vec<f64>>()
        };
        let matrix: Vec<Vec<f64>> = self.compare_exchange_ns.iter().map(row).collect();
        let mut fitted = measured(matrix, base.directory.ownership_share)?;
        let style = PingPong::CompareExchange;
        fitted.directory.ownership_share =
            ownership_share_from_ping_pong(&fitted, [a, b], style, first_ns)?;
        Ok(fitted)
    }

    /// Each two of the CPUs that a line moves between.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let count = self.places.len();
        (0..count)
            .flat_map(move |a| (a + 1..count).map(move |b| (a, b)))
            .filter(|&(a, b)| self.places[a].distance(self.places[b]) != Distance::SameCore)
    }

    /// The built-in machine of the same vendor.
    fn vendor(&self) -> Result<MachineModel, MachineError> {
        let name = if self.cpu_model.contains("AMD") {
            "epyc-genoa-2s"
        } else if cfg!(target_arch = "aarch64") {
            "graviton3"
        } else {
            "xeon-spr-2s"
        };
        MachineModel::preset(name)
    }
}

fn sources(base: &MachineModel) -> Vec<Source> {
    let source = |fields: &[&str], kind, text: String| Source {
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
        kind,
        text,
    };
    vec![
        source(
            &["hit", "core.pause_ns", "core.clock_ns"],
            SourceKind::Measured,
            "Loops of one CPU on a line that it owns.".to_owned(),
        ),
        source(
            &["transfer"],
            SourceKind::Measured,
            "Loads of lines that the other CPU wrote, each found in the one before, less a load \
             that hits; other pairs of CPUs in the ratio of their ping-pongs."
                .to_owned(),
        ),
        source(
            &["directory.ownership_share"],
            SourceKind::Measured,
            "The figure at which the model gives the measured ping-pong by compare-exchange."
                .to_owned(),
        ),
        source(
            &["core.disturbed_ns"],
            SourceKind::Measured,
            "What one CPU, which adds to two lines in turn, loses by each read of one of them by \
             the other, less the transfer."
                .to_owned(),
        ),
        source(
            &["directory.migratory"],
            SourceKind::Measured,
            "Whether a ping-pong by loads and stores is much faster on one line than on two."
                .to_owned(),
        ),
        source(
            &["core.restart_ns", "core.operation_ns"],
            SourceKind::Measured,
            "Branches that nobody can predict; operations that are refused at once.".to_owned(),
        ),
        source(
            &["protocol", "fill", "directory", "store_buffer", "core"],
            SourceKind::Estimate,
            format!("The rest is taken from the built-in machine {}: {}.", base.name, base.title),
        ),
    ]
}

/// What [`c2c::measure`] found, for those who only need one figure of two CPUs.
pub(super) fn one_way_ns(cpus: [CpuId; 2], effort: Effort, clock: &Clock) -> Result<f64, C2cError> {
    let matrix: Matrix = c2c::measure(&cpus, Method::CompareExchange, effort, clock)?;
    Ok(matrix.median_ns().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(compare_exchange_ns: f64, read_write_ns: f64) -> Microbenchmarks {
        let both = |ns| vec![vec![None, Some(ns)], vec![Some(ns), None]];
        Microbenchmarks {
            cpu_model: "AMD EPYC".to_owned(),
            cpus: vec![4, 6],
            places: vec![
                Place { core: 2, llc: 0, socket: 0 },
                Place { core: 3, llc: 0, socket: 0 },
            ],
            alone: Alone {
                load_ns: 0.3,
                store_ns: 0.2,
                atomic_ns: 2.1,
                fence_ns: 1.9,
                partial_store_ns: 4.0,
                pause_ns: 24.0,
                clock_ns: 25.0,
                mispredict_ns: 4.5,
                operation_ns: 1.0,
                turn_ns: 0.28,
            },
            compare_exchange_ns: both(compare_exchange_ns),
            read_write_ns: both(read_write_ns),
            one_line_ns: 27.0,
            chain_ns: 29.0,
            disturbed_ns: 52.0,
        }
    }

    #[test]
    fn the_machine_gives_the_ping_pongs_it_was_made_from() {
        use cellbench_sim::calibrate::{PingPong, ping_pong_ns};
        let machine = measured(26.0, 54.0).machine().expect("possible figures");
        let one_way_ns = ping_pong_ns(&machine, [0, 1], PingPong::CompareExchange);
        let one_way_ns = one_way_ns.expect("it runs");
        // An owner completes the atomic that it is in: times come in steps of one.
        assert!((one_way_ns - 26.0).abs() < 1.1 * machine.hit.atomic_ns, "{one_way_ns}");
        let transfer_ns = machine.transfer.matrix_ns.as_ref().expect("measured")[0][1];
        assert!((transfer_ns - 28.7).abs() < 0.01, "{transfer_ns}");
        assert_eq!((machine.name.as_str(), machine.core.pause_ns), ("host", 24.0));
        assert!(machine.directory.migratory);
        assert_eq!((machine.core.restart_ns, machine.core.operation_ns), (4.5, 1.0));
        assert!((machine.core.disturbed_ns - 23.3).abs() < 0.01, "less the transfer of 28.7");
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let mut all = [measured(20.0, 50.0), measured(30.0, 40.0), measured(25.0, 60.0)];
        all[1].alone.load_ns = 0.1;
        let median = Microbenchmarks::median_of(&all);
        assert_eq!(median.compare_exchange_ns[0][1], Some(25.0));
        assert_eq!(median.read_write_ns[1][0], Some(50.0));
        assert_eq!(median.alone.load_ns, 0.3);
    }
}
