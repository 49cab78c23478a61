//! Core-to-core latency: how long a modified cache line takes from one core to another.
//!
//! Two methods, because one alone can mislead:
//! - [`Method::CompareExchange`]: both cores compare-exchange one flag on one line. The waiting
//!   core's failed attempts fetch the line exclusively too, as contended lock words are fetched.
//! - [`Method::ReadWrite`]: each core writes its own line and reads the other's. The waiting core
//!   holds a shared copy until the writer invalidates it, as queued-lock waiters do.
//!
//! Both follow the methods of the same number in the published `core-to-core-latency` crate, so
//! that its figures can be compared. One thing differs on purpose: every sample takes fresh lines.
//! With one recycled line a chiplet CPU can show a third core's distance in every sample, namely
//! that of the home node or cache slice which this one address happens to hash to.

use std::hint::black_box;
use std::ops::Not;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::affinity;
use super::clock::{Clock, median};
use super::cpus::CpuId;
use super::pin::{PinError, pin};
use super::threads::together;

/// Time for a pair, of which 20 ms are usual. A host that does not run both CPUs at once (an overcommitted
/// or emulated one) has a turn wait for the scheduler, and a pair would take hours.
const MOST_TIME: Duration = Duration::from_secs(1);
/// Looks at a line between two at the clock: some 100 us where the line stays away.
const LOOKS: u32 = 1 << 16;

/// How two cores pass the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Compare-exchange ping-pong on one line.
    CompareExchange,
    /// Loads and stores on two lines, one written by each core.
    ReadWrite,
}

impl Method {
    /// Both methods.
    pub const ALL: [Self; 2] = [Self::CompareExchange, Self::ReadWrite];

    /// Returns the name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CompareExchange => "cas",
            Self::ReadWrite => "read-write",
        }
    }
}

/// How much to measure for each pair of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Samples, each on its own lines. The result is their median.
    pub samples: usize,
    /// Timed round trips in a sample, after one that is not timed. More average out the first-touch
    /// effects of the fresh line, fewer keep a sample short enough to escape interruptions.
    pub round_trips: usize,
}

impl Effort {
    /// For a matrix that is looked at: about 20 ms a pair at 100 ns one way.
    pub const FULL: Self = Self { samples: 300, round_trips: 300 };
    /// For a run that only needs the scale: about 2 ms a pair.
    pub const QUICK: Self = Self { samples: 100, round_trips: 100 };

    /// Returns what keeps a matrix of `cpus` CPUs to about ten seconds where that is possible:
    /// full up to
    /// 32 CPUs (496 pairs), quick beyond. With quick effort 256 CPUs take one to two minutes.
    #[must_use]
    pub fn for_cpus(cpus: usize) -> Self {
        if cpus <= 32 { Self::FULL } else { Self::QUICK }
    }
}

/// One-way latency between every two of some CPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// How it was measured.
    pub method: Method,
    /// CPUs of the rows and columns.
    pub cpus: Vec<CpuId>,
    /// Half the median round trip between `cpus[i]` and `cpus[j]`; `None` on the diagonal, and
    /// where measuring ended before, or no sample within a second. Half a round trip is all that can
    /// be known, so the matrix is symmetric.
    pub one_way_ns: Vec<Vec<Option<f64>>>,
}

/// Why there is no matrix.
#[derive(Debug, thiserror::Error)]
pub enum C2cError {
    /// A CPU twice: its own distance is not a transfer, and two spinning threads on it would wait
    /// for the scheduler.
    #[error("CPU {0} is given twice; give each CPU once")]
    Repeated(CpuId),
    /// A thread is not where it should be.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// No sample was whole in time.
    #[error(
        "CPUs {ping} and {pong} do not pass a line to each other within {} s: this host does not run both at once (more virtual CPUs than real ones, or an emulator); choose CPUs that have cores of their own",
        MOST_TIME.as_secs()
    )]
    TooSlow {
        /// One CPU.
        ping: CpuId,
        /// The other one.
        pong: CpuId,
    },
}

impl Matrix {
    /// Returns the median over all pairs; `None` for fewer than two CPUs.
    #[must_use]
    pub fn median_ns(&self) -> Option<f64> {
        let mut pairs: Vec<f64> = self.one_way_ns.iter().flatten().copied().flatten().collect();
        pairs.is_empty().not().then(|| median(&mut pairs))
    }

    /// Returns the first two CPUs whose distance is not known.
    fn missing(&self) -> Option<(CpuId, CpuId)> {
        let rows = self.cpus.iter().zip(&self.one_way_ns).enumerate();
        rows.flat_map(|(i, (&ping, row))| {
            let later = self.cpus.iter().zip(row).skip(i + 1);
            later.filter(|(_, ns)| ns.is_none()).map(move |(&pong, _)| (ping, pong))
        })
        .next()
    }

    /// Returns the matrix for a record.
    #[must_use]
    pub fn to_record(&self) -> cellbench_record::CoreMatrix {
        cellbench_record::CoreMatrix {
            method: self.method.name().to_owned(),
            cpus: self.cpus.iter().map(|cpu| cpu.0).collect(),
            one_way_ns: self.one_way_ns.clone(),
        }
    }
}

/// Measures every pair of `cpus`, one pair at a time, so that pairs do not disturb each other.
///
/// # Errors
/// [`C2cError`] if a CPU repeats, cannot be pinned to, goes away, or a pair is too slow.
pub fn measure(
    cpus: &[CpuId],
    method: Method,
    effort: Effort,
    clock: &Clock,
) -> Result<Matrix, C2cError> {
    let matrix = measure_while(cpus, method, effort, clock, &mut |_, _| true)?;
    match matrix.missing() {
        Some((ping, pong)) => Err(C2cError::TooSlow { ping, pong }),
        None => Ok(matrix),
    }
}

/// Measures as [`measure`] does, asking before each pair, with the number of pairs measured and of all, whether
/// to
/// go on. Pairs that were not measured are `None` in the matrix, and so are those without a sample in a second.
///
/// # Errors
/// As [`measure`], but for pairs that are too slow.
pub fn measure_while(
    cpus: &[CpuId],
    method: Method,
    effort: Effort,
    clock: &Clock,
    goes_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Matrix, C2cError> {
    if let Some(&repeated) =
        cpus.iter().enumerate().find_map(|(i, cpu)| cpus[..i].contains(cpu).then_some(cpu))
    {
        return Err(C2cError::Repeated(repeated));
    }
    let mut one_way_ns = vec![vec![None; cpus.len()]; cpus.len()];
    let (mut done, pairs) = (0, cpus.len() * cpus.len().saturating_sub(1) / 2);
    'pairs: for (i, &ping) in cpus.iter().enumerate() {
        for (j, &pong) in cpus.iter().enumerate().skip(i + 1) {
            if !goes_on(done, pairs) {
                break 'pairs;
            }
            done += 1;
            let latency_ns = unless_stopped(|| {
                let began = Instant::now();
                let found = pair(ping, pong, method, effort, clock, began + MOST_TIME)?;
                Ok((found, began.elapsed()))
            })?;
            one_way_ns[i][j] = latency_ns;
            one_way_ns[j][i] = latency_ns;
        }
    }
    Ok(Matrix { method, cpus: cpus.to_vec(), one_way_ns })
}

/// Measures a pair, and again where no sample was whole and far more time went by than there was: this process
/// was stopped meanwhile (Ctrl-Z, a guest that was paused), which says nothing of the pair. Not for ever: a
/// host that is that slow is one as well. `measure` returns the latency and the time that it took.
fn unless_stopped(
    mut measure: impl FnMut() -> Result<(Option<f64>, Duration), C2cError>,
) -> Result<Option<f64>, C2cError> {
    for _ in 0..2 {
        let (found, took) = measure()?;
        if found.is_some() || took < 8 * MOST_TIME {
            return Ok(found);
        }
    }
    Ok(measure()?.0)
}

/// A flag on a line of its own: 128 bytes, because adjacent-line prefetchers move pairs of 64.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicBool);

/// The two lines of a sample.
#[derive(Debug, Default)]
struct Lines {
    /// Both write it (compare-exchange), or ping does (read-write).
    ball: Line,
    /// Pong writes it (read-write).
    echo: Line,
}

/// Measures one pair; `None` if no sample was whole at the deadline.
fn pair(
    ping: CpuId,
    pong: CpuId,
    method: Method,
    effort: Effort,
    clock: &Clock,
    deadline: Instant,
) -> Result<Option<f64>, C2cError> {
    let Effort { samples, round_trips } = effort;
    // Zeroed and written here only; neither core owns any of it before its sample.
    let lines: Vec<Lines> = (0..samples.max(1)).map(|_| Lines::default()).collect();
    // Ping and pong both arrive pinned or give up together.
    let pinned = [AtomicBool::new(false), AtomicBool::new(false)];
    let meeting = Barrier::new(2);
    let agreement = Agreement::new(lines.len());
    let arrive = |cpu, side: usize| -> Result<bool, PinError> {
        let result = pin(cpu);
        // Relaxed: published by the barrier, which synchronises like a lock.
        pinned[side].store(result.is_ok(), Ordering::Relaxed);
        meeting.wait();
        result?;
        Ok(pinned.iter().all(|side| side.load(Ordering::Relaxed)))
    };
    let play_ping = || -> Result<Vec<f64>, PinError> {
        let mut one_way_ns = Vec::with_capacity(lines.len());
        if arrive(ping, 0)? {
            for (sample, lines) in lines.iter().enumerate() {
                if Instant::now() >= deadline {
                    agreement.end(sample);
                    break;
                }
                agreement.propose(sample, ping)?;
                let warm = method.ping(lines, 0, 1, deadline);
                let start = clock.start();
                let whole = warm && method.ping(lines, 1, round_trips, deadline);
                let stop = clock.stop();
                if !whole {
                    agreement.end(sample + 1);
                    break;
                }
                one_way_ns.push(clock.elapsed_ns(start, stop) / (2 * round_trips.max(1)) as f64);
            }
        }
        Ok(one_way_ns)
    };
    let play_pong = || -> Result<Vec<f64>, PinError> {
        if arrive(pong, 1)? {
            for (sample, lines) in lines.iter().enumerate() {
                if !agreement.follow(sample, pong)?
                    || !method.pong(lines, round_trips + 1, deadline)
                {
                    break;
                }
            }
        }
        Ok(Vec::new())
    };
    let played = together(2, |side| if side == 0 { play_ping() } else { play_pong() });
    let mut sides = played.map_err(PinError::from)?;
    // The one that failed first says why.
    sides.sort_by_key(|side| matches!(side, Err(PinError::Abandoned { .. })));
    let sides: Result<Vec<Vec<f64>>, PinError> = sides.into_iter().collect();
    let mut one_way_ns = black_box(sides?.concat());
    Ok((!one_way_ns.is_empty()).then(|| median(&mut one_way_ns)))
}

/// Whether the next sample is played. The time may be over; and a CPU can go away while it is measured
/// (unplugged, or taken out of the cpuset): the kernel then moves the thread, perhaps to the other one's
/// CPU, where each turn waits for the scheduler.
struct Agreement {
    /// By sample: whether ping, who decides, plays it.
    plays: Vec<AtomicU8>,
    /// Pong is elsewhere.
    pong_moved: AtomicBool,
}

const UNDECIDED: u8 = 0;
const PLAY: u8 = 1;
const ABANDON: u8 = 2;
const END: u8 = 3;

impl Agreement {
    fn new(samples: usize) -> Self {
        let plays = (0..samples).map(|_| AtomicU8::new(UNDECIDED)).collect();
        Self { plays, pong_moved: AtomicBool::new(false) }
    }

    /// Decides, as ping, on a sample. Relaxed, here and below: the flags publish nothing.
    fn propose(&self, sample: usize, cpu: CpuId) -> Result<(), PinError> {
        let here = still_on(cpu);
        let plays = here.is_ok() && !self.pong_moved.load(Ordering::Relaxed);
        self.plays[sample].store(if plays { PLAY } else { ABANDON }, Ordering::Relaxed);
        // Pong says why where it is pong that moved; it is asked for its word after this one's.
        here.and(if plays { Ok(()) } else { Err(PinError::Abandoned { cpu }) })
    }

    /// Decides, as ping, that a sample and those after it are not played.
    fn end(&self, sample: usize) {
        if let Some(plays) = self.plays.get(sample) {
            plays.store(END, Ordering::Relaxed);
        }
    }

    /// Waits, as pong, for the decision on a sample; returns whether it is played.
    fn follow(&self, sample: usize, cpu: CpuId) -> Result<bool, PinError> {
        let here = still_on(cpu);
        self.pong_moved.store(here.is_err(), Ordering::Relaxed);
        loop {
            match self.plays[sample].load(Ordering::Relaxed) {
                PLAY => return Ok(true),
                END => return here.map(|()| false),
                ABANDON => return here.and(Err(PinError::Abandoned { cpu })),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

/// Fails unless the calling thread is on `cpu`.
fn still_on(cpu: CpuId) -> Result<(), PinError> {
    match affinity::current_cpu() {
        Ok(found) if found != cpu => Err(PinError::Moved { cpu, found }),
        // Where the kernel does not tell, pinning was proved when it was done.
        _ => Ok(()),
    }
}

impl Method {
    /// Plays ping's side of `count` round trips, after `done` earlier ones on these lines: it ends when
    /// the answer to the last has come, or at the deadline; returns whether it has come. With
    /// compare-exchange pong moves first.
    fn ping(self, lines: &Lines, done: usize, count: usize, deadline: Instant) -> bool {
        match self {
            Self::CompareExchange => {
                (0..count).all(|_| spin(deadline, || exchange(&lines.ball, true)))
            }
            Self::ReadWrite => (done..done + count).all(|turn| {
                let value = turn % 2 == 0;
                // Release pairs with the Acquire in pong's `shows`.
                lines.ball.0.store(value, Ordering::Release);
                spin(deadline, || shows(&lines.echo, value))
            }),
        }
    }

    /// Plays pong's side of as many; returns whether it did before the deadline.
    fn pong(self, lines: &Lines, count: usize, deadline: Instant) -> bool {
        match self {
            Self::CompareExchange => {
                (0..count).all(|_| spin(deadline, || exchange(&lines.ball, false)))
            }
            Self::ReadWrite => (0..count).all(|turn| {
                let value = turn % 2 == 0;
                let came = spin(deadline, || shows(&lines.ball, value));
                // Release pairs with the Acquire in ping's `shows`.
                lines.echo.0.store(value, Ordering::Release);
                came
            }),
        }
    }
}

/// Looks until `done` or the deadline; returns whether it was done. No pause: it would be part of the
/// latency measured.
fn spin(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Returns one attempt to turn the flag from `from` to its opposite.
///
/// Relaxed: the flag is the whole message, and read-modify-writes of one flag are totally ordered.
fn exchange(line: &Line, from: bool) -> bool {
    line.0.compare_exchange(from, !from, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Tells whether the other core has written `value`. Acquire pairs with its Release: an answer is
/// not stored before the question was seen.
fn shows(line: &Line, value: bool) -> bool {
    line.0.load(Ordering::Acquire) == value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins this thread to the CPU that it is on, which it returns.
    fn pinned() -> CpuId {
        let cpu = affinity::current_cpu().unwrap();
        pin(cpu).unwrap();
        cpu
    }

    /// A CPU that this thread is not on.
    const ELSEWHERE: CpuId = CpuId(100_000);

    #[test]
    fn a_pair_ends_when_the_cpu_of_one_of_them_went_away() {
        let agreement = Agreement::new(1);
        let sides = together(2, |side| {
            if side == 1 {
                return agreement.follow(0, ELSEWHERE).map(|_| ());
            }
            let cpu = pinned();
            while !agreement.pong_moved.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            agreement.propose(0, cpu)
        });
        let sides = sides.unwrap();
        assert!(matches!(sides[0], Err(PinError::Abandoned { .. })), "{sides:?}");
        assert!(matches!(sides[1], Err(PinError::Moved { cpu: ELSEWHERE, .. })), "{sides:?}");

        let agreement = Agreement::new(1);
        let sides = together(2, |side| match side {
            0 => agreement.propose(0, ELSEWHERE),
            _ => agreement.follow(0, pinned()).map(|_| ()),
        });
        let sides = sides.unwrap();
        assert!(matches!(sides[0], Err(PinError::Moved { .. })), "{sides:?}");
        assert!(matches!(sides[1], Err(PinError::Abandoned { .. })), "{sides:?}");
    }

    #[test]
    fn a_pair_that_never_answers_ends_at_the_deadline() {
        let lines = Lines::default();
        let past = Instant::now();
        for method in Method::ALL {
            // Nobody plays the other side; ping of compare-exchange waits for pong's move.
            assert!(!method.ping(&lines, 0, 1, past), "{method:?}");
        }
        let lines = Lines { ball: Line(AtomicBool::new(true)), ..Lines::default() };
        assert!(!Method::CompareExchange.pong(&lines, 1, past));
        lines.ball.0.store(false, Ordering::Relaxed);
        assert!(!Method::ReadWrite.pong(&lines, 1, past));
    }

    #[test]
    fn a_pair_without_a_sample_has_no_latency_and_a_matrix_says_which() {
        let cpus: Vec<CpuId> = affinity::current().unwrap().iter().take(2).collect();
        if let [ping, pong] = cpus[..] {
            let effort = Effort { samples: 3, round_trips: 1 };
            let found = pair(ping, pong, Method::ReadWrite, effort, &Clock::new(), Instant::now());
            assert_eq!(found.unwrap(), None);
        }
        let (one, two) = (CpuId(4), CpuId(9));
        let mut matrix = Matrix {
            method: Method::ReadWrite,
            cpus: vec![one, two],
            one_way_ns: vec![vec![None, Some(5.0)], vec![Some(5.0), None]],
        };
        assert_eq!(matrix.missing(), None);
        matrix.one_way_ns = vec![vec![None; 2]; 2];
        assert_eq!(matrix.missing(), Some((one, two)));
    }

    #[test]
    fn a_pair_during_which_the_process_was_stopped_is_measured_again() {
        let measured = |taken: &[(Option<f64>, Duration)]| {
            let mut left = taken.iter().copied();
            let found = unless_stopped(|| Ok(left.next().unwrap())).unwrap();
            (found, left.len())
        };
        let (hour, limit) = (Duration::from_secs(3600), MOST_TIME + Duration::from_millis(5));
        assert_eq!(measured(&[(None, hour), (Some(50.0), limit), (None, limit)]), (Some(50.0), 1));
        assert_eq!(measured(&[(None, limit), (Some(50.0), limit)]), (None, 1));
        assert_eq!(measured(&[(Some(50.0), hour), (None, limit)]), (Some(50.0), 1));
        assert_eq!(measured(&[(None, hour), (None, hour), (None, hour), (None, hour)]), (None, 1));
    }

    #[test]
    fn an_interrupted_matrix_keeps_the_pairs_it_has() {
        let cpus: Vec<CpuId> = affinity::current().unwrap().iter().take(2).collect();
        let effort = Effort { samples: 1, round_trips: 1 };
        let mut asked = Vec::new();
        let matrix =
            measure_while(&cpus, Method::ReadWrite, effort, &Clock::new(), &mut |done, pairs| {
                asked.push((done, pairs));
                false
            });
        let matrix = matrix.unwrap();
        assert_eq!(matrix.median_ns(), None);
        assert_eq!(asked, if cpus.len() == 2 { vec![(0, 1)] } else { vec![] });
    }
}
