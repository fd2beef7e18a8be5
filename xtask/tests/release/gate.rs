//! The gate before production: a run parks, is approved or refused from other processes, and goes on.

use crate::{
    place::{Place, Ran},
    terminal::Terminal,
};
use std::fs;

const ASKS: &str = "Approve for production? Type `yes`, or `no` and why; an empty line lets the run wait:";

#[test]
fn without_anybody_to_ask_a_release_parks_and_goes_on_when_it_is_approved() {
    let place = Place::new();
    let ran = place.run(&["release"]).expect(75).says("cargo xtask approve").says("cargo xtask resume");
    let run = ran.run();
    let status = place.status();
    assert_eq!(status.0["production"].live, None);
    status.live("staging").answers();
    assert_eq!(place.runs()[0]["outcome"], "parked");

    // Nobody answered yet: it waits on.
    place.run(&["resume", &run]).expect(75);
    place.run(&["approve", &run]).expect(0).says("production");
    assert_eq!(place.status().0["production"].live, None);
    place.run(&["resume", &run]).expect(0);
    let status = place.status();
    status.live("production").answers();
    assert_eq!(status.live("production").approved_by.as_deref(), Some("ada@example.org"));
    assert_eq!(place.runs().len(), 1, "a run that goes on stays one run");
}

#[test]
fn a_refusal_ends_the_run_with_its_reason() {
    let place = Place::released();
    let before = place.status();
    place.at("second");
    let run = place.run(&["release"]).expect(75).run();
    place.run(&["approve", &run, "--deny", "--reason", "not before the holidays"]).expect(0);
    place.run(&["resume", &run]).expect(1).says("not before the holidays");
    assert_eq!(place.status().live("production"), before.live("production"));
}

#[test]
fn an_approval_is_of_what_was_live_then_and_of_nothing_later() {
    let place = Place::released();
    place.at("second");
    let run = place.run(&["release"]).expect(75).run();
    place.run(&["approve", &run]).expect(0);

    place.commit("something in between");
    place.release().expect(0);
    let between = place.status();
    place.at("second");
    place.run(&["resume", &run]).expect(1).says("approved another subject");
    assert_eq!(place.status().live("production"), between.live("production"));
}

#[test]
fn an_environment_that_wants_a_person_at_a_terminal_takes_no_flag_for_one() {
    let place = Place::new();
    place.configure("gate = \"approval\"\n", "gate = \"approval\"\napproval = { evidence = \"terminal\" }\n");
    place.release().expect(1).says("evidence `none`").says("at least `terminal`");
    assert_eq!(place.status().0["production"].live, None);
    place.status().live("staging").answers();
}

/// Gives a command at a terminal, and this answer once the question stands there.
fn answered(place: &Place, args: &[&str], answer: &str) -> Ran {
    let mut terminal = Terminal::start(place.command(args));
    terminal.sees(ASKS);
    terminal.stands_still();
    terminal.types(answer);
    terminal.sees(format!("{ASKS} {answer}").trim_end());
    terminal.stands_still();
    terminal.types("\n");
    terminal.end()
}

#[test]
fn a_person_at_a_terminal_is_shown_what_would_change_and_what_they_type_opens_the_gate() {
    let place = Place::released();
    let before = place.status();
    place.at("second");
    place.configure("gate = \"approval\"\n", "gate = \"approval\"\napproval = { evidence = \"terminal\" }\n");
    place.configure("[environments.production]\n", "[environments.production]\nenv = { COLOUR = \"red\" }\n");
    let ran = answered(&place, &["release"], "yes").expect(0);

    let status = place.status();
    let (then, now) = (before.live("production"), status.live("production"));
    assert_ne!(then.digests(), now.digests());
    assert_eq!(now.approved_by.as_deref(), Some("ada@example.org"));
    now.answers();
    let question = ran.out.split(ASKS).next().unwrap();
    let mut lines = vec![
        format!("{} to production (generation 1), started by ada@example.org", now.version),
        format!("commit   {}", place.git(&["rev-parse", "HEAD"])),
        format!("version  {} → {}", then.version, now.version),
        "env COLOUR nothing → red".to_owned(),
    ];
    let short = |digest: &str| digest.trim_start_matches("sha256:")[..12].to_owned();
    for (service, digest) in now.digests() {
        lines.push(format!("~ {service} {} → {}", short(then.digests()[service]), short(digest)));
        lines.push(format!("image    {service} {digest}"));
    }
    for line in lines {
        assert!(question.lines().any(|shown| shown.trim() == line), "`{line}` is not in: {}", ran.text());
    }

    let runs = place.runs();
    let run = runs[0]["id"].as_str().unwrap();
    let journal = fs::read_to_string(place.state().join("runs").join(run).join("journal.jsonl")).unwrap();
    assert!(journal.contains("terminal") && !journal.contains("\\\"evidence\\\":\\\"none"), "{journal}");
}

#[test]
fn at_a_terminal_an_empty_line_lets_the_run_wait_and_a_reason_ends_it() {
    let place = Place::released();
    let before = place.status();
    place.at("second");
    let ran = answered(&place, &["release"], "").expect(75).says("cargo xtask approve");
    let run = ran.run();
    assert_eq!(place.status().live("production"), before.live("production"));
    assert_eq!(place.runs()[0]["outcome"], "parked");

    let reason = "not before the holidays";
    answered(&place, &["resume", &run], &format!("no: {reason}"))
        .expect(1)
        .says(&format!("ada@example.org said no: {reason}"));
    assert_eq!(place.status().live("production"), before.live("production"));
    let runs = place.runs();
    assert_eq!((runs.len(), &runs[0]["outcome"]), (2, &"failed".into()));
    before.live("production").answers();
}
