//! The tables, and what is read from and written to them within one transaction.

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, StorageError, Table, TableDefinition, TableError, WriteTransaction,
};

use super::{Compat, LedgerError, Schema, failed};
use crate::risk::{Holding, Holdings, Record};

/// Decisions by number, from 1 without a gap, as JSON.
const ORDERS: TableDefinition<u64, &[u8]> = TableDefinition::new("orders");
/// The number of the decision by the order's id.
const IDS: TableDefinition<&str, u64> = TableDefinition::new("ids");
/// What is held by instrument, as JSON.
const HOLDINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("holdings");
/// The highest generation by placer.
const FENCES: TableDefinition<&str, u64> = TableDefinition::new("fences");
/// Numbers about the database itself.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// In `META`: how many bytes of an earlier order log have been taken over.
const IMPORTED: &str = "imported_bytes";
/// In `META`: the newest schema that has been written.
const SCHEMA: &str = "schema";
/// In `META`: the oldest schema whose versions can read it all.
const READABLE_FROM: &str = "readable_from";

/// A snapshot.
pub(super) struct Reading {
    orders: ReadOnlyTable<u64, &'static [u8]>,
    holdings: ReadOnlyTable<&'static str, &'static [u8]>,
    compat: Compat,
}

impl Reading {
    /// Refuses a state that a process of `schema` cannot read.
    pub(super) fn new(transaction: &ReadTransaction, schema: Schema) -> Result<Self, LedgerError> {
        let meta = transaction.open_table(META).map_err(failed("open the tables"))?;
        let compat = compat(&meta, schema)?;
        let open = || Ok::<_, TableError>((transaction.open_table(ORDERS)?, transaction.open_table(HOLDINGS)?));
        let (orders, holdings) = open().map_err(failed("open the tables"))?;
        Ok(Self { orders, holdings, compat })
    }

    /// Who can read this.
    pub(super) fn compat(&self) -> Compat {
        self.compat
    }

    /// All decisions as they are kept.
    #[cfg(test)]
    pub(super) fn texts(&self) -> Result<Vec<Vec<u8>>, LedgerError> {
        let rows = self.orders.iter().map_err(failed("read the orders"))?;
        rows.map(|row| Ok(row.map_err(failed("read the orders"))?.1.value().to_vec())).collect()
    }

    /// The number of the last decision; 0 when there is none.
    pub(super) fn last(&self) -> Result<u64, LedgerError> {
        last(&self.orders)
    }

    /// The decisions from `first` on.
    pub(super) fn records(
        &self,
        first: u64,
    ) -> Result<impl Iterator<Item = Result<Record, LedgerError>> + use<'_>, LedgerError> {
        let rows = self.orders.range(first..).map_err(failed("read the orders"))?;
        Ok(rows.map(|row| {
            let (number, record) = row.map_err(failed("read the orders"))?;
            parse(self.compat, number.value(), record.value())
        }))
    }

    pub(super) fn holdings(&self) -> Result<Holdings, LedgerError> {
        holdings(&self.holdings)
    }
}

/// The tables of the one transaction that writes.
pub(super) struct Writing<'t> {
    orders: Table<'t, u64, &'static [u8]>,
    ids: Table<'t, &'static str, u64>,
    holdings: Table<'t, &'static str, &'static [u8]>,
    fences: Table<'t, &'static str, u64>,
    meta: Table<'t, &'static str, u64>,
    compat: Compat,
    changed: bool,
}

impl<'t> Writing<'t> {
    /// Refuses a state that a process of `schema` cannot read.
    pub(super) fn new(transaction: &'t WriteTransaction, schema: Schema) -> Result<Self, LedgerError> {
        let meta = transaction.open_table(META).map_err(failed("open the tables"))?;
        let compat = compat(&meta, schema)?;
        let open = || {
            Ok::<_, TableError>(Self {
                orders: transaction.open_table(ORDERS)?,
                ids: transaction.open_table(IDS)?,
                holdings: transaction.open_table(HOLDINGS)?,
                fences: transaction.open_table(FENCES)?,
                meta,
                compat,
                changed: false,
            })
        };
        open().map_err(failed("open the tables"))
    }

    /// Whether there is something to commit.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Makes a new database one that can be read, and notes that this process's schema is written from now on.
    pub(super) fn begin(&mut self) -> Result<(), LedgerError> {
        let written = value(self.meta.get(SCHEMA))?.unwrap_or(0);
        if written < self.compat.schema.number() {
            self.set(SCHEMA, self.compat.schema.number())?;
            self.set(READABLE_FROM, self.compat.readable_from.number())?;
        }
        Ok(())
    }

    /// Drops from every decision what only versions before this one need.
    pub(super) fn contract(&mut self) -> Result<Compat, LedgerError> {
        self.compat.readable_from = self.compat.schema;
        for number in 1..=self.last()? {
            let row = self.orders.get(number).map_err(failed("read an order"))?;
            let record = row.map(|row| parse(self.compat, number, row.value())).transpose()?;
            if let Some(record) = record {
                let text = self.compat.encode(&record);
                self.orders.insert(number, text.as_slice()).map_err(failed("write an order"))?;
            }
        }
        self.set(READABLE_FROM, self.compat.readable_from.number())?;
        Ok(self.compat)
    }

    /// The decision an order of this id has.
    pub(super) fn known(&self, id: &str) -> Result<Option<Record>, LedgerError> {
        let Some(number) = value(self.ids.get(id))? else { return Ok(None) };
        let record = self.orders.get(number).map_err(failed("read an order"))?;
        record.map(|record| parse(self.compat, number, record.value())).transpose()
    }

    /// The highest generation of a placer.
    pub(super) fn highest(&self, fence: &str) -> Result<Option<u64>, LedgerError> {
        value(self.fences.get(fence))
    }

    pub(super) fn holdings(&self) -> Result<Holdings, LedgerError> {
        holdings(&self.holdings)
    }

    pub(super) fn last(&self) -> Result<u64, LedgerError> {
        last(&self.orders)
    }

    /// Adds a decision and all that follows from it.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), LedgerError> {
        let number = self.last()? + 1;
        let order = &record.order;
        let text = self.compat.encode(record);
        let highest = self.highest(order.fence())?;
        let held = if record.accepted { Some(self.traded(record)?) } else { None };
        self.changed = true;
        let mut insert = || {
            self.orders.insert(number, text.as_slice())?;
            self.ids.insert(order.id.as_str(), number)?;
            if let Some(generation) = order.generation {
                self.fences.insert(order.fence(), highest.unwrap_or(0).max(generation))?;
            }
            if let Some(held) = &held {
                self.holdings.insert(order.instrument.as_str(), held.as_slice())?;
            }
            Ok::<_, StorageError>(())
        };
        insert().map_err(failed("write an order"))
    }

    /// What is held of the record's instrument after it, as JSON.
    fn traded(&self, record: &Record) -> Result<Vec<u8>, LedgerError> {
        let instrument = record.order.instrument.as_str();
        let row = self.holdings.get(instrument).map_err(failed("read a holding"))?;
        let mut held = row.map_or_else(|| Ok(Holding::default()), |row| holding(instrument, row.value()))?;
        held.trade(&record.order, record.position);
        Ok(serde_json::to_vec(&held).expect("a holding has string keys and finite numbers"))
    }

    /// How many bytes of an earlier order log have been taken over.
    pub(super) fn imported(&self) -> Result<u64, LedgerError> {
        Ok(value(self.meta.get(IMPORTED))?.unwrap_or(0))
    }

    pub(super) fn set_imported(&mut self, bytes: u64) -> Result<(), LedgerError> {
        self.set(IMPORTED, bytes)
    }

    fn set(&mut self, key: &str, value: u64) -> Result<(), LedgerError> {
        self.changed = true;
        self.meta.insert(key, value).map_err(failed("write"))?;
        Ok(())
    }
}

type Found<'a> = Result<Option<redb::AccessGuard<'a, u64>>, StorageError>;

fn value(found: Found<'_>) -> Result<Option<u64>, LedgerError> {
    Ok(found.map_err(failed("read"))?.map(|guard| guard.value()))
}

fn compat(meta: &impl ReadableTable<&'static str, u64>, schema: Schema) -> Result<Compat, LedgerError> {
    let readable_from = value(meta.get(READABLE_FROM))?.map_or(Schema::OLDEST, Schema::new);
    Compat { schema, readable_from }.check()
}

fn last(orders: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, LedgerError> {
    Ok(orders.last().map_err(failed("read the last order"))?.map_or(0, |(number, _)| number.value()))
}

fn holdings(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Holdings, LedgerError> {
    let mut all = Holdings::new();
    for row in table.iter().map_err(failed("read the holdings"))? {
        let (instrument, held) = row.map_err(failed("read the holdings"))?;
        all.insert(instrument.value().to_owned(), holding(instrument.value(), held.value())?);
    }
    Ok(all)
}

fn holding(instrument: &str, text: &[u8]) -> Result<Holding, LedgerError> {
    serde_json::from_slice(text)
        .map_err(|source| LedgerError::DamagedHolding { instrument: instrument.to_owned(), source })
}

fn parse(compat: Compat, number: u64, text: &[u8]) -> Result<Record, LedgerError> {
    compat.decode(text).map_err(|source| LedgerError::Damaged { number, source })
}
