//! Measuring on a simulated machine: the cells, workloads and records of the real runs, on virtual
//! cores whose every access is charged by the coherence model of `cellbench-sim`.
//!
//! | step | where |
//! |---|---|
//! | Which configurations can be simulated, and on which hardware threads? | [`plan`] |
//! | One configuration with one seed | [`trial`] |
//! | All of them, many at a time, to rounds on disk | [`session`] |
//! | The host as a machine to simulate | [`host`] |
//! | Primitives that run natively and simulated | [`primitive`] |
//! | How fast is that? | [`meter`] |
//!
//! Times are simulated. What a run writes depends on machine, choice and seed alone: neither on how
//! many simulations run at a time nor on the host.

pub mod host;
pub mod meter;
pub mod plan;
pub mod primitive;
pub mod session;
pub mod trial;
