//! What keeps pods running, as the objects around it see it: a Service, an autoscaler, a budget.

use super::{
    meta::{Labels, Meta},
    mistake::{Findings, Nonsense},
    pod::Pod,
};

/// A Deployment or a `StatefulSet`.
pub trait Workload {
    /// Its kind.
    const KIND: &'static str;

    /// What all kinds have.
    fn common(&self) -> &Common;

    /// Kind and name.
    fn title(&self) -> String {
        format!("{} {}", Self::KIND, self.common().meta.name)
    }
}

/// What all workloads have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    pub(super) meta: Meta,
    pub(super) pod: Pod,
    pub(super) selector: Labels,
    pub(super) replicas: u16,
    pub(super) min_ready: u32,
    pub(super) history: u32,
}

impl Common {
    pub(super) fn new(meta: Meta, pod: Pod) -> Self {
        // Every label by default; a workload that outlives a change of labels names the ones that stay.
        let selector = pod.labels.clone();
        Self { meta, pod, selector, replicas: 1, min_ready: 0, history: 2 }
    }

    pub(super) fn check(&self, found: &mut Findings) {
        found.unless(!self.selector.is_empty(), "spec.selector", || Nonsense::Empty("which pods are its own"));
        for (key, value) in &self.selector {
            let same = self.pod.labels.get(key) == Some(value);
            found.unless(same, "spec.selector", || Nonsense::Selector { key: key.clone(), value: value.clone() });
        }
    }
}

/// The methods that all workloads have: each has a field `common`.
macro_rules! common_methods {
    () => {
        /// So many pods.
        pub const fn replicas(mut self, replicas: u16) -> Self {
            self.common.replicas = replicas;
            self
        }

        /// Its pods are those with these labels, which never change.
        pub fn selector(mut self, labels: &crate::manifest::Labels) -> Self {
            self.common.selector = labels.clone();
            self
        }

        /// A pod must be ready so many seconds before it counts.
        pub const fn min_ready(mut self, seconds: u32) -> Self {
            self.common.min_ready = seconds;
            self
        }

        /// Remembers so many former templates; 2 unless told.
        pub const fn history(mut self, revisions: u32) -> Self {
            self.common.history = revisions;
            self
        }
    };
}

pub(super) use common_methods;
