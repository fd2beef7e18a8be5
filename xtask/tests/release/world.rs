//! The world as somebody sees it who is not Plimsoll: raw requests, processes, files.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

/// `status --json`, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) BTreeMap<String, Environment>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) generation: u64,
    pub(crate) live: Option<Live>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) version: String,
    pub(crate) approved_by: Option<String>,
    pub(crate) services: BTreeMap<String, Service>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) slot: String,
    pub(crate) digest: String,
    pub(crate) url: String,
    pub(crate) whole: bool,
}

impl Status {
    pub(crate) fn of(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = |value: &Value| Service {
            slot: text(&value["slot"]),
            digest: text(&value["digest"]),
            url: text(&value["url"]),
            whole: value["replicas"] == value["ready"],
        };
        let named = |value: &Value| (text(&value["name"]), service(value));
        let live = |value: &Value| Live {
            version: text(&value["version"]),
            approved_by: value["approved_by"].as_str().map(str::to_owned),
            services: value["services"].as_array().unwrap().iter().map(named).collect(),
        };
        let environment = |value: &Value| Environment {
            generation: value["generation"].as_u64().unwrap(),
            live: Some(&value["live"]).filter(|live| !live.is_null()).map(live),
        };
        let all = value["environments"].as_array().unwrap().iter();
        Self(all.map(|value| (text(&value["name"]), environment(value))).collect())
    }

    pub(crate) fn live(&self, environment: &str) -> &Live {
        let live = self.0[environment].live.as_ref();
        live.unwrap_or_else(|| panic!("nothing is live in {environment}: {self:?}"))
    }
}

impl Live {
    pub(crate) fn url(&self, service: &str) -> &str {
        &self.services[service].url
    }

    pub(crate) fn digests(&self) -> BTreeMap<&str, &str> {
        self.services.iter().map(|(name, service)| (name.as_str(), service.digest.as_str())).collect()
    }

    /// Every service answers at its address, all replicas of it are there, and it says that it is this version.
    pub(crate) fn answers(&self) {
        for (name, service) in &self.services {
            let said = version_at(&service.url).unwrap_or_else(|e| panic!("{name} at {}: {e}", service.url));
            assert_eq!(
                (said["service"].as_str(), said["version"].as_str()),
                (Some(name.as_str()), Some(self.version.as_str()))
            );
            assert!(service.whole, "{name} has not all its replicas");
        }
    }
}

/// What `GET URL/version` answers.
pub(crate) fn version_at(url: &str) -> io::Result<Value> {
    let body = get(url, "/version")?;
    serde_json::from_str(&body).map_err(|e| io::Error::other(format!("{e}: {body}")))
}

/// One request on one connection, never repeated; the body of a 200, and an error for anything else.
pub(crate) fn get(url: &str, path: &str) -> io::Result<String> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let socket: SocketAddr = address.parse().map_err(|e| io::Error::other(format!("{address}: {e}")))?;
    let mut stream = TcpStream::connect_timeout(&socket, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("answered {answer:?}"))),
    }
}

/// The processes that were started for a state directory, each with its command line.
pub(crate) fn processes_of(state: &Path) -> BTreeMap<u32, String> {
    let needle = state.as_os_str().as_encoded_bytes();
    let named = |bytes: &[u8]| bytes.windows(needle.len()).any(|w| w == needle);
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let one = |pid: u32| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = read("cmdline");
        let ours = pid != std::process::id() && (named(&line) || named(&read("environ")));
        ours.then(|| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    };
    pids.filter_map(one).collect()
}

/// How many processes a state directory has, by the program or the hidden verb they are.
pub(crate) fn census(state: &Path) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for line in processes_of(state).into_values() {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
        let role = words.next().filter(|word| word.starts_with("__")).map_or(program, str::to_owned);
        *counted.entry(role).or_default() += 1;
    }
    counted
}

/// Waits for a fact, at most this long.
pub(crate) fn eventually(what: &str, within: Duration, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !fact() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the exclusive workers of an environment did: how many pieces of work, in how many generations. No generation was
/// worked for by two slots, and none after a later one had begun.
pub(crate) fn work_of(state: &Path, environment: &str) -> (usize, usize) {
    let text = fs::read_to_string(state.join(format!("state/{environment}/worker/work.log"))).unwrap_or_default();
    let mut slots: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut newest = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let generation: u64 = words[1].parse().unwrap();
        assert!(generation >= newest, "generation {generation} worked after {newest} in {environment}");
        newest = generation;
        slots.entry(generation).or_default().insert(words[0]);
    }
    for (generation, slots) in &slots {
        assert_eq!(slots.len(), 1, "generation {generation} of {environment} was worked for by {slots:?}");
    }
    (text.lines().count(), slots.len())
}
