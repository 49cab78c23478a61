//! Whether the tool, the model and the cells are right.
//!
//! | question | where |
//! |---|---|
//! | Does the tool find differences that exist, and only those? | [`selftest`] |
//! | Does the simulator predict what the host measures? | [`validate`] |
//! | Does a cell stay correct under threads, signals and callbacks for a long time? | [`stress`] |

pub mod selftest;
pub mod stress;
pub mod validate;
