//! Notices made of summaries.

mod sending;

use super::{Notify, message::*, slack};
use crate::{
    environment::{Deployed, Environment, Open, Pushed, Signer},
    git::Source,
    inputs::{Inputs, Options},
};
use plimsoll_core::{
    RunId, RunOutcome, Timestamp,
    config::{NoticeEvent, Profile},
};
use plimsoll_deploy::{DriveError, Outcome, ProbeReport, ReleaseRecord};
use plimsoll_engine::{Output, StepError, StepSummary, Summary};
use serde_json::Value;
use std::collections::BTreeMap;

struct Staging;

impl Environment for Staging {
    const NAME: &'static str = "staging";
    type Gate = Open<Self>;
}

const BASE: &str = r#"
[project]
name = "kairos"
[services.api]
package = "api"
[environments.staging]
target = "local"
[environments.production]
target = "local"
gate = "approval"
"#;

fn inputs(pipeline: &str, channels: &str, version: &str) -> Inputs {
    let source = Source {
        version: version.to_owned(),
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        committed_at: 0,
        repository: None,
        tag: None,
        branch: Some("main".to_owned()),
        dirty: false,
    };
    let text = format!("{BASE}{channels}");
    Inputs::new(pipeline, text, source, "ann@x".to_owned(), Profile::Local, Options::default()).unwrap()
}

fn run_id() -> RunId {
    RunId::new(Timestamp::from_millis(0), 1)
}

fn step(name: &str, outcome: &'static str) -> StepSummary {
    StepSummary { name: name.into(), outcome, output: None, error: None, waiting: None }
}

fn summary(outcome: RunOutcome, changed: bool, steps: Vec<StepSummary>) -> Summary {
    Summary { outcome, changed, steps }
}

fn notice(pipeline: &str, summary: &Summary) -> Option<Notice> {
    let about = About::of(&inputs(pipeline, "", "1.2.3"));
    Notice::of(&about, &run_id(), summary, &|text| text.replace("hunter2", "***"))
}

fn failed(name: &str, error: &str) -> StepSummary {
    StepSummary { error: Some(error.to_owned()), ..step(name, "failed") }
}

fn outcome(changed: bool, version: &str) -> Outcome {
    Outcome {
        changed,
        moved: Vec::new(),
        live: ReleaseRecord {
            version: version.to_owned(),
            revision: "feedfacefeedface".to_owned(),
            run: run_id(),
            actor: "bob@x".to_owned(),
            since: Timestamp::from_millis(0),
            generation: plimsoll_core::Generation(3),
            approval: None,
            services: BTreeMap::new(),
        },
        previous: None,
        switch_micros: Some(1250),
        handover: Vec::new(),
        probes: ProbeReport { sent: 120, p99_ms: 4, ..ProbeReport::default() },
        canary: Vec::new(),
        drain: BTreeMap::new(),
        millis: 10,
    }
}

fn with_output(name: &str, output: String) -> StepSummary {
    StepSummary { output: Some(output.into()), ..step(name, "done") }
}

fn deployed(changed: bool) -> StepSummary {
    let proof = Deployed::<Staging>::prove(
        Pushed::prove(BTreeMap::new()),
        Signer(String::new()),
        None,
        outcome(changed, "1.2.3"),
    );
    with_output("deploy[staging]", proof.encode())
}

#[test]
fn each_way_a_run_goes_is_told_as_its_own_event() {
    let returned = DriveError::Returned {
        version: "1.2.3".to_owned(),
        reason: "too many errors".to_owned(),
        log_tail: Vec::new(),
        probes: Box::default(),
    };
    let put_back = failed("promote[production]", &StepError::of(&returned).one_line());
    let parked = StepSummary { waiting: Some("an approval".to_owned()), ..step("approve[production]", "parked") };
    for (pipeline, outcome, changed, steps, expected) in [
        ("release", RunOutcome::Succeeded, false, vec![], None),
        ("release", RunOutcome::Succeeded, true, vec![], Some(NoticeEvent::Succeeded)),
        ("release", RunOutcome::Interrupted, true, vec![], None),
        ("release", RunOutcome::Failed, false, vec![failed("test", "red")], Some(NoticeEvent::Failed)),
        ("release", RunOutcome::Failed, true, vec![put_back], Some(NoticeEvent::RolledBack)),
        ("release", RunOutcome::Parked, true, vec![parked], Some(NoticeEvent::ApprovalWanted)),
        ("rollback", RunOutcome::Succeeded, true, vec![], Some(NoticeEvent::RolledBack)),
        ("rollback", RunOutcome::Failed, true, vec![failed("rollback", "x")], Some(NoticeEvent::Failed)),
    ] {
        let told = notice(pipeline, &summary(outcome, changed, steps));
        assert_eq!(told.map(|n| n.event), expected, "{pipeline} {outcome:?} {changed}");
    }
}

#[test]
fn a_failure_names_the_first_step_its_cause_and_the_command_that_resumes() {
    let steps = vec![step("test", "done"), failed("smoke[staging]", "no answer: hunter2"), failed("docs", "x")];
    let told = notice("release", &summary(RunOutcome::Failed, false, steps)).unwrap();
    let failure = Failure { step: "smoke[staging]".into(), cause: "no answer: ***".into(), others: 1 };
    assert_eq!(told.failure, Some(failure));
    assert_eq!(told.environment.as_deref(), Some("staging"));
    assert_eq!(
        told.plain(),
        format!(
            "kairos: release of 1.2.3 failed at smoke[staging] (staging, started by ann@x, run {id}): no answer: *** (and one more \
             step failed); go on with cargo xtask resume {id}",
            id = run_id()
        )
    );
}

#[test]
fn an_approval_that_is_wanted_says_what_for_and_how_to_give_it() {
    let parked = StepSummary { waiting: Some("an approval for 1.2.3".into()), ..step("approve[production]", "parked") };
    let told = notice("release", &summary(RunOutcome::Parked, true, vec![deployed(true), parked])).unwrap();
    assert_eq!(told.environment.as_deref(), Some("production"));
    assert_eq!(told.waiting, [Waiting { step: "approve[production]".into(), what: "an approval for 1.2.3".into() }]);
    assert_eq!(
        told.commands,
        [format!("cargo xtask approve {}", run_id()), format!("cargo xtask resume {}", run_id())]
    );
}

#[test]
fn the_figures_of_a_cut_over_are_read_out_of_the_proof() {
    let told = notice("release", &summary(RunOutcome::Succeeded, true, vec![deployed(true)])).unwrap();
    let figures = &told.cut_overs[0];
    assert_eq!((figures.sent, figures.failed, figures.p99_ms, figures.switch_ms), (120, 0, 4, Some(1.25)));
    assert_eq!(told.environment.as_deref(), Some("staging"));
    assert!(told.plain().contains("staging: 120 probes, 0 failed, p99 4 ms, switched in 1."), "{}", told.plain());

    let strange = vec![with_output("deploy[staging]", "[\"staging\", [\"{\"]]".into())];
    let told = notice("release", &summary(RunOutcome::Succeeded, true, strange)).unwrap();
    assert_eq!(told.cut_overs, [], "what cannot be read is left out");
}

#[test]
fn a_rollback_tells_the_version_that_was_put_back() {
    let done = with_output("rollback[production]", outcome(true, "1.0.0").encode());
    let told = notice("rollback", &summary(RunOutcome::Succeeded, true, vec![done])).unwrap();
    assert_eq!((told.version.as_deref(), told.revision.as_deref()), (Some("1.0.0"), Some("feedfacefeedface")));
    assert_eq!(told.headline(), "kairos: rollback to 1.0.0 succeeded");

    let picked = with_output("pick", outcome(true, "0.9.0").live.encode());
    let steps = vec![picked, failed("rollback[production]", "x")];
    let told = notice("rollback", &summary(RunOutcome::Failed, true, steps)).unwrap();
    assert_eq!(told.version.as_deref(), Some("0.9.0"));
}

#[test]
fn the_notice_of_the_beginning_is_no_change() {
    let told = |deploy| {
        let steps = vec![with_output("started", "null".into()), deploy];
        notice("release", &summary(RunOutcome::Succeeded, true, steps)).map(|n| n.event)
    };
    assert_eq!(told(deployed(false)), None);
    assert_eq!(told(deployed(true)), Some(NoticeEvent::Succeeded));
}

#[test]
fn a_failed_release_that_was_put_back_concerns_those_who_hear_of_failures_too() {
    let put_back = failed("promote[production]", "1 was live and the former release was put back: x");
    let told = notice("release", &summary(RunOutcome::Failed, true, vec![put_back])).unwrap();
    for (events, expected) in [
        (vec![NoticeEvent::RolledBack], true),
        (vec![NoticeEvent::Failed], true),
        (vec![NoticeEvent::Succeeded, NoticeEvent::ApprovalWanted], false),
    ] {
        assert_eq!(told.concerns(&events), expected, "{events:?}");
    }
}

#[test]
fn every_text_becomes_one_bounded_line() {
    for (text, expected) in [
        ("a\nb\r\n\tc", "a b c"),
        ("\u{1b}[31mred\u{1b}[0m", "red"),
        ("\u{1b}]0;title\u{7}x", "]0;title x"),
        ("a\u{202e}b\u{200b}c\u{feff}", "a b c"),
        ("  a  ", "a"),
        ("\u{1b}[", ""),
        ("abcdefghijk", "abcdefghi…"),
    ] {
        assert_eq!(one_line(text, 10), expected, "{text:?}");
    }
}

#[test]
fn a_slack_message_keeps_the_limits_and_holds_hostile_text_as_data() {
    let version = format!("<!channel>\u{1b}[31m\n&{}", "<".repeat(5000));
    let about = About::of(&inputs("release", "", &version));
    let error = format!("<@U1> {}", "&".repeat(9000));
    let steps = vec![deployed(true), failed("promote[production]", &error)];
    let told = Notice::of(&about, &run_id(), &summary(RunOutcome::Failed, true, steps), &str::to_owned).unwrap();
    let message = slack::render(&told);
    let text = message.to_string();
    assert!(!text.contains('<') && !text.contains('>') && !text.contains("\\u001b"), "{text}");
    assert!(text.contains("&lt;!channel&gt;"), "{text}");
    let blocks = message["blocks"].as_array().unwrap();
    let length = |v: &Value| v["text"].as_str().unwrap().encode_utf16().count();
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => assert!(length(&block["text"]) <= 150),
            "section" => {
                let fields = block["fields"].as_array().cloned().unwrap_or_default();
                assert!(fields.len() <= 10 && fields.iter().all(|f| length(f) <= 2000 && f["verbatim"] == true));
                assert!(fields.is_empty() == block["text"].is_object());
                assert!(block["text"].is_null() || length(&block["text"]) <= 3000);
            }
            other => assert_eq!(other, "context"),
        }
    }
    assert_eq!(blocks[0]["type"], "header");
    assert_eq!(blocks.last().unwrap()["type"], "context");
}

#[test]
fn the_webhooks_body_has_its_documented_shape() {
    let told = notice("release", &summary(RunOutcome::Succeeded, true, vec![deployed(true)])).unwrap();
    let expected = serde_json::json!({
        "format": 1, "event": "succeeded", "project": "kairos", "pipeline": "release", "run": run_id().to_string(),
        "version": "1.2.3", "revision": "0123456789abcdef0123456789abcdef01234567", "branch": "main",
        "environment": "staging", "actor": "ann@x", "outcome": "succeeded", "failure": null, "waiting": [], "commands": [],
        "cut_overs": [{ "environment": "staging", "sent": 120, "failed": 0, "p99_ms": 4, "switch_ms": 1.25 }],
    });
    assert_eq!(serde_json::to_value(&told).unwrap(), expected);
}

#[test]
fn the_parameters_name_where_secrets_come_from() {
    let channels = "[notify.webhook]\nurl = { env = \"HOOK\" }\nsecret = { file = \"key\" }\n";
    let text = serde_json::to_string(&Notify::new(&inputs("release", channels, "1"))).unwrap();
    assert!(text.contains("HOOK") && text.contains("key"), "{text}");
}
