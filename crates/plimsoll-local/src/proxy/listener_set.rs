//! The listeners a supervisor owns: bound once, handed to one proxy after another, never closed in between.

use super::table::ListenerKey;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Connections that wait to be accepted while one proxy follows another: what Linux allows by default.
const BACKLOG: i32 = 4096;

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("port {port} on 127.0.0.1 is in use by another process")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// Anything else.
    #[error("cannot listen on port {port} of 127.0.0.1")]
    Failed {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listeners by the service they are for.
#[derive(Debug, Default)]
pub struct ListenerSet(BTreeMap<ListenerKey, TcpListener>);

impl ListenerSet {
    /// Listens on `127.0.0.1:port` for a service; port 0 means a free one. Gives the address.
    pub fn bind(&mut self, key: ListenerKey, port: u16) -> Result<SocketAddr, ListenError> {
        let failed = |source: io::Error| ListenError::Failed { port, source };
        let listener = open(port).map_err(|errno| match errno {
            rustix::io::Errno::ADDRINUSE => ListenError::PortInUse { port },
            errno => failed(errno.into()),
        })?;
        let address = listener.local_addr().map_err(failed)?;
        self.0.insert(key, listener);
        Ok(address)
    }

    /// Takes over a listener that was received.
    pub fn adopt(&mut self, key: ListenerKey, listener: TcpListener) {
        self.0.insert(key, listener);
    }

    /// The listener of a service.
    pub fn get(&self, key: &ListenerKey) -> Option<&TcpListener> {
        self.0.get(key)
    }

    /// Takes a listener out. It is closed when neither the caller nor a proxy holds it.
    pub fn remove(&mut self, key: &ListenerKey) -> Option<TcpListener> {
        self.0.remove(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ListenerKey, &TcpListener)> {
        self.0.iter()
    }
}

fn open(port: u16) -> rustix::io::Result<TcpListener> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    // Connections of an earlier run in TIME_WAIT do not keep the port from being bound again.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_listened_on_is_in_use_and_names_itself() {
        let mut set = ListenerSet::default();
        let key: ListenerKey = "production/api".parse().unwrap();
        let address = set.bind(key.clone(), 0).unwrap();
        assert!(address.ip().is_loopback() && set.get(&key).is_some());
        let error = set.bind("production/web".parse().unwrap(), address.port()).unwrap_err();
        assert!(matches!(error, ListenError::PortInUse { port } if port == address.port()));
        assert_eq!(set.iter().count(), 1);
        drop(set.remove(&key));
        set.bind(key, address.port()).unwrap();
    }
}
