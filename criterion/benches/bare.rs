//! The platform layer costs nothing: `cmpxchg-state`'s `set_callback`, as it is written over any
//! platform, against the same algorithm written by hand on bare `std` atomics.
//!
//! Both functions are kept out of line, so that their instructions can be compared too:
//! `objdump -d --no-show-raw-insn` of this bench, symbols `over_platform` and `by_hand`.

use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cellbench_impls::cell::state::State;
use cellbench_impls::cell::{AsyncCell, Errno, InitFlags, Outcome, Timer};
use cellbench_impls::machine::MachineConfig;
use cellbench_impls::map::Map;
use cellbench_impls::platform::Native;
use cellbench_impls::program::{Callback, Program, count_only};
use cellbench_impls::{Cpu, CpuId, Machine};

/// Hand-written counterparts of the platform's types.
mod hand {
    use super::*;

    pub(super) const READY: u32 = 0;
    pub(super) const BUSY: u32 = 1;

    pub(super) struct BareProgram {
        pub(super) refs: AtomicU64,
    }

    impl BareProgram {
        #[inline(always)]
        fn get(&self) -> Outcome {
            let mut refs = self.refs.load(Ordering::Relaxed);
            loop {
                if refs == 0 {
                    return Err(Errno::ENOENT);
                }
                // Acquire pairs with the release in `put`.
                match self.refs.compare_exchange(
                    refs,
                    refs + 1,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return Ok(()),
                    Err(found) => refs = found,
                }
            }
        }

        #[inline(always)]
        fn put(&self) {
            // AcqRel: what was done under the reference comes before what the last put leads to.
            assert!(self.refs.fetch_sub(1, Ordering::AcqRel) > 0);
        }
    }

    /// The fields that an update touches.
    #[derive(Default)]
    pub(super) struct BareBlock {
        pub(super) program: AtomicPtr<BareProgram>,
        pub(super) callback: AtomicPtr<u64>,
        pub(super) state: AtomicU32,
    }

    #[derive(Default)]
    pub(super) struct BareCell {
        pub(super) block: AtomicPtr<BareBlock>,
    }

    impl BareCell {
        #[inline(always)]
        pub(super) fn set_callback(
            &self,
            in_nmi: bool,
            program: &BareProgram,
            callback: &u64,
        ) -> Outcome {
            if in_nmi {
                return Err(Errno::EOPNOTSUPP);
            }
            // Acquire pairs with the release that published the block.
            // SAFETY: null, or a block that lives as long as the bench.
            let Some(block) = (unsafe { self.block.load(Ordering::Acquire).as_ref() }) else {
                return Err(Errno::EINVAL);
            };
            // AcqRel: sees what the last update wrote, and is seen by whoever frees.
            match block.state.compare_exchange(READY, BUSY, Ordering::AcqRel, Ordering::Acquire) {
                Err(BUSY) => return Err(Errno::EBUSY),
                Err(_) => return Err(Errno::EPERM),
                Ok(_) => {}
            }
            let new = ptr::from_ref(program).cast_mut();
            let mut result = Ok(());
            if block.program.load(Ordering::Relaxed) != new {
                result = program.get();
                if result.is_ok() {
                    let old = block.program.swap(new, Ordering::AcqRel);
                    // SAFETY: null, or a program that lives as long as the bench.
                    if let Some(old) = unsafe { old.as_ref() } {
                        old.put();
                    }
                }
            }
            if result.is_ok() {
                // Release publishes the callback.
                block.callback.store(ptr::from_ref(callback).cast_mut(), Ordering::Release);
            }
            // AcqRel: publishes the update.
            match block.state.compare_exchange(BUSY, READY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => result,
                Err(_) => Err(Errno::EPERM),
            }
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn over_platform(
    cell: &State<Native, Timer, false>,
    cpu: &Cpu<'_, Native>,
    program: &Program<Native>,
    callback: &Callback<Native>,
) -> Outcome {
    cell.set_callback(cpu, program, callback)
}

#[unsafe(no_mangle)]
#[inline(never)]
fn by_hand(
    cell: &hand::BareCell,
    in_nmi: &bool,
    program: &hand::BareProgram,
    callback: &u64,
) -> Outcome {
    cell.set_callback(*in_nmi, program, callback)
}

/// Times `turns` turns of two updates each.
fn time(turns: u64, mut update: impl FnMut(usize)) -> Duration {
    let start = Instant::now();
    for _ in 0..turns {
        update(0);
        update(1);
    }
    start.elapsed()
}

fn main() {
    let mut criterion = cellbench_criterion::criterion();
    let mut group = criterion.benchmark_group("bare/two-updates");

    let machine = Machine::<Native>::new(MachineConfig::new(1));
    let cpu = machine.cpu(CpuId(0));
    let map = Map::new();
    let programs = [0, 1].map(|_| Program::new([(count_only::<Native> as _, 0)]));
    // SAFETY: used with this machine only, which outlives it; no callback runs.
    let cell = unsafe { State::<Native, Timer, false>::new() };
    cell.init(&cpu, &map, InitFlags::NONE).expect("init of a fresh cell");
    group.bench_function("over-platform", |bencher| {
        bencher.iter_custom(|turns| {
            time(turns, |which| {
                let program = &*programs[which];
                over_platform(
                    black_box(&cell),
                    black_box(&cpu),
                    black_box(program),
                    program.callback(0),
                )
                .expect("nobody else is there");
            })
        });
    });
    cell.cancel_and_free(&cpu);
    machine.settle(&cpu);

    let bare_programs = [0, 1].map(|_| hand::BareProgram { refs: AtomicU64::new(1) });
    let callbacks = [0_u64, 1];
    let mut block = hand::BareBlock::default();
    let bare = hand::BareCell::default();
    bare.block.store(&mut block, Ordering::Release);
    group.bench_function("by-hand", |bencher| {
        bencher.iter_custom(|turns| {
            time(turns, |which| {
                let (program, callback) = (&bare_programs[which], &callbacks[which]);
                by_hand(black_box(&bare), black_box(&false), black_box(program), callback)
                    .expect("nobody else is there");
            })
        });
    });
    group.finish();
    criterion.final_summary();
}
