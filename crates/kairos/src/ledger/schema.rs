//! Which versions can read the state: its schema, and the way from one to the next without a stop.
//!
//! | schema | a stored order has |
//! |---|---|
//! | 1 | `price`, in a line of `orders.jsonl` |
//! | 2 | `price` as a floating-point number, in the database |
//! | 3 | `price_micros`, a whole number of millionths |
//!
//! *Expand*: a version of schema 3 writes both and reads either, so that one of schema 2, which ignores what it does not
//! know, shares the state meanwhile, and can be returned to. *Contract*, once nobody means to return: `price` is dropped
//! everywhere, and a version of schema 2 refuses. Pure; where it is kept is in `store`.

use serde::Serialize;
use serde_json::Value;

use super::LedgerError;
use crate::risk::Record;

/// What a process reads up to, and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Schema(u64);

impl Schema {
    /// The first one that is a database, and the one of the version before.
    pub(crate) const OLDEST: Self = Self(2);
    /// This version's.
    pub(crate) const NEWEST: Self = Self(3);

    /// A number of the configuration.
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

/// Whether an older version can read the state: when the schema it tells itself is at least `readable_from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Compat {
    /// What whoever tells this writes.
    pub(crate) schema: Schema,
    /// What a version must read to use the state as it is now.
    pub(crate) readable_from: Schema,
}

impl Compat {
    /// Refuses a state that whoever asks cannot read.
    pub(super) fn check(self) -> Result<Self, LedgerError> {
        if self.readable_from <= self.schema {
            Ok(self)
        } else {
            Err(LedgerError::TooNew { readable_from: self.readable_from.0, known: self.schema.0 })
        }
    }

    /// A record in the form in which it is kept.
    pub(super) fn encode(self, record: &Record) -> Vec<u8> {
        let mut stored = serde_json::to_value(record).expect("a record has string keys and finite numbers");
        if self.schema >= Schema::NEWEST {
            stored["price_micros"] = Value::from(record.order.price_micros());
        }
        if self.readable_from >= Schema::NEWEST
            && let Some(stored) = stored.as_object_mut()
        {
            stored.remove("price");
        }
        serde_json::to_vec(&stored).expect("a value has string keys")
    }

    /// The record kept in `text`, in either form.
    pub(super) fn decode(self, text: &[u8]) -> Result<Record, serde_json::Error> {
        if self.schema < Schema::NEWEST {
            return serde_json::from_slice(text);
        }
        let mut stored: Value = serde_json::from_slice(text)?;
        if let Some(micros) = stored["price_micros"].as_i64() {
            stored["price"] = Value::from(crate::risk::price_of(micros));
        }
        serde_json::from_value(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::store::Reading;
    use crate::ledger::{Ledger, check_state};
    use crate::risk::{Limits, Order, Verdict};

    const LIMITS: Limits = Limits { max_position: 1000, max_loss: 1e6 };

    fn order(id: &str) -> Order {
        let text = format!(r#"{{"id":"{id}","instrument":"AAPL","side":"buy","quantity":1,"price":10.123456789}}"#);
        serde_json::from_str(&text).expect("an order")
    }

    fn place(ledger: &Ledger, id: &str) -> Result<Verdict, LedgerError> {
        ledger.decide(&order(id), LIMITS, None, false)
    }

    fn kept(ledger: &Ledger) -> Vec<Value> {
        ledger
            .read(Reading::texts)
            .expect("read")
            .iter()
            .map(|text| serde_json::from_slice(text).expect("JSON"))
            .collect()
    }

    #[test]
    fn the_version_before_shares_an_expanded_state_and_reads_what_this_one_writes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let open = |schema| Ledger::open(Some(directory.path()), schema).expect("opened");
        let (before, this) = (open(Schema::OLDEST), open(Schema::NEWEST));
        for (ledger, id) in [(&before, "1"), (&this, "2"), (&before, "3"), (&this, "4")] {
            assert!(matches!(place(ledger, id), Ok(Verdict::Decided(_))));
        }
        let kept = kept(&this);
        let has = |key: &str| kept.iter().map(|order| order[key].is_number()).collect::<Vec<_>>();
        assert_eq!((has("price"), has("price_micros")), (vec![true; 4], vec![false, true, false, true]));
        assert_eq!(kept[1]["price_micros"], 10_123_457);
        let all = |ledger: &Ledger| ledger.orders(0, 9).expect("readable").records;
        assert_eq!(all(&before), all(&this));
        assert!((all(&before)[3].order.price - 10.123_457).abs() < 1e-12, "both decide by the same price");
        let compat = this.compat().expect("readable");
        assert_eq!(compat, Compat { schema: Schema::NEWEST, readable_from: Schema::OLDEST });
    }

    #[test]
    fn a_contracted_state_is_the_same_to_this_version_and_refused_by_the_one_before() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let open = |schema| Ledger::open(Some(directory.path()), schema);
        let before = open(Schema::OLDEST).expect("opened");
        let mut this = open(Schema::NEWEST).expect("opened");
        for (ledger, id) in [(&before, "1"), (&this, "2")] {
            place(ledger, id).expect("decided");
        }
        let records = this.orders(0, 9).expect("readable").records;
        for _ in 0..2 {
            assert_eq!(this.contract().expect("contracted").readable_from, Schema::NEWEST, "also a second time");
        }
        place(&this, "3").expect("decided");
        assert!(kept(&this).iter().all(|order| order["price"].is_null() && order["price_micros"].is_i64()));
        assert_eq!(this.orders(0, 2).expect("readable").records, records);
        check_state(&mut this).expect("whole");

        let told = place(&before, "4").expect_err("it runs, and refuses").to_string();
        assert_eq!(told, "the state needs a version that reads schema 3: this one reads up to 2");
        assert!(matches!(before.holdings(), Err(LedgerError::TooNew { .. })));
        assert!(matches!(open(Schema::OLDEST), Err(LedgerError::TooNew { readable_from: 3, known: 2 })));
        assert!(matches!(before.contract(), Err(LedgerError::TooNew { .. })));
        assert_eq!(this.orders(0, 9).expect("readable").total, 3);
    }

    #[test]
    fn a_version_before_cannot_contract() {
        let before = Ledger::open(None, Schema::OLDEST).expect("opened");
        assert!(matches!(before.contract(), Err(LedgerError::CannotContract { known: 2 })));
    }
}
