//! What the risk manager decides. Pure: the past and an order in, a verdict out; no files, no clock.
//!
//! All that matters of the past is in the state, so that two processes which share it decide alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::is_instrument;

#[cfg(test)]
mod tests;

/// Direction of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Buy,
    Sell,
}

/// An order as it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Chosen by the placer; the same id is the same order.
    pub(crate) id: String,
    pub(crate) instrument: String,
    pub(crate) side: Side,
    /// Shares, above 0.
    pub(crate) quantity: u32,
    /// Money per share.
    pub(crate) price: f64,
    /// The generation under which the placer was active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// The slot (or the name) of who placed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) placed_by: Option<String>,
    /// The service behind the slots, for placers which have slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) placer: Option<String>,
}

impl Order {
    /// This order at a price of whole millionths, as it is kept.
    pub(crate) fn rounded(&self) -> Self {
        Self { price: price_of(self.price_micros()), ..self.clone() }
    }

    /// The price in millionths. What is no price at all is 0.
    pub(crate) fn price_micros(&self) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "a price is at most 10^9; what is beyond is refused")]
        let micros = (self.price * 1e6).round() as i64;
        micros
    }

    /// Whose generations this order is compared with: blue and green are one placer.
    pub(crate) fn fence(&self) -> &str {
        match (self.placer.as_deref(), self.placed_by.as_deref()) {
            (Some(placer), _) => placer,
            (None, None | Some("blue" | "green")) => "",
            (None, Some(name)) => name,
        }
    }

    /// Shares, negative when sold.
    pub(crate) fn signed_quantity(&self) -> i64 {
        match self.side {
            Side::Buy => i64::from(self.quantity),
            Side::Sell => -i64::from(self.quantity),
        }
    }

    /// A retry may carry a fresher price and come from another slot; anything else makes it another order.
    fn same_trade(&self, other: &Self) -> bool {
        self.instrument == other.instrument && self.side == other.side && self.quantity == other.quantity
    }

    /// Why this is no order at all, if it is not.
    fn malformed(&self) -> Option<String> {
        // Bounds that keep one record of the log below one kilobyte and sums within 64 bits.
        let name = |text: &str| (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !name(&self.id) {
            return Some("id must be 1 to 128 visible ASCII characters".to_owned());
        }
        if ![&self.placed_by, &self.placer].into_iter().flatten().all(|text| name(text)) {
            return Some("placed_by and placer must be 1 to 128 visible ASCII characters".to_owned());
        }
        if !is_instrument(&self.instrument) {
            return Some("instrument must be 1 to 16 capital letters, digits, dots or dashes".to_owned());
        }
        if !(1..=1_000_000_000).contains(&self.quantity) {
            return Some("quantity must be from 1 to 1000000000 shares".to_owned());
        }
        if !(self.price > 0.0 && self.price <= 1e9) {
            return Some("price must be above 0 and at most 1000000000".to_owned());
        }
        None
    }
}

/// A price kept in millionths. They are at most 10^15, which a floating-point number holds exactly.
pub(crate) fn price_of(micros: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 10^15")]
    let micros = micros as f64;
    micros / 1e6
}

/// A decision that stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) order: Order,
    pub(crate) accepted: bool,
    /// The instrument's position after the decision, shares.
    pub(crate) position: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The slot of the risk manager that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) handled_by: Option<String>,
}

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Shares, either way, per instrument.
    pub(crate) max_position: u32,
    /// Money.
    pub(crate) max_loss: f64,
}

/// The answer to an order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// A decision to record.
    Decided(Record),
    /// The id has been decided before; nothing to record.
    Known(Record),
    /// The id stands for a different order.
    Mismatch,
    /// Its placer has been seen with a higher generation; not recorded, as a successor may send the same id.
    Stale { highest: u64 },
    /// No order at all; not recorded.
    Malformed(String),
    /// New, and nothing new is taken; not recorded.
    ReadOnly,
}

/// What is held of one instrument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Holding {
    /// Shares; negative when sold short.
    pub(crate) position: i32,
    /// Average price paid for them.
    pub(crate) average_price: f64,
    /// Price of the latest accepted order.
    pub(crate) mark: f64,
    /// Money gained (lost below 0) by closed shares.
    pub(crate) realised: f64,
}

impl Holding {
    /// Money gained (lost below 0) with open shares valued at `mark`.
    fn profit_at(&self, mark: f64) -> f64 {
        self.realised + f64::from(self.position) * (mark - self.average_price)
    }

    /// Takes an accepted order into account.
    pub(crate) fn trade(&mut self, order: &Order, position: i32) {
        let (before, price) = (f64::from(self.position), order.price);
        let (after, traded) = (f64::from(position), f64::from(position) - before);
        if before * traded >= 0.0 {
            // Opened or increased. A trade is never 0 shares, so `after` is not 0 here.
            self.average_price = (self.average_price * before + price * traded) / after;
        } else {
            let closed = before.abs().min(traded.abs()) * before.signum();
            self.realised += closed * (price - self.average_price);
            if after * before <= 0.0 {
                self.average_price = if position == 0 { 0.0 } else { price };
            }
        }
        self.position = position;
        self.mark = price;
    }
}

/// What has been decided before, as far as it matters to one order.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// The decision which the order's id has already.
    pub(crate) known: Option<Record>,
    /// The highest generation seen from its placer.
    pub(crate) highest: Option<u64>,
    /// Everything held.
    pub(crate) holdings: Holdings,
}

/// What is held, by instrument.
pub(crate) type Holdings = BTreeMap<String, Holding>;

/// Decides `order`.
pub(crate) fn decide(order: &Order, past: &Past, limits: Limits, handled_by: Option<&str>) -> Verdict {
    if let Some(reason) = order.malformed() {
        return Verdict::Malformed(reason);
    }
    if let Some(known) = &past.known {
        return if known.order.same_trade(order) { Verdict::Known(known.clone()) } else { Verdict::Mismatch };
    }
    if let (Some(generation), Some(highest)) = (order.generation, past.highest)
        && generation < highest
    {
        return Verdict::Stale { highest };
    }
    let held = past.holdings.get(&order.instrument).copied().unwrap_or_default();
    let outcome = within(order, &past.holdings, limits, held.position);
    Verdict::Decided(Record {
        order: order.clone(),
        accepted: outcome.is_ok(),
        position: *outcome.as_ref().unwrap_or(&held.position),
        reason: outcome.err(),
        handled_by: handled_by.map(str::to_owned),
    })
}

/// The position after `order`, or the limit it breaks. An order that only reduces a position breaks none:
/// closing must stay possible after a loss.
fn within(order: &Order, holdings: &Holdings, limits: Limits, held: i32) -> Result<i32, String> {
    let after = i64::from(held) + order.signed_quantity();
    if after.unsigned_abs() <= i64::from(held).unsigned_abs() && after.signum() != -i64::from(held).signum() {
        return Ok(i32::try_from(after).expect("between 0 and a position"));
    }
    if after.unsigned_abs() > u64::from(limits.max_position) {
        return Err(format!("position limit: {after} shares would exceed {} either way", limits.max_position));
    }
    let at =
        |name: &str, held: &Holding| held.profit_at(if name == order.instrument { order.price } else { held.mark });
    let loss = -holdings.iter().map(|(name, held)| at(name, held)).sum::<f64>();
    if loss > limits.max_loss {
        return Err(format!("loss limit: {loss:.2} is lost, {:.2} is allowed", limits.max_loss));
    }
    Ok(i32::try_from(after).expect("within a limit of 32 bits"))
}

/// Money gained (lost below 0) over all, at the latest trades.
pub(crate) fn total_profit(holdings: &Holdings) -> f64 {
    holdings.values().map(|held| held.profit_at(held.mark)).sum()
}
