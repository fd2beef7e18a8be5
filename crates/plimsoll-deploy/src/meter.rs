//! Who counts requests, where the target does not or is not to be trusted with it: a monitoring system.

use crate::{target::Fut, traffic::Traffic};
use plimsoll_core::{ServiceName, Slot};

/// Counts the requests of slots.
pub trait Meter: Send + Sync {
    /// What was counted of a slot, now. Numbers that are missing, old or no numbers are an error, never zero.
    fn read<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> Fut<'a, Traffic>;
}
