//! Latencies of one worker, by operation.

use cellbench_workloads::tally::OUTCOMES;
use cellbench_workloads::{Op, Tally};
use hdrhistogram::Histogram;

/// Digits that a recorded value keeps: three, as is usual with HdrHistogram.
const DIGITS: u8 = 3;
/// Values that fit without growing: 10 ms. Beyond, the histogram grows once, which costs less than
/// what it records.
const EXPECTED_MAX_NS: u64 = 10_000_000;
/// Name of a step that was several operations.
const STEP: &str = "step";

/// A histogram for each operation, made ready before the first value.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// By place in `Op::ALL`, and one more for steps of several operations.
    by_op: Vec<Option<Histogram<u64>>>,
}

/// Which operation a timed step was.
#[derive(Clone, Debug)]
pub enum Attribution {
    /// The workload has one operation.
    Always(usize),
    /// The one whose count rose since this copy was made.
    Changed(Box<Tally>),
}

impl Attribution {
    /// Decides by what a worker did while it warmed up.
    pub fn of(warm_up: &Tally) -> Self {
        let mut counted = (0..Op::ALL.len()).filter(|op| attempts(warm_up, *op) > 0);
        match (counted.next(), counted.next()) {
            (Some(only), None) => Self::Always(only),
            _ => Self::Changed(Box::new(warm_up.clone())),
        }
    }

    /// Begins a step that is timed.
    #[inline(always)]
    pub fn before(&mut self, tally: &Tally) {
        if let Self::Changed(copy) = self {
            (**copy).clone_from(tally);
        }
    }

    /// Returns the operation of the step, as an index of [`Latencies::record`].
    #[inline(always)]
    pub fn after(&self, tally: &Tally) -> usize {
        match self {
            Self::Always(op) => *op,
            Self::Changed(before) => changed(before, tally).unwrap_or(Op::ALL.len()),
        }
    }
}

fn attempts(tally: &Tally, op: usize) -> u64 {
    (0..OUTCOMES).map(|outcome| tally.get(Op::ALL[op], outcome)).sum()
}

/// Returns the only operation whose count differs; none if none or several do.
#[inline]
pub fn changed(before: &Tally, after: &Tally) -> Option<usize> {
    let mut differing =
        (0..Op::ALL.len()).filter(|op| attempts(before, *op) != attempts(after, *op));
    let only = differing.next();
    if differing.next().is_some() { None } else { only }
}

impl Latencies {
    /// Makes histograms for the operations that `warm_up` counts, their memory touched.
    pub fn for_ops_of(warm_up: &Tally) -> Self {
        let mut latencies = Self { by_op: vec![None; Op::ALL.len() + 1] };
        for op in (0..Op::ALL.len()).filter(|op| attempts(warm_up, *op) > 0) {
            latencies.by_op[op] = Some(empty());
        }
        if latencies.by_op.iter().flatten().count() > 1 {
            latencies.by_op[Op::ALL.len()] = Some(empty());
        }
        latencies
    }

    /// Records that operation `op` took `latency_ns`.
    #[inline]
    pub fn record(&mut self, op: usize, latency_ns: u64) {
        // Fails only beyond i64::MAX nanoseconds, 292 years.
        let _ = self.by_op[op].get_or_insert_with(empty).record(latency_ns);
    }

    /// Records that each of `count` operations took `latency_ns`.
    pub(crate) fn record_n(&mut self, op: usize, latency_ns: u64, count: u64) {
        let _ = self.by_op[op].get_or_insert_with(empty).record_n(latency_ns, count);
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.by_op.resize(self.by_op.len().max(other.by_op.len()), None);
        for (mine, theirs) in self.by_op.iter_mut().zip(&other.by_op) {
            if let Some(theirs) = theirs {
                mine.get_or_insert_with(empty)
                    .add(theirs)
                    .expect("histograms that grow take any value");
            }
        }
    }

    /// Returns operations with at least one value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram<u64>)> {
        self.by_op.iter().enumerate().filter_map(|(op, histogram)| {
            let name = Op::ALL.get(op).map_or(STEP, |op| op.id());
            histogram.as_ref().filter(|values| !values.is_empty()).map(|values| (name, values))
        })
    }
}

fn empty() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, EXPECTED_MAX_NS, DIGITS)
        .expect("three digits of nanoseconds up to 10 ms");
    histogram.auto(true);
    // Writes every bucket: no page of it is touched first within the window.
    histogram.reset();
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellbench_impls::Errno;

    #[test]
    fn a_workload_of_one_operation_needs_no_look() {
        let mut tally = Tally::default();
        tally.count_ok(Op::Lock, 3);
        let attribution = Attribution::of(&tally);
        assert!(matches!(attribution, Attribution::Always(_)));
        assert_eq!(Op::ALL[attribution.after(&tally)], Op::Lock);
    }

    #[test]
    fn a_step_is_the_operation_whose_count_rose_whatever_its_outcome() {
        let mut tally = Tally::default();
        tally.count_ok(Op::Init, 1);
        tally.count_ok(Op::Start, 1);
        let mut attribution = Attribution::of(&tally);
        attribution.before(&tally);
        tally.count::<()>(Op::Start, &Err(Errno::EBUSY));
        assert_eq!(Op::ALL[attribution.after(&tally)], Op::Start);
        attribution.before(&tally);
        tally.count_ok(Op::Start, 1);
        tally.count_ok(Op::Init, 1);
        assert_eq!(attribution.after(&tally), Op::ALL.len(), "two operations are a step");
    }

    #[test]
    fn workers_are_merged_and_named() {
        let mut tally = Tally::default();
        tally.count_ok(Op::Init, 1);
        tally.count_ok(Op::Start, 1);
        let mut mine = Latencies::for_ops_of(&tally);
        mine.record(Op::Start as usize, 100);
        let mut theirs = Latencies::for_ops_of(&tally);
        theirs.record(Op::Start as usize, 300);
        theirs.record(Op::ALL.len(), 20_000_000);
        mine.add(&theirs);
        let listed: Vec<(&str, u64, u64)> =
            mine.iter().map(|(name, values)| (name, values.len(), values.max())).collect();
        assert_eq!(listed[0], ("start", 2, 300));
        assert_eq!((listed[1].0, listed[1].1), ("step", 1));
        assert!(listed[1].2 >= 20_000_000, "beyond the expected maximum: {}", listed[1].2);
    }
}
