//! The standard normal distribution.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Returns the probability of a value below `x`.
#[must_use]
pub fn cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// Returns the value below which lies probability `p`; infinite at 0 and 1.
///
/// Starts from the expansion 26.2.23 of Abramowitz and Stegun (error below 5e-4), then Newton's
/// and Halley's correction against [`cdf`] until it stands still.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    let t = (-2.0 * libm::log(p)).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut x = above / below - t;
    for _ in 0..3 {
        let step = (cdf(x) - p) * (2.0 * PI).sqrt() * libm::exp(x * x / 2.0);
        x -= step / (1.0 + x * step / 2.0);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::{cdf, quantile};

    #[test]
    fn known_values() {
        assert!((cdf(0.0) - 0.5).abs() < 1e-15);
        assert!((cdf(1.959_963_984_540_054) - 0.975).abs() < 1e-14);
        assert!((quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-12);
        assert!((quantile(0.5)).abs() < 1e-12);
        assert_eq!(quantile(0.0), f64::NEG_INFINITY);
    }

    #[test]
    fn quantile_inverts_cdf_far_into_the_tails() {
        for p in [1e-12, 1e-6, 0.01, 0.3, 0.7, 0.999_9] {
            assert!((cdf(quantile(p)) / p - 1.0).abs() < 1e-9, "{p}");
        }
    }
}
