//! The log-linear histogram that the BPF programs fill, read back.
//!
//! 32 buckets per power of two: a bucket is at most 1/32 of its value wide. The same arithmetic
//! stands in `src/bpf/cell.h`; a test of the live programs holds the two together.

/// Buckets of a histogram.
pub(crate) const BUCKETS: usize = 1024;
const SUB_BITS: u32 = 5;

/// Latencies of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    /// Sum of the values, exact.
    pub sum_ns: u64,
    /// Largest value, exact.
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], sum_ns: 0, max_ns: 0 }
    }
}

/// Returns the smallest value of a bucket, and how many values it holds.
fn range_of(bucket: usize) -> (u64, u64) {
    let linear = 2 << SUB_BITS;
    if bucket < linear {
        return (bucket as u64, 1);
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let mantissa = (bucket & ((1 << SUB_BITS) - 1)) | 1 << SUB_BITS;
    ((mantissa as u64) << shift, 1 << shift)
}

impl Histogram {
    /// Reads the words of the map's value on one CPU: sum, maximum, buckets.
    #[cfg(any(feature = "bpf", test))]
    pub(crate) fn from_words(words: &[u64]) -> Option<Self> {
        let [sum_ns, max_ns, buckets @ ..] = words else { return None };
        (buckets.len() == BUCKETS).then(|| Self {
            buckets: buckets.to_vec(),
            sum_ns: *sum_ns,
            max_ns: *max_ns,
        })
    }

    /// Adds another CPU's.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in self.buckets.iter_mut().zip(&other.buckets) {
            *into += from;
        }
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Returns the number of values counted.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the mean, exact; none without samples.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        let samples = self.samples();
        (samples > 0).then(|| self.sum_ns as f64 / samples as f64)
    }

    /// Returns each bucket that holds something: its middle value and its count.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, count)| {
            let (low, width) = range_of(bucket);
            (low + width / 2, *count)
        })
    }

    /// Returns an HdrHistogram of three digits, for its log format. Each value is the middle of its
    /// bucket.
    ///
    /// # Panics
    /// Never: three digits are a precision that HdrHistogram has, and it grows with its values.
    #[must_use]
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let mut hdr = hdrhistogram::Histogram::new(3).expect("three digits are allowed");
        for (value, count) in self.counts() {
            // Not the saturating form, which does not grow: it takes what is beyond the first 2047 ns for 2.
            hdr.record_n(value, count).expect("a histogram that grows has every value");
        }
        hdr
    }

    /// Returns the summary for a record; mean and maximum are exact.
    #[must_use]
    pub fn to_record(&self) -> cellbench_record::Latency {
        cellbench_record::Latency {
            mean_ns: self.mean_ns().unwrap_or(0.0),
            max_ns: self.max_ns,
            ..cellbench_record::Latency::of(&self.to_hdr())
        }
    }

    /// Returns the value below or at which a share `quantile` (0 to 1) of the samples lies, to the middle of
    /// its
    /// bucket, never above the maximum; none without samples.
    #[must_use]
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let samples = self.samples();
        let rank = ((quantile * samples as f64).ceil() as u64).clamp(1, samples.max(1));
        let mut seen = 0;
        self.counts()
            .find(|(_, count)| {
                seen += count;
                seen >= rank
            })
            .map(|(value, _)| value.min(self.max_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the bucket by the definition in `cell.h`.
    fn bucket_of(ns: u64) -> usize {
        if ns < 1 << SUB_BITS {
            return ns as usize;
        }
        let shift = ns.ilog2() - SUB_BITS;
        (((shift as u64) << SUB_BITS) + (ns >> shift)).min(BUCKETS as u64 - 1) as usize
    }

    #[test]
    fn buckets_cover_every_value_once() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, width) = range_of(bucket);
            assert_eq!(low, next, "bucket {bucket}");
            assert_eq!(bucket_of(low), bucket);
            assert_eq!(bucket_of(low + width - 1), bucket);
            assert!(width == 1 || width * 32 <= low, "bucket {bucket} is too wide");
            next = low + width;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_mean() {
        let mut words = vec![0; BUCKETS + 2];
        words[0] = 99 * 10 + 5000;
        words[1] = 5000;
        words[2 + bucket_of(10)] = 99;
        words[2 + bucket_of(5000)] = 1;
        let mut histogram = Histogram::from_words(&words).unwrap();
        assert_eq!(histogram.samples(), 100);
        assert_eq!(histogram.mean_ns(), Some(59.9));
        assert_eq!(histogram.quantile_ns(0.5), Some(10));
        assert_eq!(histogram.quantile_ns(0.99), Some(10));
        assert!(histogram.quantile_ns(0.999).unwrap().abs_diff(5000) <= 5000 / 32);
        assert_eq!(histogram.quantile_ns(1.0).unwrap().max(5000), 5000);
        let record = histogram.to_record();
        assert_eq!((record.samples, record.p50_ns, record.max_ns), (100, 10, 5000));
        assert_eq!(record.mean_ns, 59.9);
        assert!(record.p999_ns.abs_diff(5000) <= 5000 / 32, "{record:?}");
        let copy = histogram.clone();
        histogram.merge(&copy);
        assert_eq!((histogram.samples(), histogram.max_ns), (200, 5000));
        assert_eq!(Histogram::default().quantile_ns(0.5), None);
        assert_eq!(Histogram::default().mean_ns(), None);
    }

    #[test]
    fn a_record_has_every_time_that_a_bucket_has() {
        for ns in [3, 700, 2047, 2048, 3_300, 60_000, 1_960_294, 4_000_000_000] {
            let mut words = vec![0; BUCKETS + 2];
            (words[0], words[1]) = (ns, ns);
            words[2 + bucket_of(ns)] = 1;
            let record = Histogram::from_words(&words).unwrap().to_record();
            for quantile_ns in [record.p50_ns, record.p99_ns, record.p9999_ns] {
                assert!(quantile_ns.abs_diff(ns) <= ns / 16, "{ns} ns: {record:?}");
            }
        }
    }

    #[test]
    fn a_value_of_another_size_is_refused() {
        assert_eq!(Histogram::from_words(&[0; 5]), None);
        assert_eq!(Histogram::from_words(&[]), None);
    }
}
