//! What a release changes, for people: shown before an approval and by `diff`. Pure; never holds a secret's value.

use crate::{
    observation::ReleaseRecord,
    spec::{Release, ServiceSpec},
};
use plimsoll_core::{Digest, ServiceName};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The difference between what serves and what is to serve.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReleaseDiff {
    /// The version that serves, if one does.
    pub from_version: Option<String>,
    /// The version that is to serve.
    pub to_version: String,
    /// The commit that serves.
    pub from_revision: Option<String>,
    /// The commit that is to serve.
    pub to_revision: String,
    /// The services that differ; the others stay as they are.
    pub services: BTreeMap<ServiceName, ServiceDiff>,
}

/// What happens to one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum ServiceDiff {
    /// It did not serve before.
    Added {
        /// What it runs.
        digest: Digest,
    },
    /// It will serve no more.
    Removed {
        /// What it ran.
        digest: Digest,
    },
    /// It moves to its other slot.
    Changed {
        /// Old and new digest, if they differ.
        digest: Option<(Digest, Digest)>,
        /// What differs in its configuration.
        config: Vec<ConfigChange>,
    },
}

/// One difference of configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// What: `replicas`, `health`, or `env NAME`. For a secret the values are the names of its sources.
    pub what: String,
    /// Before.
    pub from: Option<String>,
    /// After.
    pub to: Option<String>,
}

/// One line per difference, for people.
impl fmt::Display for ReleaseDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        writeln!(f, "version  {} → {}", or_none(&self.from_version), self.to_version)?;
        if self.services.is_empty() {
            writeln!(f, "services none changes")?;
        }
        for (name, change) in &self.services {
            match change {
                ServiceDiff::Added { digest } => writeln!(f, "+ {name} {}", digest.short())?,
                ServiceDiff::Removed { digest } => writeln!(f, "- {name} {}", digest.short())?,
                ServiceDiff::Changed { digest, config } => {
                    let digest = digest.as_ref().map(|(from, to)| format!(" {} → {}", from.short(), to.short()));
                    writeln!(f, "~ {name}{}", digest.unwrap_or_default())?;
                    for change in config {
                        writeln!(f, "    {} {} → {}", change.what, or_none(&change.from), or_none(&change.to))?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl ReleaseDiff {
    /// Compares what serves with what is to serve.
    pub fn between(live: Option<&ReleaseRecord>, next: &Release) -> Self {
        let mut services = BTreeMap::new();
        let old = |name: &ServiceName| live.and_then(|l| l.services.get(name)).map(|r| &r.spec);
        for spec in &next.services {
            match old(&spec.name) {
                None => {
                    services.insert(spec.name.clone(), ServiceDiff::Added { digest: spec.digest.clone() });
                }
                Some(before) if !before.is_same_as(spec) => {
                    services.insert(spec.name.clone(), changed(before, spec));
                }
                Some(_) => {}
            }
        }
        for (name, record) in live.into_iter().flat_map(|l| &l.services) {
            if !next.services.iter().any(|s| s.name == *name) {
                services.insert(name.clone(), ServiceDiff::Removed { digest: record.spec.digest.clone() });
            }
        }
        Self {
            from_version: live.map(|l| l.version.clone()),
            to_version: next.version.clone(),
            from_revision: live.map(|l| l.revision.clone()),
            to_revision: next.revision.clone(),
            services,
        }
    }

    /// Whether nothing differs, version and commit included.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.from_version.as_ref() == Some(&self.to_version)
            && self.from_revision.as_ref() == Some(&self.to_revision)
    }
}

fn changed(old: &ServiceSpec, new: &ServiceSpec) -> ServiceDiff {
    let digest = (old.digest != new.digest).then(|| (old.digest.clone(), new.digest.clone()));
    let mut config = Vec::new();
    let mut field = |what: &str, from: String, to: String| {
        if from != to {
            config.push(ConfigChange { what: what.to_owned(), from: Some(from), to: Some(to) });
        }
    };
    field("replicas", old.replicas.to_string(), new.replicas.to_string());
    field("public port", json(&old.public_port), json(&new.public_port));
    field("depends on", json(&old.depends_on), json(&new.depends_on));
    field("health", json(&old.health), json(&new.health));
    field("smoke", json(&old.smoke), json(&new.smoke));
    field("activation", json(&old.activation), json(&new.activation));
    field("state", json(&old.state), json(&new.state));
    field("schema", json(&old.schema), json(&new.schema));
    field("backup", json(&old.backup), json(&new.backup));
    field("drain", format!("{} ms", old.drain_ms), format!("{} ms", new.drain_ms));
    field("stop grace", format!("{} ms", old.stop_grace_ms), format!("{} ms", new.stop_grace_ms));
    field("resources", json(&old.resources), json(&new.resources));
    field("autoscale", json(&old.autoscale), json(&new.autoscale));
    field("storage", json(&old.storage), json(&new.storage));
    variables("env", &old.env, &new.env, &mut config);
    variables("secret env", &old.secret_env, &new.secret_env, &mut config);
    ServiceDiff::Changed { digest, config }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain values have a JSON form")
}

fn variables(
    kind: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    changes: &mut Vec<ConfigChange>,
) {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names.into_iter().filter(|n| old.get(*n) != new.get(*n)) {
        let (from, to) = (old.get(name).cloned(), new.get(name).cloned());
        changes.push(ConfigChange { what: format!("{kind} {name}"), from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{release, spec};
    use crate::{Access, Storage};
    use plimsoll_core::{ByteSize, Fingerprint, Millicores};

    #[test]
    fn a_first_release_adds_all_its_services() {
        let diff = ReleaseDiff::between(None, &release(1, "1.0.0", vec![spec("gateway", 1)]));
        assert_eq!(diff.from_version, None);
        assert!(matches!(diff.services.values().next(), Some(ServiceDiff::Added { .. })));
        assert!(!diff.is_empty());
    }

    #[test]
    fn a_change_of_environment_names_the_variable_with_both_values() {
        let old = spec("gateway", 1);
        let mut new = old.clone();
        new.env.insert("LIMIT".to_owned(), "5".to_owned());
        new.config_hash = Fingerprint::of(b"other");
        let ServiceDiff::Changed { digest, config } = changed(&old, &new) else { panic!("it changed") };
        assert_eq!(digest, None);
        let expected = ConfigChange { what: "env LIMIT".to_owned(), from: None, to: Some("5".to_owned()) };
        assert_eq!(config, [expected]);
    }

    #[test]
    fn a_change_of_what_it_takes_of_a_cluster_is_told() {
        let old = spec("gateway", 1);
        let mut new = old.clone();
        new.resources.cpu = Some(Millicores::new(250));
        new.storage = Some(Storage { size: ByteSize::new(1 << 30), class: None, access: Access::ReadWriteOnce });
        let ServiceDiff::Changed { config, .. } = changed(&old, &new) else { panic!("it changed") };
        let told: Vec<(&str, &str)> = config.iter().map(|c| (c.what.as_str(), c.to.as_deref().unwrap())).collect();
        let storage = r#"{"size":"1Gi","class":null,"access":"ReadWriteOnce"}"#;
        let resources = r#"{"cpu":"250m","memory":null,"cpu_limit":null,"memory_limit":null}"#;
        assert_eq!(told, [("resources", resources), ("storage", storage)]);
    }

    #[test]
    fn a_release_recorded_before_there_were_resources_is_read_and_is_the_same() {
        let spec = spec("gateway", 1);
        let mut recorded = serde_json::to_value(&spec).unwrap();
        for later in ["resources", "autoscale", "storage"] {
            assert!(recorded.as_object_mut().unwrap().remove(later).is_some(), "{later}");
        }
        assert_eq!(serde_json::from_value::<ServiceSpec>(recorded).unwrap(), spec);
    }
}
