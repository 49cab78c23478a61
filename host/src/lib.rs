//! The host: its CPUs, its clock, its counters, and whether it is fit to measure on.
//!
//! Nothing here knows cells or workloads; the runner asks and this crate answers. What is read from
//! `/sys` and `/proc` is read below [`Roots`], so that the same code reads saved trees of other
//! machines. An unknown stays unknown (`None`, or a typed reason): a guess or a zero in its place
//! would end up in somebody's conclusion.
//!
//! | question | where |
//! |---|---|
//! | Which CPUs are there, what do they share, which may be used? | [`topology`] |
//! | Which N of them to use? | [`placement`]: `topology.place(Placement::Compact, n)` |
//! | Put this thread there, and is it there? | [`mod@pin`] |
//! | What time is it, and what does asking cost? | [`clock`] |
//! | How far apart are two cores? | [`c2c`] |
//! | Threads that begin together, or not at all | [`threads`] |
//! | What is the least an operation can cost here? | [`limits`] |
//! | What did the hardware count? | [`counters`] |
//! | Which settings bear on results? | [`settings`] |
//! | Was the thread, or the round, disturbed? | [`disturbance`] |
//! | Is this host fit to measure on, and what to change? | [`doctor`] |
//! | What to write about it into a record? | [`describe`] |

pub mod affinity;
#[cfg(feature = "clock")]
pub mod c2c;
#[cfg(feature = "clock")]
pub mod clock;
#[cfg(feature = "counters")]
pub mod counters;
pub mod cpu_model;
mod cpuinfo;
pub mod cpus;
pub mod describe;
pub mod disturbance;
#[cfg(feature = "counters")]
pub mod doctor;
#[cfg(feature = "clock")]
pub mod limits;
pub mod pin;
pub mod placement;
pub mod quota;
pub mod roots;
pub mod settings;
pub mod threads;
pub mod topology;
pub mod virtualisation;

#[cfg(feature = "clock")]
pub use clock::Clock;
#[cfg(feature = "counters")]
pub use counters::ThreadCounters;
pub use cpus::{CpuId, CpuSet};
pub use disturbance::{RoundProbe, ThreadProbe};
pub use pin::pin;
pub use placement::Placement;
pub use roots::Roots;
pub use topology::Topology;
