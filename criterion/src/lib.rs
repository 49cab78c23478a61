//! Criterion for the cells and locks of cellbench.
//!
//! The benches of this package measure one benchmark after the other, so a drift of the host comes
//! between them: they are for the cost of an operation, and for before and after. Verdicts between
//! cells are those of `cargo bench`.
//!
//! A package of its own, which no other depends on: neither `cargo bench` nor the command
//! `cellbench` builds Criterion.

use std::time::Duration;

use criterion::Criterion;

pub mod measurement;

/// Configures Criterion by the command line. Shorter than its defaults: there are many benchmarks,
/// each of some nanoseconds.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(400))
        .sample_size(30)
        .nresamples(5000)
        .configure_from_args()
}
