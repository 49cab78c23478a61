//! Measuring on this host: from a choice of cells, workloads and CPUs to rounds on disk.
//!
//! | step | where |
//! |---|---|
//! | Which cells and locks, in which variants? | [`subject`] |
//! | Which of them under which workload, with how many threads, where? | [`plan`] |
//! | What do the instruments cost here? | [`calibrate`] |
//! | How long a window may be, and what does not fit? | [`budget`] |
//! | In which order, how often, until when? | [`session`] |
//! | One cell under one workload, once | [`round`], with the loops that run in its workers |
//! | Is the tool itself to be believed here? | [`selftest`] |
//! | A number of steps, for Criterion | [`steps`] |
//! | Stopping by Ctrl-C | [`interrupt`] |
//!
//! Nothing here knows how results are judged or shown: that is read from the records.

pub mod budget;
pub mod calibrate;
mod gate;
pub mod interrupt;
mod interruptions;
pub(crate) mod latency;
mod live;
mod loops;
pub mod plan;
mod progress;
pub mod round;
pub mod selftest;
pub mod session;
pub mod steps;
pub mod subject;
mod time;
