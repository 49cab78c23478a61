//! Pinning: one thread, one CPU, and the proof that it worked.
//!
//! An unpinned worker migrates between rounds and takes the distances of the topology with it, so
//! a pin that silently failed is worse than an error.

use std::io;

use super::affinity;
use super::cpus::{CpuId, CpuSet};
use super::threads::NoThread;

/// CPU numbers below this fit the C library's `cpu_set_t`, which `core_affinity` uses and indexes
/// unchecked.
const CORE_AFFINITY_LIMIT: u32 = 1024;

/// Why a thread is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The CPU is offline, outside the cpuset, or does not exist.
    #[error(
        "cannot pin to CPU {cpu}: it is offline, absent or outside the cpuset of this process (the thread may run on CPUs {allowed}); choose another CPU or widen the cpuset"
    )]
    NotUsable {
        /// CPU asked for.
        cpu: CpuId,
        /// Affinity of the thread before the attempt, which did not change it.
        allowed: CpuSet,
    },
    /// The kernel refused for another reason (a seccomp filter, for instance).
    #[error("cannot pin to CPU {cpu}: {source}")]
    Refused {
        /// CPU asked for.
        cpu: CpuId,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The call succeeded and had no effect, as under some sandboxes.
    #[error(
        "pinning to CPU {cpu} was accepted but had no effect: the thread may run on CPUs {allowed} and is on CPU {found}; run outside the sandbox that emulates sched_setaffinity"
    )]
    NoEffect {
        /// CPU asked for.
        cpu: CpuId,
        /// Affinity afterwards.
        allowed: CpuSet,
        /// CPU the thread is on.
        found: CpuId,
    },
    /// The thread was moved after it was pinned: its CPU was unplugged or left the cpuset.
    #[error(
        "CPU {cpu} went away while it was used: its thread is on CPU {found} now (unplugged, or taken out of the cpuset); choose CPUs that stay"
    )]
    Moved {
        /// CPU that the thread was pinned to.
        cpu: CpuId,
        /// CPU that the thread is on.
        found: CpuId,
    },
    /// The thread gave up because the one it measures with did.
    #[error("CPU {cpu}: the other CPU of the pair went away")]
    Abandoned {
        /// CPU of the thread that gave up.
        cpu: CpuId,
    },
    /// The thread that was to be pinned could not be started.
    #[error(transparent)]
    NoThread(#[from] NoThread),
}

/// Pins the calling thread to `cpu` and checks that it runs there and may run nowhere else.
///
/// # Errors
/// [`PinError`], and then the thread's affinity may have changed.
pub fn pin(cpu: CpuId) -> Result<(), PinError> {
    let refused = |source| PinError::Refused { cpu, source };
    let before = affinity::current().map_err(refused)?;
    let accepted = if cpu.0 < CORE_AFFINITY_LIMIT {
        core_affinity::set_for_current(core_affinity::CoreId { id: cpu.0 as usize })
    } else {
        affinity::set_current(&CpuSet::from_iter([cpu])).is_ok()
    };
    if !accepted {
        let source = io::Error::last_os_error();
        return Err(if source.raw_os_error() == Some(libc::EINVAL) {
            PinError::NotUsable { cpu, allowed: before }
        } else {
            PinError::Refused { cpu, source }
        });
    }
    let allowed = affinity::current().map_err(refused)?;
    let found = affinity::current_cpu().map_err(refused)?;
    if found == cpu && allowed.len() == 1 && allowed.contains(cpu) {
        Ok(())
    } else {
        let again = affinity::set_current(&CpuSet::from_iter([cpu]));
        Err(explain_no_effect(cpu, allowed, found, &again))
    }
}

/// Returns why a pin that the kernel accepted is not in force, from what the kernel says when it is
/// asked again: a CPU that went away in between is refused now.
fn explain_no_effect(
    cpu: CpuId,
    allowed: CpuSet,
    found: CpuId,
    again: &io::Result<()>,
) -> PinError {
    match again {
        Err(source) if source.raw_os_error() == Some(libc::EINVAL) => {
            PinError::Moved { cpu, found }
        }
        _ => PinError::NoEffect { cpu, allowed, found },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_went_away_while_it_was_pinned_to_is_not_called_a_sandbox() {
        let (cpu, found) = (CpuId(8), CpuId(3));
        let allowed = || CpuSet::from_iter([CpuId(0), found]);
        let gone = Err(io::Error::from_raw_os_error(libc::EINVAL));
        let error = explain_no_effect(cpu, allowed(), found, &gone).to_string();
        assert!(error.starts_with("CPU 8 went away while it was used"), "{error}");
        let error = explain_no_effect(cpu, allowed(), found, &Ok(())).to_string();
        assert!(error.contains("had no effect"), "{error}");
    }
}
