//! What is judged: the objects of each source, as text for other programs and as values for tests.

use crate::{
    cluster::fed,
    table,
    typed::environments,
    values::{self, Values},
};
use serde_json::Value;
use std::{fs, path::Path, process::Command, sync::OnceLock};

/// The version of Kubernetes that the objects are for.
pub(crate) const KUBERNETES: &str = "1.34";
/// Kinds of operators, which a bare cluster does not know and no schema of Kubernetes describes.
pub(crate) const OF_OPERATORS: [&str; 3] = ["ExternalSecret", "PrometheusRule", "ServiceMonitor"];

/// The objects of one source.
#[derive(Debug, Clone)]
pub(crate) struct Rendered {
    pub(crate) title: String,
    /// YAML documents, as they would be applied.
    pub(crate) text: String,
    pub(crate) objects: Vec<Value>,
}

impl Rendered {
    fn of_text(title: String, text: String) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{title}: {e}"));
        let objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
        assert!(!objects.is_empty(), "{title} has no objects");
        Self { title, text, objects }
    }

    pub(crate) fn of(title: String, objects: Vec<Value>) -> Self {
        Self { title, text: documents(&objects), objects }
    }
}

/// Objects as one text.
pub(crate) fn documents(objects: &[Value]) -> String {
    let documents: Vec<String> = objects.iter().map(|object| format!("---\n{object}\n")).collect();
    documents.concat()
}

/// An object as people call it.
pub(crate) fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"))
}

pub(crate) fn is_of_operator(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| OF_OPERATORS.contains(&kind))
}

/// Runs a program to its end, with what it printed; `None`, and a sentence, where it is not installed.
pub(crate) fn ran(program: &str, args: &[&str], input: &str) -> Option<(bool, String, String)> {
    let mut command = Command::new(program);
    command.args(args);
    let Some(output) = fed(command, input) else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

/// `helm` with the chart and a set of values.
pub(crate) fn helm(verb: &[&str], values: &Values) -> Option<(bool, String, String)> {
    let chart = table::at("helm/kairos");
    let common = ["--kube-version", KUBERNETES];
    let args = values.args.iter().map(String::as_str);
    let args: Vec<&str> =
        verb.iter().copied().chain([chart.to_str().expect("UTF-8")]).chain(common).chain(args).collect();
    ran("helm", &args, "")
}

/// The chart's objects, as for a cluster that has all operators.
pub(crate) fn chart(values: &Values) -> Option<Rendered> {
    let operators = ["monitoring.coreos.com/v1/ServiceMonitor", "monitoring.coreos.com/v1/PrometheusRule"];
    let operators = operators.into_iter().chain(["external-secrets.io/v1/ExternalSecret"]);
    let operators: Vec<&str> = operators.flat_map(|kind| ["--api-versions", kind]).collect();
    let (done, text, error) = helm(&[&["template", "kairos"], operators.as_slice()].concat(), values)?;
    assert!(done, "the chart with {}: {error}", values.name);
    Some(Rendered::of_text(format!("chart with {}", values.name), text))
}

/// The objects of an overlay.
fn overlay(directory: &Path, name: &str) -> Option<Rendered> {
    let (done, text, error) = ran("kubectl", &["kustomize", directory.to_str().expect("UTF-8")], "")?;
    assert!(done, "the overlay {name}: {error}");
    Some(Rendered::of_text(format!("overlay {name}"), text))
}

/// The source with most in it, of each kind.
pub(crate) const WIDEST: [&str; 3] =
    ["chart with production-values.yaml", "overlay of all components", "typed staging with everything"];

/// Every overlay of the repository, and one with all components: not each of them is in an overlay.
fn overlays() -> Option<Vec<Rendered>> {
    let names = |directory: &str| {
        let entries = fs::read_dir(table::at(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    let mut all = Vec::new();
    for name in names("deploy/kustomize/overlays") {
        all.push(overlay(&table::at("deploy/kustomize/overlays").join(&name), &name)?);
    }
    // Kustomize takes no absolute paths.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let kustomize = directory.path().join("kustomize");
    std::os::unix::fs::symlink(table::at("deploy/kustomize"), &kustomize).expect("a link");
    let components = names("deploy/kustomize/components");
    let components: Vec<String> =
        components.iter().map(|name| format!("  - ../kustomize/components/{name}\n")).collect();
    let components = components.concat();
    let text = format!("resources:\n  - ../kustomize/base\ncomponents:\n{components}");
    let own = directory.path().join("all");
    fs::create_dir(&own).expect("a directory");
    fs::write(own.join("kustomization.yaml"), text).expect("a file");
    all.push(overlay(&own, "of all components")?);
    Some(all)
}

/// The objects of every source; `None`, and a sentence, where a program that makes them is missing.
pub(crate) fn all() -> Option<&'static [Rendered]> {
    static ALL: OnceLock<Option<Vec<Rendered>>> = OnceLock::new();
    let render = || {
        let mut all = values::all().iter().map(chart).collect::<Option<Vec<_>>>()?;
        all.extend(overlays()?);
        all.extend(environments());
        Some(all)
    };
    let all = ALL.get_or_init(render).as_deref();
    if all.is_none() {
        println!("skipped: helm and kubectl make the objects, and one of them is not installed");
    }
    all
}

/// The objects of the sources whose titles begin so; every beginning must have one.
pub(crate) fn some(beginnings: &[&str]) -> Option<Vec<&'static Rendered>> {
    let all = all()?;
    let find = |beginning: &&str| all.iter().find(|rendered| rendered.title.starts_with(*beginning));
    Some(beginnings.iter().map(|b| find(b).unwrap_or_else(|| panic!("no source is called {b}"))).collect())
}
