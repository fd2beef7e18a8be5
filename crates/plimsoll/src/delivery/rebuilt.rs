//! `image --verify REFERENCE`: what was built here beside what a registry has of it.
//!
//! The answer is one of three. *Same*: byte for byte. *Different*: from the same sources and with the same tools something
//! else came out, and the first file in which it differs is named. *Not comparable*: other sources or other tools, by name.

use super::{resources::Delivery, signing, verify};
use crate::{cli_error::CliError, report::text::one_line, session::Session, verbs::runs::json};
use plimsoll_attest::Told;
use plimsoll_core::{Digest, ImageRef, Platform};
use plimsoll_engine::StepError;
use plimsoll_oci::{BlobStore, RegistryClient, Stored, Verified, first_difference};
use plimsoll_steps::{Built, told};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

/// Not comparable is neither a yes nor a no: the machine or the checkout is not the one to ask.
const NOT_COMPARABLE: u8 = 2;

/// What came of it, as `--json` writes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
enum Verdict {
    Same { image: String },
    Different { image: String, differences: Vec<String> },
    NotComparable { image: String, reasons: Vec<String> },
}

/// Compares an image of a registry with the one that was built here.
pub(super) async fn compare(
    session: &Session,
    store: &BlobStore,
    reference: &str,
    mut built: impl Iterator<Item = Built>,
) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let (client, image) = (&delivery.registry, verify::image(session, &delivery, reference).await?);
    let service = image.repository.rsplit('/').next().unwrap_or_default();
    let built = built.find(|built| built.service.as_str() == service);
    let built = built.ok_or_else(|| StepError::user(format!("nothing called `{service}` is built here")))?;
    let found = client.head(&image).await.map_err(|e| StepError::of(&e))?;
    let found = found.ok_or_else(|| StepError::check(format!("the registry has no {image}")))?;
    let image = image.at(found.digest.clone());
    let name = image.to_string();
    // Every byte is read: a digest that the registry claims says nothing of what it hands out.
    let there = client.verify(&image).await.map_err(|e| StepError::of(&e))?;
    let verdict = if there.digest == built.digest {
        Verdict::Same { image: name }
    } else {
        let told = told(client, &signing::keys(session)?, &image, &there.digest).await?;
        let mut reasons = told.map_or_else(
            || vec!["no trusted provenance says what it was built of".to_owned()],
            |told| apart(&told, &built),
        );
        reasons.extend(missing(&there, &built));
        if reasons.is_empty() {
            let differences = differences(session, client, &image, store, (&there, &built)).await?;
            Verdict::Different { image: name, differences }
        } else {
            Verdict::NotComparable { image: name, reasons }
        }
    };
    session.console.out(&if session.global.json { json(&verdict) } else { verdict.to_text() });
    Ok(verdict.code())
}

impl Verdict {
    fn to_text(&self) -> String {
        let lines = |list: &[String]| list.iter().flat_map(|line| ["  ", line, "\n"]).collect::<String>();
        match self {
            Self::Same { image } => format!("same: {image} is what is built here, byte for byte\n"),
            Self::Different { image, differences } => {
                format!("different: {image} (first) and what is built here (second)\n{}", lines(differences))
            }
            Self::NotComparable { image, reasons } => format!("not comparable: {image}\n{}", lines(reasons)),
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Same { .. } => ExitCode::SUCCESS,
            Self::Different { .. } => ExitCode::from(1),
            Self::NotComparable { .. } => ExitCode::from(NOT_COMPARABLE),
        }
    }
}

/// What makes two builds others from the beginning: sources and tools, where the provenance tells of them.
fn apart(told: &Told, built: &Built) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some((_, revision)) = told.sources.first().filter(|(_, revision)| *revision != built.revision) {
        reasons.push(format!("it was built from {revision}, and the sources here are those of {}", built.revision));
    }
    if built.revision.ends_with("-dirty") {
        reasons.push(format!("the sources here are in no commit: {}", built.revision));
    }
    for (platform, made) in &built.made {
        let theirs = told.toolchains.get(platform.as_str()).cloned().unwrap_or_default();
        let roles: BTreeSet<&String> = theirs.keys().chain(made.with.keys()).collect();
        for role in roles.into_iter().filter(|role| theirs.get(*role) != made.with.get(*role)) {
            let fact = |of: &BTreeMap<String, String>| of.get(role).map_or("unknown", String::as_str).to_owned();
            reasons.push(format!("{platform}: {role} differs: {} there, {} here", fact(&theirs), fact(&made.with)));
        }
        if made.with.is_empty() {
            reasons.push(format!("{platform}: a Dockerfile built it, and nobody knows with what"));
        }
    }
    reasons.iter().map(|reason| one_line(reason)).collect()
}

/// The manifest of a platform.
fn of(there: &Verified, platform: Platform) -> Option<&Digest> {
    there.platforms.iter().find(|(spec, _)| spec.is(platform)).map(|(_, digest)| digest)
}

/// Platforms that were not built here.
fn missing(there: &Verified, built: &Built) -> Vec<String> {
    let missing = |platform: &Platform| of(there, *platform).is_some() && !built.platforms.contains_key(platform);
    let missing = Platform::ALL.into_iter().filter(missing);
    missing.map(|platform| format!("{platform}: nothing here compiles for it")).collect()
}

/// The first difference for each platform.
async fn differences(
    session: &Session,
    client: &RegistryClient,
    image: &ImageRef,
    store: &BlobStore,
    (there, built): (&Verified, &Built),
) -> Result<Vec<String>, CliError> {
    let mut differences = Vec::new();
    for platform in Platform::ALL {
        match (of(there, platform), built.platforms.get(&platform)) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                let directory = tempfile::tempdir_in(&session.cache)
                    .map_err(|source| CliError::Io { what: format!("write in {}", session.cache.display()), source })?;
                let pulled = BlobStore::open(directory.path()).map_err(|e| StepError::of(&e))?;
                client.pull(image, platform, &pulled).await.map_err(|e| StepError::of(&e))?;
                let (theirs, ours) = (Stored { store: &pulled, manifest: theirs }, Stored { store, manifest: ours });
                let found = first_difference(theirs, ours).map_err(|e| StepError::of(&e))?;
                differences.extend(found.map(|found| one_line(&format!("{platform}: {found}"))));
            }
            (None, Some(_)) => differences.push(format!("{platform}: only the second has it")),
            _ => {}
        }
    }
    if differences.is_empty() {
        differences.push("the remarks of the index; the images of all platforms are the same".to_owned());
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_steps::Made;

    fn built(rustc: &str) -> Built {
        let with = BTreeMap::from([("rustc".to_owned(), rustc.to_owned())]);
        let made = Made { with, executable: None, files: BTreeMap::new(), of: Digest::of(b"") };
        Built {
            service: "web".parse().unwrap(),
            digest: Digest::of(b"index"),
            platforms: BTreeMap::new(),
            revision: "c1".into(),
            committed_at: 0,
            made: BTreeMap::from([(Platform::LinuxAmd64, made)]),
        }
    }

    #[test]
    fn other_sources_and_other_tools_are_not_to_be_compared() {
        let told = |revision: &str, rustc: &str| Told {
            sources: vec![("https://h.example/shop".into(), revision.into())],
            builder: None,
            toolchains: BTreeMap::from([("linux/amd64".into(), BTreeMap::from([("rustc".into(), rustc.into())]))]),
        };
        assert_eq!(apart(&told("c1", "1.95.0"), &built("1.95.0")), [] as [&str; 0]);
        let unknown = Told { toolchains: BTreeMap::new(), ..told("c1", "") };
        assert_eq!(apart(&unknown, &built("1.95.0")), ["linux/amd64: rustc differs: unknown there, 1.95.0 here"]);
        let dirty = Built { revision: "c1-dirty".into(), ..built("1.95.0") };
        assert!(apart(&told("c1-dirty", "1.95.0"), &dirty)[0].contains("in no commit"));
        assert!(
            apart(&told("c2", "1.95.0"), &built("1.95.0"))[0].contains("from c2, and the sources here are those of c1")
        );
        let reasons = apart(&told("c1", "1.95.0"), &built("1.96.0"));
        assert_eq!(reasons, ["linux/amd64: rustc differs: 1.95.0 there, 1.96.0 here"]);
    }
}
