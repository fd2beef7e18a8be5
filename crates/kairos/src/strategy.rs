//! The moving-average crossover. Pure: prices in, crosses out; who trades on them is elsewhere.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::risk::Side;

/// Prices in the short average.
pub(crate) const SHORT: usize = 5;
/// Prices in the long average, and all that is remembered.
pub(crate) const LONG: usize = 20;

/// The last prices of one instrument and on which side the short average was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Crossover {
    prices: VecDeque<f64>,
    above: Option<bool>,
}

impl Crossover {
    /// Takes the next price; says what to do when the short average has crossed the long one.
    ///
    /// Equal averages are no crossing: the side before stays until the short one is really beyond.
    pub(crate) fn push(&mut self, price: f64) -> Option<Side> {
        self.prices.push_back(price);
        if self.prices.len() > LONG {
            self.prices.pop_front();
        }
        if self.prices.len() < LONG {
            return None;
        }
        let difference = self.average(SHORT) - self.average(LONG);
        // Averages of equal prices differ by rounding; a millionth of the price is no signal.
        if difference.abs() <= price * 1e-6 {
            return None;
        }
        let above = difference > 0.0;
        let crossed = self.above.is_some_and(|before| before != above);
        self.above = Some(above);
        crossed.then_some(if above { Side::Buy } else { Side::Sell })
    }

    fn average(&self, last: usize) -> f64 {
        let count = u32::try_from(last).expect("a window is small");
        self.prices.iter().rev().take(last).sum::<f64>() / f64::from(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signals(prices: impl IntoIterator<Item = f64>) -> Vec<(usize, Side)> {
        let mut crossover = Crossover::default();
        prices.into_iter().enumerate().filter_map(|(i, p)| Some((i, crossover.push(p)?))).collect()
    }

    #[test]
    fn constant_prices_give_no_signal() {
        assert_eq!(signals(std::iter::repeat_n(100.1, 200)), []);
    }

    #[test]
    fn nothing_is_said_before_the_long_window_is_full() {
        assert_eq!(signals((0..19).map(|i| if i % 2 == 0 { 90.0 } else { 110.0 })), []);
    }

    #[test]
    fn a_fall_then_a_rise_buys_once_and_the_next_fall_sells_once() {
        let fall = (0..25).map(|i| 100.0 - f64::from(i));
        let rise = (0..25).map(|i| 76.0 + f64::from(i));
        let again = (0..25).map(|i| 100.0 - f64::from(i));
        let sides: Vec<Side> = signals(fall.chain(rise).chain(again)).into_iter().map(|(_, side)| side).collect();
        assert_eq!(sides, [Side::Buy, Side::Sell]);
    }

    #[test]
    fn a_restored_window_goes_on_as_if_never_interrupted() {
        let prices: Vec<f64> = (0..90).map(|i| 100.0 + 10.0 * (f64::from(i) / 7.0).sin()).collect();
        let mut crossover = Crossover::default();
        let mut found = Vec::new();
        for (index, price) in prices.iter().enumerate() {
            let stored = serde_json::to_string(&crossover).expect("serializable");
            crossover = serde_json::from_str(&stored).expect("restored");
            found.extend(crossover.push(*price).map(|side| (index, side)));
        }
        assert_eq!(found, signals(prices));
        assert!(found.len() > 2);
    }
}
