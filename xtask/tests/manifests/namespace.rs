//! Namespaces of tests, as strict as a cluster can be about pods.

use crate::cluster::Cluster;
use std::process::Output;

/// A namespace that does not end in this time is left to the cluster.
const ENDING: &str = "--timeout=60s";

/// A namespace of a test, gone with this value.
pub(crate) struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    /// Makes it; the server refuses pods in it that are not confined, and warns of workloads whose pods would not be.
    pub(crate) fn restricted(cluster: &'a Cluster, name: &str) -> Self {
        let name = format!("plimsoll-{name}-{}", std::process::id());
        let modes = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}: restricted"));
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{}, {}}}}}\n",
            modes[0], modes[1]
        );
        cluster.kubectl_with(&["create", "-f", "-"], &text);
        Self { cluster, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What `kubectl` prints in this namespace; it must succeed.
    pub(crate) fn kubectl(&self, args: &[&str], input: &str) -> String {
        self.cluster.kubectl_with(&[&["--namespace", self.name.as_str()], args].concat(), input)
    }

    /// The same, however it ends.
    pub(crate) fn try_kubectl(&self, args: &[&str], input: &str) -> Output {
        self.cluster.try_kubectl(&[&["--namespace", self.name.as_str()], args].concat(), input)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        self.cluster.kubectl(&["delete", "namespace", &self.name, "--ignore-not-found", ENDING]);
    }
}
