//! An embedded registry over a directory: the OCI distribution specification 1.1 as far as skopeo, docker, crane and
//! Plimsoll's own client use it.
//!
//! ```text
//! blobs/sha256/<hex>                     every blob once, whichever repository it came to
//! repositories/<name>/_manifests/<hex>   manifests and indexes
//! repositories/<name>/_tags/<tag>        a digest
//! repositories/<name>/_referrers/<subject hex>/<hex>
//! repositories/<name>/_uploads/<id>      what is on its way
//! ```
//!
//! Everything but uploads is written beside, synced and renamed; a manifest is accepted when all it names is there, and a
//! blob that a manifest names cannot be deleted. There is no authentication, so it listens on loopback alone, and all
//! repositories share their blobs.

mod api;
mod blobs;
mod error;
mod manifests;
mod route;
mod storage;
mod uploads;

use crate::BlobError;
use plimsoll_core::{Classify, ErrorClass};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

/// Why the registry could not serve.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another machine could reach it.
    #[error("the registry has no authentication and listens on loopback only, not on {address}")]
    NotLoopback {
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
            Self::NotLoopback { .. } => ErrorClass::User,
            Self::Storage(_) | Self::Listener(_) => ErrorClass::External,
        }
    }
}

/// Serves the registry in `root` on `listener` until `shutdown` is ready and requests under way have ended.
pub async fn serve(
    listener: std::net::TcpListener,
    root: PathBuf,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RegistryError> {
    let address = listener.local_addr().map_err(RegistryError::Listener)?;
    if !address.ip().is_loopback() {
        return Err(RegistryError::NotLoopback { address });
    }
    listener.set_nonblocking(true).map_err(RegistryError::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(RegistryError::Listener)?;
    let api = Arc::new(api::Api::open(root)?);
    let app = axum::Router::new().fallback(api::handle).with_state(api);
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await.map_err(RegistryError::Listener)
}
