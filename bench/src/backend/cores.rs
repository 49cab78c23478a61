//! Rounds on the cores of this host.
//!
//! | step | where |
//! |---|---|
//! | What do the instruments cost here? | [`calibrate`] |
//! | One cell under one workload, once | [`round`], with the loops that run in its workers |
//! | A number of steps, for Criterion | [`steps`] |

pub mod calibrate;
mod gate;
pub(crate) mod live;
pub(crate) mod loops;
pub mod round;
mod signals;
pub mod steps;
mod time;
