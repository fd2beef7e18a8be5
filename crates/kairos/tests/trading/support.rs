//! Starts the real binaries and talks to them with a client of its own, so that no mistake of theirs is shared.

#![expect(clippy::disallowed_types, reason = "the tests start the real executables")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No fact waited for here takes longer on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const GATEWAY: &str = env!("CARGO_BIN_EXE_api-gateway");
pub(crate) const RISK: &str = env!("CARGO_BIN_EXE_risk-manager");
pub(crate) const INGESTOR: &str = env!("CARGO_BIN_EXE_market-data-ingestor");
pub(crate) const STRATEGY: &str = env!("CARGO_BIN_EXE_strategy-orchestrator");

/// Where a service is asked.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: String,
}

/// A client that keeps its connection.
pub(crate) struct Kept(BufReader<TcpStream>);

/// A running service; killed when dropped.
pub(crate) struct Service {
    child: Child,
    client: Client,
    /// What it has logged; read by a thread, as a full pipe would stop the service.
    log: Arc<Mutex<String>>,
}

/// A command with nothing of the test's environment in it.
pub(crate) fn command(binary: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().env("PORT", "0").envs(variables.iter().copied());
    command
}

/// Starts a service and waits until it is ready.
pub(crate) fn start(binary: &str, variables: &[(&str, &str)]) -> Service {
    let mut child = command(binary, variables).stdout(Stdio::piped()).spawn().expect("started");
    let mut log = BufReader::new(child.stdout.take().expect("piped"));
    let address = first_line(&mut log);
    let lines = Arc::<Mutex<String>>::default();
    let read = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            read.lock().expect("not poisoned").extend([line.as_str(), "\n"]);
        }
    });
    let service = Service { child, client: Client { address }, log: lines };
    wait("ready", || service.get("/ready").0 == 200);
    service
}

fn first_line(log: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    log.read_line(&mut line).expect("a first line");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    assert_eq!(line["message"], "listening");
    line["address"].as_str().expect("an address").to_owned()
}

/// Waits for a fact, at most the deadline.
pub(crate) fn wait(what: &str, mut fact: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl std::ops::Deref for Service {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Client {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.exchange("GET", path, "");
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.exchange("POST", path, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// POST with a key.
    pub(crate) fn post_with_key(&self, path: &str, key: &str, body: &Value) -> u16 {
        let stream = self.try_exchange("POST", path, &format!("x-api-key: {key}\r\n"), &body.to_string());
        stream.unwrap_or_default().0
    }

    /// One request on a connection of its own; status 0 when there is no answer.
    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.try_exchange(method, path, "", body).unwrap_or_default()
    }

    fn try_exchange(&self, method: &str, path: &str, header: &str, body: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n{header}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn activate(&self, generation: u64) {
        let (status, answer) = self.post("/_plimsoll/activate", &serde_json::json!({"generation": generation}));
        assert_eq!((status, &answer["active"]), (200, &Value::Bool(true)), "{answer}");
    }

    pub(crate) fn deactivate(&self, generation: u64) {
        let (status, answer) = self.post("/_plimsoll/deactivate", &serde_json::json!({"generation": generation}));
        assert_eq!((status, &answer["active"]), (200, &Value::Bool(false)), "{answer}");
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").1;
        let text = text.as_str().expect("a text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
    }

    /// Requests under way beside the one that asks.
    pub(crate) fn in_flight(&self) -> u32 {
        let text = self.get("/metrics").1;
        let text = text.as_str().expect("a text");
        let gauge = text.lines().find_map(|line| line.strip_prefix("http_requests_in_flight "));
        gauge.expect("the gauge").parse::<u32>().expect("a number") - 1
    }
}

impl Kept {
    pub(crate) fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// Sends a GET and does not wait.
    pub(crate) fn ask(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("sent");
    }

    /// Reads one answer: its status, and whether it says that the connection ends.
    pub(crate) fn answer(&mut self) -> (u16, bool) {
        let (mut status, mut length, mut close) = (0, 0, false);
        for number in 0..100 {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a line of the head");
            let line = line.trim_end().to_ascii_lowercase();
            if number == 0 {
                status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
            } else if line.is_empty() {
                self.0.read_exact(&mut vec![0; length]).expect("the body");
                return (status, close);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            } else if line == "connection: close" {
                close = true;
            }
        }
        panic!("a head without an end");
    }

    pub(crate) fn get(&mut self, path: &str) -> (u16, bool) {
        self.ask(path);
        self.answer()
    }

    /// Whether the other side has closed, with nothing more to read. Waits for that.
    pub(crate) fn ended(&mut self) -> bool {
        self.0.read(&mut [0]).is_ok_and(|read| read == 0)
    }
}

impl Service {
    /// What it has logged so far, after its first line.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        let id = rustix::process::Pid::from_raw(id).expect("not 0");
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signalled");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait("the end of the process", || {
            status = self.child.try_wait().expect("waited for");
            status.is_some()
        });
        status.expect("ended")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already ended ones refuse, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path as a variable's value.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
