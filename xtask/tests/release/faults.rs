//! Releases that go wrong: production serves what it served, and nothing is left behind.

use crate::{
    place::{Place, Ran},
    world::{census, eventually, get, version_at, work_of},
};
use std::{collections::BTreeSet, net::TcpListener, time::Duration};

/// What a release that fails in production must leave: the former release, and the processes it had.
fn production_is_left(
    place: &Place,
    before: &crate::world::Status,
    processes: &std::collections::BTreeMap<String, usize>,
) {
    let after = place.status();
    let (then, now) = (before.live("production"), after.live("production"));
    assert_eq!((&then.version, then.digests()), (&now.version, now.digests()));
    now.answers();
    // The failed slots are ended; how soon the last of them is gone is the kernel's matter.
    let mut seen = census(place.state());
    eventually(&format!("as many processes as {processes:?}, not {seen:?}"), Duration::from_secs(5), || {
        seen = census(place.state());
        seen.iter().all(|(name, count)| processes.get(name).is_some_and(|p| count <= p))
    });
    work_of(place.state(), "production");
}

#[test]
fn a_service_that_is_never_ready_leaves_production_as_it_was() {
    let place = Place::released();
    // Both slots are there, as they are in every later release.
    place.at("second");
    place.release().expect(0);
    let (before, processes) = (place.status(), census(place.state()));
    place.configure("[environments.production]\n", "[environments.production]\nenv = { NEVER_READY = \"1\" }\n");
    let ran = place.release().expect(1).says("web").says("the warehouse does not answer").says("cargo xtask resume");
    assert!(ran.text().contains("ready"), "{}", ran.text());
    production_is_left(&place, &before, &processes);
}

#[test]
fn a_service_that_crashes_right_after_the_switch_is_taken_back() {
    let place = Place::released();
    place.at("second");
    place.release().expect(0);
    let (before, processes) = (place.status(), census(place.state()));
    place.configure("[environments.production]\n", "[environments.production]\nenv = { CRASH_AFTER_MS = \"50\" }\n");
    let ran = place.release();
    assert!(ran.code == 1 || ran.code == 3, "{}", ran.text());
    ran.says("put back").says("the shelf fell down");
    production_is_left(&place, &before, &processes);
}

#[test]
fn a_port_that_somebody_else_has_is_named_and_can_be_used_once_it_is_free() {
    let place = Place::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let table = format!("[environments.staging.services.web]\nport = {port}\n\n[environments.production]\n");
    place.configure("[environments.production]\n", &table);
    let ran = place.release();
    assert!(ran.code == 2 || ran.code == 3, "{}", ran.text());
    ran.says(&port.to_string()).says(&format!("process {}", std::process::id()));
    drop(held);
    place.release().expect(0);
    let status = place.status();
    assert_eq!(status.live("staging").url("web").trim_end_matches('/'), format!("http://127.0.0.1:{port}"));
    status.live("staging").answers();
}

#[test]
fn of_two_releases_at_once_one_runs_and_the_other_is_told_which_runs_since_when() {
    let place = Place::released();
    let other = place.neighbour();
    place.at("second");
    other.at("second");
    other.commit("the same, elsewhere");
    let both = [&place, &other].map(|p| p.command(&["release", "--yes"]).spawn().unwrap());
    let ran = both.map(|child| Ran::of(child.wait_with_output().unwrap()));
    let codes = BTreeSet::from([ran[0].code, ran[1].code]);
    assert_eq!(codes, BTreeSet::from([0, 3]), "{}\n{}", ran[0].text(), ran[1].text());
    let loser = ran.iter().find(|r| r.code == 3).unwrap();
    println!("{}", loser.text());
    for part in ["another release is running: run ", "of ada@example.org, since ", "process "] {
        assert!(loser.text().contains(part), "{}", loser.text());
    }
    let status = place.status();
    let count = |p: &Place| p.git(&["rev-list", "--count", "HEAD"]);
    let versions = [count(&place), count(&other)].map(|n| format!("0.3.0-dev.{n}.g"));
    for environment in ["staging", "production"] {
        let live = status.live(environment);
        live.answers();
        assert!(versions.iter().any(|v| live.version.starts_with(v)), "{} of {versions:?}", live.version);
    }
    // And both go through, one after the other.
    place.release().expect(0);
    other.release().expect(0);
    work_of(place.state(), "production");
}

#[test]
fn the_supervisor_and_the_proxy_may_die_and_production_comes_back_by_itself() {
    let place = Place::released();
    let url = place.status().live("production").url("web").to_owned();
    for verb in ["__proxy", "__supervisor"] {
        let find = || {
            let all = crate::world::processes_of(place.state());
            all.into_iter().find(|(_, line)| line.contains(verb)).map(|(pid, _)| pid)
        };
        let pid = find().unwrap();
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Connects wait in the listener until the next proxy takes them.
        get(&url, "/health").unwrap_or_else(|e| panic!("after the end of {verb}: {e}"));
    }
    place.release().expect(0);
    version_at(&url).unwrap();
}
