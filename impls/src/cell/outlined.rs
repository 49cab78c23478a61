//! A cell whose operations are functions of their own, compiled once, for platforms on which nothing
//! is timed.
//!
//! Design, workload and platform multiply, and every combination holds the code of each operation that
//! the workload calls, inlined: what is timed is to be as in a kernel. In a simulator that charges
//! accesses, or in a stress run, it only costs the compiler's time.

use super::{
    AsyncCell, CellKind, Footprint, InitFlags, Inspection, Outcome, Promises, Start, Steps,
};
use crate::cell::Errno;
use crate::machine::Cpu;
use crate::map::Map;
use crate::platform::Platform;
use crate::program::{Callback, Program};
use crate::task::Task;

/// The cell `C`, in its layout and with its promises, with operations that are never inlined.
#[repr(transparent)]
pub struct Outlined<C>(C);

impl<P: Platform, C: AsyncCell<P>> AsyncCell<P> for Outlined<C> {
    const ID: &'static str = C::ID;
    const KIND: CellKind = C::KIND;
    const STEPS: Steps = C::STEPS;
    const CANCELS: bool = C::CANCELS;
    const CANCELS_ASYNC: bool = C::CANCELS_ASYNC;
    const PROMISES: Promises = C::PROMISES;
    const NMI_SAFE: bool = C::NMI_SAFE;
    const FREES_IN_NMI: bool = C::FREES_IN_NMI;
    const OCCUPIES: bool = C::OCCUPIES;

    unsafe fn new() -> Self {
        // SAFETY: the caller's promise is the same for the cell inside.
        Self(unsafe { C::new() })
    }

    #[inline(never)]
    fn init(&self, cpu: &Cpu<'_, P>, map: &Map<P>, flags: InitFlags) -> Outcome {
        self.0.init(cpu, map, flags)
    }

    #[inline(never)]
    fn set_callback(
        &self,
        cpu: &Cpu<'_, P>,
        program: &Program<P>,
        callback: &Callback<P>,
    ) -> Outcome {
        self.0.set_callback(cpu, program, callback)
    }

    #[inline(never)]
    fn start(&self, cpu: &Cpu<'_, P>, start: Start) -> Outcome {
        self.0.start(cpu, start)
    }

    #[inline(never)]
    fn cancel(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        self.0.cancel(cpu)
    }

    #[inline(never)]
    fn cancel_async(&self, cpu: &Cpu<'_, P>) -> Result<bool, Errno> {
        self.0.cancel_async(cpu)
    }

    #[inline(never)]
    fn cancel_and_free(&self, cpu: &Cpu<'_, P>) {
        self.0.cancel_and_free(cpu);
    }

    #[inline(never)]
    fn schedule(
        &self,
        cpu: &Cpu<'_, P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        start: Start,
    ) -> Outcome {
        self.0.schedule(cpu, map, program, callback, start)
    }

    #[inline(never)]
    fn reserve(cpu: &Cpu<'_, P>, count: usize) {
        C::reserve(cpu, count);
    }

    #[inline(never)]
    fn is_occupied(&self, cpu: &Cpu<'_, P>) -> bool {
        self.0.is_occupied(cpu)
    }

    #[inline(never)]
    fn schedule_on(
        &self,
        cpu: &Cpu<'_, P>,
        task: &Task<P>,
        map: &Map<P>,
        program: &Program<P>,
        callback: &Callback<P>,
        start: Start,
    ) -> Outcome {
        self.0.schedule_on(cpu, task, map, program, callback, start)
    }

    #[inline(never)]
    fn inspect(&self) -> Inspection<P> {
        self.0.inspect()
    }

    fn footprint() -> Footprint {
        C::footprint()
    }
}
