//! Pods: how they are, in words, and what they are told over HTTP through the API server.

use crate::cluster::{Cluster, PodAnswer, Question};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use plimsoll_core::{Digest, Generation, ServiceName};
use plimsoll_deploy::{Metrics, PROBE_HEADER};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// How long a pod may take to say how it is.
const ASK: Duration = Duration::from_secs(2);
/// How long a worker may take to finish what it is at before it gives up the environment (docs/adr/0009).
pub(crate) const HAND_OVER: Duration = Duration::from_secs(5);

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether its containers run, ready or not, and nobody has asked them to end.
pub(crate) fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    !is_ending(pod) && phase == Some("Running")
}

/// Whether all its containers have ended, so that nothing of it works.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether it counts as an endpoint.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    is_running(pod) && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

pub(crate) fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

/// How often its containers ended by themselves.
pub(crate) fn crashes(pod: &Pod) -> u32 {
    statuses(pod).map(|s| u32::try_from(s.restart_count).unwrap_or(0)).sum()
}

/// When the container of a service was started last.
pub(crate) fn started(pod: &Pod, service: &ServiceName) -> String {
    let own = statuses(pod).find(|s| s.name == service.as_str()).or_else(|| statuses(pod).next());
    let running = own.and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref());
    let begun = || pod.metadata.creation_timestamp.as_ref();
    let at = running.or_else(begun).map(|at| at.0.to_string()).unwrap_or_default();
    format!("{at}, start {}", own.map_or(0, |s| s.restart_count))
}

/// The port named `http`, else the first one.
pub(crate) fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports: Vec<_> = containers.flat_map(|c| c.ports.iter().flatten()).collect();
    let named = ports.iter().find(|p| p.name.as_deref() == Some("http"));
    named.or(ports.first()).map_or(8080, |p| p.container_port)
}

/// The digests of the images its containers run, as the runtime tells them.
pub(crate) fn digests(pod: &Pod) -> Vec<Digest> {
    statuses(pod).filter_map(|s| s.image_id.rsplit_once('@')?.1.parse().ok()).collect()
}

/// Why a pod is not ready, and whether waiting will not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    pub(crate) stuck: bool,
}

/// What is wrong with a pod, if anything is known to be.
pub(crate) fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    for container in statuses(pod) {
        if let Some(found) = container_trouble(container) {
            let reason = format!("{}: {}", name(pod), found.reason);
            return Some(Trouble { reason, ..found });
        }
    }
    let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unscheduled {
        let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("no reason is known");
        return Some(Trouble { reason: format!("{} is not scheduled: {why}", name(pod)), stuck: false });
    }
    if let Some(reason) = &status.reason {
        let message = status.message.as_deref().unwrap_or_default();
        return Some(Trouble { reason: format!("{}: {reason} {message}", name(pod)), stuck: false });
    }
    let unready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready" && c.status == "False");
    let why = unready.and_then(|c| c.message.as_deref()).unwrap_or("its readiness probe has not passed");
    (!is_ready(pod)).then(|| Trouble { reason: format!("{}: {why}", name(pod)), stuck: false })
}

fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let state = container.state.as_ref();
    let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let ended = state.and_then(|s| s.terminated.as_ref()).or(ended);
    let end = ended.map(|t| {
        let reason = t.reason.as_deref().filter(|r| *r != "Error");
        let said = t.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
        match (reason, t.signal) {
            (Some("OOMKilled"), _) => format!("it was killed: out of memory{said}"),
            (_, Some(signal)) => format!("it ended by signal {signal}{said}"),
            _ => format!("it ended with status {}{said}", t.exit_code),
        }
    });
    if let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let message = waiting.message.as_deref().unwrap_or_default();
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let cause = match (reason, end) {
            ("CrashLoopBackOff", Some(end)) => format!("CrashLoopBackOff, {end}"),
            _ if message.is_empty() => reason.to_owned(),
            _ => format!("{reason}: {message}"),
        };
        return Some(Trouble { reason: cause, stuck: is_stuck(reason, message) });
    }
    let running_again = state.and_then(|s| s.running.as_ref()).is_some();
    end.filter(|_| !container.ready && (container.restart_count > 0 || !running_again))
        .map(|reason| Trouble { reason, stuck: false })
}

/// Whether the kubelet's reason does not pass by itself.
fn is_stuck(reason: &str, message: &str) -> bool {
    match reason {
        "InvalidImageName" | "ErrImageNeverPull" | "CreateContainerConfigError" => true,
        "ErrImagePull" | "ImagePullBackOff" => {
            ["not found", "manifest unknown", "unauthorized", "denied", "no match for platform"]
                .iter()
                .any(|sign| message.to_lowercase().contains(sign))
        }
        _ => false,
    }
}

#[derive(Deserialize)]
struct Activation {
    active: bool,
    generation: Option<u64>,
}

async fn tell(
    cluster: &Cluster,
    pod: &Pod,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
    limit: Duration,
) -> Result<PodAnswer, kube::Error> {
    let place = format!("pods/{}:{}", name(pod), port(pod));
    let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
    let headers = [("content-type", "application/json")];
    cluster.ask(cluster.namespace(), &place, Question { method, path, headers: &headers, body, limit }).await
}

/// What a pod shows of itself to Prometheus.
pub(crate) async fn metrics(cluster: &Cluster, pod: &Pod, metrics: &Metrics) -> Result<PodAnswer, kube::Error> {
    let port = metrics.port.map_or_else(|| port(pod), i32::from);
    let place = format!("pods/{}:{port}", name(pod));
    let headers = [("accept", "text/plain;version=0.0.4, application/openmetrics-text;q=0.5"), (PROBE_HEADER, "1")];
    let question = Question { method: "GET", path: &metrics.path, headers: &headers, body: Vec::new(), limit: ASK };
    cluster.ask(cluster.namespace(), &place, question).await
}

/// The generation a pod works under, where it does.
pub(crate) async fn active(cluster: &Cluster, pod: &Pod) -> Option<Generation> {
    let answer = tell(cluster, pod, "GET", "/_plimsoll/activation", None, ASK).await.ok()?;
    let view: Activation = serde_json::from_slice(&answer.body).ok()?;
    view.generation.filter(|_| view.active && answer.status == 200).map(Generation)
}

/// Whether a pod acknowledged that it works, or works no more.
pub(crate) async fn order(cluster: &Cluster, pod: &Pod, activate: bool, generation: Generation) -> bool {
    let path = if activate { "/_plimsoll/activate" } else { "/_plimsoll/deactivate" };
    let body = json!({ "generation": generation.0 });
    let answer = tell(cluster, pod, "POST", path, Some(body), HAND_OVER).await;
    if let Ok(answer) = &answer
        && answer.status != 200
    {
        let body = String::from_utf8_lossy(&answer.body);
        tracing::debug!(pod = name(pod), status = answer.status, %body, path, "the pod did not agree");
    }
    matches!(answer, Ok(answer) if answer.status == 200)
}

/// What a pod that is a lame duck still has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct UnderWay {
    pub(crate) connections: u64,
    pub(crate) in_flight: u64,
}

/// Tells a pod to have its clients connect anew (`on`), or to keep them. `None` where it does not know how.
pub(crate) async fn lame_duck(cluster: &Cluster, pod: &Pod, on: bool) -> Option<UnderWay> {
    let answer = tell(cluster, pod, "POST", "/_plimsoll/lame-duck", Some(json!({ "on": on })), ASK).await.ok()?;
    if answer.status == 200 { serde_json::from_slice(&answer.body).ok() } else { None }
}

/// What a lame duck still has under way.
pub(crate) async fn under_way(cluster: &Cluster, pod: &Pod) -> Option<UnderWay> {
    let answer = tell(cluster, pod, "GET", "/_plimsoll/lame-duck", None, ASK).await.ok()?;
    if answer.status == 200 { serde_json::from_slice(&answer.body).ok() } else { None }
}
