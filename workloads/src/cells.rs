//! Workloads on cells, one file each.

pub(crate) mod callback_storm;
pub(crate) mod churn;
pub(crate) mod empty;
pub(crate) mod free_vs_start;
pub(crate) mod map;
pub(crate) mod nmi;
pub(crate) mod own_cell;
pub(crate) mod reader_share;
pub(crate) mod recycled;
pub(crate) mod same_cell;
pub(crate) mod solo;
pub(crate) mod stalled;
pub(crate) mod start_mostly;
pub(crate) mod task_work;
