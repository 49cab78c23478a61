//! Measures the async cell of BPF timers, work queues and task works on this host.
//!
//! | room | holds |
//! |---|---|
//! | [`runner`] | from a choice of cells and workloads to rounds on disk |
//! | [`simulate`] | the same on a simulated machine |
//! | [`stress`] | whether the cells are right, on real cores and for long |
//! | [`cmd`] | the command line |
//!
//! The binary and the benches are thin over these.

pub mod cmd;
pub mod runner;
pub mod simulate;
pub mod stress;
