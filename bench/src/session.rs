//! A run from a choice of cells, workloads and CPUs to rounds on disk.
//!
//! | step | where |
//! |---|---|
//! | Which cells and locks, in which variants? | [`subject`] |
//! | Which of them under which workload, with how many threads, where? | [`plan`] |
//! | How long may a window be, and what does not fit? | [`budget`] |
//! | In which order, how often, until when? | [`run`] |
//! | Stopping by Ctrl-C | [`ctrl_c`] |

pub mod budget;
pub mod ctrl_c;
pub mod plan;
mod progress;
pub mod run;
pub mod subject;
