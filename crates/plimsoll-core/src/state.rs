//! What a service says of its own state: which versions can read it, and how a copy of it is made and put back.

use serde::{Deserialize, Serialize};

/// `schema = { … }`: which versions of a service can read the state that this one leaves.
///
/// A version that *expands* the state writes what the version before still reads (`readable_from` below `version`); one that
/// *contracts* it later no longer does. What says nothing is not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateSchema {
    /// The newest schema it reads, from 1.
    pub version: u32,
    /// What a version must read to use the state after this one wrote it, from 1 to `version`.
    pub readable_from: u32,
}

/// `backup = { … }`: commands of a service's image that copy its state, each a program with its arguments, run beside the
/// state with the variables of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackupCommands {
    /// Writes the state as it is at one moment to standard output, while the service works.
    pub save: Vec<String>,
    /// Reads what `save` wrote from standard input and puts it in the place of the state, whole or not at all.
    pub load: Vec<String>,
}
