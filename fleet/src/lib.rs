//! Many hosts and many simulated machines, through the scheduler that a site already runs: Slurm.
//!
//! A plan names what to measure where and what to simulate. It becomes tasks, each of them one
//! `cellbench run` or one part of a `cellbench sim`, and batch scripts that run them. All that is
//! known of the tasks lies in one directory on shared storage; there is no server and no agent.
//!
//! | step | where |
//! |---|---|
//! | What a plan may say, and its tasks | [`plan`], [`task`] |
//! | The directory, and when a task is complete | [`store`] |
//! | The batch scripts, and the scheduler's commands | [`script`], [`slurm`] |
//! | Submitting all tasks, or those that are missing | [`submit`] |
//! | One task, on the node | [`execute`]; kernels in turns: `turns` |
//! | What became of the tasks | [`status`] |
//! | Parts of a simulated run as one, and all runs as one | [`join`], [`collect`] |
//!
//! ```text
//! DIR/plan.toml             the plan, as given
//!     fleet.json            its tasks, and the tool that they are for; never changed
//!     bin/cellbench         that tool
//!     jobs/NAME.sh          batch scripts
//!     logs/                 output of the tasks
//!     tasks/NNNN/ATTEMPT/   one directory for each time that a task was begun
//!     joined/NAME/          a simulated run, joined from its parts
//!     hosts/LABEL/          what one host measured
//!     merged/RUN-ID/        all of it, with reports
//!     kernels/RUN-ID/       what was measured in kernels, with reports
//! ```
//!
//! The crate reads records and merges them; it knows no cell, no CPU and no clock. What a plan's names
//! mean is asked of the caller, and measuring is left to the `cellbench` command.

pub mod collect;
mod command;
mod error;
pub mod execute;
pub mod join;
pub mod plan;
pub mod script;
pub mod slurm;
mod stage;
pub mod status;
pub mod store;
pub mod submit;
pub mod task;
mod tool;
mod turns;

pub use error::FleetError;
pub use plan::Plan;
pub use store::Store;
pub use task::{Job, Task, Work};
pub use tool::Tool;

/// Checks the arguments of one `cellbench` command and returns the number of configurations that it
/// stands for; an error says in one line what is wrong with them.
pub type Check<'a> = &'a dyn Fn(&[String]) -> Result<usize, String>;
