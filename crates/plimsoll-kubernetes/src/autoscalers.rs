//! Autoscalers of slots that do not serve.
//!
//! An autoscaler looks at the load of its own slot. A slot that waits has none, or a small share of the requests: it would be
//! scaled down to its least, and be too small for what a cut-over, or a way back, sends it at once. So the lower bound of a
//! waiting slot is the size of the one that serves, as it was when the slot was stood up or left, within its upper bound. What was
//! declared stands in an annotation meanwhile.
//!
//! It is put back when the slot serves and its load is known: an autoscaler's figures are up to a minute old, and by those of
//! a slot that waited it would be scaled down at once. So a run puts it back at its end, if its autoscaler wants as many by then
//! or the cut-over is a minute ago; else the next one does.

use crate::{cut_over::Site, names, object::Object, workload::slot_of, world::World};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use plimsoll_deploy::TargetError;
use serde_json::{Value, json};
use std::time::Duration;

/// How old the figures of an autoscaler may be: those of the kubelet, of metrics-server and its own.
const OLD: Duration = Duration::from_mins(1);

/// The bounds of an autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    /// The lower one, as it is now.
    min: u64,
    /// The lower one as it was declared, where that is told.
    told: Option<u64>,
    max: u64,
}

impl Bounds {
    fn of(scaler: &Value) -> Self {
        let bound = |name: &str| scaler["spec"][name].as_u64();
        let min = bound("minReplicas").unwrap_or(1);
        let told = scaler["metadata"]["annotations"][names::MIN_REPLICAS].as_str().and_then(|min| min.parse().ok());
        Self { min, told, max: bound("maxReplicas").unwrap_or(min) }
    }

    /// What is to be merged into one whose slot waits beside one of so many pods. It always tells what was declared: what a
    /// former release declared must not be taken for it.
    fn waiting(self, pods: u16) -> Value {
        let declared = self.told.unwrap_or(self.min);
        let min = u64::from(pods).min(self.max).max(declared);
        json!({"metadata": {"annotations": {(names::MIN_REPLICAS): declared.to_string()}}, "spec": {"minReplicas": min}})
    }

    /// What is to be merged into one whose slot serves; nothing where it is so already.
    fn serving(self) -> Option<Value> {
        let declared = self.told?;
        Some(json!({"metadata": {"annotations": {(names::MIN_REPLICAS): null}}, "spec": {"minReplicas": declared}}))
    }
}

/// Has the autoscaler among the objects of a slot that is to wait keep as many as the slot that serves, which has so many.
pub(crate) fn hold(objects: &mut [Object], pods: u16) {
    for object in objects.iter_mut().filter(|object| object.kind() == "HorizontalPodAutoscaler") {
        let patch = Bounds::of(object.value()).waiting(pods);
        json_patch::merge(object.value_mut(), &patch);
    }
}

/// An object that is there, as it would be if its slot had no bound of its own for waiting.
pub(crate) fn as_declared(mut there: Value) -> Value {
    if let Some(patch) = Bounds::of(&there).serving() {
        json_patch::merge(&mut there, &patch);
    }
    there
}

/// Whether an autoscaler would go below its lower bound by the figures that it has.
fn wants_fewer(scaler: &HorizontalPodAutoscaler) -> bool {
    let conditions = scaler.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "ScalingLimited" && c.reason.as_deref() == Some("TooFewReplicas"))
}

/// The autoscalers of what serves go by its load, as soon as that is known; those of what does not keep as many. Never an error:
/// a deployment does not depend on it, and the next one tries again.
pub(crate) async fn settle(site: &Site<'_>, world: &World) {
    if let Err(error) = try_settle(site, world).await {
        tracing::warn!(%error, "the bounds of autoscalers are not as they should be");
    }
}

async fn try_settle(site: &Site<'_>, world: &World) -> Result<(), TargetError> {
    let Some(record) = &world.live else { return Ok(()) };
    let since = crate::now().as_millis().saturating_sub(record.since.as_millis());
    let known = u128::try_from(since).is_ok_and(|since| since >= OLD.as_millis());
    let all = site.cluster.list::<HorizontalPodAutoscaler>(&names::of_environment(site.environment)).await?;
    for scaler in &all {
        let Some((service, slot)) = scaler.metadata.labels.as_ref().and_then(slot_of) else { continue };
        let Some(live) = world.live_slot(&service) else { continue };
        let pods = world.workload(&service, live).map_or(0, |workload| workload.replicas);
        let bounds = Bounds::of(&json!(scaler));
        let patch = match slot == live {
            true if known || !wants_fewer(scaler) => bounds.serving(),
            true => None,
            false => Some(bounds.waiting(pods)).filter(|_| pods > 0),
        };
        if let (Some(patch), Some(name)) = (patch, &scaler.metadata.name) {
            site.cluster.merge::<HorizontalPodAutoscaler>(name, &patch).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(min: u64, max: u64) -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"minReplicas": min, "maxReplicas": max},
        })
    }

    fn merged(scaler: &Value, patch: &Value) -> Value {
        let mut scaler = scaler.clone();
        json_patch::merge(&mut scaler, patch);
        scaler
    }

    #[test]
    fn a_slot_that_waits_keeps_the_size_of_the_one_that_serves_and_goes_by_its_load_when_it_does() {
        let declared = scaler(2, 6);
        let waits = |scaler: &Value, pods| merged(scaler, &Bounds::of(scaler).waiting(pods));
        // The one that serves grows meanwhile, and shrinks.
        let mut waiting = declared.clone();
        for (pods, min) in [(4, 4), (4, 4), (9, 6), (1, 2), (0, 2), (3, 3)] {
            waiting = waits(&waiting, pods);
            assert_eq!((&waiting["spec"]["minReplicas"], Bounds::of(&waiting).told), (&json!(min), Some(2)), "{pods}");
        }
        let serving = merged(&waiting, &Bounds::of(&waiting).serving().expect("it changes"));
        assert_eq!((&serving["spec"], &serving["metadata"]["annotations"]), (&declared["spec"], &json!({})));
        assert_eq!(Bounds::of(&serving).serving(), None);
    }

    #[test]
    fn what_a_former_release_declared_is_not_taken_for_what_this_one_declares() {
        let left = merged(&scaler(2, 6), &Bounds::of(&scaler(2, 6)).waiting(3));
        let mut objects = [Object::try_from(scaler(4, 6)).expect("an object")];
        hold(&mut objects, 3);
        // An apply says nothing of what it does not name.
        let applied = merged(&left, objects[0].value());
        assert_eq!(Bounds::of(&applied), Bounds { min: 4, told: Some(4), max: 6 });
    }

    #[test]
    fn an_autoscaler_tells_that_it_would_go_below_its_lower_bound() {
        let scaler = |reason: &str| {
            let conditions = json!([{"type": "ScalingLimited", "status": "True", "reason": reason}]);
            let mut scaler = scaler(3, 6);
            scaler["metadata"]["labels"] = json!({(names::SERVICE): "web", (names::SLOT): "green"});
            scaler["spec"]["scaleTargetRef"] = json!({"kind": "Deployment", "name": "web-green"});
            scaler["status"] = json!({"conditions": conditions, "desiredReplicas": 3});
            serde_json::from_value::<HorizontalPodAutoscaler>(scaler).expect("an autoscaler")
        };
        assert!(wants_fewer(&scaler("TooFewReplicas")) && !wants_fewer(&scaler("DesiredWithinRange")));
        let labels = scaler("").metadata.labels.expect("labels");
        assert_eq!(slot_of(&labels), Some(("web".parse().expect("a name"), plimsoll_core::Slot::Green)));
    }

    #[test]
    fn what_was_declared_is_found_among_the_objects_of_a_slot() {
        let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {}});
        let [mut scaler, other] = [scaler(1, 3), other].map(|value| Object::try_from(value).expect("an object"));
        let mut objects = [scaler.clone(), other.clone()];
        hold(&mut objects, 2);
        scaler.value_mut()["spec"]["minReplicas"] = json!(2);
        scaler.value_mut()["metadata"]["annotations"] = json!({ (names::MIN_REPLICAS): "1" });
        assert_eq!(objects.map(|o| o.value().clone()), [scaler, other].map(|o| o.value().clone()));
    }
}
