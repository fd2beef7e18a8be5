//! What a service takes of a cluster: processor and memory, more or fewer replicas by load, storage.
//!
//! Releases that were recorded before there were these are read as asking for nothing.

use plimsoll_core::{ByteSize, Millicores};
use serde::{Deserialize, Serialize};

/// What one replica is promised, and what it may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Processor time it is promised.
    pub cpu: Option<Millicores>,
    /// Memory it is promised.
    pub memory: Option<ByteSize>,
    /// The most processor time; it is slowed down beyond.
    pub cpu_limit: Option<Millicores>,
    /// The most memory; it is killed beyond.
    pub memory_limit: Option<ByteSize>,
}

/// How many replicas there are, by load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Autoscale {
    /// The fewest, from 1.
    pub min: u16,
    /// The most.
    pub max: u16,
    /// The wanted average use of processor time, in per cent of what a replica is promised.
    pub cpu_pct: Option<u16>,
    /// The wanted average use of memory, in per cent of what a replica is promised.
    pub memory_pct: Option<u16>,
    /// How long less load must last before there are fewer, in seconds.
    pub scale_down_after_s: u32,
}

/// The volume of a service whose state is not external.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// How large it is.
    pub size: ByteSize,
    /// The storage class; without one, the cluster's default.
    pub class: Option<String>,
    /// Who can mount it at once.
    pub access: Access,
}

/// Who can mount a volume at once, in the words of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "these are the words of Kubernetes")]
pub enum Access {
    /// The pods of one node.
    #[default]
    ReadWriteOnce,
    /// The pods of all nodes.
    ReadWriteMany,
    /// One pod.
    ReadWriteOncePod,
}

impl Access {
    /// The word that Kubernetes has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
        }
    }
}
