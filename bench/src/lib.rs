//! Under construction.

pub mod host;
