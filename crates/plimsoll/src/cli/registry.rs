//! `registry`: its verbs and options.

use clap::{Args, Subcommand};
use plimsoll_core::config::Period;
use std::{net::SocketAddr, path::PathBuf};

/// `registry`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Registry {
    /// Serve a registry until this command is ended
    #[command(
        after_help = "Whoever could be on another machine wants a name and a password (`htpasswd -B`) and an encrypted line.\n\nExamples:\n  cargo xtask registry serve --addr 127.0.0.1:5000 --root ./images\n  cargo xtask registry serve --addr 0.0.0.0:443 --root /srv/images --htpasswd users --anonymous-pull \\\n    --tls-cert chain.pem --tls-key key.pem"
    )]
    Serve(ServeArgs),
    /// Remove blobs that no manifest names and uploads that broke off; a registry may be serving meanwhile
    #[command(
        after_help = "Examples:\n  cargo xtask registry gc --dry-run\n  cargo xtask registry gc --root /srv/images --untagged --grace 24h"
    )]
    Gc(GcArgs),
    /// List repositories, their tags and what they hold
    List {
        #[command(flatten)]
        place: RegistryPlace,
    },
}

/// Where a registry lies.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryPlace {
    /// Its directory [default: the embedded registry's, in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// `registry serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    pub(crate) addr: SocketAddr,
    #[command(flatten)]
    pub(crate) place: RegistryPlace,
    /// Refuse pushes and deletions
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Names and passwords of those who have access
    #[arg(long, value_name = "FILE")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Let others pull
    #[arg(long, requires = "htpasswd")]
    pub(crate) anonymous_pull: bool,
    /// How others reach it, where a proxy in front of it ends TLS
    #[arg(long, value_name = "URL", requires = "htpasswd")]
    pub(crate) url: Option<String>,
    /// Its certificate and those that vouch for it, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// `registry gc`.
#[derive(Debug, Clone, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) place: RegistryPlace,
    /// What was pushed, looked for or named within this time stays; longer than a push takes
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub(crate) grace: Period,
    /// Remove manifests too that no tag leads to; releases that are deployed by digest alone would go
    #[arg(long)]
    pub(crate) untagged: bool,
    /// Count, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
