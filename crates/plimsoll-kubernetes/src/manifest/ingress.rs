//! Addresses outside the cluster for Services in it.

use super::{
    Build,
    meta::{LABEL, Meta, SUBDOMAIN, list, name},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress as Typed, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};

/// An Ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    meta: Meta,
    class: Option<String>,
    routes: Vec<Route>,
    tls: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    host: String,
    path: String,
    service: String,
    port: String,
}

impl Ingress {
    /// One that leads nowhere yet, for the cluster's default controller.
    pub fn new(meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), class: None, routes: Vec::new(), tls: Vec::new() }
    }

    /// For the controllers of this class.
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// What is below `path` of `host` is answered by a named port of a Service.
    pub fn route(
        mut self,
        host: impl Into<String>,
        path: impl Into<String>,
        service: impl Into<String>,
        port: impl Into<String>,
    ) -> Self {
        self.routes.push(Route { host: host.into(), path: path.into(), service: service.into(), port: port.into() });
        self
    }

    /// The certificate of `host` is in this Secret.
    pub fn tls(mut self, host: impl Into<String>, secret: impl Into<String>) -> Self {
        self.tls.push((host.into(), secret.into()));
        self
    }

    fn check(&self, found: &mut Findings) {
        found.unless(!self.routes.is_empty(), "spec.rules", || Nonsense::Empty("where requests go"));
        let places: Vec<String> = self.routes.iter().map(|route| format!("{}{}", route.host, route.path)).collect();
        found.once("spec.rules", places.iter().map(String::as_str));
        for route in &self.routes {
            // One label may stand for all.
            let host = route.host.strip_prefix("*.").unwrap_or(&route.host);
            name(found, "spec.rules.host", host, SUBDOMAIN);
            name(found, "spec.rules.http.paths.backend.service.name", &route.service, LABEL);
            found.unless(route.path.starts_with('/'), "spec.rules.http.paths.path", || Nonsense::Name {
                name: super::meta::cut(&route.path),
                kind: "path",
                rule: "it begins with a slash",
            });
        }
        for (host, _) in self.tls.iter().filter(|(host, _)| self.routes.iter().all(|route| route.host != *host)) {
            found.wrong(format!("spec.tls[{host}]"), Nonsense::Empty("where requests to this host go"));
        }
    }
}

impl Build for Ingress {
    fn title(&self) -> String {
        format!("Ingress {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        self.check(found);
        let rule = |route: &Route| {
            let port = Some(ServiceBackendPort { name: Some(route.port.clone()), number: None });
            let service = Some(IngressServiceBackend { name: route.service.clone(), port });
            let path = HTTPIngressPath {
                path: Some(route.path.clone()),
                path_type: "Prefix".to_owned(),
                backend: IngressBackend { service, resource: None },
            };
            IngressRule { host: Some(route.host.clone()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }
        };
        let tls = |(host, secret): &(String, String)| IngressTLS {
            hosts: Some(vec![host.clone()]),
            secret_name: Some(secret.clone()),
        };
        let spec = IngressSpec {
            ingress_class_name: self.class.clone(),
            rules: Some(self.routes.iter().map(rule).collect()),
            tls: list(self.tls.iter().map(tls).collect()),
            default_backend: None,
        };
        Object::of(&Typed { metadata: self.meta.checked(SUBDOMAIN, found), spec: Some(spec), status: None })
    }
}
