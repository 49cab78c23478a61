//! Where rounds come from, beyond this host's cores: a simulated machine, the running kernel, kernels in
//! virtual machines, other revisions of the program. What they have in common is
//! [`cellbench_measure::backend`].

#[cfg(feature = "kernel")]
pub mod kernel;
pub mod machines;
pub mod revisions;
pub mod sim;
