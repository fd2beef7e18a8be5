//! Notices sent to a server that keeps what it gets.

use super::{
    super::{Say, Started},
    Notify, inputs, run_id,
};
use plimsoll_core::{Event, RunOutcome, Timestamp};
use plimsoll_engine::{
    Cx, Effect, Pipeline, Recorder, Resources, Setup, Start, StateDir, Step, StepError, World, harness, pipeline,
};
use plimsoll_http::{Client, ClientOptions};
use plimsoll_process::{Cancel, Environment, Redactor};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

/// A request as the server got it.
#[derive(Debug, Clone)]
struct Got {
    head: String,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }
}

/// A web server on loopback that answers with the given statuses, the last one for ever, and ends with this value.
struct Server {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/services/T0/B0/TOKEN", listener.local_addr().unwrap());
        let (got, statuses) = (Arc::new(Mutex::new(Vec::new())), statuses.to_vec());
        let kept = Arc::clone(&got);
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let mut bytes = Vec::new();
                let (head, body) = loop {
                    let read = stream.read_buf(&mut bytes).await.unwrap();
                    assert!(read > 0, "a request ends");
                    if let Some(complete) = complete(&bytes) {
                        break complete;
                    }
                };
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(Got { head, body });
                    kept.len()
                };
                let status = statuses[(number - 1).min(statuses.len() - 1)];
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, got, task }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn complete(bytes: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let line = head.lines().find(|l| l.to_ascii_lowercase().starts_with("content-length:"))?;
    let length: usize = line.split_once(':')?.1.trim().parse().unwrap();
    (body.len() == length).then(|| (head.to_owned(), body.to_owned()))
}

/// An effect that changes the world, or fails.
#[derive(Serialize)]
struct Deed(Option<String>);

impl Step for Deed {
    const NAME: &'static str = "deed";
    const VERSION: u32 = 1;
    type In = ();
    type Out = ();
}

impl Effect for Deed {
    async fn reconcile(&self, _: &Cx, (): &()) -> Result<World<()>, StepError> {
        Ok(World::NotDone)
    }

    async fn act(&self, _: &Cx, (): ()) -> Result<(), StepError> {
        self.0.as_ref().map_or(Ok(()), |error| Err(StepError::check(error)))
    }
}

/// A place to run pipelines, thrown away at the end of the test.
struct Place {
    dir: tempfile::TempDir,
    setup: Setup,
    recorder: Arc<Recorder>,
}

impl Place {
    fn new(variables: &[(&str, &str)], redactor: Option<Redactor>) -> Self {
        let (dir, recorder) = (tempfile::tempdir().unwrap(), Arc::new(Recorder::default()));
        let options = ClientOptions { no_proxy: true, follow_redirects: false, ..ClientOptions::default() };
        let setup = Setup {
            state: StateDir::new(dir.path().join("state")),
            cache: dir.path().join("cache"),
            root: dir.path().to_owned(),
            environment: Arc::new(Environment::of(variables.iter().copied())),
            resources: Resources::new().with(Arc::new(Client::new(&options).unwrap())),
            observer: recorder.clone(),
            redactor: redactor.map(Arc::new),
            clock: Arc::new(|| Timestamp::from_millis(1_700_000_000_000)),
            jobs: 1,
            fail_fast: false,
            use_cache: true,
        };
        Self { dir, setup, recorder }
    }

    async fn run(&self, pipeline: &Pipeline) -> RunOutcome {
        let (actor, executable, engine) = ("ann".to_owned(), "none".to_owned(), "0".to_owned());
        let start = Start { inputs: Value::Null, actor, executable, engine };
        self.setup.start(pipeline, &run_id(), start, Cancel::new()).await.unwrap().outcome
    }

    fn notes(&self) -> Vec<String> {
        let events = self.recorder.events();
        events
            .into_iter()
            .filter_map(|e| if let Event::StepNoted { note, .. } = e { Some(note) } else { None })
            .collect()
    }

    fn everything(&self) -> String {
        format!("{:?}", self.recorder.events())
    }
}

fn release(channels: &str, version: &str, deed: Option<&str>) -> Pipeline {
    let inputs = inputs("release", channels, version);
    pipeline("release", |g| {
        g.effect("", Deed(deed.map(str::to_owned)), ());
        g.finally("", Notify::new(&inputs));
    })
}

const WEBHOOK: &str = "[notify.webhook]\nurl = { env = \"HOOK\" }\nsecret = { file = \"key\" }\n";
const SLACK: &str = "[notify.console]\nenabled = false\n[notify.slack]\nwebhook = { env = \"SLACK\" }\n";

#[tokio::test]
async fn a_webhook_gets_one_signed_notice() {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let server = Server::start(&[200]).await;
    let place = Place::new(&[("HOOK", &server.url)], None);
    std::fs::write(place.dir.path().join("key"), "s3cret\n").unwrap();
    assert_eq!(place.run(&release(WEBHOOK, "1.2.3", None)).await, RunOutcome::Succeeded);

    let got = server.got();
    assert_eq!(got.len(), 1);
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
    let time = got[0].header("x-plimsoll-timestamp").unwrap();
    mac.update(format!("{time}.{}", got[0].body).as_bytes());
    let hex = got[0].header("x-plimsoll-signature").unwrap().strip_prefix("sha256=").unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    mac.verify_slice(&bytes).expect("the signature covers time and body");
    assert_eq!(time, "1700000000");
    let body: Value = serde_json::from_str(&got[0].body).unwrap();
    assert_eq!((&body["format"], &body["event"]), (&1.into(), &"succeeded".into()));
    assert!(!place.everything().contains("s3cret") && !place.everything().contains("TOKEN"));
    assert_eq!(place.notes(), [format!("kairos: release of 1.2.3 succeeded (started by ann@x, run {})", run_id())]);
}

#[tokio::test]
async fn a_notice_is_delivered_by_the_third_attempt() {
    let server = Server::start(&[500, 500, 200]).await;
    let place = Place::new(&[("HOOK", &server.url)], None);
    std::fs::write(place.dir.path().join("key"), "s3cret").unwrap();
    place.run(&release(WEBHOOK, "1.2.3", None)).await;
    let got = server.got();
    assert_eq!(got.len(), 3);
    let delivery = |g: &Got| g.header("x-plimsoll-delivery").unwrap().to_owned();
    assert!(got.iter().all(|g| g.body == got[0].body && delivery(g) == delivery(&got[0])), "a repeat can be told");
    assert_eq!(place.notes().len(), 1, "the console's notice alone: {:?}", place.notes());
}

#[tokio::test]
async fn a_channel_that_cannot_be_reached_or_refuses_is_a_note_and_no_failure() {
    let down = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/services/T0/B0/TOKEN", listener.local_addr().unwrap())
    };
    let refusing = Server::start(&[404]).await;
    for (variables, expected) in [
        (vec![("SLACK", down.as_str())], "slack was not told: no answer: it cannot be connected to"),
        (vec![("SLACK", &refusing.url)], "slack was not told: it answered 404 Not Found: ok"),
        (vec![("SLACK", "http://192.0.2.1/TOKEN")], "slack was not told: the address is plain HTTP"),
        (vec![("SLACK", "TOKEN")], "slack was not told: env:SLACK does not hold the address"),
        (vec![], "slack was not told: env:SLACK is not set"),
    ] {
        let place = Place::new(&variables, None);
        assert_eq!(place.run(&release(SLACK, "1.2.3", None)).await, RunOutcome::Succeeded);
        let notes = place.notes();
        assert!(notes.len() == 1 && notes[0].starts_with(expected), "{expected}: {notes:?}");
        assert!(!place.everything().contains("TOKEN"), "{}", place.everything());
    }
    assert_eq!(refusing.got().len(), 1, "what is refused for good is not repeated");
}

#[tokio::test]
async fn a_missing_client_or_key_is_a_note() {
    let mut place = Place::new(&[("HOOK", "https://example.org/"), ("SLACK", "https://example.org/")], None);
    place.setup.resources = Resources::new();
    assert_eq!(place.run(&release(&format!("{SLACK}{WEBHOOK}"), "1.2.3", None)).await, RunOutcome::Succeeded);
    let notes = place.notes();
    assert!(notes.iter().any(|n| n.starts_with("webhook was not told: file:key cannot be read: ")), "{notes:?}");
    assert!(notes.iter().any(|n| n.starts_with("slack was not told: ") && n.contains("did not provide")), "{notes:?}");
}

#[tokio::test]
async fn hostile_versions_and_errors_reach_slack_as_data_and_without_secrets() {
    let server = Server::start(&[200]).await;
    let place = Place::new(&[("SLACK", &server.url)], Some(Redactor::new(&[b"hunter2hunter2"]).unwrap()));
    let deed = "\u{1b}[31mpassword hunter2hunter2 <!here>";
    assert_eq!(place.run(&release(SLACK, "<!channel>\n1", Some(deed))).await, RunOutcome::Failed);
    let got = server.got();
    assert_eq!(got.len(), 1);
    let body = &got[0].body;
    assert!(body.contains("&lt;!channel&gt; 1") && body.contains("&lt;!here&gt;"), "{body}");
    assert!(!body.contains('<') && !body.contains("u001b") && !body.contains("hunter2"), "{body}");
}

#[tokio::test]
async fn a_channel_hears_only_of_its_events() {
    let server = Server::start(&[200]).await;
    let place = Place::new(&[("SLACK", &server.url)], None);
    let channels = format!("{SLACK}events = [\"failed\", \"approval-wanted\"]\n");
    place.run(&release(&channels, "1.2.3", None)).await;
    assert_eq!(server.got().len(), 0);
}

#[tokio::test]
async fn a_run_that_changed_nothing_is_not_told_of() {
    let server = Server::start(&[200]).await;
    let place = Place::new(&[("SLACK", &server.url)], None);
    let inputs = inputs("release", SLACK, "1.2.3");
    place.run(&pipeline("release", |g| g.finally("", Notify::new(&inputs)))).await;
    assert_eq!(server.got().len(), 0);
    assert!(place.everything().contains("unchanged: nobody is told"));
}

#[tokio::test]
async fn the_beginning_is_told_once_also_when_the_run_is_resumed() {
    let server = Server::start(&[200]).await;
    let place = Place::new(&[("SLACK", &server.url)], None);
    let inputs = inputs("release", SLACK, "1.2.3");
    let started = pipeline("release", |g| {
        g.effect("", Started::new(&inputs), ());
        g.effect("", Deed(Some("no".to_owned())), ());
    });
    assert_eq!(place.run(&started).await, RunOutcome::Failed);
    place.setup.resume(&started, &run_id(), "ann", Cancel::new()).await.unwrap();
    let got = server.got();
    assert_eq!(got.len(), 1);
    assert!(got[0].body.contains("kairos: release of 1.2.3 started"), "{}", got[0].body);
}

#[tokio::test]
async fn a_beginning_that_cannot_be_told_fails_no_run() {
    let place = Place::new(&[], None);
    let inputs = inputs("release", SLACK, "1.2.3");
    let outcome = place
        .run(&pipeline("release", |g| {
            g.effect("", Started::new(&inputs), ());
        }))
        .await;
    assert_eq!(outcome, RunOutcome::Succeeded);
    assert_eq!(place.notes(), ["slack was not told: env:SLACK is not set"]);
}

/// Unlike a notice of a run, for which a channel that fails is a note.
#[tokio::test]
async fn a_word_to_a_channel_that_cannot_be_reached_is_a_failed_step_and_the_others_get_it() {
    let server = Server::start(&[200]).await;
    let down = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/services/T0/B0/TOKEN", listener.local_addr().unwrap())
    };
    let channels = format!("{SLACK}[notify.webhook]\nurl = {{ env = \"HOOK\" }}\n");
    let inputs = inputs("notify", &channels, "1.2.3");
    let say = || {
        pipeline("notify", |g| {
            g.effect("", Say::new(&inputs, "do you hear me?"), ());
        })
    };
    let place = Place::new(&[("SLACK", &down), ("HOOK", &server.url)], None);
    assert_eq!(place.run(&say()).await, RunOutcome::Failed);
    let told = place.everything();
    assert!(told.contains("not every channel was told") && told.contains("slack was not told: no answer"), "{told}");
    assert!(!told.contains("TOKEN"), "{told}");
    let got = server.got();
    assert!(got.len() == 1 && got[0].body.contains("do you hear me?"), "{got:?}");

    let place = Place::new(&[("SLACK", &server.url), ("HOOK", &server.url)], None);
    assert_eq!(place.run(&say()).await, RunOutcome::Succeeded, "{}", place.everything());
    assert_eq!(server.got().len(), 3);
}

/// Killed at every record and resumed, and with every act done twice, the beginning is told once.
#[tokio::test]
async fn the_beginning_passes_the_harness_for_effects() {
    let server = Arc::new(Server::start(&[200]).await);
    let channels = "[notify.console]\nenabled = false\n[notify.webhook]\nurl = { file = \"address\" }\n";
    let swept = harness::check_effect(async || {
        server.got.lock().unwrap().clear();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("address"), &server.url).unwrap();
        let root = dir.path().to_owned();
        let (inputs, seen) = (inputs("release", channels, "1.2.3"), Arc::clone(&server.got));
        let build = move || {
            let _root_lives_as_long_as_the_scene = &dir;
            pipeline("release", |g| {
                g.effect("", Started::new(&inputs), ());
            })
        };
        let world = move || BTreeMap::from([("told".to_owned(), seen.lock().unwrap().len().to_string())]);
        let options = ClientOptions { no_proxy: true, ..ClientOptions::default() };
        let client = Arc::new(Client::new(&options).unwrap());
        harness::Scene::new(build, world).root(root).resources(Resources::new().with(client))
    })
    .await;
    assert!(swept.points > 0);
}
