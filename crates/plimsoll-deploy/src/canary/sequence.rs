//! Confidence sequences for a share: bounds that hold at all times together.
//!
//! The likelihood of what was seen, averaged over all shares with the weights of a Beta(½, ½) distribution, over its
//! likelihood under the true share is a martingale that begins at 1. By Ville's inequality it ever reaches `1/α` with
//! probability α at most; so the shares under which it has not yet done so contain the true one with `1 - α`, whenever
//! one looks (Robbins 1970).

use libm::lgamma;

/// Halvings of an interval of length 1: more digits than a double has.
const HALVINGS: u32 = 60;

/// The shares, from 0 to 1, that `hits` of `trials` leave possible with a confidence of `1 - alpha`, at all times together.
/// Without trials: all of them.
#[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
pub fn bounds(hits: u64, trials: u64, alpha: f64) -> (f64, f64) {
    let hits = hits.min(trials);
    if trials == 0 {
        return (0.0, 1.0);
    }
    let (k, n) = (hits as f64, trials as f64);
    let limit = -alpha.ln();
    let mixture = log_beta(k + 0.5, n - k + 0.5) - log_beta(0.5, 0.5);
    let possible = |share: f64| mixture - log_likelihood(k, n, share) < limit;
    let seen = k / n;
    // The ratio falls up to the share that was seen, and grows after it.
    let low = if hits == 0 { 0.0 } else { edge(seen, 0.0, possible) };
    let high = if hits == trials { 1.0 } else { edge(seen, 1.0, possible) };
    (low, high)
}

/// Where `possible` ends between a share that is possible and one that is not.
fn edge(mut inside: f64, mut outside: f64, possible: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(inside, outside);
        if possible(middle) { inside = middle } else { outside = middle }
    }
    outside
}

fn log_beta(a: f64, b: f64) -> f64 {
    lgamma(a) + lgamma(b) - lgamma(a + b)
}

fn log_likelihood(k: f64, n: f64, share: f64) -> f64 {
    // 0 ln 0 is 0.
    let part = |count: f64, of: f64| if count == 0.0 { 0.0 } else { count * of.ln() };
    part(k, share) + part(n - k, 1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_close_in_on_what_was_seen() {
        assert_eq!(bounds(0, 0, 0.05), (0.0, 1.0));
        let (low, high) = bounds(0, 2000, 0.02);
        assert!(low == 0.0 && (0.003..0.005).contains(&high), "{high}");
        let (low, high) = bounds(30, 1000, 0.02);
        assert!((0.01..0.03).contains(&low) && (0.03..0.06).contains(&high), "{low} {high}");
        let (low, high) = bounds(3, 3, 0.02);
        assert!(low < 0.5 && high >= 1.0);
    }

    proptest! {
        #[test]
        fn the_share_that_was_seen_is_always_possible(n in 1_u64..10_000_000, part in 0.0..=1.0_f64) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any number will do")]
            let k = ((n as f64) * part) as u64;
            let (low, high) = bounds(k, n, 0.05);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let seen = k as f64 / n as f64;
            prop_assert!(low <= seen && seen <= high && low >= 0.0 && high <= 1.0);
        }
    }
}
