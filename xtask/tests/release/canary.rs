//! A canary by the command itself: what it says, what is live in the end, and that a bad one goes back by itself. How it judges
//! is tested with drives.

use crate::{journals::journal, place::Place};

/// Probes count, because nobody else asks; limits are wide, because there are few.
const CANARY: &str = "[environments.production.canary]
services = [\"web\"]
steps = [20, 50]
step = \"1s\"
hold = \"1m\"
min_requests = 10
max_error_diff = 60.0
max_p99_diff = \"10s\"
error_rate = 0.5
count_probes = true
";

fn with_canary(place: &Place, env: &str) {
    let header = "[environments.production]\n";
    place.configure(header, &format!("{CANARY}\n{header}strategy = {{ kind = \"canary\" }}\n{env}"));
}

#[test]
fn a_canary_grows_by_its_steps_and_takes_over_and_the_output_says_by_which_figures() {
    let place = Place::released();
    let before = place.status();
    place.at("second");
    with_canary(&place, "");
    place.release().expect(0).says("for the canary, 50 %").says("were probes");
    let status = place.status();
    let (then, now) = (before.live("production"), status.live("production"));
    assert_ne!(then.digests(), now.digests());
    now.answers();
    let runs = place.runs();
    let journal = journal(&place.state().join("runs").join(runs[0]["id"].as_str().unwrap())).replace('\\', "");
    for says in ["\"share\":20,", "\"share\":50,", "\"judgement\":"] {
        assert!(journal.contains(says), "{says}: {journal}");
    }
}

#[test]
fn a_canary_that_crashes_with_its_share_goes_back_by_itself() {
    let place = Place::released();
    let before = place.status();
    place.at("second");
    with_canary(&place, "env = { CRASH_AFTER_MS = \"300\" }\n");
    place.release().expect(1).says("it crashed with a share of the requests").says("the shelf fell down");
    let status = place.status();
    assert_eq!(status.live("production"), before.live("production"));
    status.live("production").answers();
}
