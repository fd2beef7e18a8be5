//! What is a difference, and what is none.

use super::*;
use crate::dropped::{Whose, dropped};
use serde_json::json;

const IMAGE: &str = "registry.example/api@sha256:0";

/// The lines of a comparison, as a person reads them.
fn lines(changes: &[ConfigChange]) -> Vec<String> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
    changes.iter().map(|c| format!("{}: {} → {}", c.what, or_none(&c.from), or_none(&c.to))).collect()
}

fn check(live: &Value, wanted: &Value, expected: &[&str]) {
    assert_eq!(lines(&fields(live, wanted, IMAGE)), expected, "{wanted}");
}

fn deployment(container: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api-green"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    })
}

#[test]
fn what_the_api_server_fills_in_is_no_difference() {
    let wanted =
        deployment(&json!({"name": "api", "image": IMAGE, "env": [{"name": "EMPTY", "value": ""}], "args": []}));
    let mut live = deployment(&json!({
        "name": "api", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "env": [{"name": "EMPTY"}]
    }));
    live["spec"]["revisionHistoryLimit"] = json!(10);
    live["status"] = json!({"replicas": 1});
    live["metadata"]["uid"] = json!("1");
    check(&live, &wanted, &[]);
}

#[test]
fn a_changed_field_is_told_with_the_names_on_its_way() {
    let live = deployment(&json!({"name": "api", "env": [{"name": "LIMIT", "value": "5"}], "args": ["a"]}));
    let env = json!([{"name": "MORE", "value": "1"}, {"name": "LIMIT", "value": "6"}]);
    let wanted = deployment(&json!({"name": "api", "env": env, "args": ["a", "b"]}));
    check(
        &live,
        &wanted,
        &[
            "spec.template.spec.containers[api].args: [\"a\"] → [\"a\",\"b\"]",
            "spec.template.spec.containers[api].env[MORE]: nothing → {\"name\":\"MORE\",\"value\":\"1\"}",
            "spec.template.spec.containers[api].env[LIMIT].value: 5 → 6",
        ],
    );
}

#[test]
fn an_amount_in_another_spelling_is_the_same_amount() {
    let with = |cpu: Value, memory: &str| {
        deployment(&json!({"name": "api", "resources": {"limits": {"cpu": cpu, "memory": memory}}}))
    };
    check(&with(json!("500m"), "1Gi"), &with(json!(0.5), "1024Mi"), &[]);
    check(
        &with(json!("500m"), "1Gi"),
        &with(json!("501m"), "1Gi"),
        &["spec.template.spec.containers[api].resources.limits.cpu: 500m → 501m"],
    );
    // Elsewhere the spelling is the value.
    let env = |value: &str| deployment(&json!({"name": "api", "env": [{"name": "N", "value": value}]}));
    check(&env("1Gi"), &env("1024Mi"), &["spec.template.spec.containers[api].env[N].value: 1Gi → 1024Mi"]);
}

#[test]
fn the_image_of_the_service_and_notes_of_this_target_are_told_elsewhere() {
    let mut live = deployment(&json!({"name": "api", "image": "old"}));
    let mut wanted = deployment(&json!({"name": "api", "image": IMAGE}));
    live["metadata"]["annotations"] = json!({"plimsoll.dev/version": "1"});
    wanted["metadata"]["annotations"] = json!({"plimsoll.dev/version": "2", "team": "trade"});
    check(&live, &wanted, &["metadata.annotations.team: nothing → trade"]);
    let other = deployment(&json!({"name": "api", "image": "another"}));
    check(&live, &other, &["spec.template.spec.containers[api].image: old → another"]);
}

#[test]
fn list_items_without_names_are_compared_by_place() {
    let policy = |ports: Value| json!({"kind": "NetworkPolicy", "spec": {"ingress": ports}});
    let live = policy(json!([{"from": [{"podSelector": {}}]}, {"from": [], "x": 1}]));
    check(
        &live,
        &policy(json!([{"from": [{"podSelector": {}}]}])),
        &["spec.ingress[1]: {\"from\":[],\"x\":1} → nothing"],
    );
}

#[test]
fn of_a_long_text_the_first_line_that_differs_is_told() {
    let map = |text: &str| json!({"kind": "ConfigMap", "data": {"app.toml": text}});
    check(&map("a\nb\nc\n"), &map("a\nB\nc\n"), &["data[app.toml] (from line 2): b → B"]);
    check(&map("a\n"), &map("a\nb\n"), &["data[app.toml] (from line 2): nothing → b"]);
    let long = "x".repeat(SHOWN + 1);
    let told = fields(&map("y"), &map(&long), IMAGE);
    assert_eq!(told[0].to.as_ref().map(|t| t.chars().count()), Some(SHOWN + 1));
}

#[test]
fn nothing_of_a_secret_is_shown() {
    let live = json!({
        "kind": "Secret", "type": "Opaque",
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "hunter2"}},
        "data": {"SAME": "c2FtZQ==", "OTHER": "aHVudGVyMg==", "GONE": "aHVudGVyMw=="},
    });
    let wanted = json!({
        "kind": "Secret", "type": "Opaque", "metadata": {"labels": {"a": "b"}, "annotations": {"x": "hunter4"}},
        "stringData": {"SAME": "same", "OTHER": "hunter5", "NEW": "hunter6"},
    });
    let told = fields(&live, &wanted, IMAGE);
    assert_eq!(
        lines(&told),
        [
            "metadata.labels: nothing → {\"a\":\"b\"}",
            "data.NEW: nothing → (secret)",
            "data.OTHER: (secret) → (changed)",
            "data.GONE: (secret) → nothing",
        ]
    );
    let text = serde_json::to_string(&told).unwrap();
    assert!(!text.contains("hunter") && !text.contains("aHVudGVy"), "{text}");
}

/// A Deployment of which `plimsoll` said one container with one variable, and `kubectl` another variable.
fn managed() -> Value {
    let env = json!([{"name": "OURS", "value": "1"}, {"name": "THEIRS", "value": "2"}]);
    let mut live = deployment(&json!({"name": "api", "imagePullPolicy": "Always", "env": env, "args": ["x"]}));
    let at = |fields: Value| json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}": fields}}}}});
    live["metadata"]["managedFields"] = json!([
        {"manager": "plimsoll", "operation": "Apply", "fieldsV1": at(json!({
            ".": {}, "f:name": {}, "f:args": {}, "f:env": {"k:{\"name\":\"OURS\"}": {".": {}, "f:name": {}, "f:value": {}}}
        }))},
        {"manager": "kubectl-set", "operation": "Update", "fieldsV1": at(json!({
            "f:env": {"k:{\"name\":\"THEIRS\"}": {".": {}, "f:name": {}, "f:value": {}}}
        }))},
        {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
         "fieldsV1": {"f:metadata": {"f:annotations": {"f:deployment.kubernetes.io/revision": {}}}}},
    ]);
    live["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    live
}

#[test]
fn what_is_said_no_more_is_told_from_what_was_filled_in() {
    let wanted = deployment(&json!({"name": "api", "env": [{"name": "OURS", "value": "1"}]}));
    let path = "spec.template.spec.containers[api]";
    let theirs = format!("{path}.env[THEIRS]: {{\"name\":\"THEIRS\",\"value\":\"2\"}} → nothing");
    let args = format!("{path}.args: [\"x\"] → nothing");
    assert_eq!(lines(&dropped(&managed(), &wanted, Whose::Everybody)), [args.clone(), theirs]);
    // An object that both slots share keeps what others said.
    assert_eq!(lines(&dropped(&managed(), &wanted, Whose::Ours)), [args]);
}

#[test]
fn a_container_that_goes_is_told_as_one() {
    let wanted = deployment(&json!({"name": "other"}));
    let told = lines(&dropped(&managed(), &wanted, Whose::Ours));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("spec.template.spec.containers[api]: {") && told[0].ends_with("→ nothing"), "{told:?}");
}
