//! Objects from a Helm chart or a Kustomize overlay, whoever wrote it, and whose they are.
//!
//! Rendering runs `helm template` or `kubectl kustomize` and asks no cluster. [`by_service`] is pure.

mod whose;

pub use whose::{PartitionError, by_service};

use crate::object::{Object, ObjectError};
use plimsoll_process::{Cancel, Cmd, Environment, ProcessError, output};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// A chart that takes longer asks somebody.
const LIMIT: Duration = Duration::from_mins(1);
/// The largest rendering that is read.
const MAX_OUTPUT: usize = 32 << 20;

/// Where objects come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `helm template` of a chart.
    Helm {
        /// The chart's directory.
        chart: PathBuf,
        /// Files of values, later ones over earlier ones.
        values: Vec<PathBuf>,
        /// The name of the Helm release, which objects may be called after.
        release: String,
        /// The namespace the objects are for.
        namespace: String,
        /// The version of Kubernetes they are for: no cluster is asked.
        version: String,
    },
    /// `kubectl kustomize` of an overlay.
    Kustomize {
        /// The overlay's directory.
        overlay: PathBuf,
    },
}

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The program could not be run, or took too long.
    #[error("cannot run `{command}`{}", hint(.source, .command))]
    Run {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: Box<ProcessError>,
    },
    /// It said no.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The command.
        command: String,
        /// The end of what it wrote.
        message: String,
    },
    /// What it wrote is no YAML.
    #[error("`{command}` wrote something that is no YAML: {reason}")]
    Yaml {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// What it wrote are no objects.
    #[error("`{command}` wrote something that is no Kubernetes object")]
    Object {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
}

fn hint(source: &ProcessError, command: &str) -> String {
    let program = command.split(' ').next().unwrap_or_default();
    match source {
        ProcessError::NotFound { .. } => format!(": install {program}, or write `render = \"typed\"`"),
        _ => String::new(),
    }
}

/// Renders.
pub async fn render(source: &Source, environment: &Environment) -> Result<Vec<Object>, RenderError> {
    let (program, args) = command(source);
    let shown = format!("{program} {}", args.join(" "));
    let cmd = Cmd::new(program).args(&args).inherit_base(environment);
    let cmd = cmd.inherit_env(environment, &["KUBECONFIG", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"]);
    let cmd = cmd.timeout(LIMIT).output_limit(MAX_OUTPUT);
    let done = output(&cmd, &Cancel::new())
        .await
        .map_err(|source| RenderError::Run { command: shown.clone(), source: Box::new(source) })?;
    if !done.exit.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        let lines: Vec<&str> = text.trim().lines().rev().take(5).collect();
        let message = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        return Err(RenderError::Failed { command: shown, message });
    }
    parse(&String::from_utf8_lossy(&done.stdout), &shown)
}

fn command(source: &Source) -> (&'static str, Vec<String>) {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    match source {
        Source::Helm { chart, values, release, namespace, version } => {
            let mut args = vec!["template".to_owned(), release.clone(), text(chart)];
            args.extend(["--namespace".to_owned(), namespace.clone(), "--skip-tests".to_owned()]);
            args.extend(["--kube-version".to_owned(), version.clone()]);
            args.extend(values.iter().flat_map(|file| ["--values".to_owned(), text(file)]));
            ("helm", args)
        }
        Source::Kustomize { overlay } => ("kubectl", vec!["kustomize".to_owned(), text(overlay)]),
    }
}

/// The objects of a text with several YAML documents; empty documents and the items of lists are resolved.
fn parse(text: &str, command: &str) -> Result<Vec<Object>, RenderError> {
    let yaml = |e: serde_saphyr::Error| RenderError::Yaml { command: command.to_owned(), reason: e.to_string() };
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(yaml)?;
    let mut objects = Vec::new();
    for document in documents.into_iter().filter(|d| !d.is_null()) {
        let items = match document.get("items").and_then(Value::as_array) {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => items.clone(),
            _ => vec![document],
        };
        for item in items {
            let object = Object::try_from(item);
            objects.push(object.map_err(|source| RenderError::Object { command: command.to_owned(), source })?);
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_lists_and_empty_documents_become_objects() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\n\
                    kind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: b}\n";
        let titles: Vec<String> = parse(text, "helm").unwrap().iter().map(Object::title).collect();
        assert_eq!(titles, ["Service a", "Secret b"]);
    }

    #[test]
    fn what_is_no_object_is_named_with_the_command() {
        let error = parse("kind: Service\n", "helm template x").unwrap_err();
        assert_eq!(error.to_string(), "`helm template x` wrote something that is no Kubernetes object");
        assert!(parse("a: [", "helm").unwrap_err().to_string().contains("no YAML"));
    }
}
