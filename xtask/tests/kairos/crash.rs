//! The crash sweep in a cluster: the command that works on production is killed at every record of its journal, and at moments
//! drawn from a seed inside its cut-over, while clients inside the cluster's network keep their connections. What goes on
//! from there comes to a whole environment, and nobody notices.

use crate::{
    journals::{begun, journal, killed, last_record, log_says, records, runs},
    load::{self, Load},
    place::{self, Place},
    scene::{Cluster, Scene},
    whole::is_whole,
    world::eventually,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Moments inside the cut-over of a rollback, one in each share of nine tenths of it: its end varies.
const MOMENTS: u32 = 8;
/// So many of them at least must meet the command at its work.
const MET: usize = 6;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Before the first kill there must be some requests.
const SOME: u64 = 1_000;
const PATIENCE: Duration = Duration::from_mins(3);

/// When the command is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// As soon as the journal has so many records.
    Record(usize),
    /// So long after the step said that it cuts over.
    CutOver(Duration),
}

/// A command that goes to the release which does not serve, and how it runs when nobody kills it.
#[derive(Debug)]
struct Way {
    args: &'static [&'static str],
    /// How many records the journal had, each time that it had more. What is written at once stands there at once.
    stands: BTreeSet<usize>,
    /// From the moment it says that it cuts over to its end.
    cut: Duration,
}

/// Where the run stood when it was killed.
#[derive(Debug, Default)]
struct Figures {
    trials: usize,
    before: usize,
    inside: usize,
    half: usize,
    after: usize,
}

/// Two releases that stand in the two slots, one of which serves.
struct Sweep<'a> {
    scene: &'a Scene<'a>,
    place: Place,
    /// Commit and version of each.
    releases: [(String, String); 2],
    serves: usize,
    figures: Figures,
}

const BACK: &[&str] = &["rollback", "production", "--yes"];
const RELEASE: &[&str] = &["release", "--yes"];

impl<'a> Sweep<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        let place = Place::configured(|text| scene.configured(text, &|_| String::new()), scene.cluster.variables());
        let mut releases = Vec::new();
        for number in 2..=3 {
            place.change(number);
            place.run(RELEASE).expect(0);
            releases.push((place::commit(), place.production().1.version));
        }
        let [first, second] = <[_; 2]>::try_from(releases).unwrap();
        Self { scene, place, releases: [first, second], serves: 1, figures: Figures::default() }
    }

    /// The other release is the one to go to; `release` releases what is checked out.
    fn turn(&mut self) {
        self.serves = 1 - self.serves;
        place::at(&self.releases[self.serves].0);
    }

    /// Goes to the other release and back without a kill, and looks how that goes.
    fn measure(&mut self, args: &'static [&'static str]) -> Way {
        let mut way = Way { args, stands: BTreeSet::new(), cut: Duration::MAX };
        for _ in 0..2 {
            self.turn();
            let known = runs(self.place.state());
            let mut cutting = None;
            killed(self.place.command(args), || {
                if let Some(run) = begun(self.place.state(), &known) {
                    way.stands.insert(records(&journal(&run)));
                    cutting = cutting.or_else(|| cuts_over(&run).then(Instant::now));
                }
                false
            });
            way.cut = way.cut.min(cutting.expect("it cuts over").elapsed());
            self.is_there("undisturbed");
        }
        way.stands.remove(&0);
        way
    }

    /// The right release serves, and everything else says the same.
    fn is_there(&self, about: &str) {
        let status = is_whole(self.scene, &self.place.status(), about);
        assert_eq!(status.live("production").version, self.releases[self.serves].1, "{about}");
    }

    /// Goes to the other release, kills the command at `point`, and goes on.
    fn kill_at(&mut self, way: &Way, point: Point) {
        self.turn();
        let generation = self.place.production().0;
        let known = runs(self.place.state());
        killed(self.place.command(way.args), || point.reached(self.place.state(), &known));
        self.figures.trials += 1;
        let about = format!("{} killed at {point:?}", way.args[0]);
        self.go_on(way, &known, &about);
        self.is_there(&about);
        assert_eq!(self.place.production().0, generation + 1, "{about}: one change");
    }

    fn go_on(&mut self, way: &Way, known: &BTreeSet<PathBuf>, about: &str) {
        let run = begun(self.place.state(), known);
        let Some(run) = run.filter(|run| records(&journal(run)) > 0) else {
            self.figures.before += 1;
            self.place.run(way.args).expect(0);
            return;
        };
        let journal = journal(&run);
        let last = last_record(&journal).unwrap();
        if last["type"] == "ended" {
            self.figures.after += 1;
            return;
        }
        self.figures.inside += 1;
        self.figures.half += usize::from(last["type"] == "intent");
        let ran = self.place.run(&["resume", run.file_name().unwrap().to_str().unwrap(), "--yes"]);
        assert_eq!(ran.code, 0, "resume of {about}: {}\n{journal}", ran.text());
    }
}

impl Point {
    fn reached(self, state: &Path, known: &BTreeSet<PathBuf>) -> bool {
        match self {
            Self::Record(count) => begun(state, known).is_some_and(|run| records(&journal(&run)) >= count),
            Self::CutOver(after) => {
                let there = begun(state, known).is_some_and(|run| cuts_over(&run));
                if there {
                    std::thread::sleep(after);
                }
                there
            }
        }
    }
}

/// Whether a run has told that it cuts production over.
fn cuts_over(run: &Path) -> bool {
    log_says(run, &["promote", "rollback"], "cutting over")
}

/// One moment in each share of a cut-over.
fn moments(cut: Duration) -> Vec<Point> {
    let (mut state, share) = (SEED, u64::try_from(cut.as_micros()).unwrap() * 9 / 10 / u64::from(MOMENTS));
    let moments = (0..u64::from(MOMENTS)).map(|number| {
        // xorshift64*, so that each run of the test kills at the same shares of the time.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        Duration::from_micros(number * share + state.wrapping_mul(0x2545_f491_4f6c_dd1d) % share.max(1))
    });
    moments.map(Point::CutOver).collect()
}

#[test]
fn a_command_killed_anywhere_in_a_cluster_is_resumed_to_a_whole_environment_and_nobody_notices() {
    let Some(cluster) = Cluster::find().filter(|_| load::available()) else { return };
    let scene = Scene::new(&cluster, "crash");
    let mut sweep = Sweep::new(&scene);
    let began = Instant::now();
    let load: Load = cluster.load("-c16", &scene.url());
    eventually("the load begins", PATIENCE, || load.answered() >= SOME);
    let ways = [BACK, RELEASE].map(|args| sweep.measure(args));
    for way @ Way { args, stands, cut } in &ways {
        println!("undisturbed {args:?}: records {stands:?}, {} ms from the cut-over to the end", cut.as_millis());
        for record in stands {
            sweep.kill_at(way, Point::Record(*record));
        }
    }
    let at_records = sweep.figures.inside;
    for moment in moments(ways[0].cut) {
        sweep.kill_at(&ways[0], moment);
    }
    let load = load.stop();
    let Figures { trials, before, inside, half, after } = sweep.figures;
    println!(
        "killed in a cluster: {trials} trials, {MOMENTS} of them by the clock inside the cut-over ({} met it); before the \
         journal {before}, inside {inside} ({half} within an effect), after {after}; {} requests, {} failed; {} s",
        inside - at_records,
        load.requests,
        load.failed(),
        began.elapsed().as_secs(),
    );
    assert_eq!(load.failed(), 0, "{load:?}");
    assert!(load.requests > SOME && inside - at_records >= MET, "{load:?}");
}
