//! What a service takes of a cluster: processor and memory, more or fewer replicas by load, storage.
//!
//! The `local` target has no use for these: its processes share one machine.

use super::Period;
use crate::{ByteSize, Millicores};
use serde::{Deserialize, Serialize};

/// `resources = { … }`: what one replica is promised (`cpu`, `memory`) and what it may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resources {
    /// Processor time it is promised, such as `100m` (a tenth of a core).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Millicores>,
    /// Memory it is promised, such as `64Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// The most processor time; it is slowed down beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<Millicores>,
    /// The most memory; it is killed beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<ByteSize>,
}

impl Resources {
    /// What is said here, and where nothing is, what `farther` says.
    pub fn or(self, farther: Self) -> Self {
        Self {
            cpu: self.cpu.or(farther.cpu),
            memory: self.memory.or(farther.memory),
            cpu_limit: self.cpu_limit.or(farther.cpu_limit),
            memory_limit: self.memory_limit.or(farther.memory_limit),
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `autoscale = { … }`: how many replicas there are, by load; `replicas` is how many it starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Autoscale {
    /// The fewest replicas, from 1.
    pub min: u16,
    /// The most replicas, up to 1000.
    pub max: u16,
    /// The wanted average use of processor time, in per cent of `resources.cpu`, from 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<u16>,
    /// The wanted average use of memory, in per cent of `resources.memory`, from 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_pct: Option<u16>,
    /// How long less load must last before there are fewer replicas, in whole seconds up to `1h`; default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_after: Option<Period>,
}

/// `storage = { … }`: the volume of a service whose `state` is not `external`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Storage {
    /// How large it is, such as `1Gi`.
    pub size: ByteSize,
    /// The storage class; without one, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Who can mount it at once.
    #[serde(default)]
    pub access: Access,
}

/// Who can mount a volume at once, in the words of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
