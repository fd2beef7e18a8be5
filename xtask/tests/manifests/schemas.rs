//! Every object is right by the JSON Schemas of Kubernetes, as `kubeconform` reads them.
//!
//! The schemas come from where `PLIMSOLL_KUBECONFORM_SCHEMAS` says, a `-schema-location`; without it kubeconform loads them from
//! the network.

use crate::objects::{self, KUBERNETES, OF_OPERATORS, Rendered, is_of_operator, ran, title};
use serde_json::Value;
use std::{fs, path::Path};

const LOCATION: &str = "PLIMSOLL_KUBECONFORM_SCHEMAS";

/// What kubeconform says of the objects in a directory, which loads each schema once; `None` where it is not installed.
fn judged(directory: &Path) -> Option<(bool, Value)> {
    let (version, skipped) = (format!("{KUBERNETES}.0"), OF_OPERATORS.join(","));
    let mut args = vec!["-strict", "-summary", "-output", "json", "-kubernetes-version", &version, "-skip", &skipped];
    let location = std::env::var(LOCATION).unwrap_or_else(|_| "default".to_owned());
    args.extend(["-schema-location", &location, directory.to_str().expect("UTF-8")]);
    let (done, out, error) = ran("kubeconform", &args, "")?;
    let said = serde_json::from_str(&out).unwrap_or_else(|e| panic!("kubeconform: {e}: {out}{error}"));
    Some((done, said))
}

#[test]
fn every_object_is_right_by_the_schemas_of_kubernetes() {
    let Some(all) = objects::all() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let mut count = [0, 0];
    for Rendered { title: source, text, objects } in all {
        // What is wrong is told with the file's name.
        fs::write(directory.path().join(format!("{}.yaml", source.replace('/', "_"))), text).expect("a file");
        for object in objects.iter().filter(|object| is_of_operator(object)) {
            println!("{source}: no schema of Kubernetes describes {}", title(object));
        }
        let of_operators = objects.iter().filter(|object| is_of_operator(object)).count();
        count = [count[0] + objects.len() - of_operators, count[1] + of_operators];
    }
    let Some((done, said)) = judged(directory.path()) else { return };
    let summary = ["valid", "skipped", "invalid", "errors"].map(|key| said["summary"][key].as_u64());
    let wanted = [count[0], count[1], 0, 0].map(|n| Some(n as u64));
    assert!(done && summary == wanted, "{summary:?}, and {wanted:?} were to be: {said:#}");
    println!("kubeconform: {} objects of {} sources", count[0], all.len());
}

#[test]
fn a_field_that_is_misspelt_is_found() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}], selektor: {a: b}}\n";
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("a.yaml"), service).expect("a file");
    let Some((done, said)) = judged(directory.path()) else { return };
    assert!(!done && said["summary"]["invalid"] == 1 && said.to_string().contains("selektor"), "{said:#}");
}
