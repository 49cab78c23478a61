//! The contended call: a second processor stopped in the middle of an operation, while the first one
//! executes the operation on the same cell.
//!
//! A hardware breakpoint of the second processor's thread stands in the operation; the program that it
//! enters goes round a loop there. Nothing in the kernel's text is changed for that, and on an emulated
//! machine whose processors take turns it happens at the same instruction every time.

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use cellbench_host::{CpuId, pin};
use libbpf_rs::{Map, MapCore as _, MapFlags};
use perf_event::Builder;
use perf_event::events::Breakpoint;

use crate::bench::{Bench, to_bytes, to_words, word};
use crate::error::Error;

/// The processor whose calls are traced, and the one that is stopped.
pub(super) const TRACED: CpuId = CpuId(0);
const STOPPED: CpuId = CpuId(1);
/// Longest stop from the beginning of the traced call on, in rounds of the program's loop: far longer than
/// a call takes, and shorter than the time after which a resilient lock gives up (250 ms, of 1 ns an
/// instruction).
const ROUNDS: u64 = 500_000;
/// Before each stop, for what the kernel still has to do: where it frees programs it calls all processors
/// and waits for their answer, which the stopped one cannot give. An idle machine's time costs nothing.
const SETTLE: Duration = Duration::from_secs(3);
/// Tries, should the traced processor wait for the stopped one all the same.
const TRIES: u32 = 8;
/// Longest wait for the second processor, in the guest's time.
const PATIENCE: Duration = Duration::from_secs(10);
const KEY: [u8; 4] = 0_u32.to_ne_bytes();

/// `struct hold` of `src/bpf/cell.h`.
#[derive(Clone, Copy, Debug, Default)]
struct Hold {
    armed: bool,
    entered: bool,
    begun: bool,
    over: bool,
    left: bool,
}

impl Hold {
    fn read(bench: &Bench, map: &Map<'_>) -> Result<Self, Error> {
        let value = map.lookup(&KEY, MapFlags::ANY);
        let value = value.map_err(bench.run_error("reading the other processor's state"))?;
        let words = to_words(&value.unwrap_or_default());
        let flag = |n: usize| words.get(n).is_some_and(|word| *word != 0);
        let [armed, entered, begun, over, left] = [0, 1, 2, 3, 4].map(flag);
        Ok(Self { armed, entered, begun, over, left })
    }

    fn write(self, bench: &Bench, map: &Map<'_>) -> Result<(), Error> {
        let Self { armed, entered, begun, over, left } = self;
        let [armed, entered, begun, over, left] =
            [armed, entered, begun, over, left].map(u64::from);
        let words = [armed, entered, begun, over, left, ROUNDS];
        map.update(&KEY, &to_bytes(&words), MapFlags::ANY)
            .map_err(bench.run_error("telling the other processor"))
    }
}

/// Stops the second processor at an address inside the row's operation, and has `call` make the traced
/// call meanwhile.
pub(super) fn while_stopped<T>(
    bench: &Bench,
    at: u64,
    mut call: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    for _ in 0..TRIES {
        if let Some(called) = try_once(bench, at, &mut call)? {
            return Ok(called);
        }
    }
    Err(failed(bench, "it went on before the traced call began"))
}

fn failed(bench: &Bench, reason: &str) -> Error {
    let reason = reason.to_owned();
    Error::Run { row: bench.row().name(), what: "stopping the second processor", reason }
}

/// Returns what the call returned, or none if the second processor went on before the call began.
fn try_once<T>(
    bench: &Bench,
    at: u64,
    call: &mut dyn FnMut() -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let map = bench.map("stops")?;
    std::thread::sleep(SETTLE);
    Hold::default().write(bench, &map)?;
    std::thread::scope(|scope| {
        let other = scope.spawn(|| stopped_call(bench, at));
        let end = Instant::now() + PATIENCE;
        let mut hold = Hold::read(bench, &map)?;
        while !hold.entered && !other.is_finished() && Instant::now() < end {
            std::hint::spin_loop();
            hold = Hold::read(bench, &map)?;
        }
        if !hold.entered {
            let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            return Err(ended
                .err()
                .unwrap_or_else(|| failed(bench, "it never came to the address")));
        }
        let called = match hold.left {
            true => Ok(None),
            false => {
                let begun = Hold { armed: false, begun: true, ..hold }.write(bench, &map);
                begun.and_then(|()| call()).map(Some)
            }
        };
        Hold { entered: true, begun: true, over: true, ..Hold::default() }.write(bench, &map)?;
        let ended = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        called.and_then(|called| ended.map(|()| called))
    })
}

/// Makes the call that is stopped, on the second processor.
fn stopped_call(bench: &Bench, at: u64) -> Result<(), Error> {
    pin(STOPPED)?;
    let row = bench.row();
    let program = bench.program(row.operation.program)?;
    let mut args = bench.worker(1)?.args;
    args[word::ATTEMPTS_MAX] = 1;
    // Once without a stop: what belongs to a processor, such as the base of a timer, is this one's then,
    // and the traced processor's own goes on working.
    bench.enter(&program, &mut args)?;
    let mut builder = Builder::new(Breakpoint::execute(at));
    builder.observe_self().any_cpu().exclude_kernel(false).exclude_hv(false).sample_period(1);
    let event = builder.build().map_err(|error| Error::Unsupported {
        row: row.name(),
        reason: format!("no hardware breakpoint at {at:x}: {error}"),
    })?;
    let event = event.into_raw_fd();
    let link = bench.program("stop")?.attach_perf_event(event).map_err(|error| {
        // SAFETY: the descriptor was taken out of its owner above, and libbpf takes it only on success.
        drop(unsafe { OwnedFd::from_raw_fd(event) });
        bench.run_error("attaching to the breakpoint")(error)
    })?;
    Hold { armed: true, ..Hold::default() }.write(bench, &bench.map("stops")?)?;
    let entered = bench.enter(&program, &mut args);
    drop(link);
    entered.map(drop)
}
