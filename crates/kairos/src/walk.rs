//! The seeded random walk of prices. Pure: the price of a seq follows from seed, instrument and the price before.

/// The first price of an instrument, between 50 and 250.
pub(crate) fn first_price(seed: u64, instrument: &str) -> f64 {
    let start = instrument.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
    cents(50.0 + 200.0 * unit(mix(start)))
}

/// The price at `seq` after `previous`: at most one per cent away, never below one.
pub(crate) fn next_price(seed: u64, seq: u64, previous: f64) -> f64 {
    let step = (unit(mix(seed ^ mix(seq))) - 0.5) * 0.02;
    cents((previous * (1.0 + step)).max(1.0))
}

fn cents(price: f64) -> f64 {
    (price * 100.0).round() / 100.0
}

/// From the upper 32 bits, so that the conversion to a float is exact.
fn unit(random: u64) -> f64 {
    let upper = u32::try_from(random >> 32).expect("32 bits remain");
    f64::from(upper) / f64::from(u32::MAX)
}

/// The finalizer of `SplitMix64`: neighbouring inputs give unrelated outputs.
fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(seed: u64, length: u64) -> Vec<f64> {
        let mut price = first_price(seed, "AAPL");
        (1..=length)
            .map(|seq| {
                price = next_price(seed, seq, price);
                price
            })
            .collect()
    }

    #[test]
    fn a_seed_gives_the_same_walk_and_another_seed_another() {
        assert_eq!(walk(1, 50), walk(1, 50));
        assert_ne!(walk(1, 50), walk(2, 50));
    }

    #[test]
    fn steps_stay_within_one_per_cent_and_above_one() {
        let prices = walk(3, 5000);
        for pair in prices.windows(2) {
            assert!((pair[1] - pair[0]).abs() <= pair[0] * 0.01 + 0.01, "{pair:?}");
            assert!(pair[1] >= 1.0);
        }
        assert!(prices.windows(2).any(|p| p[1] > p[0]) && prices.windows(2).any(|p| p[1] < p[0]));
    }
}
