//! What is not about one service or environment: images, notices and profiles.

use super::{Base, Evidence, Registry, SecretSource};
use crate::Platform;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Images {
    /// The platforms of every image; default: all that Plimsoll knows.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<super::schema::PlatformWord>"))]
    pub platforms: Vec<Platform>,
    /// Where images are pushed: `embedded` (default) or `host[:port][/prefix]`.
    pub registry: Registry,
    /// What images are built on: `scratch` (default) or an image by digest.
    pub base: Base,
    /// How layers are stored; default: gzip, which everything reads.
    pub compression: LayerCompression,
    /// Compilers and linkers for platforms; without an entry one is looked for.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, PlatformToolchain>"))]
    pub toolchains: BTreeMap<Platform, PlatformToolchain>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            platforms: Platform::ALL.to_vec(),
            registry: Registry::default(),
            base: Base::default(),
            compression: LayerCompression::default(),
            toolchains: BTreeMap::new(),
        }
    }
}

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LayerCompression {
    /// As gzip.
    #[default]
    Gzip,
    /// As zstd, which engines and registries of the last years read.
    Zstd,
}

/// `[images.toolchains."linux/arm64"]`: what compiles for a platform.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlatformToolchain {
    /// The target triple; default: the platform's musl target.
    pub target: Option<String>,
    /// The compiler; default: the one that compiles everything else.
    pub rustc: Option<PathBuf>,
    /// The program that links; default: what rustc takes for the target.
    pub linker: Option<String>,
}

/// `[registries."HOST"]`: how a registry is reached. What is not said here is as Docker's own configuration and the system's
/// certificates have it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RegistryAccess {
    /// Who logs in; default: as `docker login` or a credential helper has it.
    pub username: Option<String>,
    /// The secret that is the password or token.
    pub password: Option<SecretSource>,
    /// Certificates (PEM) that vouch for the registry besides the system's: a file, relative to the workspace.
    pub ca: Option<PathBuf>,
    /// Speak plain HTTP to it, which it and everybody between may read and change; loopback always is spoken to so.
    pub plain_http: bool,
    /// Where its images are looked for first when they are pulled by digest: `host[:port][/path]`.
    pub mirrors: Vec<String>,
}

/// `[notify]`: who is told what happens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notify {
    /// Notices among the command's own output.
    pub console: ConsoleChannel,
    /// Notices to a Slack channel.
    pub slack: Option<SlackChannel>,
    /// Notices to any HTTP endpoint.
    pub webhook: Option<WebhookChannel>,
}

/// `[notify.console]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsoleChannel {
    /// Whether notices are printed; default true.
    pub enabled: bool,
}

impl Default for ConsoleChannel {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[notify.slack]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlackChannel {
    /// Where the address of the incoming webhook comes from; it is a secret.
    pub webhook: SecretSource,
    /// What is told; default: everything.
    #[serde(default = "NoticeEvent::all")]
    pub events: Vec<NoticeEvent>,
}

/// `[notify.webhook]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WebhookChannel {
    /// Where the address comes from; it is a secret.
    pub url: SecretSource,
    /// Where the key comes from that signs each notice (HMAC-SHA256); without one they are not signed.
    #[serde(default)]
    pub secret: Option<SecretSource>,
    /// What is told; default: everything.
    #[serde(default = "NoticeEvent::all")]
    pub events: Vec<NoticeEvent>,
}

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NoticeEvent {
    /// A release or rollback began.
    Started,
    /// It ended well.
    Succeeded,
    /// It failed.
    Failed,
    /// It waits for a person's yes.
    ApprovalWanted,
    /// An environment went back to what it served before.
    RolledBack,
}

impl NoticeEvent {
    /// Every event, in the order in which a run meets them.
    pub const ALL: [Self; 5] = [Self::Started, Self::Succeeded, Self::Failed, Self::ApprovalWanted, Self::RolledBack];

    fn all() -> Vec<Self> {
        Self::ALL.to_vec()
    }
}

/// Where Plimsoll runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Profile {
    /// On somebody's machine.
    Local,
    /// In a job of GitHub Actions.
    Github,
}

impl Profile {
    /// What holds in this profile when the configuration does not say otherwise.
    pub const fn defaults(self) -> ProfileRules {
        match self {
            Self::Local => ProfileRules { missing_toolchain: Severity::Warn, evidence: Evidence::None },
            // A job has no terminal, and the name that started it is no yes: the weakest that others can check.
            Self::Github => ProfileRules { missing_toolchain: Severity::Error, evidence: Evidence::SshSignature },
        }
    }
}

/// `[profiles]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Profiles {
    /// On somebody's machine.
    pub local: ProfileSettings,
    /// In a job of GitHub Actions.
    pub github: ProfileSettings,
}

/// `[profiles.local]` and `[profiles.github]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProfileSettings {
    /// What a platform is whose toolchain is missing; default `warn` in `local`, `error` in `github`.
    pub missing_toolchain: Option<Severity>,
    /// The least evidence any gated environment accepts; default `none` in `local`, `ssh-signature` in `github`.
    pub evidence: Option<Evidence>,
}

/// What holds in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProfileRules {
    /// What a platform is whose toolchain is missing.
    pub missing_toolchain: Severity,
    /// The least evidence any gated environment accepts.
    pub evidence: Evidence,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Severity {
    /// It is said, and left out.
    Warn,
    /// It fails the run.
    Error,
}
