//! The policy gate: what the registry has and says of a release's images, looked at just before they are to serve.
//!
//! Nothing that was known before counts: bytes, tags and statements are read from the registry again, and judged by
//! [`plimsoll_attest::judge`].

use crate::{
    advisory_database::{AdvisorySource, Known},
    attest::KEY,
    environment::{Pushed, PushedImage, Signer},
    inputs::Inputs,
    push::tag_of,
    trust::{Trust, repository},
};
use futures_util::future::try_join_all;
use plimsoll_attest::{BUNDLE, Bundle, Expected, Finding, PROVENANCE, PublicKey, Rule, Said, Told, judge, linked_in};
use plimsoll_core::{Digest, ImageRef, ServiceName, config::Advisories};
use plimsoll_engine::{Cx, StepError};
use plimsoll_oci::{ClientError, RegistryClient};
use plimsoll_scan::Level;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Statements that are read of one image; an honest one has a handful.
const MAX_STATEMENTS: usize = 200;
/// Bytes of statements that are kept of one image.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What a release has to be to pass.
#[derive(Debug, Serialize)]
pub(crate) struct Policy {
    repository: String,
    tag: String,
    advisories: Advisories,
}

impl Policy {
    /// For the release that is made of `inputs`.
    pub(crate) fn of(inputs: &Inputs) -> Self {
        let advisories = inputs.config().advisories.clone();
        Self { repository: repository(inputs), tag: tag_of(&inputs.source.version), advisories }
    }

    /// Refuses a release that breaks a rule, by its name.
    pub(crate) async fn admit(&self, cx: &Cx, pushed: &Pushed, signer: &Signer) -> Result<(), StepError> {
        let (client, keys) = (cx.resource::<RegistryClient>()?, cx.resource::<Trust>()?.keys_of(signer)?);
        let known = self.known(cx).await?;
        cx.waiting("the registry to show what it has and says of the release");
        let look = |image| self.look(&client, &keys, image, known.as_ref());
        let looked = try_join_all(pushed.images().values().map(look)).await?;
        // Platforms and the index mostly break a rule together.
        let mut broken: BTreeMap<(&ServiceName, Rule, String), Vec<Digest>> = BTreeMap::new();
        for (image, findings) in pushed.images().values().zip(looked) {
            for Finding { rule, subject, reason } in findings {
                broken.entry((&image.built.service, rule, reason)).or_default().push(subject);
            }
        }
        let Some((service, rule, reason)) = broken.keys().next() else {
            cx.log(&format!("{} images hold to the policy", pushed.images().len()));
            return Ok(());
        };
        let error = StepError::check(format!("the policy refuses {service}, by its rule `{rule}`: {reason}"));
        let hint = format!("cargo xtask verify {}", pushed.images()[*service].image);
        let line = |((service, rule, reason), subjects): (&(&ServiceName, Rule, String), &Vec<Digest>)| {
            let subjects: Vec<&str> = subjects.iter().map(Digest::short).collect();
            format!("{service} {rule}: {reason} ({})", subjects.join(", "))
        };
        Err(error.with_detail(broken.iter().map(line)).with_hint(hint))
    }

    /// What is known of crates. Nothing, where there is no database and none is asked for; that is said.
    async fn known(&self, cx: &Cx) -> Result<Option<Known>, StepError> {
        let source = AdvisorySource::new(cx.root(), &self.advisories);
        match source.known(cx.environment(), cx.cancel(), cx.now()).await {
            Ok(known) => {
                known.doubts.iter().for_each(|doubt| cx.note(doubt));
                cx.log(&format!("held against {}", known.name));
                Ok(Some(known))
            }
            Err(error) if !self.advisories.required && !cx.cancel().is_cancelled() => {
                cx.note(format!("the rule `{}` is not looked at: {error}", Rule::Advisories));
                Ok(None)
            }
            Err(error) => Err(error.during(format!("the policy cannot look at its rule `{}`", Rule::Advisories))),
        }
    }

    async fn look(
        &self,
        client: &RegistryClient,
        keys: &[PublicKey],
        image: &PushedImage,
        known: Option<&Known>,
    ) -> Result<Vec<Finding>, StepError> {
        let built = &image.built;
        let expected = Expected { repository: self.repository.clone(), revision: Some(built.revision.clone()) };
        let mut found = tag(client, &image.image, &built.digest, &self.tag).await?;
        found.extend(examine(client, keys, &image.image, &expected, known).await?.findings);
        Ok(found)
    }
}

/// What came of looking at one image.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What was looked at: the index and the platforms' manifests.
    pub subjects: Vec<Digest>,
    /// The rules that are broken.
    pub findings: Vec<Finding>,
    /// Bytes of blobs that were read.
    pub bytes: u64,
}

/// Reads an image with all that is said of it, and judges it; what is linked in only where something is `known` of crates.
pub async fn examine(
    client: &RegistryClient,
    keys: &[PublicKey],
    image: &ImageRef,
    expected: &Expected,
    known: Option<&Known>,
) -> Result<Examined, StepError> {
    let verified = match client.verify(image).await {
        Ok(verified) => verified,
        Err(error) => {
            let subject = image.digest.clone().ok_or_else(|| StepError::of(&error))?;
            let findings = vec![content(&error, &subject).ok_or_else(|| StepError::of(&error))?];
            return Ok(Examined { subjects: vec![subject], findings, bytes: 0 });
        }
    };
    let platforms = verified.platforms.into_iter().map(|(_, digest)| digest);
    let subjects: Vec<Digest> = std::iter::once(verified.digest).chain(platforms).collect();
    let mut findings = Vec::new();
    for subject in &subjects {
        let bundles = bundles(client, keys, image, subject).await?;
        let said = Said { subject, bundles: &bundles };
        findings.extend(judge(said, keys, expected));
        findings.extend(known.into_iter().flat_map(|known| vulnerable(known, subject, &linked_in(said, keys))));
    }
    Ok(Examined { subjects, findings, bytes: verified.bytes })
}

/// What is linked in and does not pass, by what is known of it.
fn vulnerable(known: &Known, subject: &Digest, linked: &BTreeSet<(String, String)>) -> Vec<Finding> {
    let refused = known.findings(linked).into_iter().filter(|finding| finding.level == Level::Error);
    let finding = |finding: plimsoll_scan::Finding| {
        let reason = format!("{}: {}", finding.rule, finding.message);
        Finding { rule: Rule::Advisories, subject: subject.clone(), reason }
    };
    refused.map(finding).collect()
}

/// The bundles that are listed beside an image or index.
async fn bundles(
    client: &RegistryClient,
    keys: &[PublicKey],
    image: &ImageRef,
    subject: &Digest,
) -> Result<Vec<Vec<u8>>, StepError> {
    let mut listed = client.referrers(image, subject, Some(BUNDLE)).await.map_err(|e| StepError::of(&e))?;
    // Those that name a trusted key come first: what others put beside an image must not hide them.
    let hints: Vec<String> = keys.iter().map(PublicKey::hint).collect();
    listed.sort_by_key(|one| !one.annotations.get(KEY).is_some_and(|hint| hints.contains(hint)));
    let (mut bundles, mut bytes) = (Vec::new(), 0);
    for referrer in listed.iter().take(MAX_STATEMENTS) {
        match client.artifact(image, &referrer.descriptor.digest).await {
            Ok(bundle) => {
                bytes += bundle.len();
                if bytes > MAX_BYTES {
                    break;
                }
                bundles.push(bundle);
            }
            // One that is damaged says nothing.
            Err(error) if content(&error, subject).is_some() => {}
            Err(error) => return Err(StepError::of(&error)),
        }
    }
    Ok(bundles)
}

/// What a trusted provenance tells of how an image was built, if there is one.
pub async fn told(
    client: &RegistryClient,
    keys: &[PublicKey],
    image: &ImageRef,
    subject: &Digest,
) -> Result<Option<Told>, StepError> {
    let opened =
        bundles(client, keys, image, subject).await?.into_iter().filter_map(|bytes| Bundle::open(&bytes, keys).ok());
    let found = opened.into_iter().find(|said| said.predicate_type == PROVENANCE && said.is_about(subject));
    Ok(found.map(|said| Told::read(&said.predicate)))
}

/// Whether the release's tag still names the image.
async fn tag(client: &RegistryClient, image: &ImageRef, digest: &Digest, tag: &str) -> Result<Vec<Finding>, StepError> {
    let named = client.head(&image.tagged(tag)).await.map_err(|e| StepError::of(&e))?;
    let reason = match named {
        Some(named) if named.digest == *digest => return Ok(Vec::new()),
        Some(named) => format!("the tag {tag} was moved: it names {} now", named.digest),
        None => format!("the tag {tag} is gone"),
    };
    Ok(vec![Finding { rule: Rule::Tag, subject: digest.clone(), reason }])
}

/// What an error says of the image's contents; nothing if it is about the way there.
fn content(error: &ClientError, subject: &Digest) -> Option<Finding> {
    let gone = matches!(error, ClientError::Refused { status, .. } if status.as_u16() == 404);
    let reason = if gone {
        format!("the registry has not all of it any more: {error}")
    } else if matches!(error, ClientError::Data { .. } | ClientError::Manifest { .. }) {
        format!("it was changed: {error}")
    } else {
        return None;
    };
    Some(Finding { rule: Rule::Content, subject: subject.clone(), reason })
}
