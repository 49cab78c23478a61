//! Where the hardware threads of a machine are, and how far apart.

use serde::{Deserialize, Serialize};

/// Sockets, last-level caches, cores and hardware threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Topology {
    /// Every socket, LLC and core alike.
    Uniform {
        /// Number of packages.
        sockets: u32,
        /// Last-level caches in a package (core complexes on chiplet machines).
        llcs_per_socket: u32,
        /// Cores that share one last-level cache.
        cores_per_llc: u32,
        /// Hardware threads of a core.
        threads_per_core: u32,
    },
    /// Each hardware thread given by hand, as for a measured host.
    Listed {
        /// Place of each hardware thread, by its number.
        threads: Vec<Place>,
    },
}

/// Where a hardware thread is. All numbers count over the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Physical core; threads with the same number are SMT siblings and share its caches.
    pub core: u32,
    /// Last-level cache.
    pub llc: u32,
    /// Physical package of the core.
    pub socket: u32,
}

/// The distance a line travels between two caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// The same core: SMT siblings share their caches and no line moves.
    SameCore,
    /// Different cores that share a last-level cache.
    SameLlc,
    /// One socket, different last-level caches.
    CrossLlc,
    /// Different sockets.
    CrossSocket,
}

impl Place {
    /// Returns how far a line travels between two hardware threads.
    pub fn distance(self, other: Self) -> Distance {
        if self.core == other.core {
            Distance::SameCore
        } else if self.llc == other.llc {
            Distance::SameLlc
        } else if self.socket == other.socket {
            Distance::CrossLlc
        } else {
            Distance::CrossSocket
        }
    }
}

impl Topology {
    /// Returns where each hardware thread is, by its number.
    pub fn places(&self) -> Vec<Place> {
        match self {
            Self::Listed { threads } => threads.clone(),
            &Self::Uniform { sockets, llcs_per_socket, cores_per_llc, threads_per_core } => {
                let cores = sockets * llcs_per_socket * cores_per_llc;
                let place = |core: u32| {
                    let llc = core / cores_per_llc;
                    Place { core, llc, socket: llc / llcs_per_socket }
                };
                (0..threads_per_core).flat_map(|_| (0..cores).map(place)).collect()
            }
        }
    }
}
