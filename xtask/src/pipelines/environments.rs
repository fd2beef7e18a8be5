//! The environments this repository releases to, as types.

use plimsoll::prelude::*;

/// Where every release is tried first. Everything may enter.
pub(crate) struct Staging;

impl Environment for Staging {
    const NAME: &'static str = "staging";
    type Gate = Open<Self>;
}

/// Where users are. Nothing enters without a person's yes.
pub(crate) struct Production;

impl Environment for Production {
    const NAME: &'static str = "production";
    type Gate = Approval<Self>;
}
