//! Measures the async cell of BPF timers, work queues and task works on this host.
//!
//! | module | holds |
//! |---|---|
//! | [`backend`] | sources of rounds beyond this host's cores |
//! | [`check`] | whether the tool, the model and the cells are right |
//! | [`advise`] | which design to choose for a described use |
//! | [`cmd`] | the command line |
//!
//! The session, and the measuring on this host's cores, are [`cellbench_measure`]'s. The binary is thin over
//! these.

pub mod advise;
pub mod backend;
pub mod check;
pub mod cmd;

// The unit tests simulate.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: cellbench_measure::alloc::LineAligned = cellbench_measure::alloc::LineAligned;
