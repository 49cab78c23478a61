//! The specification of RCU, for model checkers: it sees every section, and ends a grace period
//! at the first moment at which the last section that was open at its beginning ends. So memory
//! is reclaimed as early as any implementation might, and a use after it is found.
//!
//! Its state is behind a `std` mutex that no checker looks at: a section is not a step to explore.
//! What a grace period orders is made known to the checker by full barriers, as the kernel's RCU
//! promises them: a section that begins after the grace period did sees what was detached before
//! it, and what runs after the grace period comes after all earlier sections.
//! The implementations themselves ([`super::qsbr`]) are checked on their own.

use std::sync::Mutex;

use super::{RcuFn, RcuHead, Reclaim, ReclaimKind};
use crate::machine::Cpu;
use crate::platform::Platform;

/// Chooses [`OracleReclaim`].
pub struct Oracle;

impl ReclaimKind for Oracle {
    type Of<P: Platform> = OracleReclaim<P>;
}

/// See the module.
pub struct OracleReclaim<P: Platform> {
    state: Mutex<State<P>>,
}

struct State<P: Platform> {
    /// Depth of open sections, by CPU.
    depth: Vec<u32>,
    /// CPUs that run functions now.
    running: Vec<bool>,
    waiting: Vec<Waiting<P>>,
    /// A grace period has begun, now or earlier.
    any_deferred: bool,
}

struct Waiting<P: Platform> {
    /// CPUs whose section was open when the head was deferred and has not ended since.
    readers: Vec<usize>,
    head: *mut RcuHead<P>,
    function: RcuFn<P>,
}

// SAFETY: the head's object is detached, and any CPU may reclaim it.
unsafe impl<P: Platform> Send for Waiting<P> {}

impl<P: Platform> OracleReclaim<P> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs what waits for nobody any more; returns whether there was any. What a function defers
    /// waits for the next call, so that one that defers itself again does not keep the CPU.
    fn run_ready(&self, cpu: &Cpu<'_, P>) -> bool {
        let index = cpu.id().index();
        let ready: Vec<_> = {
            let mut state = self.state();
            if core::mem::replace(&mut state.running[index], true) {
                return false;
            }
            state.waiting.extract_if(.., |waiting| waiting.readers.is_empty()).collect()
        };
        if !ready.is_empty() {
            // Pairs with the barrier at the end of each section that came before.
            P::fence();
        }
        for waiting in &ready {
            // SAFETY: no section that was open when it was deferred is open any more.
            unsafe { (waiting.function)(waiting.head, cpu) };
        }
        self.state().running[index] = false;
        !ready.is_empty()
    }
}

/// An open section; its end may run what waited for it.
pub struct OracleGuard<'a, P: Platform> {
    oracle: &'a OracleReclaim<P>,
    cpu: &'a Cpu<'a, P>,
}

impl<P: Platform> Drop for OracleGuard<'_, P> {
    fn drop(&mut self) {
        let cpu = self.cpu.id().index();
        {
            let mut state = self.oracle.state();
            state.depth[cpu] -= 1;
            if state.depth[cpu] > 0 {
                return;
            }
            // Pairs with the barrier in `run_ready`. Also where nobody waits yet: every CPU passes a
            // full barrier in each grace period, whenever its last section was.
            P::fence();
            for waiting in &mut state.waiting {
                waiting.readers.retain(|reader| *reader != cpu);
            }
        }
        // Functions run where softirqs may: not on top of an interrupt.
        if !self.cpu.irqs_disabled() && !std::thread::panicking() {
            self.oracle.run_ready(self.cpu);
        }
    }
}

impl<P: Platform> Reclaim<P> for OracleReclaim<P> {
    const ID: &'static str = "oracle";
    type Guard<'a> = OracleGuard<'a, P>;

    fn new(cpus: usize) -> Self {
        let (depth, running) = (vec![0; cpus], vec![false; cpus]);
        Self {
            state: Mutex::new(State { depth, running, waiting: Vec::new(), any_deferred: false }),
        }
    }

    fn online(&self, _: &Cpu<'_, P>) {}

    fn offline(&self, cpu: &Cpu<'_, P>) {
        let depth = self.state().depth[cpu.id().index()];
        assert!(depth == 0 || std::thread::panicking(), "a section is open on {:?}", cpu.id());
    }

    fn read<'a>(&'a self, cpu: &'a Cpu<'_, P>) -> OracleGuard<'a, P> {
        let mut state = self.state();
        let depth = &mut state.depth[cpu.id().index()];
        *depth += 1;
        if *depth == 1 && state.any_deferred {
            // Pairs with the barrier in `defer`: this section is not waited for.
            P::fence();
        }
        drop(state);
        OracleGuard { oracle: self, cpu }
    }

    unsafe fn defer(&self, cpu: &Cpu<'_, P>, head: *mut RcuHead<P>, function: RcuFn<P>) {
        {
            // What was detached before is seen by the sections that begin from here on.
            P::fence();
            let mut state = self.state();
            state.any_deferred = true;
            let readers = (0..state.depth.len()).filter(|cpu| state.depth[*cpu] > 0).collect();
            state.waiting.push(Waiting { readers, head, function });
        }
        // In task context without an open section nobody may be left to wait for.
        if !cpu.irqs_disabled() {
            self.run_ready(cpu);
        }
    }

    fn quiescent(&self, cpu: &Cpu<'_, P>) {
        let depth = self.state().depth[cpu.id().index()];
        assert_eq!(depth, 0, "quiescent state inside a section on {:?}", cpu.id());
        self.run_ready(cpu);
    }

    fn drain(&self, cpu: &Cpu<'_, P>) -> bool {
        self.run_ready(cpu)
    }
}
