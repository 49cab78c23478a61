//! CPUs that each hold a lock and want the next one's: how soon a resilient lock finds the cycle.
//! One lock (AA), two CPUs (ABBA), three (ABBCCA). A step is timed as a whole, so the latency of
//! `lock_cycle` is that of detection.

use std::sync::Arc;

use cellbench_impls::platform::{IntWord, Ordering, Word};
use cellbench_impls::{Cpu, Errno, Lock, Machine, Platform};
use crossbeam_utils::CachePadded;

use crate::ensure;
use crate::field::check_clean;
use crate::params::Params;
use crate::tally::{Op, Tally};
use crate::trial::{LockWorkload, Needs, Trial, Violation, Workload};
use crate::worker::Worker;

/// How long a worker that holds its lock waits for the others of its cycle to hold theirs: at the
/// end of a round they may have left.
const PATIENCE_NS: u64 = 5_000_000;

/// Cycles of `LEN` CPUs.
pub(crate) struct Cycle<const LEN: u32>;

macro_rules! cycle {
    ($len:literal, $id:literal, $about:literal) => {
        impl Workload for Cycle<$len> {
            const ID: &'static str = $id;
            const ABOUT: &'static str = $about;
            const NEEDS: Needs = Needs { least_workers: $len, ..Needs::NOTHING };
        }
    };
}

cycle!(1, "lock-aa", "a CPU takes the lock that it holds");
cycle!(2, "lock-abba", "two CPUs take each other's lock, holding their own");
cycle!(3, "lock-abbcca", "three CPUs in a ring take the next one's lock, holding their own");

impl<const LEN: u32> LockWorkload for Cycle<LEN>
where
    Self: Workload,
{
    const FALLIBLE_ONLY: bool = true;

    fn trial<P: Platform, L: Lock<P>>(params: &Params) -> Arc<dyn Trial<P>> {
        let padded = |_| CachePadded::new(L::new());
        let meeting = |_| CachePadded::new(P::U64::new("cycle.arrived", 0));
        Arc::new(CycleTrial::<P, L, LEN> {
            locks: (0..params.threads).map(padded).collect(),
            meetings: (0..params.threads / LEN).map(meeting).collect(),
            machine: params.machine(),
        })
    }
}

struct CycleTrial<P: Platform, L, const LEN: u32> {
    /// One for each worker.
    locks: Box<[CachePadded<L>]>,
    /// For each full cycle, how many workers have arrived with their lock held, ever.
    meetings: Box<[CachePadded<P::U64>]>,
    machine: Machine<P>,
}

impl<P: Platform, L: Lock<P>, const LEN: u32> CycleTrial<P, L, LEN> {
    /// Waits until all workers of the cycle hold their lock; `false` if one does not come.
    fn meet(&self, cycle: u32) -> bool {
        let arrived = &self.meetings[cycle as usize];
        let len = u64::from(LEN);
        // AcqRel: whoever meets sees that the others hold their locks.
        let full = (arrived.fetch_add(1, Ordering::AcqRel) / len + 1) * len;
        let mut until_ns = None;
        let met = P::wait_until_or(
            || (arrived.load(Ordering::Acquire) >= full).then_some(true),
            || {
                let now_ns = P::now_ns();
                (now_ns >= *until_ns.get_or_insert(now_ns + PATIENCE_NS)).then_some(false)
            },
        );
        if met {
            return true;
        }
        // Leaves as if it had not come, unless the last one comes this moment.
        let mut seen = arrived.load(Ordering::Acquire);
        while seen < full {
            match arrived.cas(seen, seen - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(found) => seen = found,
            }
        }
        true
    }

    fn step(&self, cpu: &Cpu<'_, P>, worker: &mut Worker) {
        let (index, cycle) = (worker.index, worker.index / LEN);
        let next = cycle * LEN + (index + 1) % LEN;
        let complete = (cycle as usize) < self.meetings.len();
        let mut crossed = None;
        let own = self.locks[index as usize].with(cpu, || {
            if complete && self.meet(cycle) {
                crossed = Some(self.locks[next as usize].with(cpu, || ()));
            }
        });
        match crossed {
            Some(crossed) => worker.tally.count(Op::LockCycle, &crossed),
            None => worker.tally.count(Op::Lock, &own),
        }
    }
}

impl<P: Platform, L: Lock<P>, const LEN: u32> Trial<P> for CycleTrial<P, L, LEN> {
    fn machine(&self) -> &Machine<P> {
        &self.machine
    }

    fn batch(&self, cpu: &Cpu<'_, P>, worker: &mut Worker, steps: u32) {
        for _ in 0..steps {
            self.step(cpu, worker);
        }
    }

    fn check(&self, _: &Cpu<'_, P>, total: &Tally) -> Result<(), Violation> {
        let found: u64 = [Errno::EDEADLK, Errno::ETIMEDOUT, Errno::EBUSY]
            .map(|errno| total.failed(Op::LockCycle, errno))
            .iter()
            .sum();
        let ok = total.ok(Op::LockCycle);
        // Of each full cycle at least one wait has to fail, or all would wait for ever.
        ensure!(
            ok <= found * u64::from(LEN - 1),
            "{ok} waits in a cycle of {LEN} succeeded, and only {found} failed"
        );
        check_clean(&self.machine)
    }
}
