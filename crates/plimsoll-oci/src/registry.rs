//! An embedded registry over a directory: the OCI distribution specification 1.1.
//!
//! ```text
//! format                                 the layout's version
//! lock                                   whose turn it is to change what is linked
//! blobs/<algorithm>/<hex>                every blob once, whichever repository it came to
//! repositories/<name>/_blobs/<hex>       empty: the repository has this blob
//! repositories/<name>/_manifests/<hex>   manifests and indexes
//! repositories/<name>/_tags/<tag>        a digest
//! repositories/<name>/_referrers/<subject hex>/<hex>
//! repositories/<name>/_uploads/<id>      what is on its way
//! ```
//!
//! Everything but uploads is written beside, synced and renamed; a manifest is accepted when all it names is there, and a
//! blob that a manifest of the repository names cannot be deleted. What nothing names any more goes by [`collect`].
//!
//! Without users it listens on loopback alone. It is no mirror and no proxy of other registries.

mod access;
mod api;
mod blobs;
mod error;
mod garbage;
mod listing;
mod manifests;
mod route;
mod storage;
mod tls;
mod turn;
mod uploads;

pub use access::{Access, AccessError};
pub use garbage::{Collected, Garbage, collect};
pub use listing::{Repository, Tag, list};
pub use tls::{Certificate, CertificateError};

use crate::BlobError;
use plimsoll_core::{Classify, ErrorClass};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

/// How a registry is served.
#[derive(Debug, Default)]
pub struct Options {
    /// Nothing is pushed, and nothing deleted.
    pub read_only: bool,
    /// Who has access; without it everybody on this machine has.
    pub access: Option<Access>,
    /// Its certificate; without one it speaks plain HTTP.
    pub tls: Option<Certificate>,
    /// How others reach it, where something in front of it speaks TLS; clients send their passwords there.
    pub url: Option<String>,
}

/// Why the registry could not serve.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another machine could reach it.
    #[error("who is not on this machine could reach {address}: there the registry wants users and a certificate")]
    Open {
        /// The refused address.
        address: SocketAddr,
    },
    /// Its directory is unusable.
    #[error("the registry's directory is unusable")]
    Storage(#[from] BlobError),
    /// The listener failed.
    #[error("the registry's listener failed")]
    Listener(#[source] io::Error),
}

impl Classify for RegistryError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Open { .. } => ErrorClass::User,
            Self::Storage(_) | Self::Listener(_) => ErrorClass::External,
        }
    }
}

/// Serves the registry in `root` on `listener` until `shutdown` is ready and requests under way have ended.
pub async fn serve(
    listener: std::net::TcpListener,
    root: PathBuf,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RegistryError> {
    let address = listener.local_addr().map_err(RegistryError::Listener)?;
    if !address.ip().is_loopback() && (options.access.is_none() || options.tls.is_none()) {
        return Err(RegistryError::Open { address });
    }
    listener.set_nonblocking(true).map_err(RegistryError::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(RegistryError::Listener)?;
    let encrypted = options.tls.as_ref().map(|tls| tls::Encrypted::new(tls, address));
    // It may wait for somebody who collects rubbish, or upgrade what an earlier version left.
    let opened = tokio::task::spawn_blocking(move || api::Api::open(root, options)).await;
    let api = Arc::new(opened.map_err(|e| RegistryError::Listener(io::Error::other(e)))??);
    let app = axum::Router::new().fallback(api::handle).with_state(api);
    let served = match encrypted {
        None => axum::serve(listener, app).with_graceful_shutdown(shutdown).await,
        Some(encrypted) => axum::serve(encrypted.over(listener), app).with_graceful_shutdown(shutdown).await,
    };
    served.map_err(RegistryError::Listener)
}
