//! An API server takes every object: a server-side dry run, strictly validated, in a namespace whose pods must be confined.

use crate::{
    cluster::Cluster,
    namespace::Namespace,
    objects::{self, Rendered, documents, is_of_operator, title},
};
use serde_json::Value;
use std::collections::BTreeSet;

const DRY_RUN: [&str; 7] =
    ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=manifests", "-f", "-"];

/// The objects as they would be in another namespace.
pub(crate) fn moved(objects: &[&Value]) -> Vec<Value> {
    let mut objects: Vec<Value> = objects.iter().copied().cloned().collect();
    for metadata in objects.iter_mut().filter_map(|object| object["metadata"].as_object_mut()) {
        metadata.remove("namespace");
    }
    objects
}

/// The kinds that the cluster knows, with their groups.
pub(crate) fn kinds(cluster: &Cluster) -> BTreeSet<(String, String)> {
    let lines = cluster.kubectl(&["api-resources", "--no-headers"]);
    let kind = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().rev().collect();
        Some((words.get(2)?.to_string(), words.first()?.to_string()))
    };
    lines.lines().filter_map(kind).collect()
}

pub(crate) fn is_known(known: &BTreeSet<(String, String)>, object: &Value) -> bool {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    known.contains(&(text("apiVersion"), text("kind")))
}

#[test]
fn an_api_server_takes_every_object() {
    let Some(cluster) = Cluster::find() else { return };
    let Some(all) = objects::all() else { return };
    let namespace = Namespace::restricted(&cluster, "manifests-server");
    let kinds = kinds(&cluster);
    let mut count = 0;
    for Rendered { title: source, objects, .. } in all {
        let (known, unknown): (Vec<_>, Vec<_>) = objects.iter().partition(|object| is_known(&kinds, object));
        for object in unknown {
            assert!(
                is_of_operator(object),
                "{source}: the cluster does not know {} of {}",
                title(object),
                object["apiVersion"]
            );
            println!("{source}: left out {}, which the cluster does not know", title(object));
        }
        let output = namespace.try_kubectl(&DRY_RUN, &documents(&moved(&known)));
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{source}: {error}");
        // Of pods that are not confined, and of what is outdated.
        assert!(!error.contains("Warning"), "{source}: {error}");
        assert_eq!(out.lines().count(), known.len(), "{source}: {out}");
        count += known.len();
    }
    println!("server-side dry run: {count} objects of {} sources", all.len());
}

#[test]
fn what_a_server_refuses_or_warns_of_is_seen() {
    let Some(cluster) = Cluster::find() else { return };
    let namespace = Namespace::restricted(&cluster, "manifests-refused");
    let pod = "{containers: [{name: a, image: a}]}";
    let metadata = "{metadata: {labels: {a: b}}";
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\n\
         spec: {{selector: {{matchLabels: {{a: b}}}}, template: {metadata}, spec: {pod}}}}}\n"
    );
    let output = namespace.try_kubectl(&DRY_RUN, &deployment);
    assert!(
        output.status.success()
            && String::from_utf8_lossy(&output.stderr).contains("Warning: would violate PodSecurity")
    );
    let wrong = deployment.replace("selector:", "replica: 2, selector:");
    let output = namespace.try_kubectl(&DRY_RUN, &wrong);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("replica"), "{output:?}");
}
