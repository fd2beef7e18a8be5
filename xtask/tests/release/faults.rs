//! Releases that go wrong: production serves what it served, and nothing is left behind.

use crate::{
    place::{Place, Ran},
    world::{Status, census, eventually, get, version_at, work_of},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a release that fails must leave: the former release, and the processes it had.
pub(crate) fn production_serves_on(place: &Place, before: &Status, processes: &BTreeMap<String, usize>) {
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
}

/// That, and what its exclusive workers did.
fn production_is_left(place: &Place, before: &Status, processes: &BTreeMap<String, usize>) {
    production_serves_on(place, before, processes);
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
    assert!(!ran.text().contains("could not be taken back"), "{}", ran.text());
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

/// Something that listens where a registry should, and says this whatever it is asked.
struct NoRegistry {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NoRegistry {
    fn saying(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&asked), Arc::clone(&over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Relaxed) {
                    return;
                }
                count.fetch_add(1, Relaxed);
                // Whoever asks may go away before the end.
                let _ = answer_once(stream, answer);
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }
}

fn answer_once(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    stream.write_all(answer)
}

impl Drop for NoRegistry {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // Wakes it, so that it sees that it is over.
        drop(TcpStream::connect(self.address));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A release to a registry that says this ends as a failure outside, whose text holds all of `says`; nothing is deployed.
fn check_no_registry(answer: &'static [u8], says: &[&str]) {
    let registry = NoRegistry::saying(answer);
    let place = Place::released();
    let (before, processes) = (place.status(), census(place.state()));
    place.at("second");
    place.configure("[images]\n", &format!("[images]\nregistry = \"{}/shop\"\n", registry.address));
    let began = Instant::now();
    let ran = place.release().expect(3).says(&registry.address.to_string()).says("push").says("cargo xtask resume");
    println!("{} requests in {} ms\n{}", registry.asked.load(Relaxed), began.elapsed().as_millis(), ran.text());
    for part in says {
        assert!(ran.text().contains(part), "`{part}` is not in: {}", ran.text());
    }
    assert!(registry.asked.load(Relaxed) > 0);
    assert_eq!(place.status(), before);
    production_is_left(&place, &before, &processes);
    before.live("staging").answers();
    assert_eq!(place.runs()[0]["outcome"], "failed");
}

#[test]
fn a_registry_that_answers_everything_with_a_web_page_is_named_and_nothing_is_deployed() {
    check_no_registry(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 33\r\nconnection: close\r\n\r\n<html><h1>It works!</h1></html>\r\n",
        &["sends an unusable manifest for shop/", "the manifest does not read as one"],
    );
}

#[test]
fn a_registry_that_speaks_no_http_is_named_and_nothing_is_deployed() {
    check_no_registry(
        b"\x00\xff\xfe\x15\x03\x01\x00\x02\x02\x50\r\n\r\n",
        &["the registry could not be asked", "invalid HTTP"],
    );
}
