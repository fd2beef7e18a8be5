//! Where a replica belongs: environment, service, slot, number. And the one name that follows from it.

use crate::supervisor::LocalPaths;
use plimsoll_core::{EnvironmentName, Fingerprint, ServiceName, Slot};

/// One slot of one service of one environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    /// The environment.
    pub environment: EnvironmentName,
    /// The service.
    pub service: ServiceName,
    /// The slot.
    pub slot: Slot,
}

/// One replica of a slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaKey {
    /// Which slot.
    pub slot: SlotKey,
    /// Which of its replicas, counted from 0.
    pub n: u16,
}

impl ReplicaKey {
    /// The name under which this replica can be found, also when the state lost sight of it: `plimsoll-`, the project,
    /// environment, service, slot and number.
    pub fn name(&self, paths: &LocalPaths) -> String {
        let SlotKey { environment, service, slot } = &self.slot;
        format!("plimsoll-{}-{environment}-{service}-{slot}-{}", project(paths), self.n)
    }
}

/// What tells the projects of one machine apart: a hash of their state directory.
pub fn project(paths: &LocalPaths) -> String {
    Fingerprint::of(paths.root().as_os_str().as_encoded_bytes()).short()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_s_name_tells_it_from_all_others_of_the_machine() {
        let name = |root: &str, slot, n| {
            let (environment, service) = ("staging".parse().unwrap(), "api".parse().unwrap());
            ReplicaKey { slot: SlotKey { environment, service, slot }, n }.name(&LocalPaths::new(root))
        };
        let names = [name("/a", Slot::Blue, 0), name("/b", Slot::Blue, 0), name("/a", Slot::Green, 0)];
        assert!(names.iter().all(|n| n.starts_with("plimsoll-") && n.contains("-staging-api-")), "{names:?}");
        assert!(names[0] != names[1] && names[0] != names[2] && names[0] != name("/a", Slot::Blue, 1));
    }
}
