//! `verify REFERENCE`: the policy's look at one image, by hand.

use super::{resources::Delivery, signing};
use crate::{
    cli::{VerifyArgs, Wanted},
    cli_error::CliError,
    report::text::{one_line, size},
    session::Session,
    verbs::runs::json,
};
use plimsoll_attest::{Expected, Finding, PublicKey, Rule};
use plimsoll_core::{ImageRef, ServiceName};
use plimsoll_engine::StepError;
use plimsoll_process::Cancel;
use plimsoll_steps::{AdvisorySource, Examined, Known, examine, repository};
use serde::Serialize;
use std::{fmt::Write as _, process::ExitCode, time::SystemTime};

/// `verify --json`.
#[derive(Debug, Serialize)]
struct Verdict {
    image: String,
    /// The keys whose signatures count, by the digests of their DER.
    keys: Vec<String>,
    repository: String,
    /// The index and the platforms' manifests.
    subjects: Vec<String>,
    bytes_read: u64,
    /// What is known of crates; none where the rule on advisories was not looked at.
    advisories: Option<String>,
    /// What should be known of that: how old it is, why there is none.
    doubts: Vec<String>,
    rules: Vec<Ruled>,
}

/// What came of one rule.
#[derive(Debug, Serialize)]
struct Ruled {
    rule: Rule,
    holds: bool,
    findings: Vec<Finding>,
}

impl Ruled {
    fn of(rule: Rule, examined: &Examined) -> Self {
        let findings: Vec<Finding> = examined.findings.iter().filter(|f| f.rule == rule).cloned().collect();
        Self { rule, holds: findings.is_empty(), findings }
    }
}

/// Looks at an image and says which rules it breaks.
pub(crate) async fn verify(session: &Session, args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let delivery = Delivery::open(session)?;
    let image = image(session, &delivery, &args.reference).await?;
    let (inputs, _) = session.inputs(Wanted { pipeline: "release", ..Wanted::default() }).await?;
    let expected = Expected { repository: repository(&inputs), revision: args.commit.clone() };
    let keys = signing::keys(session)?;
    // By digest from here on: what a tag names may change while it is looked at.
    let found = delivery.registry.head(&image).await.map_err(|e| StepError::of(&e))?;
    let found = found.ok_or_else(|| StepError::check(format!("the registry has no {image}")))?;
    let image = image.at(found.digest);
    let (known, doubts) = known(session).await?;
    let examined = examine(&delivery.registry, &keys, &image, &expected, known.as_ref()).await?;
    let mut verdict = Verdict::of(&image, &keys, expected.repository, &examined);
    // Where nobody knows what is linked in, nobody knows whether it is sound.
    let is_listed = !examined.findings.iter().any(|finding| matches!(finding.rule, Rule::Bom | Rule::Content));
    if let Some(known) = known.filter(|_| is_listed) {
        verdict = verdict.knowing(known.name, &examined);
    }
    verdict.doubts = doubts;
    session.console.out(&if session.global.json { json(&verdict) } else { verdict.to_text() });
    Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is known of crates, and what should be known of that.
async fn known(session: &Session) -> Result<(Option<Known>, Vec<String>), CliError> {
    let rules = &session.config.advisories;
    let source = AdvisorySource::new(&session.root, rules);
    match source.known(&session.environment, &Cancel::new(), SystemTime::now().into()).await {
        Ok(mut known) => {
            let doubts = std::mem::take(&mut known.doubts);
            Ok((Some(known), doubts))
        }
        Err(error) if rules.required => Err(error.into()),
        Err(error) => Ok((None, vec![format!("the rule `{}` is not looked at: {error}", Rule::Advisories)])),
    }
}

/// The image that is meant: a whole reference, or a service of this project with a tag or digest.
pub(super) async fn image(session: &Session, delivery: &Delivery, text: &str) -> Result<ImageRef, CliError> {
    let end = text.find(['@', ':']).unwrap_or(text.len());
    let service = text[..end].parse::<ServiceName>().ok().filter(|name| session.config.services.contains_key(name));
    let text = match service {
        Some(name) => format!("{}{}", delivery.registry_address(session).await?.image(name.as_str())?, &text[end..]),
        None => text.to_owned(),
    };
    let parsed: Result<ImageRef, _> = text.parse();
    let hint = "name a whole reference, or a service with a tag or digest, such as `web:1.2.3`";
    Ok(parsed.map_err(|e| StepError::user(e.to_string()).with_hint(hint))?)
}

impl Verdict {
    fn of(image: &ImageRef, keys: &[PublicKey], repository: String, examined: &Examined) -> Self {
        let rules = [Rule::Content, Rule::Signature, Rule::Provenance, Rule::Bom];
        Self {
            image: image.to_string(),
            keys: keys.iter().map(|key| key.digest().to_string()).collect(),
            repository,
            subjects: examined.subjects.iter().map(ToString::to_string).collect(),
            bytes_read: examined.bytes,
            advisories: None,
            doubts: Vec::new(),
            rules: rules.map(|rule| Ruled::of(rule, examined)).into(),
        }
    }

    /// With the rule on advisories, held against what is `known`.
    fn knowing(mut self, known: String, examined: &Examined) -> Self {
        self.advisories = Some(known);
        self.rules.push(Ruled::of(Rule::Advisories, examined));
        self
    }

    fn holds(&self) -> bool {
        self.rules.iter().all(|ruled| ruled.holds)
    }

    fn to_text(&self) -> String {
        let mut out = format!("{}\n", self.image);
        // Without its contents nothing else was looked at.
        let readable = self.rules[0].holds;
        for ruled in self.rules.iter().filter(|ruled| readable || !ruled.holds) {
            if ruled.holds {
                let how = match ruled.rule {
                    Rule::Content => format!("{} read, as the digests say", size(self.bytes_read)),
                    Rule::Provenance => format!("built from {}", self.repository),
                    Rule::Advisories => self.advisories.clone().unwrap_or_default(),
                    _ => "by a trusted key".to_owned(),
                };
                let _ = writeln!(out, "  {:<10}  holds: {how}", ruled.rule.to_string());
            }
            for finding in &ruled.findings {
                let (rule, subject) = (ruled.rule.to_string(), finding.subject.short());
                let _ = writeln!(out, "  {rule:<10}  BROKEN for {subject}: {}", one_line(&finding.reason));
            }
        }
        for doubt in &self.doubts {
            let _ = writeln!(out, "  note: {}", one_line(doubt));
        }
        let _ = writeln!(out, "{} images looked at: the index and its platforms", self.subjects.len());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::Digest;

    fn verdict(findings: Vec<Finding>) -> Verdict {
        let image: ImageRef = "r.example/shop/web:1".parse().unwrap();
        let subjects = vec![Digest::of(b"image")];
        Verdict::of(&image, &[], "https://h.example/shop".into(), &Examined { subjects, findings, bytes: 2048 })
    }

    #[test]
    fn what_is_broken_is_named_by_its_rule() {
        let finding = |rule| Finding { rule, subject: Digest::of(b"image"), reason: "it is not so".into() };
        let sound = verdict(Vec::new());
        assert!(sound.holds() && sound.to_text().contains("built from https://h.example/shop"), "{}", sound.to_text());
        let broken = verdict(vec![finding(Rule::Bom)]);
        assert!(!broken.holds());
        assert!(broken.to_text().contains("  bom         BROKEN for "), "{}", broken.to_text());
        assert!(broken.to_text().contains("  signature   holds"), "{}", broken.to_text());
        let unreadable = verdict(vec![finding(Rule::Content)]);
        assert!(!unreadable.to_text().contains("holds"), "{}", unreadable.to_text());
    }
}
