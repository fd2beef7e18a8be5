//! Whether production in a cluster is whole, as kubectl and curl see it: record, Services, lock and workers say one thing.

use crate::{scene::Scene, world::Status};
use serde_json::Value;

/// The services of which one slot works.
pub(crate) const WORKERS: [&str; 2] = ["market-data-ingestor", "strategy-orchestrator"];

/// What `status --json` said, after nothing was found in the cluster that contradicts it, or that is left over.
pub(crate) fn is_whole(scene: &Scene<'_>, said: &Value, about: &str) -> Status {
    let status = Status::of(said);
    let production = said["environments"].as_array().unwrap().iter().find(|e| e["name"] == "production").unwrap();
    assert_eq!((&production["drift"], &production["lock"]), (&Value::Array(Vec::new()), &Value::Null), "{about}");
    let (generation, live) = (status.0["production"].generation, status.live("production"));

    let objects = scene.objects("services,configmaps,leases,pods");
    let named = |kind: &str, name: &str| {
        let of = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        objects.iter().find(of).unwrap_or_else(|| panic!("{about}: there is no {kind} {name}"))
    };
    for (name, service) in &live.services {
        let object = named("Service", name);
        let takes = format!("plimsoll.dev/traffic-of-{}", service.slot);
        assert_eq!(object["spec"]["selector"][&takes], "yes", "{about}: Service {name}");
        assert!(service.whole, "{about}: {name} has not all its replicas");
    }
    let record = named("ConfigMap", "plimsoll.production")["data"]["record.json"].as_str().unwrap();
    let record: Value = serde_json::from_str(record).unwrap();
    assert_eq!(record["generation"], generation, "{about}: {record}");
    assert_eq!(record["live"]["generation"], generation, "{about}: {record}");
    assert_eq!(record["pending"], Value::Null, "{about}: somebody's claim is left: {record}");
    let lease = &named("Lease", "plimsoll.production")["spec"];
    assert_eq!(lease["holderIdentity"], Value::Null, "{about}: somebody's lock is left: {lease}");
    one_slot_works(scene, &objects, &status, about);
    status
}

/// Every pod of the live slots' workers works, under the generation that is live, and no other does.
fn one_slot_works(scene: &Scene<'_>, objects: &[Value], status: &Status, about: &str) {
    let (generation, live) = (status.0["production"].generation, status.live("production"));
    let label = |pod: &Value, key: &str| pod["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
    let pods = objects.iter().filter(|o| o["kind"] == "Pod" && o["metadata"]["deletionTimestamp"].is_null());
    let pods = pods.filter(|pod| WORKERS.contains(&&*label(pod, "plimsoll.dev/service")));
    let pods: Vec<&Value> = pods.filter(|pod| pod["status"]["phase"] == "Running").collect();
    let url = |pod: &&Value| format!("http://{}:8080/_plimsoll/activation", pod["status"]["podIP"].as_str().unwrap());
    let answers = scene.cluster.get(&pods.iter().map(url).collect::<Vec<_>>());
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), pods.len(), "{about}: {answers:?}");
    let mut working = 0;
    for (pod, answer) in pods.iter().zip(&answers) {
        let (service, slot) = (label(pod, "plimsoll.dev/service"), label(pod, "plimsoll.dev/slot"));
        let works = answer["active"] == true;
        assert_eq!(works, live.services[&service].slot == slot, "{about}: {service} ({slot}): {answer}");
        assert!(!works || answer["generation"] == generation, "{about}: {service} ({slot}): {answer}");
        working += usize::from(works);
    }
    assert_eq!(working, WORKERS.len(), "{about}: {answers:?}");
}
