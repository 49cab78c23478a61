//! How a row is opened.

use crate::rows::Layout;

/// How to open a row.
#[derive(Clone, Debug)]
pub struct Options {
    /// Layout of the cells; one of [`Row::layouts`](crate::Row::layouts).
    pub layout: Layout,
    /// Threads that will attempt.
    pub threads: u32,
    /// Every n-th time round the loop is timed, rounded up to a power of two; 0 for none.
    pub sample_every: u32,
    /// Seed of the keys.
    pub seed: u64,
}
