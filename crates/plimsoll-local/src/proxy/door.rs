//! A door: one listening socket of the proxy. Most services have one, on loopback; one whose clients are containers has a
//! second one, at the address under which these see this machine. All doors of a service lead to the same route.

use super::table::{ListenerKey, ListenerKeyError};
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// One listening socket. As text `environment/service`, with `@address` behind it when that is not 127.0.0.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Door {
    /// The service whose requests arrive there.
    pub key: ListenerKey,
    /// The address of this machine at which it listens.
    pub address: Ipv4Addr,
}

/// A text that names no door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// What stands before the `@` is no listener's name.
    #[error(transparent)]
    Key(#[from] ListenerKeyError),
    /// What stands behind it is no address.
    #[error("`{0}` is no IPv4 address")]
    Address(String),
}

impl From<ListenerKey> for Door {
    fn from(key: ListenerKey) -> Self {
        Self { key, address: Ipv4Addr::LOCALHOST }
    }
}

impl FromStr for Door {
    type Err = DoorError;

    fn from_str(text: &str) -> Result<Self, DoorError> {
        let Some((key, address)) = text.split_once('@') else { return Ok(Self::from(text.parse::<ListenerKey>()?)) };
        let address = address.parse().map_err(|_| DoorError::Address(address.to_owned()))?;
        Ok(Self { key: key.parse()?, address })
    }
}

impl TryFrom<String> for Door {
    type Error = DoorError;

    fn try_from(text: String) -> Result<Self, DoorError> {
        text.parse()
    }
}

impl From<Door> for String {
    fn from(door: Door) -> Self {
        door.to_string()
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Ipv4Addr::LOCALHOST => write!(f, "{}", self.key),
            address => write!(f, "{}@{address}", self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_on_loopback_is_written_like_its_service_and_another_with_its_address() {
        for text in ["staging/api", "staging/api@172.18.0.1"] {
            assert_eq!(text.parse::<Door>().unwrap().to_string(), text);
        }
        assert_eq!("staging/api".parse::<Door>().unwrap().address, Ipv4Addr::LOCALHOST);
        for bad in ["staging", "staging/api@", "staging/api@host", "@127.0.0.1"] {
            assert!(bad.parse::<Door>().is_err(), "{bad}");
        }
    }
}
