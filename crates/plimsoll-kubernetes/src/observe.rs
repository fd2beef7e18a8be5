//! From what is in the namespace to an observation. Pure.

use crate::{
    names::{self, Selected},
    pods::{self, Trouble},
    share,
    slot::rest_of_selector,
    workload::{Workload, slot_of},
    world::World,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use plimsoll_core::{Fingerprint, Generation, ServiceName, Slot};
use plimsoll_deploy::{Drift, Observation, ReleaseRecord, ServiceView, SlotView};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// What a deployment needs to know.
    pub(crate) fn observation(&self) -> Observation {
        let record = &self.stored.record;
        Observation {
            environment: self.environment.clone(),
            generation: record.generation,
            live: self.live.clone(),
            history: self.history.clone(),
            services: self.known().into_iter().map(|name| (name.clone(), self.service_view(&name))).collect(),
            stopped: record.stopped,
            switched: record.switched.clone(),
            lock: self.lock.clone(),
            drift: self.drift(),
        }
    }

    fn known(&self) -> BTreeSet<ServiceName> {
        let standing = self.workloads.iter().map(|w| w.service.clone());
        let recorded = self.live.iter().flat_map(|live| live.services.keys().cloned());
        standing.chain(recorded).collect()
    }

    /// The Service of a service.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        let of = |service: &&Service| {
            let label = |key| service.metadata.labels.as_ref().and_then(|l| l.get(key));
            let selects_slot = Selected::by(&selector(service)) != Selected::Unclear
                || annotation(service, names::GENERATION).is_some();
            label(names::SERVICE).is_some_and(|l| l == name.as_str()) && selects_slot
        };
        self.services.iter().find(of)
    }

    /// The slot that a Service selects now.
    pub(crate) fn selected(&self, name: &ServiceName) -> Option<Slot> {
        Selected::by(&selector(self.service(name)?)).slot()
    }

    /// The workload of a slot.
    pub(crate) fn workload(&self, service: &ServiceName, slot: Slot) -> Option<&Workload> {
        self.workloads.iter().find(|w| w.service == *service && w.slot == slot)
    }

    /// The pods of a slot in whatever form, also those that end.
    pub(crate) fn all_pods_of<'a>(&'a self, service: &'a ServiceName, slot: Slot) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(move |pod| {
            let of = pod.metadata.labels.as_ref().and_then(slot_of);
            of.is_some_and(|(name, at)| name == *service && at == slot)
        })
    }

    /// The pods of a slot in its present form that were not asked to end.
    pub(crate) fn pods_of(&self, service: &ServiceName, slot: Slot) -> Vec<&Pod> {
        let Some(workload) = self.workload(service, slot) else { return Vec::new() };
        self.pods.iter().filter(|pod| workload.owns(pod) && pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// The slot that takes the traffic: what the Service selects. Where it selects neither, what is recorded.
    pub(crate) fn live_slot(&self, name: &ServiceName) -> Option<Slot> {
        let recorded = self.live.as_ref().and_then(|live| live.services.get(name)).map(|r| r.slot);
        self.selected(name).or(recorded)
    }

    fn service_view(&self, name: &ServiceName) -> ServiceView {
        let view = |slot| self.workload(name, slot).map(|w| self.slot_view(w));
        // What was stood up before there were shares is not what a Service would lead to.
        let view_aside = |slot| {
            let leads = self.workload(name, slot).is_some_and(|w| w.leads);
            let of_old = |view: SlotView| SlotView { config_hash: Fingerprint::of(b"before shares"), ..view };
            if leads { view(slot) } else { view(slot).map(of_old) }
        };
        let live = self.live_slot(name);
        let standby = match live {
            Some(live) => view_aside(live.other()),
            None => view_aside(Slot::Blue).or_else(|| view_aside(Slot::Green)),
        };
        let share = live.map_or(0, |live| share::percent(self, name, live));
        ServiceView { live: live.and_then(view), standby, share, url: self.service(name).and_then(url) }
    }

    fn slot_view(&self, workload: &Workload) -> SlotView {
        let own: Vec<&Pod> = self.pods.iter().filter(|pod| workload.owns(pod)).collect();
        let wrong = |pod: &Pod| pods::digests(pod).into_iter().find(|d| *d != workload.digest);
        let others = |pod: &&&Pod| pods::digests(pod).contains(&workload.digest) || wrong(pod).is_none();
        let ready = own.iter().filter(|pod| pods::is_ready(pod)).filter(others).count();
        let ready = if workload.seen { u16::try_from(ready).unwrap_or(u16::MAX) } else { 0 };
        let trouble = (ready < workload.replicas).then(|| Self::trouble(workload, &own)).flatten();
        SlotView {
            slot: workload.slot,
            digest: workload.digest.clone(),
            config_hash: workload.config_hash,
            version: workload.version.clone(),
            replicas: workload.replicas,
            ready,
            active: own.iter().filter_map(|pod| self.active.get(pods::name(pod)).copied()).max(),
            failing: trouble.as_ref().map(|t| t.reason.clone()),
            stuck: trouble.is_some_and(|t| t.stuck),
            crashes: own.iter().map(|pod| pods::crashes(pod)).sum(),
        }
    }

    /// The first thing that is wrong with a slot: what makes waiting useless before what may pass.
    fn trouble(workload: &Workload, own: &[&Pod]) -> Option<Trouble> {
        let of_pods: Vec<Trouble> = own
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| {
                let digests = pods::digests(pod);
                let wrong = digests.iter().find(|_| !digests.contains(&workload.digest));
                let wrong = wrong.filter(|_| pods::is_ready(pod)).map(|found| Trouble {
                    reason: format!("{} runs {found} instead of {}", pods::name(pod), workload.digest),
                    stuck: true,
                });
                wrong.or_else(|| pods::trouble(pod))
            })
            .collect();
        let complaint = || {
            let reason = workload.complaints.first()?.clone();
            Some(Trouble { reason: format!("{}: {reason}", workload.name), stuck: false })
        };
        let stuck = of_pods.iter().find(|t| t.stuck).cloned();
        stuck.or_else(complaint).or_else(|| of_pods.into_iter().next())
    }

    /// What is not as it was left.
    fn drift(&self) -> Vec<Drift> {
        let Some(live) = &self.live else { return Vec::new() };
        let mut drift = Vec::new();
        for (name, record) in &live.services {
            let what = format!("Service {name}");
            let Some(service) = self.service(name) else {
                drift.push(Drift { what, recorded: "it serves".to_owned(), found: "it is gone".to_owned() });
                continue;
            };
            self.selector_drift(live, service, name, record.slot, &mut drift);
            if self.stored.record.stopped {
                continue;
            }
            let standing = self.workload(name, record.slot);
            let recorded = format!("{} runs", record.spec.digest);
            let found = match standing {
                None if self.stored.record.pending.is_none() => "it is gone".to_owned(),
                Some(w) if !w.images.iter().any(|image| image.ends_with(record.spec.digest.as_str())) => {
                    w.images.join(", ")
                }
                _ => continue,
            };
            drift.push(Drift { what: format!("{name} ({})", record.slot), recorded, found });
        }
        drift
    }

    fn selector_drift(
        &self,
        live: &ReleaseRecord,
        service: &Service,
        name: &ServiceName,
        slot: Slot,
        drift: &mut Vec<Drift>,
    ) {
        let found = selector(service);
        let what = || format!("selector of Service {name}");
        let mut expected: BTreeMap<String, String> = annotation(service, names::SELECTOR)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_else(|| rest_of_selector(&found));
        let selected = Selected::by(&found);
        if selected == Selected::Unclear || rest_of_selector(&found) != expected {
            expected.insert(names::traffic_of(Some(slot)).to_owned(), names::YES.to_owned());
            drift.push(Drift { what: what(), recorded: shown(&expected), found: shown(&found) });
            return;
        }
        // A cut-over that was begun explains what its Services select.
        if self.stored.record.pending.is_none() && selected != Selected::One(slot) {
            let recorded = format!("{slot} since generation {}", live.generation);
            let found = selected.slot().map_or_else(|| "none".to_owned(), |slot| slot.to_string());
            drift.push(Drift { what: what(), recorded, found });
        }
    }
}

fn shown(selector: &BTreeMap<String, String>) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// What a Service selects.
pub(crate) fn selector(service: &Service) -> BTreeMap<String, String> {
    service.spec.as_ref().and_then(|s| s.selector.clone()).unwrap_or_default().into_iter().collect()
}

pub(crate) fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The generation whose cut-over set the selector of a Service.
pub(crate) fn generation(service: &Service) -> Generation {
    Generation(annotation(service, names::GENERATION).and_then(|g| g.parse().ok()).unwrap_or(0))
}

/// Where clients in the cluster reach a Service.
fn url(service: &Service) -> Option<String> {
    let meta = &service.metadata;
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?.port;
    Some(format!("http://{}.{}.svc:{port}", meta.name.as_ref()?, meta.namespace.as_ref()?))
}
