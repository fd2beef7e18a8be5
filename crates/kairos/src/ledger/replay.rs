//! All decisions once more, one after the other: whether each follows from those before it.

use serde::Serialize;

use super::{BackupError, Ledger};
use crate::risk::{Holdings, Record};

/// The decisions so far, checked one after the other.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) orders: u64,
    pub(super) accepted: u64,
    holdings: Holdings,
}

impl Replay {
    /// Takes the next decision; says what is wrong with it.
    pub(super) fn next(&mut self, number: u64, record: &Record) -> Result<(), String> {
        let expected = self.orders + 1;
        if number != expected {
            return Err(format!("its number is {number}, and {expected} follows"));
        }
        let held = self.holdings.get(&record.order.instrument).copied().unwrap_or_default();
        let change = if record.accepted { record.order.signed_quantity() } else { 0 };
        let after = i64::from(held.position) + change;
        if i64::from(record.position) != after {
            return Err(format!("its position is {}, and {after} follows", record.position));
        }
        self.orders = number;
        if record.accepted {
            self.accepted += 1;
            let held = self.holdings.entry(record.order.instrument.clone()).or_default();
            held.trade(&record.order, record.position);
        }
        Ok(())
    }

    /// Instruments that are held.
    pub(super) fn positions(&self) -> u64 {
        self.holdings.values().filter(|held| held.position != 0).count() as u64
    }
}

/// Checks the state itself: its pages, every decision, and that what is held follows from them.
pub(crate) fn check_state(ledger: &mut Ledger) -> Result<Counts, BackupError> {
    ledger.check_pages()?;
    let mut replay = Replay::default();
    ledger.each(&mut |number, record: Record| {
        replay.next(number, &record).map_err(|reason| BackupError::Contradiction(format!("record {number}: {reason}")))
    })?;
    let held = ledger.holdings()?;
    if held != replay.holdings {
        let differs = held.iter().find(|(name, held)| replay.holdings.get(*name) != Some(held));
        let name = differs.map_or("an instrument", |(name, _)| name.as_str());
        return Err(BackupError::Contradiction(format!("what is held of {name} does not follow from the orders")));
    }
    Ok(Counts { orders: replay.orders, accepted: replay.accepted, positions: replay.positions() })
}

/// What a state holds.
#[derive(Debug, Serialize)]
pub(crate) struct Counts {
    orders: u64,
    accepted: u64,
    positions: u64,
}
