//! Outputs that two clones share through a registry: what the second one takes is not compiled there, what somebody meddled
//! with is found out, and who may not write does not. And `cache verify`, which does recorded work again.

use crate::{
    fixture::tool,
    place::{Place, Ran},
    plain::registry_port,
    world::get,
};
use serde_json::Value;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

/// A registry that others use, and where it keeps things.
struct Hub {
    place: Place,
    port: u16,
}

impl Hub {
    fn new() -> Self {
        let place = Place::new();
        place.run(&["push"]).expect(0);
        let port = registry_port(&place);
        Self { place, port }
    }

    fn repository(&self) -> PathBuf {
        self.place.state().join("registry/repositories/shop/cache")
    }

    fn tags(&self) -> Vec<String> {
        // Before the first entry there is no such repository.
        let list = get(&format!("http://127.0.0.1:{}", self.port), "/v2/shop/cache/tags/list").unwrap_or("{}".into());
        let list: Value = serde_json::from_str(&list).unwrap();
        list["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    /// A clone with nothing built that shares with others through this registry, by one key.
    fn clone(&self, more: &str) -> Place {
        let place = self.stranger(more);
        let key = self.place.state().join("signing/plimsoll.key");
        place.configure("[images]\n", &format!("[signing]\nkey = {{ file = \"{}\" }}\n\n[images]\n", key.display()));
        place
    }

    /// A clone that has a key of its own.
    fn stranger(&self, more: &str) -> Place {
        let place = Place::cold();
        let cache =
            format!("[cache]\nrepository = \"127.0.0.1:{}/shop/cache\"\nwrite = \"always\"\n{more}\n", self.port);
        place.configure("[images]\n", &format!("{cache}\n[images]\n"));
        place
    }

    /// A clone that takes and does not give.
    fn reader(&self) -> Place {
        let place = self.clone("");
        place.configure("write = \"always\"", "write = \"never\"");
        place
    }
}

/// How many of the two compilations were taken from elsewhere.
fn cached(ran: &Ran) -> usize {
    ran.text().lines().filter(|line| line.contains("cached") && line.contains("compile[")).count()
}

/// What a clone built: the binaries' digests are in the blob store's file names.
fn blobs(place: &Place) -> Vec<String> {
    tool("find", &[".plimsoll/cache/blobs", "-type", "f", "-size", "+100k"], place.repository())
        .lines()
        .map(|line| Path::new(line).file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Whether anything was compiled to be shipped; checks are compiled elsewhere.
fn compiled(place: &Place) -> bool {
    let built = fs::read_dir(place.repository().join("target/plimsoll")).into_iter().flatten().flatten();
    built.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("-linux-"))
}

#[test]
fn a_second_clone_takes_what_the_first_one_compiled_and_starts_no_compiler() {
    let hub = Hub::new();
    let first = hub.clone("");
    // A verdict that is worth its requests.
    let path = first.repository().join("worker/src/main.rs");
    let text = fs::read_to_string(&path).unwrap();
    let slow = "#[test]\nfn slow() {\n    std::thread::sleep(std::time::Duration::from_secs(2));\n}\n";
    fs::write(&path, format!("{text}\n{slow}")).unwrap();
    first.commit("a slow test");
    assert_eq!(cached(&first.release().expect(0)), 0);
    assert!(compiled(&first));
    assert!(hub.tags().len() > 2);

    let second = first.again();
    let ran = second.run(&["build"]).expect(0);
    assert_eq!(cached(&ran), 2, "{}", ran.text());
    assert!(!compiled(&second));
    let [mut one, mut other] = [blobs(&first), blobs(&second)];
    one.sort();
    other.sort();
    assert!(other.iter().all(|blob| one.contains(blob)) && !other.is_empty(), "{one:?} {other:?}");

    // What was taken is all that an image and a release need; and verdicts are shared as well, with their reports.
    let third = first.again();
    let ran = third.release().expect(0);
    let shared = third.steps(true);
    for step in ["clippy", "test[worker]"] {
        assert!(shared.iter().any(|one| one == step), "{step} is not among {shared:?}: {}", ran.text());
    }
    assert!(!compiled(&third));
    let report = ".plimsoll/reports/junit-worker.xml";
    let read = |place: &Place| fs::read_to_string(place.repository().join(report)).unwrap();
    assert_eq!(read(&first), read(&third));

    // A pull request takes, and gives nothing.
    let tags = hub.tags().len();
    let mut request = first.again();
    for (name, value) in [("GITHUB_ACTIONS", "true"), ("GITHUB_EVENT_NAME", "pull_request")] {
        request.set(name, value);
    }
    request.greet("web", "from a fork");
    request.commit("a request");
    let ran = request.run(&["--profile", "local", "build"]).expect(0);
    assert_eq!((cached(&ran), hub.tags().len()), (1, tags), "{}", ran.text());
    let run = request.runs()[0]["id"].as_str().unwrap().to_owned();
    let log = request.run(&["logs", &run, "compile[web/amd64]"]).expect(0);
    log.says("not given to the shared cache: this is a job for `pull_request`, which others can have run");

    // Neither does another builder take what this one built, nor anybody what somebody without the key gave.
    let mut runner = first.again();
    for (name, value) in [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_EVENT_NAME", "push"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_REPOSITORY", "example/shop"),
        ("GITHUB_RUN_ID", "1"),
        ("GITHUB_RUN_ATTEMPT", "1"),
    ] {
        runner.set(name, value);
    }
    assert_eq!(cached(&runner.run(&["--profile", "local", "build"]).expect(0)), 0);
    let stranger = first.again();
    stranger.configure("[signing]\nkey = { file", "[signing]\ntrusted = []\n# key = { file");
    let ran = stranger.run(&["build"]).expect(0).says("is not believed").says("none of the trusted keys");
    assert_eq!(cached(&ran), 0);
}

#[test]
fn an_entry_that_somebody_meddled_with_is_found_out_and_the_work_is_done_instead() {
    let hub = Hub::new();
    hub.clone("").run(&["build"]).expect(0);
    let [a, b] = <[String; 2]>::try_from(hub.tags()).unwrap();
    let tag = |name: &str| hub.repository().join("_tags").join(name);
    let (one, other) = (fs::read_to_string(tag(&a)).unwrap(), fs::read_to_string(tag(&b)).unwrap());

    // Each tag names the other's entry.
    fs::write(tag(&a), &other).unwrap();
    fs::write(tag(&b), &one).unwrap();
    let place = hub.reader();
    let ran = place.run(&["build"]).expect(0).says("is an entry for something else: its tag was moved");
    assert_eq!(cached(&ran), 0);

    // Other bytes under the digests.
    fs::write(tag(&a), &one).unwrap();
    fs::write(tag(&b), &other).unwrap();
    let mut changed = 0;
    for name in [&one, &other] {
        let name = name.trim().rsplit(':').next().unwrap().to_owned();
        let manifest = fs::read_to_string(hub.repository().join("_manifests").join(&name)).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        for layer in manifest["layers"].as_array().unwrap().iter().filter(|l| l["size"].as_u64().unwrap() > 100_000) {
            let digest = layer["digest"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
            let found = tool("find", &[".", "-name", &digest, "-size", "+100k"], hub.place.state().join("registry"));
            let path = hub.place.state().join("registry").join(found.lines().next().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
            changed += 1;
        }
    }
    assert_eq!(changed, 2);
    let place = hub.reader();
    let ran = place.run(&["build"]).expect(0).says("not taken from the shared cache");
    assert!(ran.text().contains("digest"), "{}", ran.text());
    assert_eq!(cached(&ran), 0);
    place.release().expect(0);
}

#[test]
fn a_registry_that_is_gone_costs_a_note_and_entries_have_a_size_and_an_age() {
    let place = Place::cold();
    place.configure("[images]\n", "[cache]\nrepository = \"127.0.0.1:9/shop/cache\"\n\n[images]\n");
    place.run(&["build"]).expect(0).says("not taken from the shared cache");

    // One that takes the line and says nothing is asked once.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::cold();
    let cache = format!("[cache]\nrepository = \"{}/shop/cache\"\n\n[images]\n", silent.local_addr().unwrap());
    place.configure("[images]\n", &cache);
    let ran = place.run(&["--jobs", "1", "build"]).expect(0).says("took longer than 10 s");
    assert_eq!(ran.text().matches("took longer than").count(), 1, "{}", ran.text());

    let hub = Hub::new();
    let small = hub.clone("max_entry = \"1Ki\"");
    small.run(&["build"]).expect(0).says("not given to the shared cache").says("more than the 1Ki of one entry");
    assert!(hub.tags().is_empty());
    let place = hub.clone("max_size = \"1Ki\"");
    place.run(&["build"]).expect(0);
    place.run(&["cache", "prune", "--dry-run"]).expect(0).says("2 would be removed");
    let reader = hub.reader();
    reader.run(&["cache", "prune"]).expect(2).says("nothing is removed from here");
    assert_eq!(hub.tags().len(), 2);
    place.run(&["cache", "prune"]).expect(0).says("removed: compile[web/").says("0 kept");
    assert!(hub.tags().is_empty());
}

#[test]
fn recorded_work_that_is_done_again_comes_to_what_is_recorded_or_it_is_said_where_not() {
    let place = Place::new();
    let ran = place.run(&["cache", "verify", "--count", "1"]).expect(0);
    assert!(ran.text().contains("steps made again came to what is recorded"), "{}", ran.text());
    // An output that somebody changed, in the record of each compilation.
    let path = place.repository().join(".plimsoll/steps.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("\\\"size\\\":", "\\\"size\\\":1");
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    let ran = place.run(&["cache", "verify", "--count", "9"]).expect(1);
    assert!(ran.text().contains("different: compile[web") && ran.text().contains("/binary/size"), "{}", ran.text());
}
