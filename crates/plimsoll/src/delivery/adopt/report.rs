//! What `adopt` tells, as data and as text.

use crate::session::Session;
use plimsoll_core::{Digest, EnvironmentName, ServiceName};
use plimsoll_deploy::{DriveEvent, DriveObserver, ReleaseRecord};
use plimsoll_kubernetes::Adoption;
use serde::Serialize;
use std::fmt;

/// `adopt --json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    environment: EnvironmentName,
    /// What is live since; nothing where it was only looked.
    live: Option<Live>,
    services: Vec<Service>,
    /// `kubectl` with the options that lead to the namespace.
    #[serde(skip)]
    kubectl: String,
}

#[derive(Debug, Serialize)]
struct Live {
    version: String,
    generation: u64,
    adopted_by: String,
}

#[derive(Debug, Serialize)]
struct Service {
    name: ServiceName,
    /// Why it cannot be adopted, if so.
    refused: Option<String>,
    image: Option<Digest>,
    replicas: Option<u16>,
    /// What is copied, such as `Deployment web`.
    copied: Vec<String>,
    /// The label that pods of the copy lack.
    without: Option<String>,
    notes: Vec<String>,
}

impl Report {
    /// What would be done. `kubectl` leads to the namespace.
    pub(super) fn new(environment: &EnvironmentName, kubectl: String, adoption: &Adoption) -> Self {
        let services = adoption.0.iter().map(|(name, found)| {
            let adopted = found.as_ref().ok();
            Service {
                name: name.clone(),
                refused: found.as_ref().err().map(ToString::to_string),
                image: adopted.map(|one| one.spec.digest.clone()),
                replicas: adopted.map(|one| one.spec.replicas),
                copied: adopted.map(|one| one.copied.clone()).unwrap_or_default(),
                without: adopted.map(|one| one.without.clone()),
                notes: adopted.map(|one| one.notes.clone()).unwrap_or_default(),
            }
        });
        Self { environment: environment.clone(), live: None, services: services.collect(), kubectl }
    }

    /// That it was done.
    pub(super) fn done(&mut self, live: &ReleaseRecord) {
        let (version, generation) = (live.version.clone(), live.generation.0);
        self.live = Some(Live { version, generation, adopted_by: live.actor.clone() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.live {
            None => writeln!(f, "{}: what adopting it would copy", self.environment)?,
            Some(live) => writeln!(
                f,
                "{} is adopted: {} is live as generation {}, adopted by {}",
                self.environment, live.version, live.generation, live.adopted_by
            )?,
        }
        for service in &self.services {
            if let Some(refused) = &service.refused {
                writeln!(f, "! {}: refused: {refused}", service.name)?;
                continue;
            }
            let image = service.image.as_ref().map(|digest| digest.short().to_owned()).unwrap_or_default();
            let without = service.without.as_deref().unwrap_or_default();
            writeln!(f, "+ {}: {image}, {} replicas", service.name, service.replicas.unwrap_or_default())?;
            for copied in &service.copied {
                writeln!(f, "    {copied}, copied to slot blue")?;
            }
            writeln!(f, "    pods of the copy lack the label {without}")?;
            for note in &service.notes {
                writeln!(f, "    ! {note}")?;
            }
            if self.live.is_some() {
                let titles: Vec<String> =
                    service.copied.iter().map(|c| c.to_lowercase().replacen(' ', "/", 1)).collect();
                let line = format!("{} delete {}", self.kubectl, titles.join(" "));
                writeln!(f, "    the originals run on; without them, once no client is connected there: {line}")?;
            }
        }
        Ok(())
    }
}

/// Tells on the error stream what is under way.
pub(super) struct Telling<'a>(pub(super) &'a Session);

impl DriveObserver for Telling<'_> {
    fn on(&self, event: &DriveEvent) {
        let text = match event {
            DriveEvent::StandingUp { service, slot } => format!("{service}: standing the copy up in {slot}"),
            DriveEvent::Probing { service, endpoints, requests, .. } => {
                format!("{service}: {requests} smoke requests to each of {endpoints} replicas")
            }
            DriveEvent::CuttingOver { moves } => format!("cutting over {} services", moves.len()),
            DriveEvent::Retiring { service, slot } => format!("{service}: retiring {slot}"),
            DriveEvent::TryingAgain { reason } => format!("trying again: {reason}"),
            _ => return,
        };
        if !self.0.global.quiet && !self.0.global.json {
            self.0.console.err(&format!("{text}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_kubernetes::AdoptError;

    #[test]
    fn a_person_reads_what_would_be_copied_what_is_refused_and_how_the_originals_go() {
        let mut report = {
            let adoption = Adoption(vec![("worker".parse().unwrap(), Err(AdoptError::Exclusive))]);
            let mut report = Report::new(&"production".parse().unwrap(), "kubectl -n shop".to_owned(), &adoption);
            report.services.push(Service {
                name: "web".parse().unwrap(),
                refused: None,
                image: Some(Digest::of(b"web")),
                replicas: Some(2),
                copied: vec!["Deployment web-1".to_owned(), "HorizontalPodAutoscaler web".to_owned()],
                without: Some("app".to_owned()),
                notes: vec!["Service metrics stays".to_owned()],
            });
            report
        };
        let short = Digest::of(b"web").short().to_owned();
        assert_eq!(
            report.to_string(),
            format!(
                "production: what adopting it would copy\n\
                 ! worker: refused: {}\n\
                 + web: {short}, 2 replicas\n    Deployment web-1, copied to slot blue\n    \
                 HorizontalPodAutoscaler web, copied to slot blue\n    pods of the copy lack the label app\n    \
                 ! Service metrics stays\n",
                AdoptError::Exclusive
            )
        );
        report.live = Some(Live { version: "0.9".to_owned(), generation: 1, adopted_by: "ann".to_owned() });
        let told = report.to_string();
        assert!(told.starts_with("production is adopted: 0.9 is live as generation 1, adopted by ann\n"), "{told}");
        let line = "kubectl -n shop delete deployment/web-1 horizontalpodautoscaler/web\n";
        assert!(told.ends_with(line), "{told}");
    }
}
