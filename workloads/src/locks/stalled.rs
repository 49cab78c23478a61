//! The holder of a lock stops in its critical section: what the others get, and when.

use std::sync::Arc;

use cellbench_impls::{Cpu, Errno, Lock, Machine, Platform};

use crate::ensure;
use crate::field::check_clean;
use crate::params::Params;
use crate::stall::Stall;
use crate::tally::{Op, Tally};
use crate::trial::{LockWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// See the module.
pub(crate) struct Stalled;

impl Workload for Stalled {
    const ID: &'static str = "lock-stalled";
    const ABOUT: &'static str = "one lock: its holder stops, the others want it";
    const NEEDS: Needs = Needs { stalls: true, least_workers: 2, ..Needs::NOTHING };
}

impl LockWorkload for Stalled {
    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        Arc::new(StalledTrial::<P, L> {
            lock: L::new(),
            stall: Stall::new(params),
            machine: params.machine(),
        })
    }
}

struct StalledTrial<P: Platform, L> {
    lock: L,
    stall: Stall<P>,
    machine: Machine<P>,
}

impl<P: Platform, L: Lock<P>> Trial<P> for StalledTrial<P, L> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            let outcome = if worker.index == 0 {
                self.stall.wait_for_others();
                Some(self.lock.with(cpu, || self.stall.stand_still()))
            } else {
                self.stall.attempt(worker.index, || self.lock.with(cpu, || ()))
            };
            if let Some(outcome) = outcome {
                worker.tally.count(Op::Lock, &outcome);
            }
        }
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let failed: u64 = Errno::ALL.iter().map(|errno| total.failed(Op::Lock, *errno)).sum();
        ensure!(L::FALLIBLE || failed == 0, "{failed} waits for a lock that cannot fail did");
        check_clean(&self.machine)
    }
}
