//! Parameters that a trial is built for.

use cellbench_impls::machine::{Charges, MachineConfig};
#[cfg(feature = "planted")]
use cellbench_impls::planted::Bug;
use cellbench_impls::{Machine, Platform};

/// Parameters of a trial.
#[derive(Clone, Debug)]
pub struct Params {
    /// Workers, each on a CPU of its own (CPUs 0 to `threads` of the machine).
    pub threads: u32,
    /// Further CPUs of the machine, for whoever drives the engine.
    pub extra_cpus: u32,
    /// Seed of the workers' random choices.
    pub seed: u64,
    /// Turns of [`Memory::spend`](cellbench_impls::Memory::spend) that take a microsecond here,
    /// for critical sections of a given length.
    pub turns_per_us: u32,
    /// Charges of the machine for what user space cannot do.
    pub charges: Charges,
    /// How long a worker is suspended, in nanoseconds, by workloads that suspend one.
    pub stall_ns: u64,
    /// The NUMA node of each worker's CPU, for locks that prefer theirs; empty: all on one.
    pub numa_nodes: Vec<u16>,
    /// A known bug, to show that what is checked is found.
    #[cfg(feature = "planted")]
    pub bug: Option<Bug>,
}

/// Long enough for every timeout of the resilient locks but that of their test-and-set form.
const STALL_NS: u64 = 700_000_000;

impl Params {
    /// Returns those for `threads` workers, everything else plain.
    pub fn new(threads: u32, seed: u64) -> Self {
        Self {
            threads,
            extra_cpus: 0,
            seed,
            turns_per_us: 1000,
            charges: Charges::default(),
            stall_ns: STALL_NS,
            numa_nodes: Vec::new(),
            #[cfg(feature = "planted")]
            bug: None,
        }
    }

    /// Returns a machine with a CPU for each worker and those beyond.
    pub(crate) fn machine<P: Platform>(&self) -> Machine<P> {
        let config = MachineConfig {
            charges: self.charges,
            numa_nodes: self.numa_nodes.clone(),
            ..MachineConfig::new(self.threads + self.extra_cpus)
        };
        #[cfg(feature = "planted")]
        if let Some(bug) = self.bug {
            return Machine::with_bug(config, bug);
        }
        Machine::new(config)
    }
}
