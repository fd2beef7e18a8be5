//! The Kubernetes target on a real cluster.
//!
//! The cluster is taken from `PLIMSOLL_TEST_CLUSTER`, a program that prints the path of a kubeconfig and runs
//! `exec COMMAND` where pods can be reached, or from `KUBECONFIG`; images go to `PLIMSOLL_TEST_REGISTRY`, a registry
//! that the cluster pulls from by the same name. Without a cluster the tests say that they are skipped.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests print what they skip and measure, and run programs as a person does"
)]

mod adopt;
mod autoscalers;
mod away;
mod broken;
mod canary;
mod changes;
mod clients;
mod conformance;
mod drift;
mod driving;
mod gateway;
mod promoters;
mod proxy;
mod torn;
mod torn_shares;
mod usage;
mod world;
