//! Where rounds come from.

pub mod cores;
pub(crate) mod latency;
pub mod sim;
