//! The pod that runs one command beside the state of a slot, and how such a command ended. Pure.

use crate::{names, slot::container_of};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use plimsoll_core::{EnvironmentName, ServiceName};
use plimsoll_deploy::STATE_COMMAND;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The label of such pods; its value is the service.
const JOB: &str = "plimsoll.dev/state-of";

/// The selector of the pods that worked on a state, or on that of one service.
pub(crate) fn labels(environment: &EnvironmentName, service: Option<&ServiceName>) -> String {
    let of = service.map(|service| format!("={service}")).unwrap_or_default();
    format!("{},{JOB}{of}", names::of_environment(environment))
}

/// The claims that a pod mounts.
pub(crate) fn claims(pod: &Value) -> BTreeSet<String> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|v| Some(v["persistentVolumeClaim"]["claimName"].as_str()?.to_owned())).collect()
}

/// The container of a workload that runs the image of its service.
pub(crate) fn container<'a>(workload: &'a Value, service: &ServiceName) -> Option<&'a Value> {
    let containers = workload["spec"]["template"]["spec"]["containers"].as_array()?;
    containers.get(container_of(containers, service)?)
}

/// A pod like those of `workload`, which runs `command` once with an open standard input.
pub(crate) fn pod(
    workload: &Value,
    service: &ServiceName,
    environment: &EnvironmentName,
    command: &[String],
) -> Option<Value> {
    let mut spec = workload["spec"]["template"]["spec"].clone();
    let mut container = container(workload, service)?.clone();
    let fields = container.as_object_mut()?;
    for probing in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports", "restartPolicy"] {
        fields.remove(probing);
    }
    container["command"] = json!(command);
    container["args"] = json!([]);
    container["stdin"] = json!(true);
    container["stdinOnce"] = json!(true);
    let fields = spec.as_object_mut()?;
    // Where pods of the service may be says nothing while there is none.
    fields.remove("initContainers");
    fields.remove("topologySpreadConstraints");
    if let Some(affinity) = fields.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.retain(|kind, _| kind == "nodeAffinity");
    }
    spec["containers"] = json!([container]);
    spec["restartPolicy"] = json!("Never");
    spec["activeDeadlineSeconds"] = json!(STATE_COMMAND.as_secs());
    let own = workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    for claim in own {
        let (name, set) = (claim["metadata"]["name"].as_str()?, workload["metadata"]["name"].as_str()?);
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": format!("{name}-{set}-0")}}));
    }
    spec["volumes"] = json!(volumes);
    Some(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            // Another one may still be on its way out.
            "name": format!("{service}-state-{:x}", crate::now().as_millis()),
            "labels": {
                (names::ENVIRONMENT): environment,
                (JOB): service,
                "app.kubernetes.io/managed-by": names::MANAGER,
            },
        },
        "spec": spec,
    }))
}

/// How the one container of a pod that has ended did so; nothing of status 0.
pub(crate) fn ended(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_ref()).and_then(|all| all.first());
    match containers.and_then(|c| c.state.as_ref()?.terminated.as_ref()) {
        Some(end) if end.exit_code == 0 => None,
        Some(end) if end.reason.as_deref() == Some("OOMKilled") => Some("it was killed: out of memory".to_owned()),
        Some(end) => Some(format!("it ended with status {}", end.exit_code)),
        None => {
            let said = status.and_then(|s| s.message.clone().or_else(|| s.reason.clone()));
            Some(format!("it did not run to its end: {}", said.unwrap_or_else(|| "no reason is known".to_owned())))
        }
    }
}

/// How a process in a running pod ended; nothing of status 0.
pub(crate) fn failure(status: Option<&Status>) -> Option<String> {
    let Some(status) = status else { return Some("how it ended was not told".to_owned()) };
    if status.status.as_deref() == Some("Success") {
        return None;
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref());
    let code = causes.into_iter().flatten().find(|c| c.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|c| c.message.as_deref()) {
        Some(code) => Some(format!("it ended with status {code}")),
        None => Some(status.message.clone().unwrap_or_else(|| "it failed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};

    #[test]
    fn a_pod_for_a_command_has_the_state_and_nothing_that_leads_requests_or_a_controller_to_it() {
        let set = json!({"metadata": {"name": "risk-blue"}, "spec": {
            "template": {
                "metadata": {"labels": {"plimsoll.dev/slot": "blue", "app": "risk"}},
                "spec": {
                    "containers": [
                        {"name": "mesh", "image": "mesh:1"},
                        {"name": "risk", "image": "risk@sha256:0", "args": ["serve"], "ports": [{"containerPort": 80}],
                         "readinessProbe": {"httpGet": {"path": "/", "port": 80}}, "env": [{"name": "A", "value": "1"}]},
                    ],
                    "initContainers": [{"name": "wait"}],
                    "affinity": {"nodeAffinity": {"a": 1}, "podAffinity": {"b": 2}},
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
            "volumeClaimTemplates": [{"metadata": {"name": "state"}}],
        }});
        let (service, environment) = ("risk".parse().unwrap(), "staging".parse().unwrap());
        let pod = pod(&set, &service, &environment, &["/bin/risk".to_owned(), "load".to_owned()]).unwrap();
        assert_eq!(pod["metadata"]["labels"].get(names::SLOT), None);
        assert_eq!(pod["metadata"]["labels"].get("app"), None);
        let spec = &pod["spec"];
        assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
        let container = &spec["containers"][0];
        assert_eq!((&container["image"], &container["env"][0]["value"]), (&json!("risk@sha256:0"), &json!("1")));
        assert_eq!((&container["command"], &container["args"]), (&json!(["/bin/risk", "load"]), &json!([])));
        assert!(container.get("readinessProbe").is_none() && container.get("ports").is_none());
        assert_eq!(spec["affinity"], json!({"nodeAffinity": {"a": 1}}));
        assert_eq!(claims(&pod), BTreeSet::from(["state-risk-blue-0".to_owned()]));
        assert_eq!(spec["volumes"][1]["persistentVolumeClaim"]["claimName"], "state-risk-blue-0");
        assert!(spec.get("initContainers").is_none() && spec["restartPolicy"] == "Never");
    }

    #[test]
    fn an_end_is_told_by_its_status() {
        let status = |word: &str, code: Option<&str>| Status {
            status: Some(word.to_owned()),
            message: Some("command terminated".to_owned()),
            details: code.map(|code| StatusDetails {
                causes: Some(vec![StatusCause {
                    reason: Some("ExitCode".to_owned()),
                    message: Some(code.to_owned()),
                    ..StatusCause::default()
                }]),
                ..StatusDetails::default()
            }),
            ..Status::default()
        };
        assert_eq!(failure(Some(&status("Success", None))), None);
        assert_eq!(failure(Some(&status("Failure", Some("9")))).as_deref(), Some("it ended with status 9"));
        assert_eq!(failure(Some(&status("Failure", None))).as_deref(), Some("command terminated"));
        assert!(failure(None).is_some());
        assert!(ended(&Pod::default()).is_some_and(|how| how.contains("did not run to its end")));
    }
}
