//! Nothing, as often as possible: what the harness itself costs.

use std::sync::Arc;

use cellbench_impls::machine::MachineConfig;
use cellbench_impls::{AsyncCell, Cpu, Errno, Machine, Platform};

use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{CellWorkload, Trial, Violation, Workload};
use crate::worker::Worker;

/// See the module.
pub(crate) struct Empty;

impl Workload for Empty {
    const ID: &'static str = "empty";
    const ABOUT: &'static str = "no operation: the harness's own cost";
}

impl CellWorkload for Empty {
    fn trial<P: Platform, C: AsyncCell<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(Nothing(Machine::<P>::new(MachineConfig::new(params.threads + params.extra_cpus))))
    }
}

struct Nothing<P: Platform>(Machine<P>);

impl<P: Platform> Trial<P> for Nothing<P> {
    fn machine(&self) -> &Machine<P> {
        &self.0
    }

    fn batch(&self, _: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        worker.tally.repeat(Op::Empty, steps, || match opaque(0) {
            0 => Ok(()),
            _ => Err(Errno::EINVAL),
        });
    }

    fn check(&self, _: &Cpu<'_, P>, _: &Tally) -> Result<(), Violation> {
        Ok(())
    }
}

/// Returns the same number, but the compiler does not know: what an operation returns, in a
/// register, as a
/// real one does. (`black_box` would go through memory and cost more than the harness.)
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // SAFETY: no instruction.
    unsafe {
        core::arch::asm!("/* {} */", inout(reg) number, options(nomem, nostack, preserves_flags));
    }
    number
}
