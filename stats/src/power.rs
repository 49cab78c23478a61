//! Before measuring: can a plan decide anything, how many rounds does that take, and how small a
//! difference will show?
//!
//! Also the schedule of looks. Measuring that stops when a difference shows, after looking many
//! times, finds differences that are not there. Each look therefore spends a part of the error that
//! the whole is allowed (alpha spending, K. Lan, D. DeMets, Biometrika 1983): looks are taken at
//! prespecified numbers of rounds only, the k-th spends [`look`] of alpha, all looks together at most
//! a fifth, and the verdicts at the end have the four fifths that are left ([`final_alpha`]). Probabilities of
//! error add up, so that nothing need be known of how the looks depend on each other.

use super::normal;

/// Share of alpha that all looks on the way may spend.
const LOOKS_SHARE: f64 = 0.2;
/// Each look may spend this share of what the one before might.
const LOOK_RATIO: f64 = 0.8;
/// First looks, in rounds; further ones at 1.5 and 2 times powers of two of the last.
const FIRST_LOOKS: [u32; 6] = [10, 15, 20, 30, 40, 60];
/// Probability with which a detectable difference is found.
pub const POWER: f64 = 0.9;
/// No plan asks for more rounds than these.
pub const MOST_ROUNDS: u32 = 100_000;

/// Returns rounds of the look with this number, from 0.
fn look_at(index: u32) -> u32 {
    match FIRST_LOOKS.get(index as usize) {
        Some(rounds) => *rounds,
        // 80, 120, 160, 240, ...
        None => {
            let beyond = index - FIRST_LOOKS.len() as u32;
            let base = if beyond.is_multiple_of(2) { 80_u32 } else { 120 };
            base.saturating_mul(2_u32.saturating_pow(beyond / 2))
        }
    }
}

/// Returns the share of alpha that a look after so many rounds may spend; none if no look is due.
#[must_use]
pub fn look(rounds: u32) -> Option<f64> {
    let index = (0..).map(look_at).take_while(|at| *at <= rounds && *at < u32::MAX).count();
    let index = u32::try_from(index).ok()?.checked_sub(1)?;
    let share = LOOKS_SHARE * (1.0 - LOOK_RATIO) * LOOK_RATIO.powi(index as i32);
    (look_at(index) == rounds).then_some(share)
}

/// Returns the number of rounds of the first look after more than `rounds` rounds.
#[must_use]
pub fn next_look(rounds: u32) -> u32 {
    (0..).map(look_at).find(|at| *at > rounds || *at == u32::MAX).unwrap_or(u32::MAX)
}

/// Returns what the looks on the way leave of `alpha` for the verdicts at the end.
#[must_use]
pub fn final_alpha(alpha: f64) -> f64 {
    alpha * (1.0 - LOOKS_SHARE)
}

/// Returns whether `rounds` rounds can decide a comparison at all, in a table of `comparisons` with
/// an error of `alpha` for the whole: whether the signs of all rounds, if they fall alike, are
/// improbable enough.
#[must_use]
pub fn decidable(rounds: u32, comparisons: u32, alpha: f64) -> bool {
    2.0 * 0.5_f64.powi(rounds.min(2_000) as i32) <= per_comparison(comparisons, alpha)
}

/// Returns the least number of rounds that are [`decidable`].
#[must_use]
pub fn rounds_needed(comparisons: u32, alpha: f64) -> u32 {
    (1..MOST_ROUNDS).find(|rounds| decidable(*rounds, comparisons, alpha)).unwrap_or(MOST_ROUNDS)
}

/// Returns the smallest ratio above 1 that `rounds` rounds find with probability [`POWER`], where
/// `noise` is the standard deviation of the log ratio of a round: 1.05 for "ratios beyond 5 %".
/// None
/// if they cannot decide at all.
///
/// The larger of two bounds: that of Student's test, less the efficiency of the signed-rank test on
/// normal noise, 3/pi (Hodges, Lehmann 1956); and, near the least number of rounds, that nearly all
/// signs must fall alike.
#[must_use]
pub fn detectable_ratio(rounds: u32, comparisons: u32, alpha: f64, noise: f64) -> Option<f64> {
    if !decidable(rounds, comparisons, alpha) || noise.is_nan() {
        return None;
    }
    let level = per_comparison(comparisons, alpha);
    let scores = normal::quantile(POWER) + student(-normal::quantile(level / 2.0), rounds);
    let efficiency = (std::f64::consts::PI / 3.0).sqrt();
    let by_ranks = scores * efficiency * noise / f64::from(rounds).sqrt();
    let spare = rounds.saturating_sub(rounds_needed(comparisons, alpha));
    let all_alike = POWER.powf(1.0 / f64::from(rounds));
    // Rounds to spare may fall the wrong way.
    let by_signs = noise * normal::quantile(all_alike) / f64::from(1 + spare).sqrt();
    Some(libm::exp(by_ranks.max(by_signs)))
}

/// Returns the quantile of Student's law where the normal law has `z`, to third order (R. Fisher, E. Cornish
/// 1960).
fn student(z: f64, rounds: u32) -> f64 {
    let freedom = f64::from(rounds.max(2) - 1);
    z + (z.powi(3) + z) / (4.0 * freedom)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * freedom * freedom)
}

/// Returns the least number of rounds for which [`detectable_ratio`] is at most `ratio`, which may
/// be on either side of 1; [`MOST_ROUNDS`] if more would be needed.
#[must_use]
pub fn rounds_to_detect(ratio: f64, comparisons: u32, alpha: f64, noise: f64) -> u32 {
    let wanted = if ratio < 1.0 { 1.0 / ratio } else { ratio };
    let suffices = |rounds: u32| {
        detectable_ratio(rounds, comparisons, alpha, noise).is_some_and(|found| found <= wanted)
    };
    let (mut low, mut high) = (rounds_needed(comparisons, alpha), MOST_ROUNDS);
    while low < high {
        let middle = low.midpoint(high);
        if suffices(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Returns the level of one comparison at the end, before what rows share is known: Bonferroni's.
fn per_comparison(comparisons: u32, alpha: f64) -> f64 {
    final_alpha(alpha) / f64::from(comparisons.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::random::SplitMix64;
    use super::super::signed_rank::SignedRank;
    use super::*;

    #[test]
    fn looks_spend_a_fifth_and_no_more() {
        let looks: Vec<u32> = (0..12).map(look_at).collect();
        assert_eq!(looks, [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480]);
        let spent: f64 = (0..100_000).filter_map(look).sum();
        assert!(spent < LOOKS_SHARE && spent > 0.19, "{spent}");
        assert!((look(10).unwrap() - 0.04).abs() < 1e-12);
        assert_eq!((look(11), look(0)), (None, None));
        assert_eq!((next_look(0), next_look(10), next_look(79)), (10, 15, 80));
        assert_eq!(next_look(u32::MAX), u32::MAX);
    }

    #[test]
    fn eight_rounds_decide_nothing_in_a_large_table() {
        assert!(!decidable(8, 759, 0.05));
        assert!(decidable(8, 4, 0.05) && !decidable(7, 4, 0.05));
        assert_eq!(rounds_needed(759, 0.05), 16);
        assert_eq!(rounds_needed(1, 0.05), 6);
        assert_eq!(detectable_ratio(8, 759, 0.05, 0.01), None);
    }

    #[test]
    fn the_promised_difference_is_found_as_often_as_promised() {
        let mut random = SplitMix64::new(6);
        for (rounds, comparisons) in [(12, 8), (20, 40), (30, 100), (60, 100)] {
            let noise = 0.05;
            let ratio = detectable_ratio(rounds, comparisons, 0.05, noise).unwrap();
            let found = (0..600)
                .filter(|_| {
                    let differences: Vec<f64> = (0..rounds)
                        .map(|_| libm::log(ratio) + noise * random.normal_pair()[0])
                        .collect();
                    let p_value = SignedRank::new(&differences).unwrap().p_value();
                    p_value <= final_alpha(0.05) / f64::from(comparisons)
                })
                .count();
            assert!((500..=600).contains(&found), "{found} of 600 with {rounds} rounds");
        }
    }

    #[test]
    fn rounds_to_detect_inverts() {
        let rounds = rounds_to_detect(1.05, 60, 0.05, 0.04);
        assert!(detectable_ratio(rounds, 60, 0.05, 0.04).unwrap() <= 1.05);
        assert!(detectable_ratio(rounds - 1, 60, 0.05, 0.04).unwrap() > 1.05);
        assert_eq!(rounds_to_detect(1.0 / 1.05, 60, 0.05, 0.04), rounds);
        assert_eq!(rounds_to_detect(1.0, 60, 0.05, 0.04), MOST_ROUNDS);
    }
}
