//! Autoscalers of slots that do not serve.
//!
//! An autoscaler looks at the load of its own slot. A slot that waits has none, or a small share of the requests: it would be
//! scaled down to its least, and be too small for what a cut-over, or a way back, sends it at once. So the lower bound of a
//! waiting slot is the size of the one that serves, within its upper bound. What was declared stands in an annotation
//! meanwhile, and is put back when the slot serves.

use crate::{cut_over::Site, names, object::Object, world::World};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use plimsoll_core::ServiceName;
use plimsoll_deploy::TargetError;
use serde_json::{Value, json};

/// The bounds of an autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// The lower one, as it is now.
    least: u64,
    /// The lower one, as it was declared.
    declared: u64,
    most: u64,
}

impl Bounds {
    fn of(scaler: &Value) -> Self {
        let bound = |name: &str| scaler["spec"][name].as_u64();
        let least = bound("minReplicas").unwrap_or(1);
        let told = scaler["metadata"]["annotations"][names::LEAST].as_str();
        let declared = told.and_then(|least| least.parse().ok()).unwrap_or(least);
        Self { least, declared, most: bound("maxReplicas").unwrap_or(least) }
    }

    /// What is to be merged into one whose slot waits beside one of so many pods.
    fn waiting(self, pods: u16) -> Option<Value> {
        let least = u64::from(pods).min(self.most).max(self.declared);
        let annotations = json!({ (names::LEAST): self.declared.to_string() });
        (least != self.least).then(|| json!({"metadata": {"annotations": annotations}, "spec": {"minReplicas": least}}))
    }

    /// What is to be merged into one whose slot serves.
    fn serving(self) -> Option<Value> {
        let annotations = json!({ (names::LEAST): null });
        (self.declared != self.least)
            .then(|| json!({"metadata": {"annotations": annotations}, "spec": {"minReplicas": self.declared}}))
    }
}

/// Has the autoscaler among the objects of a slot that is to wait keep as many as the slot that serves, which has so many.
pub(crate) fn hold(objects: &mut [Object], pods: u16) {
    for object in objects.iter_mut().filter(|object| object.kind() == "HorizontalPodAutoscaler") {
        if let Some(patch) = Bounds::of(object.value()).waiting(pods) {
            json_patch::merge(object.value_mut(), &patch);
        }
    }
}

/// After a cut-over: the autoscalers of what serves go by its load again, those of what was left keep as many.
pub(crate) async fn settle(
    site: &Site<'_>,
    world: &World,
    services: impl Iterator<Item = &ServiceName>,
) -> Result<(), TargetError> {
    let all = site.cluster.list::<HorizontalPodAutoscaler>(&names::of_environment(site.environment)).await?;
    for service in services {
        let Some(live) = world.live_slot(service) else { continue };
        let pods = world.workload(service, live).map_or(0, |workload| workload.replicas);
        for (slot, serves) in [(live, true), (live.other(), false)] {
            let labels = [(names::SERVICE, service.as_str()), (names::SLOT, slot.as_str())];
            let is_its = |scaler: &&HorizontalPodAutoscaler| {
                let have = scaler.metadata.labels.as_ref();
                labels.iter().all(|(key, value)| have.and_then(|have| have.get(*key)).is_some_and(|v| v == value))
            };
            for scaler in all.iter().filter(is_its) {
                let bounds = Bounds::of(&json!(scaler));
                let patch = if serves { bounds.serving() } else { bounds.waiting(pods) };
                if let (Some(patch), Some(name)) = (patch, &scaler.metadata.name) {
                    site.cluster.merge::<HorizontalPodAutoscaler>(name, &patch).await?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(least: u64, most: u64) -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"minReplicas": least, "maxReplicas": most},
        })
    }

    #[test]
    fn a_slot_that_waits_keeps_the_size_of_the_one_that_serves_and_goes_by_its_load_when_it_does() {
        let merged = |mut scaler: Value, patch: Option<Value>| {
            json_patch::merge(&mut scaler, &patch.expect("it changes"));
            scaler
        };
        let declared = scaler(2, 6);
        let waiting = merged(declared.clone(), Bounds::of(&declared).waiting(4));
        assert_eq!(waiting["spec"]["minReplicas"], 4);
        assert_eq!(Bounds::of(&waiting).waiting(4), None);
        // The one that serves grew meanwhile, and shrank.
        let larger = merged(waiting.clone(), Bounds::of(&waiting).waiting(9));
        assert_eq!((&larger["spec"]["minReplicas"], Bounds::of(&larger).declared), (&json!(6), 2));
        let smaller = merged(larger.clone(), Bounds::of(&larger).waiting(1));
        assert_eq!(smaller["spec"]["minReplicas"], 2);
        let serving = merged(waiting.clone(), Bounds::of(&waiting).serving());
        assert_eq!(serving["spec"]["minReplicas"], 2);
        assert_eq!(serving["metadata"]["annotations"], json!({}));
        assert_eq!(Bounds::of(&serving).serving(), None);
        assert_eq!(Bounds::of(&declared).waiting(0), None, "nothing serves yet");
    }

    #[test]
    fn what_was_declared_is_found_among_the_objects_of_a_slot() {
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {}});
        let [mut scaler, other] = [scaler(1, 3), other].map(|value| Object::try_from(value).expect("an object"));
        let mut objects = [scaler.clone(), other.clone()];
        hold(&mut objects, 2);
        scaler.value_mut()["spec"]["minReplicas"] = json!(2);
        scaler.value_mut()["metadata"]["annotations"] = json!({ (names::LEAST): "1" });
        assert_eq!(objects.map(|o| o.value().clone()), [scaler, other].map(|o| o.value().clone()));
    }
}
