//! Interruptions without signals: a trial with one worker, whose operations are interrupted before an
//! access to a word that the caller chooses. Deterministic, and cheap enough for millions.

use cellbench_impls::engine::Count;
use cellbench_impls::platform::World;
use cellbench_impls::platform::stepped::{Steps, interrupt_at};
use cellbench_impls::rcu::Oracle;
use cellbench_impls::{Context, Cpu};

use crate::trial::Trial;
use crate::worker::Worker;

/// Every access to a word is a place to interrupt; timers are armed and never fire.
pub type Stepped = World<Steps, Oracle, Count>;

/// A worker that is interrupted, and its handler.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The interrupted.
    pub worker: Worker,
    /// Makes the attempts on top of it.
    pub handler: Worker,
}

impl Pair {
    /// Returns worker 0 and its handler.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { worker: Worker::new(0, seed), handler: Worker::new(0, seed.wrapping_add(1)) }
    }

    /// Returns one step, interrupted before its access number `place`; `false` if it has fewer.
    pub fn step(
        &mut self,
        trial: &dyn Trial<Stepped>,
        cpu: &Cpu<'_, Stepped>,
        place: u64,
        context: Context,
    ) -> bool {
        let Self { worker, handler } = self;
        let handle = || match context {
            Context::Nmi => cpu.nmi(|cpu| trial.interrupt(cpu, handler)),
            // Held off while interrupts are off; off itself while it runs.
            _ if cpu.irq_depth() == 0 => {
                let _irq_off = cpu.irq_save();
                trial.interrupt(&cpu.interrupted(context), handler);
            }
            _ => {}
        };
        let ((), fired) = interrupt_at(place, handle, || trial.batch(cpu, worker, 1));
        cpu.quiescent();
        fired
    }
}
