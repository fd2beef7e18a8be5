//! `[signing]`: which key signs what is released, and whose signatures count.

use super::SecretSource;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[signing]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Signing {
    /// The private key (ECDSA over P-256, in PEM); default: one of this machine, made when it is first needed, except under the
    /// profile `github`.
    pub key: Option<SecretSource>,
    /// The password of a sealed key, such as one of `cosign generate-key-pair`.
    pub password: Option<SecretSource>,
    /// Public keys (PEM) whose signatures count: files, relative to the workspace; default: the key that signed when a
    /// run pushed its images.
    pub trusted: Vec<PathBuf>,
}
