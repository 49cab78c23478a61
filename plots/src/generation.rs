//! The order in which cells and locks are shown: the history of the kernel, oldest first.
//!
//! One list, so that tables, charts and colours agree.

/// Names in reports, from the oldest generation to the newest.
pub const GENERATIONS: [&str; 8] = [
    "spin-tas",
    "spin-queued",
    "rqspin",
    "cmpxchg-state",
    "mpmc-cell",
    "seq-latch",
    "cmd-queue",
    "task-work",
];

/// Place of `cell` in [`GENERATIONS`]. Variants, named by a suffix (`task-work-nocancel`), share the
/// place of the longest generation they begin with; others come after all.
#[must_use]
pub fn rank(cell: &str) -> usize {
    GENERATIONS
        .iter()
        .enumerate()
        .filter(|(_, name)| cell.starts_with(*name))
        .max_by_key(|(_, name)| name.len())
        .map_or(GENERATIONS.len(), |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn variants_stand_with_their_generation() {
        assert!(rank("spin-tas") < rank("spin-queued"));
        assert_eq!(rank("task-work-nocancel"), rank("task-work"));
        assert!(rank("parking_lot") > rank("task-work"));
    }
}
