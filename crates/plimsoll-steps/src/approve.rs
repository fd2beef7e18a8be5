//! `approve`: the gate before an environment that asks for a person's yes to one subject.
//!
//! The subject is everything the yes covers; its hash is what is approved, and it is computed anew from the world each time the
//! gate is asked. An answer to another subject opens nothing.

use crate::{
    environment::{Approval, Environment, Pushed, Smoked},
    inputs::Inputs,
    policy::Policy,
    release::{Rendered, evidence},
    targets::Targets,
};
use plimsoll_core::{
    Digest, Fingerprint, Generation, Platform, ServiceName, Timestamp,
    config::{ApprovalRule, Profile},
};
use plimsoll_deploy::{ApprovalRecord, Evidence, Observation, Release, ReleaseDiff};
use plimsoll_engine::{Answer, Cx, Gate, Step, StepError, write_atomically};
use plimsoll_process::Cancel;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Asks for approval of what was smoke-tested in `S` to serve in `E`.
#[derive(Debug, Serialize)]
pub struct Approve<E, S> {
    rendered: Rendered,
    policy: Policy,
    rule: ApprovalRule,
    least: Evidence,
    yes: bool,
    profile: Profile,
    dirty: bool,
    #[serde(skip)]
    of: PhantomData<fn() -> (E, S)>,
}

/// What a yes covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The environment.
    pub environment: String,
    /// The version.
    pub version: String,
    /// Each service's index digest.
    pub indexes: BTreeMap<ServiceName, Digest>,
    /// Each service's manifest digests.
    pub platforms: BTreeMap<ServiceName, BTreeMap<Platform, Digest>>,
    /// Each service's configuration.
    pub configs: BTreeMap<ServiceName, Fingerprint>,
    /// The plan.
    pub plan: Fingerprint,
    /// The generation it replaces.
    pub replaces: Generation,
    /// The run: no two runs have one subject, so an answer cannot be replayed.
    pub nonce: String,
}

impl Subject {
    /// The subject of this run's `release`, replacing generation `replaces`. Made when the question is put, and once more inside the
    /// cut-over, from what is about to serve by then.
    pub(crate) fn of(cx: &Cx, pushed: &Pushed, release: &Release, replaces: Generation) -> Self {
        let services = || release.services.iter();
        Self {
            environment: release.environment.to_string(),
            version: release.version.clone(),
            indexes: services().map(|s| (s.name.clone(), s.digest.clone())).collect(),
            platforms: pushed.images().iter().map(|(name, i)| (name.clone(), i.built.platforms.clone())).collect(),
            configs: services().map(|s| (s.name.clone(), s.config_hash)).collect(),
            plan: cx.plan(),
            replaces,
            nonce: cx.run().to_string(),
        }
    }

    /// The hash that is approved.
    pub fn hash(&self) -> Fingerprint {
        Fingerprint::of(&serde_json::to_vec(self).expect("a subject is plain data"))
    }
}

/// The question as it is put to a person, and kept for `approve RUN`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The gate's name in the plan.
    pub gate: String,
    /// What a yes covers.
    pub subject: Subject,
    /// The commit.
    pub revision: String,
    /// Who started the run.
    pub actor: String,
    /// What would change, against what is live.
    pub diff: ReleaseDiff,
    /// How many must say yes.
    pub quorum: u16,
    /// The least evidence that counts.
    pub least: Evidence,
}

/// Somebody's answer, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The subject that was answered.
    pub subject: Fingerprint,
    /// Who answered.
    pub approver: String,
    /// What stands behind it.
    pub evidence: Evidence,
    /// Yes, or no and why.
    pub verdict: Verdict,
    /// When.
    pub at: Timestamp,
}

/// A reply's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Yes.
    Approved,
    /// No, with the reason.
    Denied(String),
}

/// Asks a person who is there, such as one at a terminal. Comes back at once with `None` when nobody is.
pub trait Asker: Send + Sync {
    /// Puts the question.
    fn ask(&self, question: &Question) -> Option<Reply>;
}

/// Whoever can be asked now, as a resource of the gate; nobody, where there is no terminal.
#[derive(Clone, Default)]
pub struct Asking(pub Option<Arc<dyn Asker>>);

/// Where the question of a parked run's gate is kept.
pub fn question_path(run_dir: &Path, gate: &str) -> PathBuf {
    run_dir.join(format!("question-{}.json", &Fingerprint::of(gate.as_bytes()).to_string()[..12]))
}

/// The questions a parked run has kept.
pub fn questions(run_dir: &Path) -> Vec<Question> {
    let files = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let question = |path: PathBuf| {
        let named = path.file_name()?.to_str()?.starts_with("question-");
        named.then(|| serde_json::from_slice(&fs::read(&path).ok()?).ok())?
    };
    files.filter_map(|f| question(f.path())).collect()
}

impl<E: Environment<Gate = Approval<E>>, S: Environment> Approve<E, S> {
    /// The gate as `plimsoll.toml` tightens it.
    pub fn new(inputs: &Inputs) -> Result<Self, StepError> {
        let rendered = Rendered::of::<E>(inputs)?;
        let config = inputs.config();
        let environment = config.environments.get(&E::name()).expect("it was rendered, so it is configured");
        Ok(Self {
            rendered,
            policy: Policy::of(inputs),
            rule: environment.approval.clone(),
            least: evidence(config.evidence(environment, inputs.profile)),
            yes: inputs.options.yes,
            profile: inputs.profile,
            dirty: inputs.source.dirty,
            of: PhantomData,
        })
    }
}

/// The approval under which this very release serves already, if it does.
fn standing(release: &Release, seen: &Observation) -> Option<ApprovalRecord> {
    let live =
        seen.live.as_ref().filter(|live| live.version == release.version && live.revision == release.revision)?;
    let same = release.services.iter().all(|s| live.services.get(&s.name).is_some_and(|r| r.spec.is_same_as(s)));
    (same && live.services.len() == release.services.len()).then(|| live.approval.clone())?
}

impl<E: Environment, S: Environment> Step for Approve<E, S> {
    const NAME: &'static str = "approve";
    const VERSION: u32 = 2;
    type In = Smoked<S>;
    type Out = Approval<E>;

    /// A person at a terminal may take as long as that.
    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_hours(8)
    }
}

impl<E: Environment<Gate = Approval<E>>, S: Environment> Gate for Approve<E, S> {
    async fn ask(&self, cx: &Cx, smoked: Smoked<S>) -> Result<Answer<Approval<E>>, StepError> {
        if self.dirty && self.profile != Profile::Local {
            let error = StepError::user(format!("{} is not released to from a dirty tree", self.rendered.environment));
            return Ok(Answer::No(error.with_hint("commit the changes first")));
        }
        let target = cx.resource::<Targets>()?.get(&E::name())?;
        let seen = target.observe().await.map_err(|e| StepError::of(&e))?;
        let (pushed, signer) = (smoked.pushed().clone(), smoked.signer().clone());
        let release = self.rendered.release(&pushed, cx.run(), None)?;
        if let Some(record) = standing(&release, &seen) {
            return Ok(Answer::Yes(Approval::prove(pushed, signer, record, seen.generation)));
        }
        // Nobody is asked about what would be refused.
        self.policy.admit(cx, &pushed, &signer).await?;
        let question = Question {
            gate: cx.step().to_string(),
            subject: Subject::of(cx, &pushed, &release, seen.generation),
            revision: release.revision.clone(),
            actor: self.rendered.actor.clone(),
            diff: ReleaseDiff::between(seen.live.as_ref(), &release),
            quorum: self.rule.quorum,
            least: self.least,
        };
        let replies = self.replies(cx, &question).await?;
        match judge(&question, &self.rule, &replies, cx.now()) {
            Judgement::Open(record) => Ok(Answer::Yes(Approval::prove(pushed, signer, record, seen.generation))),
            Judgement::Refused(error) => Ok(Answer::No(error)),
            Judgement::Missing(what) => {
                let text = serde_json::to_vec(&question).expect("a question is plain data");
                write_atomically(&question_path(cx.run_dir(), cx.step()), &text)
                    .map_err(|e| StepError::external("cannot keep the question").caused_by(&e))?;
                Ok(Answer::Waiting(format!("{what} for {} in {}", release.version, self.rendered.environment)))
            }
        }
    }
}

impl<E, S> Approve<E, S> {
    /// What the journal has, `--yes`, and then whoever is there.
    async fn replies(&self, cx: &Cx, question: &Question) -> Result<Vec<Reply>, StepError> {
        let read = |value: &serde_json::Value| {
            serde_json::from_value::<Reply>(value.clone())
                .map_err(|e| StepError::external("an answer in the journal cannot be read").caused_by(&e))
        };
        let mut replies = cx.answers().map(|(_, value)| read(value)).collect::<Result<Vec<_>, _>>()?;
        if replies.iter().any(|r| r.subject == question.subject.hash()) {
            return Ok(replies);
        }
        if self.yes {
            replies.push(Reply {
                subject: question.subject.hash(),
                approver: self.rendered.actor.clone(),
                evidence: Evidence::None,
                verdict: Verdict::Approved,
                at: cx.now(),
            });
        } else if let Some(asker) = &cx.resource::<Asking>()?.0 {
            cx.waiting("an answer at the terminal");
            replies.extend(put(asker, question, cx.cancel()).await);
        }
        Ok(replies)
    }
}

/// Puts the question, on a thread of its own: whoever is asked may never answer, and neither a cancelled run nor the end of the
/// process waits for that.
async fn put(asker: &Arc<dyn Asker>, question: &Question, cancel: &Cancel) -> Option<Reply> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (asker, question) = (Arc::clone(asker), question.clone());
    std::thread::spawn(move || {
        // Nobody listens any more once the run was cancelled.
        let _ = tell.send(asker.ask(&question));
    });
    tokio::select! {
        reply = told => reply.ok().flatten(),
        () = cancel.cancelled() => None,
    }
}

/// What the replies amount to.
#[derive(Debug, PartialEq)]
enum Judgement {
    Open(ApprovalRecord),
    Refused(StepError),
    Missing(String),
}

/// Weighs the replies. Pure. A no by anybody who may answer is a no; replies to another subject are told as such, because
/// whoever gave them must know why they do not count.
fn judge(question: &Question, rule: &ApprovalRule, replies: &[Reply], now: Timestamp) -> Judgement {
    let hash = question.subject.hash();
    let mut yes: BTreeMap<&str, &Reply> = BTreeMap::new();
    let mut reasons = BTreeSet::new();
    for reply in replies {
        if let Some(reason) = why_not(question, rule, reply, &hash, now) {
            reasons.insert(reason);
        } else if let Verdict::Denied(reason) = &reply.verdict {
            return Judgement::Refused(StepError::check(format!("{} said no: {reason}", reply.approver)));
        } else {
            yes.insert(&reply.approver, reply);
        }
    }
    let wanted = usize::from(question.quorum.max(1));
    if yes.len() >= wanted {
        let approvers: Vec<&str> = yes.keys().copied().collect();
        let first = yes.values().map(|r| r.at).min().unwrap_or(now);
        let weakest = yes.values().map(|r| r.evidence).min().unwrap_or(Evidence::None);
        return Judgement::Open(ApprovalRecord {
            approver: approvers.join(", "),
            evidence: weakest,
            at: first,
            expires: expiry(first, rule),
            subject: hash,
        });
    }
    if !reasons.is_empty() {
        let reasons: Vec<String> = reasons.into_iter().collect();
        return Judgement::Refused(StepError::check("an approval was given that does not count").with_detail(reasons));
    }
    Judgement::Missing(if wanted == 1 {
        "an approval".to_owned()
    } else {
        format!("{} of {wanted} approvals", wanted - yes.len())
    })
}

fn expiry(given: Timestamp, rule: &ApprovalRule) -> Timestamp {
    let millis = i64::try_from(rule.expires.millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(given.as_millis().saturating_add(millis))
}

/// Why a reply does not count, if it does not.
fn why_not(
    question: &Question,
    rule: &ApprovalRule,
    reply: &Reply,
    hash: &Fingerprint,
    now: Timestamp,
) -> Option<String> {
    let who = &reply.approver;
    if reply.subject != *hash {
        let subject = &question.subject;
        return Some(format!(
            "{who} approved another subject ({}): since then the digests, the configuration, the plan, or what {} serves (now generation {}) changed",
            reply.subject.short(),
            subject.environment,
            subject.replaces
        ));
    }
    if reply.verdict != Verdict::Approved {
        return None;
    }
    if reply.evidence < question.least {
        return Some(format!(
            "{who}'s yes has evidence `{}`, {} wants at least `{}`",
            word(reply.evidence),
            question.subject.environment,
            word(question.least)
        ));
    }
    if !rule.approvers.is_empty() && !rule.approvers.contains(who) {
        return Some(format!("{who} is not among the approvers"));
    }
    if !rule.self_approval && *who == question.actor {
        return Some(format!("{who} started the run and may not approve it"));
    }
    (now >= expiry(reply.at, rule)).then(|| format!("{who}'s yes of {} has expired", reply.at.readable()))
}

/// The word for a kind of evidence.
fn word(evidence: Evidence) -> String {
    let text = serde_json::to_value(evidence).expect("evidence is a word");
    text.as_str().unwrap_or_default().to_owned()
}

/// Checked again within the cut-over: that what is about to serve is what was approved, and that the yes still holds.
pub(crate) fn still_holds(
    record: &ApprovalRecord,
    subject: &Subject,
    release: &Release,
    seen: &Observation,
    now: Timestamp,
) -> Result<(), String> {
    let replaces = subject.replaces;
    if now >= record.expires {
        return Err(format!("the approval of {} expired at {}", record.at.readable(), record.expires.readable()));
    }
    if seen.generation != replaces {
        return Err(format!(
            "generation {replaces} was to be replaced, {} is at {}",
            release.environment, seen.generation
        ));
    }
    if release.approval.as_ref() != Some(record) {
        return Err("the release carries another approval".to_owned());
    }
    if subject.hash() != record.subject {
        return Err("the digests, the configuration, the plan or the run are not those that were approved".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            gate: "approve[production]".into(),
            subject: Subject {
                environment: "production".into(),
                version: "1.0.0".into(),
                indexes: BTreeMap::new(),
                platforms: BTreeMap::new(),
                configs: BTreeMap::new(),
                plan: Fingerprint::of(b"plan"),
                replaces: Generation(3),
                nonce: "run".into(),
            },
            revision: "abc".into(),
            actor: "bob@x".into(),
            diff: ReleaseDiff::default(),
            quorum: 1,
            least: Evidence::Terminal,
        }
    }

    fn reply(who: &str) -> Reply {
        Reply {
            subject: question().subject.hash(),
            approver: who.into(),
            evidence: Evidence::Terminal,
            verdict: Verdict::Approved,
            at: Timestamp::from_millis(0),
        }
    }

    fn rule() -> ApprovalRule {
        ApprovalRule {
            approvers: vec!["ann@x".into(), "bob@x".into(), "cat@x".into()],
            self_approval: false,
            ..ApprovalRule::default()
        }
    }

    fn refused(question: &Question, replies: &[Reply], now: i64, expected: &str) {
        match judge(question, &rule(), replies, Timestamp::from_millis(now)) {
            Judgement::Refused(error) => {
                let text = format!("{error} {:?}", error.detail);
                assert!(text.contains(expected), "{text}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }

    #[test]
    fn a_yes_by_an_approver_with_enough_evidence_opens_the_gate() {
        let Judgement::Open(record) = judge(&question(), &rule(), &[reply("ann@x")], Timestamp::from_millis(5)) else {
            panic!()
        };
        assert_eq!((record.approver.as_str(), record.subject), ("ann@x", question().subject.hash()));
    }

    #[test]
    fn every_other_reply_is_refused_with_its_reason() {
        let q = question();
        refused(&q, &[Reply { subject: Fingerprint::of(b"other"), ..reply("ann@x") }], 5, "another subject");
        refused(&q, &[Reply { evidence: Evidence::None, ..reply("ann@x") }], 5, "evidence `none`");
        refused(&q, &[reply("eve@x")], 5, "not among the approvers");
        refused(&q, &[reply("bob@x")], 5, "may not approve it");
        refused(&q, &[reply("ann@x")], i64::MAX / 2, "expired");
        refused(
            &q,
            &[Reply { verdict: Verdict::Denied("not today".into()), ..reply("ann@x") }],
            5,
            "said no: not today",
        );
    }

    /// Somebody who never answers.
    struct Silent(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

    impl Asker for Silent {
        fn ask(&self, _: &Question) -> Option<Reply> {
            self.0.lock().unwrap().recv().ok().and(None)
        }
    }

    #[tokio::test]
    async fn a_cancelled_run_does_not_wait_for_whoever_was_asked() {
        let (_keep, never) = std::sync::mpsc::channel();
        let asker: Arc<dyn Asker> = Arc::new(Silent(std::sync::Mutex::new(never)));
        let cancel = Cancel::new();
        let (question, stop) = (question(), cancel.clone());
        let (reply, ()) = tokio::join!(put(&asker, &question, &cancel), async move { stop.cancel() });
        assert_eq!(reply, None);
    }

    #[test]
    fn a_quorum_counts_people_not_replies() {
        let q = Question { quorum: 2, ..question() };
        let now = Timestamp::from_millis(5);
        assert_eq!(
            judge(&q, &rule(), &[reply("ann@x"), reply("ann@x")], now),
            Judgement::Missing("1 of 2 approvals".into())
        );
        assert!(matches!(judge(&q, &rule(), &[reply("ann@x"), reply("cat@x")], now), Judgement::Open(_)));
    }

    #[test]
    fn another_digest_configuration_plan_generation_or_run_is_another_subject() {
        let subject = question().subject;
        let others = [
            Subject { plan: Fingerprint::of(b"x"), ..subject.clone() },
            Subject { replaces: Generation(4), ..subject.clone() },
            Subject { nonce: "other".into(), ..subject.clone() },
            Subject { environment: "staging".into(), ..subject.clone() },
            Subject { indexes: BTreeMap::from([("a".parse().unwrap(), Digest::of(b"x"))]), ..subject.clone() },
            Subject { configs: BTreeMap::from([("a".parse().unwrap(), Fingerprint::of(b"x"))]), ..subject.clone() },
        ];
        for other in others {
            assert_ne!(other.hash(), subject.hash(), "{other:?}");
        }
    }
}
