//! What must be true of environments in a cluster.

use super::Check;
use crate::config::{Environment, Registry, Render, Target};
use std::collections::BTreeMap;

/// The longest name of a namespace (RFC 1123 label).
const LONGEST: usize = 63;

impl Check<'_> {
    pub(super) fn kubernetes(&mut self, name: &str, environment: &Environment) {
        let at = ["environments", name, "kubernetes"];
        if environment.target != Target::Kubernetes {
            if self.places.has(&at) {
                self.key(&at, "the environment is no Kubernetes one", "write `target = \"kubernetes\"`, or remove it");
            }
            return;
        }
        if self.config.images.registry == Registry::Embedded {
            let hint = "name one in `[images]`, such as `registry = \"ghcr.io/acme\"`";
            self.value(&["environments", name, "target"], "a cluster cannot pull from the embedded registry", hint);
        }
        let settings = &environment.kubernetes;
        let below = |key| ["environments", name, "kubernetes", key];
        let (helm, kustomize) = (settings.render == Render::Helm, settings.render == Render::Kustomize);
        for (key, wanted, given) in
            [("chart", helm, settings.chart.is_some()), ("overlay", kustomize, settings.overlay.is_some())]
        {
            let of = if key == "chart" { "helm" } else { "kustomize" };
            if wanted && !given {
                self.value(&below("render"), format!("`{of}` needs a `{key}`"), format!("add `{key} = \"deploy/…\"`"));
            } else if given && !wanted {
                self.key(&below(key), format!("`{key}` is for `render = \"{of}\"`"), "change one of them");
            }
        }
        if !settings.values.is_empty() && !helm {
            self.key(&below("values"), "`values` is for `render = \"helm\"`", "change one of them");
        }
        let namespace = settings.namespace(self.config.project.name.as_str(), name);
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let ends = namespace.starts_with('-') || namespace.ends_with('-');
        if namespace.is_empty() || namespace.len() > LONGEST || ends || !namespace.chars().all(fits) {
            let message = format!("`{namespace}` is no name of a namespace");
            self.value(&below("namespace"), message, "lower-case letters, digits and `-`, at most 63 of them");
        }
    }

    /// An environment has a namespace to itself: objects are called as services are.
    pub(super) fn namespaces(&mut self) {
        let mut taken: BTreeMap<(Option<&str>, String), &str> = BTreeMap::new();
        let project = self.config.project.name.as_str();
        for (name, environment) in &self.config.environments {
            if environment.target != Target::Kubernetes {
                continue;
            }
            let settings = &environment.kubernetes;
            let place = (settings.context.as_deref(), settings.namespace(project, name.as_str()));
            let namespace = place.1.clone();
            if let Some(first) = taken.insert(place, name.as_str()) {
                let message = format!("the namespace `{namespace}` is `{first}`'s already");
                self.value(&["environments", name.as_str(), "kubernetes", "namespace"], message, "give it another");
            }
        }
    }
}
