//! What is applied to a cluster, before anything runs there: the objects of the chart with each set of values, of each overlay,
//! and those that Plimsoll makes from plimsoll.toml.
//!
//! Three judges that are not ours read all of them (`helm lint`, `kubeconform`, the API server in a dry run), and two tests
//! hold accounts and network policies to what the services need. A judge that is not there is told about, not passed over.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "other programs judge the objects, and which of them are missing is printed"
)]

mod accounts;
#[path = "../support/cluster.rs"]
#[expect(dead_code, reason = "other tests run clients and releases in the cluster")]
mod cluster;
mod lint;
mod namespace;
mod network;
mod objects;
mod policies;
mod refused;
mod schemas;
mod server;
#[path = "../support/table.rs"]
mod table;
mod typed;
mod values;
