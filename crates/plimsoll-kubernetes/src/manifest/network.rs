//! Who may talk to pods, and to whom they may. What is not said is forbidden, both ways.

use super::{
    Build,
    meta::{Labels, Meta, SUBDOMAIN, selector},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy as Typed, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

/// A `NetworkPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    meta: Meta,
    pods: Labels,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    peers: Vec<Peer>,
    ports: Vec<Port>,
}

/// Pods at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The pods of this namespace that have these labels.
    Pods(Labels),
    /// All pods of the namespaces that have these labels.
    Namespaces(Labels),
    /// Every pod of the cluster.
    EveryPod,
}

/// A port of the pods, not of a Service before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// TCP, by the containers' name for it.
    Named(String),
    /// TCP.
    Tcp(u16),
    /// UDP.
    Udp(u16),
}

impl NetworkPolicy {
    /// The pods with these labels talk to nobody.
    pub fn of(pods: &Labels, meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), pods: pods.clone(), ingress: Vec::new(), egress: Vec::new() }
    }

    /// Except that these may open connections to these ports.
    pub fn from(mut self, peers: impl IntoIterator<Item = Peer>, ports: impl IntoIterator<Item = Port>) -> Self {
        self.ingress.push(Rule::new(peers, ports));
        self
    }

    /// Except that they may open connections to these ports of these.
    pub fn to(mut self, peers: impl IntoIterator<Item = Peer>, ports: impl IntoIterator<Item = Port>) -> Self {
        self.egress.push(Rule::new(peers, ports));
        self
    }
}

impl Rule {
    fn new(peers: impl IntoIterator<Item = Peer>, ports: impl IntoIterator<Item = Port>) -> Self {
        Self { peers: peers.into_iter().collect(), ports: ports.into_iter().collect() }
    }

    fn check(&self, field: &str, found: &mut Findings) {
        found.unless(!self.peers.is_empty(), field, || Nonsense::Everybody("Peer::EveryPod"));
        found.unless(!self.ports.is_empty(), field, || Nonsense::Empty("which ports; an empty list means all of them"));
        for peer in &self.peers {
            let says_nothing = match peer {
                Peer::Pods(labels) | Peer::Namespaces(labels) => labels.is_empty(),
                Peer::EveryPod => false,
            };
            found.unless(!says_nothing, field, || Nonsense::Everybody("Peer::EveryPod"));
        }
    }

    fn peers(&self) -> Vec<NetworkPolicyPeer> {
        let peer = |peer: &Peer| match peer {
            Peer::Pods(labels) => {
                NetworkPolicyPeer { pod_selector: Some(selector(labels)), ..NetworkPolicyPeer::default() }
            }
            Peer::Namespaces(labels) => {
                NetworkPolicyPeer { namespace_selector: Some(selector(labels)), ..NetworkPolicyPeer::default() }
            }
            Peer::EveryPod => {
                NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
            }
        };
        self.peers.iter().map(peer).collect()
    }

    fn ports(&self) -> Vec<NetworkPolicyPort> {
        let typed = |protocol: &str, port| NetworkPolicyPort {
            protocol: Some(protocol.to_owned()),
            port: Some(port),
            end_port: None,
        };
        let port = |port: &Port| match port {
            Port::Named(name) => typed("TCP", IntOrString::String(name.clone())),
            Port::Tcp(port) => typed("TCP", IntOrString::Int(i32::from(*port))),
            Port::Udp(port) => typed("UDP", IntOrString::Int(i32::from(*port))),
        };
        self.ports.iter().map(port).collect()
    }
}

impl Build for NetworkPolicy {
    fn title(&self) -> String {
        format!("NetworkPolicy {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        found.unless(!self.pods.is_empty(), "spec.podSelector", || {
            Nonsense::Empty("which pods; an empty selector means all of the namespace")
        });
        self.ingress.iter().for_each(|rule| rule.check("spec.ingress.from", found));
        self.egress.iter().for_each(|rule| rule.check("spec.egress.to", found));
        let ingress = |rule: &Rule| NetworkPolicyIngressRule { from: Some(rule.peers()), ports: Some(rule.ports()) };
        let egress = |rule: &Rule| NetworkPolicyEgressRule { to: Some(rule.peers()), ports: Some(rule.ports()) };
        let spec = NetworkPolicySpec {
            pod_selector: Some(selector(&self.pods)),
            ingress: super::meta::list(self.ingress.iter().map(ingress).collect()),
            egress: super::meta::list(self.egress.iter().map(egress).collect()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        };
        Object::of(&Typed { metadata: self.meta.checked(SUBDOMAIN, found), spec: Some(spec) })
    }
}
