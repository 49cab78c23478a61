//! Numbers as a careful engineer writes them: as many digits as are meant, with their unit.
//!
//! ASCII only, so that every format can use them. An unknown is `-`, never 0.

/// Writes `45.1M` for 45.1 million: three significant digits and a prefix, for rates and counts.
#[must_use]
pub fn si(value: Option<f64>) -> String {
    let Some(value) = finite(value) else { return "-".into() };
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (scale, prefix) in scales {
        // What rounds up to the next scale is shown in it: 999.96k is 1.00M.
        if value.abs() >= scale * 0.9995 {
            return format!("{}{prefix}", significant(value / scale));
        }
    }
    significant(value)
}

/// Writes three significant digits for 1 to 999; fewer decimals above, at most three below, and powers of
/// ten where those would show nothing.
#[must_use]
pub fn significant(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.000_5 {
        return format!("{value:.1e}");
    }
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 || v == 0.0 => 2,
        _ => 3,
    };
    if value == 0.0 { "0".into() } else { format!("{value:.decimals$}") }
}

/// Returns a ratio: three decimals near 1, where a percent matters, two below 10, then fewer.
#[must_use]
pub fn ratio(value: Option<f64>) -> String {
    finite(value).map_or("-".into(), |value| with_decimals(value, ratio_decimals(value)))
}

/// Returns the ends of an interval of ratios, with as many decimals as the finer of the two needs.
#[must_use]
pub fn ratio_ends(low: Option<f64>, high: Option<f64>) -> Option<[String; 2]> {
    let (low, high) = finite(low).zip(finite(high))?;
    let decimals = ratio_decimals(low).max(ratio_decimals(high));
    Some([with_decimals(low, decimals), with_decimals(high, decimals)])
}

/// Writes `1.70 .. 1.90`, or `-`.
#[must_use]
pub fn interval(low: Option<f64>, high: Option<f64>) -> String {
    ratio_ends(low, high).map_or("-".into(), |[low, high]| format!("{low} .. {high}"))
}

fn ratio_decimals(value: f64) -> usize {
    match value {
        v if v > 0.895 && v < 1.105 => 3,
        v if v < 0.0995 => 3,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

fn with_decimals(value: f64, decimals: usize) -> String {
    if value >= 99_999.5 || (value != 0.0 && value < 0.000_5) {
        format!("{value:.1e}")
    } else {
        format!("{value:.decimals$}")
    }
}

/// Returns a share that somebody chose, in percent as chosen: `1 %`, `0.5 %`.
#[must_use]
pub fn percent_chosen(share: f64) -> String {
    // To 9 digits, because 0.07 * 100 is not 7.
    format!("{} %", (share * 1e11).round() / 1e9)
}

/// Returns a share of 0 to 1 in percent with two significant digits; `0` is exactly none.
#[must_use]
pub fn percent(share: Option<f64>) -> String {
    match finite(share).map(|share| share * 100.0) {
        None => "-".into(),
        Some(0.0) => "0 %".into(),
        Some(p) if p.abs() < 0.01 => "<0.01 %".into(),
        Some(p) if p.abs() < 0.995 => format!("{p:.2} %"),
        Some(p) if p.abs() < 9.95 => format!("{p:.1} %"),
        // 99.99 % must not read as everything.
        Some(p) if p > 99.5 && p < 100.0 => format!("{:.2} %", (p * 100.0).floor() / 100.0),
        Some(p) => format!("{p:.0} %"),
    }
}

/// Returns a time given in nanoseconds, in ns, us, ms or s.
#[must_use]
pub fn time_ns(value: Option<f64>) -> String {
    let Some(ns) = finite(value) else { return "-".into() };
    let scales = [(1e9, "s"), (1e6, "ms"), (1e3, "us")];
    for (scale, unit) in scales {
        if ns.abs() >= scale * 0.9995 {
            return format!("{} {unit}", significant(ns / scale));
        }
    }
    format!("{} ns", significant(ns))
}

/// Returns a probability.
#[must_use]
pub fn probability(value: Option<f64>) -> String {
    match finite(value) {
        None => "-".into(),
        Some(p) if p < 0.001 => "<0.001".into(),
        Some(p) => format!("{p:.3}"),
    }
}

/// Returns bytes with a binary prefix.
#[must_use]
pub fn bytes(value: u64) -> String {
    let scales = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (scale, unit) in scales {
        if value >= scale {
            return format!("{} {unit}", significant(value as f64 / scale as f64));
        }
    }
    format!("{value} B")
}

/// Writes `1 thread` or `2 threads`.
#[must_use]
pub fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_that_are_meant() {
        let si = |value| super::si(Some(value));
        assert_eq!(
            [si(0.0), si(7.0), si(12.34), si(999.4), si(999.6), si(45_123_456.0), si(0.0123)],
            ["0", "7.00", "12.3", "999", "1.00k", "45.1M", "0.012"]
        );
        let ratio = |value| super::ratio(Some(value));
        assert_eq!(
            [ratio(1.0031), ratio(1.804), ratio(0.5), ratio(0.0123), ratio(23.45), ratio(512.3)],
            ["1.003", "1.80", "0.50", "0.012", "23.4", "512"]
        );
        let percent = |value| super::percent(Some(value));
        assert_eq!(
            [percent(0.0), percent(1e-6), percent(0.0041), percent(0.041), percent(0.41)],
            ["0 %", "<0.01 %", "0.41 %", "4.1 %", "41 %"]
        );
        assert_eq!(
            [percent_chosen(0.01), percent_chosen(0.07), percent_chosen(0.005)],
            ["1 %", "7 %", "0.5 %"]
        );
        assert_eq!(interval(Some(0.8891), Some(0.9163)), "0.889 .. 0.916");
        assert_eq!(significant(5.9e-7), "5.9e-7");
        assert_eq!([percent(0.99999), percent(1.0)], ["99.99 %", "100 %"]);
        let time = |value| super::time_ns(Some(value));
        assert_eq!(
            [time(26.0), time(0.31), time(999.9), time(1_250.0), time(3.1e6), time(2e9)],
            ["26.0 ns", "0.310 ns", "1.00 us", "1.25 us", "3.10 ms", "2.00 s"]
        );
        assert_eq!([bytes(512), bytes(8 << 30)], ["512 B", "8.00 GiB"]);
        assert_eq!([probability(Some(0.0002)), probability(Some(0.0314))], ["<0.001", "0.031"]);
    }

    #[test]
    fn an_unknown_is_never_a_zero() {
        for value in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            for text in [si(value), ratio(value), percent(value), time_ns(value)] {
                assert_eq!(text, "-");
            }
        }
        assert_eq!(interval(Some(1.0), None), "-");
    }
}
