//! Workloads on cells, one file each.

pub(crate) mod churn;
pub(crate) mod empty;
pub(crate) mod map;
pub(crate) mod own_cell;
pub(crate) mod same_cell;
pub(crate) mod solo;
pub(crate) mod start_mostly;
