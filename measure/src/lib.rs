//! Measures the async cell of BPF timers, work queues and task works on this host.
//!
//! | module | holds |
//! |---|---|
//! | [`session`] | plan, budget and the one loop over rounds, from names to records on disk |
//! | [`backend`] | where rounds come from, and the one that every host has: its cores |
//! | [`cmd`] | the command line of `cargo bench`, and what other commands share with it |
//! | [`alloc`] | the allocator of programs that simulate |
//! | [`rng`] | random choices that a seed repeats |
//! | [`patience`] | waiting with a limit |
//!
//! It stands apart from the `cellbench` command so that `cargo bench` builds what it measures with, and
//! neither simulator nor stress runs.

pub mod alloc;
pub mod backend;
pub mod cmd;
pub mod patience;
pub mod rng;
pub mod session;

// For the tests of `alloc`.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: alloc::LineAligned = alloc::LineAligned;
