//! The crash sweep: the command is killed at every record of its journal, at moments drawn from a seeded clock, and around
//! the cut-over; what goes on from there ends in the world an undisturbed release ends in.

use crate::{
    journals::{begun, journal, killed, last_record, log_says, records, runs},
    place::Place,
    world::{Status, census, eventually, version_at, work_of},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// When the command is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// As soon as the journal has so many records.
    Record(usize),
    /// So long after the start.
    Clock(Duration),
    /// So long after the promotion said that it cuts over.
    CutOver(Duration),
}

/// Where the run stood when it was killed.
#[derive(Debug, Default)]
struct Figures {
    before: usize,
    inside: usize,
    after: usize,
    resumes: usize,
    half: usize,
}

/// Two releases to go to and fro between, and how the world looks after each.
struct Sweep {
    place: Place,
    worlds: [World; 2],
    processes: BTreeMap<String, usize>,
    /// How long an undisturbed release takes.
    takes: Duration,
    records: usize,
    figures: Figures,
    next: usize,
}

/// What a release leaves, without what is another at each: generations and slots.
#[derive(Debug, Clone, PartialEq, Eq)]
struct World(BTreeMap<String, (String, BTreeMap<String, String>)>);

const TAGS: [&str; 2] = ["first", "second"];

impl World {
    fn of(status: &Status) -> Self {
        let digests = |live: &crate::world::Live| {
            live.digests().into_iter().map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect()
        };
        let names = status.0.keys();
        Self(names.map(|n| (n.clone(), (status.live(n).version.clone(), digests(status.live(n))))).collect())
    }
}

impl Sweep {
    fn new() -> Self {
        let place = Place::new();
        // A shorter watch, so that there is time for many points.
        for tag in TAGS {
            place.at(tag);
            place.configure("watch = \"500ms\"", "watch = \"200ms\"");
            place.git(&["tag", "--force", tag]);
        }
        let mut worlds = Vec::new();
        let mut takes = Duration::MAX;
        // The first round stands up what the second one only changes.
        for tag in [TAGS, TAGS].concat() {
            place.at(tag);
            let began = Instant::now();
            place.release().expect(0);
            takes = takes.min(began.elapsed());
            worlds.push(World::of(&place.status()));
        }
        assert_eq!(worlds[..2], worlds[2..]);
        assert_ne!(worlds[0], worlds[1]);
        let records = records(&journal(&runs(place.state()).pop_last().unwrap()));
        let processes = census(place.state());
        let worlds = [worlds[0].clone(), worlds[1].clone()];
        Self { place, worlds, processes, takes, records, figures: Figures::default(), next: 0 }
    }

    /// Releases the other commit, kills the command at `point`, goes on, and compares the worlds.
    fn kill_at(&mut self, point: Point) {
        let (tag, world) = (TAGS[self.next], self.worlds[self.next].clone());
        self.next = 1 - self.next;
        self.place.at(tag);
        let known = runs(self.place.state());
        let (command, began) = (self.place.command(&["release", "--yes"]), Instant::now());
        killed(command, || point.reached(self.place.state(), &known, began));
        self.go_on(point, &known);

        let status = self.place.status();
        assert_eq!(World::of(&status), world, "after {point:?}");
        for environment in ["staging", "production"] {
            status.live(environment).answers();
            work_of(self.place.state(), environment);
        }
        let mut seen = BTreeMap::new();
        eventually(&format!("{:?} after {point:?}", self.processes), Duration::from_secs(10), || {
            seen = census(self.place.state());
            seen == self.processes
        });
    }

    /// What a person does after a crash: resume the run, or release again if it had not begun.
    fn go_on(&mut self, point: Point, known: &BTreeSet<PathBuf>) {
        let run = begun(self.place.state(), known);
        let Some(run) = run.filter(|run| records(&journal(run)) > 0) else {
            self.figures.before += 1;
            let ran = self.place.release();
            assert_eq!(ran.code, 0, "a release after {point:?}: {}", ran.text());
            return;
        };
        let journal = journal(&run);
        if last_record(&journal).is_some_and(|record| record["type"] == "ended") {
            self.figures.after += 1;
            return;
        }
        self.figures.inside += 1;
        self.figures.half += usize::from(last_record(&journal).is_some_and(|record| record["type"] == "intent"));
        let id = run.file_name().unwrap().to_str().unwrap();
        self.figures.resumes += 1;
        let ran = self.place.run(&["resume", id, "--yes"]);
        assert_eq!(ran.code, 0, "resume after {point:?}: {}\n{journal}", ran.text());
    }

    fn report(self, name: &str, points: usize, client: Client) {
        let Figures { before, inside, after, resumes, half } = self.figures;
        let (sent, failed) = client.stop();
        println!(
            "{name}: {points} points (undisturbed: {} ms, {} records); killed before the journal {before}, inside {inside} \
             ({half} within an effect), after {after}; {resumes} resumes; {sent} requests meanwhile, {} failed",
            self.takes.as_millis(),
            self.records,
            failed.len()
        );
        for environment in ["staging", "production"] {
            let (work, generations) = work_of(self.place.state(), environment);
            println!("{name}: {environment}'s worker did {work} pieces of work in {generations} generations");
            assert!(work > 0);
        }
        assert!(failed.is_empty() && sent > 100, "{sent} sent: {failed:?}");
        assert_eq!(before + inside + after, points);
    }
}

impl Point {
    fn reached(self, state: &Path, known: &BTreeSet<PathBuf>, began: Instant) -> bool {
        match self {
            Self::Clock(after) => began.elapsed() >= after,
            Self::Record(count) => begun(state, known).is_some_and(|run| records(&journal(&run)) >= count),
            Self::CutOver(after) => {
                let there = begun(state, known).is_some_and(|run| log_says(&run, &["promote"], "cutting over"));
                if there {
                    thread::sleep(after);
                }
                there
            }
        }
    }
}

/// A client that asks for the version again and again, never repeats a request, and keeps what went wrong.
struct Client {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Client {
    fn start(status: &Status, versions: BTreeSet<String>) -> Self {
        let of =
            |environment: &str| status.live(environment).services.values().map(|s| s.url.clone()).collect::<Vec<_>>();
        let urls = [of("staging"), of("production")].concat();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let mut failed = Vec::new();
            for url in urls.iter().cycle() {
                if stopped.load(Relaxed) {
                    break;
                }
                count.fetch_add(1, Relaxed);
                match version_at(url) {
                    Ok(said) if said["version"].as_str().is_some_and(|v| versions.contains(v)) => {}
                    Ok(said) => failed.push(format!("{url}: {said}")),
                    Err(error) => failed.push(format!("{url}: {error}")),
                }
                thread::sleep(Duration::from_millis(2));
            }
            failed
        });
        Self { stop, sent, thread }
    }

    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Relaxed);
        let failed = self.thread.join().unwrap();
        (self.sent.load(Relaxed), failed)
    }
}

fn client_of(sweep: &Sweep) -> Client {
    let versions = sweep.worlds.iter().flat_map(|world| world.0.values().map(|(version, _)| version.clone()));
    Client::start(&sweep.place.status(), versions.collect())
}

fn run(name: &str, mut sweep: Sweep, points: &[Point]) {
    let client = client_of(&sweep);
    for point in points {
        sweep.kill_at(*point);
    }
    sweep.report(name, points.len(), client);
}

#[test]
fn a_release_killed_after_any_record_of_its_journal_ends_in_the_same_world() {
    let sweep = Sweep::new();
    let points: Vec<Point> = (1..=sweep.records).map(Point::Record).collect();
    run("killed at records", sweep, &points);
}

#[test]
fn a_release_killed_at_any_time_or_within_its_cut_over_ends_in_the_same_world() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let sweep = Sweep::new();
    let takes = u64::try_from(sweep.takes.as_micros()).unwrap();
    let mut state = SEED;
    // One point in each thirtieth of nine tenths of the time: what varies between runs lies at the end.
    let clocked = (0..30).map(|share| {
        // xorshift64*, so that each run of the test kills at the same shares of the time.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let part = takes * 9 / 10 / 30;
        Point::Clock(Duration::from_micros(share * part + state.wrapping_mul(0x2545_f491_4f6c_dd1d) % part))
    });
    let early = [1, 5, 20].map(|millis| Point::Clock(Duration::from_millis(millis)));
    let within = [0, 1, 3, 8].map(|millis| Point::CutOver(Duration::from_millis(millis)));
    let points: Vec<Point> = early.into_iter().chain(clocked).chain(within).collect();
    run("killed by the clock", sweep, &points);
}
