//! Cut-overs under load: what a release and a rollback of all four services cost those who use them meanwhile.

use crate::{
    load::{self, Load, Summary},
    place::{Place, Ran},
    watch::{Ended, Sights, Watch},
    world::eventually,
};
use std::time::{Duration, Instant};

/// Fewer requests than this prove nothing.
const REQUESTS: u64 = 10_000;
/// Before and after a cut-over there must be some of them.
const SOME: u64 = 2_000;
/// For what depends on how much else this machine does; it bounds a test that hangs.
const PATIENCE: Duration = Duration::from_mins(2);

/// What was seen of one command under load.
struct Outcome {
    ran: Ran,
    load: Summary,
    sights: Sights,
    /// From the command's start to the first answer of another slot, if there was one.
    moved: Option<Duration>,
    took: Duration,
}

fn under_load(place: &Place, args: &[&str]) -> Outcome {
    let url = place.production().1.url("api-gateway").to_owned();
    let watch = Watch::on(&url);
    let load = Load::on(&url);
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);
    let before = watch.now().unwrap().who;

    let began = Instant::now();
    let ran = place.run(args);
    let took = began.elapsed();

    let answered = load.answered();
    eventually("the load goes on", PATIENCE, || load.answered() >= REQUESTS.max(answered + SOME));
    // A slot that was left is drained for some seconds at most, and its WebSockets are closed after that.
    let until = Instant::now() + Duration::from_secs(10);
    while !watch.socket_is_over() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (load, sights) = (load.stop(), watch.stop());
    let moved = sights.seen.iter().find(|seen| seen.who != before).map(|seen| seen.first_ended - began);
    Outcome { ran, load, sights, moved, took }
}

impl Outcome {
    fn print(&self, what: &str) {
        let Summary { requests, micros, errors, seen, .. } = &self.load;
        let rate = requests * 1_000_000 / (*micros).max(1);
        println!("{what}: {requests} requests at {rate}/s, errors {errors:?}, answered by {seen:?}");
        let Sights { slow, across, failed, socket, .. } = &self.sights;
        println!(
            "{what}: {slow} slow requests, {across} of them across the cut-over; failed beside wrk: {}",
            failed.len()
        );
        let moved = self.moved.map(|moved| moved.as_millis());
        println!("{what}: command {} ms, another slot answers after {moved:?} ms; {socket:?}", self.took.as_millis());
    }

    /// Nobody noticed anything but another slot.
    fn lost_nothing(&self, place: &Place) {
        let text = self.ran.text();
        assert_eq!(self.ran.code, 0, "{text}");
        let Self { load, sights, .. } = self;
        assert!(load.requests >= REQUESTS, "{load:?}");
        assert_eq!((load.failed(), &sights.failed), (0, &Vec::new()), "{load:?}\n{text}");
        let [before, after] = sights.seen.as_slice() else { panic!("not one change: {:?}", sights.seen) };
        assert!(before.who.0 != after.who.0 && before.who.1 != after.who.1, "{:?}", sights.seen);
        // wrk saw the same two, and nobody else.
        let both = [before, after].map(|seen| format!("{} {}", seen.who.0, seen.who.1));
        assert!(both.iter().all(|who| load.seen.contains_key(who)), "{:?}", load.seen);
        let slots = |who: &str| who.split(' ').next().map(str::to_owned);
        assert!(load.seen.keys().all(|who| both.iter().any(|b| slots(b) == slots(who))), "{:?}", load.seen);
        assert!(sights.across > 0, "no slow request was under way");

        assert!(sights.socket.echoes > 0 && sights.socket.who == before.who.0, "{:?}", sights.socket);
        assert!(matches!(sights.socket.ended, Ended::Closed(1001) | Ended::Served), "{:?}", sights.socket);
        assert_eq!(sights.socket.next.as_deref(), Ok(after.who.0.as_str()));

        let (_, live) = place.production();
        assert_eq!((live.services["api-gateway"].slot.as_str(), &live.version), (after.who.0.as_str(), &after.who.1));
        live.answers();
    }
}

#[test]
fn a_release_and_a_rollback_under_load_lose_nothing() {
    if !load::available() {
        return;
    }
    let place = Place::new();
    let began = Instant::now();
    place.run(&["release", "--yes"]).expect(0);
    println!("first release: {} ms", began.elapsed().as_millis());
    let (_, first) = place.production();

    place.change(2);
    let released = under_load(&place, &["release", "--yes"]);
    released.print("release");
    released.lost_nothing(&place);
    let (_, second) = place.production();
    for (name, service) in &first.services {
        assert_ne!(service.slot, second.services[name].slot, "{name} was not moved");
    }

    let back = under_load(&place, &["rollback", "production", "--yes"]);
    back.print("rollback");
    back.lost_nothing(&place);
    assert_eq!(place.production().1.version, first.version);
    place.down();
}

#[test]
fn the_same_without_draining_loses_requests() {
    if !load::available() {
        return;
    }
    let place = Place::new();
    place.run(&["release", "--no-drain", "--yes"]).expect(0);
    place.change(2);
    let released = under_load(&place, &["release", "--no-drain", "--yes"]);
    released.print("without draining");
    // The requests of wrk take a second at most: on a busy machine all of them may have ended before the slot did.
    let beside = &released.sights.failed;
    assert!(beside.iter().any(|failure| failure.starts_with("slow request")), "{beside:?}");
    println!("without draining: for example {:?}", beside.first());
    place.down();
}
