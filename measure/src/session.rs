//! A run from a choice of cells, workloads and CPUs to rounds on disk, over any backend.
//!
//! | step | where |
//! |---|---|
//! | Which cells and locks, in which variants? | [`subject`] |
//! | Which of them under which workload, with how many threads, where? | [`plan`] |
//! | How long may a window be, and what does not fit? | [`budget`] |
//! | A run from its beginning to its end | [`run`] |
//! | In which order, how often, until when? | `rounds`: the one loop |
//! | What is written, and what is decided? | `recorder` |
//! | What a person sees meanwhile | `progress`, `watch` |
//! | Stopping by Ctrl-C | [`ctrl_c`] |
//!
//! Where rounds come from is the [`backend`](crate::backend)'s matter.

pub mod budget;
pub mod ctrl_c;
pub mod plan;
mod progress;
pub mod recorder;
pub mod rounds;
pub mod run;
pub mod subject;
pub mod watch;
