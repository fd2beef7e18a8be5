//! The gate before production: a run parks, is approved or refused from other processes, and goes on.

use crate::place::Place;

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
