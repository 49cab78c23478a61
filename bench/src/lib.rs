//! Measures the async cell of BPF timers, work queues and task works on this host.
//!
//! | module | holds |
//! |---|---|
//! | [`session`] | plan, budget and the one loop over rounds, from names to records on disk |
//! | [`backend`] | where rounds come from: this host's cores, a simulated machine, the running kernel |
//! | [`check`] | whether the tool, the model and the cells are right |
//! | [`advise`] | which design to choose for a described use |
//! | [`alloc`] | the allocator of programs that simulate |
//! | [`cmd`] | the command line |
//!
//! The binary and the benches are thin over these.

pub mod advise;
pub mod alloc;
pub mod backend;
pub mod check;
pub mod cmd;
mod patience;
mod rng;
pub mod session;

// The unit tests simulate.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: alloc::LineAligned = alloc::LineAligned;
