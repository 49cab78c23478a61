//! Stress: is a cell right, on real cores and for a long time? No figure from here is a measurement.
//!
//! A run is a sequence of *slices*: one cell under one workload of the registry for half a second or
//! so, on a machine of its own whose freed memory is poisoned, by more workers than there are CPUs,
//! with signals for interrupts and callbacks that run. A slice ends in the workload's own check of
//! the invariants at rest, so every slice is a rest point, and with the books of its allocator.
//!
//! | step | where |
//! |---|---|
//! | One slice, through the machinery of a measured round | [`slice`](mod@slice) |
//! | The same in a process of its own: what crashes or hangs is a finding, and the run goes on | [`supervisor`] |
//! | Which workload of a cell is next | [`deck`] |
//! | The run, through the session's loop | [`slices`] |
//! | What was done to each cell and what broke | [`account`] |

pub mod account;
pub mod deck;
pub mod slice;
pub mod slices;
pub mod supervisor;
