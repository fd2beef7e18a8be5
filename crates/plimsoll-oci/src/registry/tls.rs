//! The registry under TLS: connections are given to the server when their handshake is done.

use axum::serve::Listener;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Who does not say hello within this time is gone.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; each costs a little memory and, for a moment, a processor.
const MAX_HANDSHAKES: usize = 256;

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Certificate(Arc<ServerConfig>);

/// Why a certificate is refused.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file does not read.
    #[error("`{path}` does not read as {what}")]
    Pem {
        /// The file.
        path: String,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// They do not belong together, or are of no use.
    #[error("the certificate and its key cannot be used")]
    Unusable(#[from] rustls::Error),
}

impl Certificate {
    /// Reads a chain of certificates, the server's own first, and its key: both PEM.
    pub fn read(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let failed = |path: &Path, what| {
            let path = path.display().to_string();
            move |source| CertificateError::Pem { path, what, source }
        };
        let certificates = CertificateDer::pem_file_iter(chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(failed(chain, "a chain of certificates (PEM)"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key, "a private key (PEM)"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)?;
        Ok(Self(Arc::new(config)))
    }
}

/// What is needed to make encrypted connections out of plain ones.
pub(super) struct Encrypted {
    acceptor: TlsAcceptor,
    address: SocketAddr,
}

impl Encrypted {
    pub(super) fn new(certificate: &Certificate, address: SocketAddr) -> Self {
        Self { acceptor: TlsAcceptor::from(Arc::clone(&certificate.0)), address }
    }

    /// The encrypted connections that arrive at `listener`. One that is slow to say hello does not hold up the others.
    pub(super) fn over(self, listener: TcpListener) -> Arrivals {
        let (tx, rx) = mpsc::channel(MAX_HANDSHAKES);
        let acceptor = self.acceptor;
        let accepting = tokio::spawn(async move {
            let mut handshakes = JoinSet::new();
            loop {
                while handshakes.len() >= MAX_HANDSHAKES {
                    handshakes.join_next().await;
                }
                while handshakes.try_join_next().is_some() {}
                let Ok((stream, from)) = listener.accept().await else {
                    // As when there are too many open files: it may be better soon.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, tx) = (acceptor.clone(), tx.clone());
                handshakes.spawn(async move {
                    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(tx.send((stream, from)).await),
                        Ok(Err(error)) => tracing::debug!(%error, %from, "a handshake failed"),
                        Err(_) => tracing::debug!(%from, "a handshake took too long"),
                    }
                });
            }
        });
        Arrivals { arrived: rx, address: self.address, accepting }
    }
}

/// Encrypted connections.
pub(super) struct Arrivals {
    arrived: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Listener for Arrivals {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.arrived.recv().await {
            Some(arrived) => arrived,
            // Nobody accepts any more: nor does this.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
