//! What a release changes of the objects at a target, for people: shown by `diff`. Pure; never holds a secret's value.

use crate::diff::ConfigChange;
use serde::{Deserialize, Serialize};

/// One object of a service that is not as the release would have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDiff {
    /// Which, such as `Deployment gateway-green`.
    pub object: String,
    /// What happens to it.
    #[serde(flatten)]
    pub change: ObjectChange,
}

/// What happens to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum ObjectChange {
    /// It is made.
    Added,
    /// The slot that serves has it, the next one will not.
    Removed,
    /// It is applied with other fields.
    Changed {
        /// Which ones, by path.
        fields: Vec<ConfigChange>,
    },
    /// It would be other, and stays: it is made once, and then only its selector is changed.
    Kept {
        /// What is not as it would be made, by path.
        fields: Vec<ConfigChange>,
    },
    /// Somebody else made it, and it has the name of a service; a release does not take it over.
    Foreign,
    /// It cannot be compared from here.
    Unknown {
        /// Why not.
        reason: String,
    },
}
