//! What `diff` tells, as data and as text. Pure.

use plimsoll_core::{Digest, Generation, ServiceName};
use plimsoll_deploy::{
    ConfigChange, Drift, ObjectChange, ObjectDiff, Observation, Release, ReleaseDiff, ServiceDiff, TargetKind,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt};

/// `diff --json`; its shape is described by `docs/diff.schema.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    environment: String,
    target: TargetKind,
    generation: Generation,
    from: Option<Side>,
    to: Side,
    services: Vec<ServiceDifference>,
    drift: Vec<Drift>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Side {
    version: String,
    revision: String,
}

#[derive(Debug, Serialize)]
struct ServiceDifference {
    name: ServiceName,
    change: Change,
    /// The image that serves. The next one is known when it is built.
    live_image: Option<Digest>,
    config: Vec<ConfigChange>,
    objects: Vec<ObjectDiff>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    Added,
    Removed,
    Changed,
    /// Its image may be another one all the same.
    SameConfiguration,
}

impl Difference {
    /// Compares what was seen with a release whose images are not built.
    pub(crate) fn new(
        target: TargetKind,
        seen: Option<&Observation>,
        next: &Release,
        mut objects: BTreeMap<ServiceName, Vec<ObjectDiff>>,
    ) -> Self {
        let live = seen.and_then(|seen| seen.live.as_ref());
        let diff = ReleaseDiff::between(live, next);
        let live_image =
            |name: &ServiceName| live.and_then(|l| l.services.get(name)).map(|record| record.spec.digest.clone());
        let named = next.services.iter().map(|spec| spec.name.clone());
        let removed = diff.services.iter().filter(|(_, change)| matches!(change, ServiceDiff::Removed { .. }));
        let all = named.chain(removed.map(|(name, _)| name.clone()));
        let services = all.map(|name| {
            let objects = objects.remove(&name).unwrap_or_default();
            let (change, config) = match diff.services.get(&name) {
                Some(ServiceDiff::Added { .. }) => (Change::Added, Vec::new()),
                Some(ServiceDiff::Removed { .. }) => (Change::Removed, Vec::new()),
                Some(ServiceDiff::Changed { config, .. }) => (Change::Changed, config.clone()),
                None if objects.is_empty() => (Change::SameConfiguration, Vec::new()),
                None => (Change::Changed, Vec::new()),
            };
            ServiceDifference { live_image: live_image(&name), name, change, config, objects }
        });
        Self {
            environment: next.environment.to_string(),
            target,
            generation: seen.map_or(Generation::default(), |seen| seen.generation),
            from: live.map(|l| Side { version: l.version.clone(), revision: l.revision.clone() }),
            to: Side { version: next.version.clone(), revision: next.revision.clone() },
            services: services.collect(),
            drift: seen.map(|seen| seen.drift.clone()).unwrap_or_default(),
        }
    }
}

/// One line per difference, for people: `+` what is new, `-` what goes, `~` what changes, `=` what stays.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &Side| format!("{} ({})", side.version, short(&side.revision));
        let from = self.from.as_ref().map_or_else(|| "nothing is live".to_owned(), side);
        writeln!(f, "{}: {from} → {} (generation {})", self.environment, side(&self.to), self.generation)?;
        for service in &self.services {
            service.fmt(f)?;
        }
        if !self.drift.is_empty() {
            writeln!(f, "! somebody else changed what is there")?;
        }
        self.drift.iter().try_for_each(|drift| writeln!(f, "    {drift}"))?;
        if self.from.is_none() && self.services.iter().any(ServiceDifference::meets_others) {
            writeln!(
                f,
                "! somebody else serves there; `cargo xtask adopt {}` goes on from what they made",
                self.environment
            )?;
        }
        Ok(())
    }
}

impl ServiceDifference {
    /// Whether something that Plimsoll did not make has the place of one of its objects.
    fn meets_others(&self) -> bool {
        self.objects.iter().any(|object| object.change == ObjectChange::Foreign)
    }
}

impl fmt::Display for ServiceDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let live = self.live_image.as_ref().map(|digest| format!("{} is live", digest.short()));
        let sign = match self.change {
            Change::Added => "+",
            Change::Removed => {
                return writeln!(f, "- {}: serves no more; {}", self.name, live.unwrap_or_default());
            }
            Change::Changed => "~",
            Change::SameConfiguration => "=",
        };
        let live = live.map(|live| format!("; {live}")).unwrap_or_default();
        writeln!(f, "{sign} {}\n    image: built when released{live}", self.name)?;
        if self.change == Change::SameConfiguration {
            writeln!(f, "    configuration: as it is")?;
        }
        lines(f, 4, &self.config)?;
        if self.change == Change::Changed && self.config.is_empty() && self.objects.is_empty() {
            writeln!(f, "    configuration: recorded in another way, by another version of Plimsoll or of a chart")?;
        }
        self.objects.iter().try_for_each(|object| told(f, object))
    }
}

fn told(f: &mut fmt::Formatter<'_>, ObjectDiff { object, change }: &ObjectDiff) -> fmt::Result {
    match change {
        ObjectChange::Added => writeln!(f, "    + {object}"),
        ObjectChange::Removed => writeln!(f, "    - {object}"),
        ObjectChange::Changed { fields } => {
            writeln!(f, "    ~ {object}")?;
            lines(f, 8, fields)
        }
        ObjectChange::Kept { fields } => {
            writeln!(f, "    = {object} stays as it is: a release changes its selector only; made anew it would have")?;
            lines(f, 8, fields)
        }
        ObjectChange::Foreign => {
            writeln!(f, "    ! {object} is there already, and not made by Plimsoll: a release does not take it over")
        }
        ObjectChange::Unknown { reason } => writeln!(f, "    ? {object} cannot be compared from here: {reason}"),
    }
}

fn lines(f: &mut fmt::Formatter<'_>, indent: usize, changes: &[ConfigChange]) -> fmt::Result {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    changes.iter().try_for_each(|c| writeln!(f, "{:indent$}{}: {} → {}", "", c.what, or_none(&c.from), or_none(&c.to)))
}

/// As much of a commit as people say; that the tree was dirty is never cut off.
fn short(revision: &str) -> String {
    let (commit, dirty) = revision.strip_suffix("-dirty").map_or((revision, ""), |commit| (commit, "-dirty"));
    format!("{}{dirty}", commit.get(..7).unwrap_or(commit))
}

#[cfg(test)]
mod tests;
