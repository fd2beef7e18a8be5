//! A small HTTP service for the tests, without dependencies so that `rustc` alone makes a static executable of it.
//!
//! It keeps connections alive, knows the messages of an exclusive worker and of a lame duck, and can be told by its
//! environment to misbehave: `MODE=crash` ends at once, `MODE=never-ready` answers 503 at `/ready`, `LAME=off` makes it one
//! that knows nothing of lame ducks, `FAIL_PERCENT=3` answers 500 to that share of what is no probe and no question of a
//! machine, `KEPT=20` closes each connection after so many requests, `METRICS=off` shows no metrics. `/quit`, for a hook
//! before its end, has its clients leave.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

static LAME_DUCK: AtomicBool = AtomicBool::new(false);
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
static IN_FLIGHT: AtomicU64 = AtomicU64::new(0);
/// Upper bounds of the duration buckets, microseconds.
const BUCKETS: [u64; 12] = [500, 1000, 2500, 5000, 7500, 10_000, 15_000, 20_000, 30_000, 50_000, 100_000, 500_000];

/// Answers by path, status and whether a probe asked: how many took as long as each bucket allows, and how many at all.
type Answered = BTreeMap<(String, u16, bool), ([u64; BUCKETS.len()], u64)>;

static ANSWERED: Mutex<Answered> = Mutex::new(BTreeMap::new());
/// Requests of clients, by which it is decided which ones fail.
static REAL: AtomicU64 = AtomicU64::new(0);
/// Whether it works, and the highest generation it has seen.
static WORK: Mutex<(bool, u64)> = Mutex::new((false, 0));

/// Copies the state, or puts a copy back.
fn copy_state(verb: &str) -> Option<()> {
    let kept = format!("{}/kept", env::var("STATE_DIR").ok()?);
    if verb == "save" {
        return std::io::copy(&mut std::fs::File::open(kept).ok()?, &mut std::io::stdout()).ok().map(drop);
    }
    let copy = std::io::read_to_string(std::io::stdin()).ok()?;
    if copy.starts_with("damaged") {
        eprintln!("this copy is damaged");
        return None;
    }
    std::fs::write(kept, copy).ok()
}

fn main() {
    if let Some(verb) = env::args().nth(1) {
        process::exit(copy_state(&verb).map_or(9, |()| 0));
    }
    let mode = env::var("MODE").unwrap_or_default();
    if mode == "crash" {
        eprintln!("the price feed is not configured");
        process::exit(7);
    }
    let port = env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    println!("listening on {port}");
    for stream in listener.incoming().flatten() {
        let mode = mode.clone();
        thread::spawn(move || {
            CONNECTIONS.fetch_add(1, Ordering::SeqCst);
            let _ = serve(stream, &mode);
            CONNECTIONS.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn serve(stream: TcpStream, mode: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let kept = env::var("KEPT").ok().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    for nth in 1_u64.. {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        let mut close = nth >= kept;
        let mut probe = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header == "\r\n" {
                break;
            }
            let header = header.to_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            probe |= header.starts_with("x-plimsoll-probe:");
            close |= header.starts_with("connection:") && header.contains("close");
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        IN_FLIGHT.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        let (status, answer) = answer(&line, &String::from_utf8_lossy(&body), mode, probe);
        count(&line, status, probe, begun.elapsed());
        let close = close || LAME_DUCK.load(Ordering::SeqCst);
        let kept = if close { "close" } else { "keep-alive" };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {kept}\r\n\r\n", answer.len());
        writer.write_all(format!("{head}{answer}").as_bytes())?;
        IN_FLIGHT.fetch_sub(1, Ordering::SeqCst);
        if close {
            return Ok(());
        }
    }
    Ok(())
}

fn path(request: &str) -> &str {
    let path = request.split(' ').nth(1).unwrap_or("/");
    path.split('?').next().unwrap_or(path)
}

fn count(request: &str, status: u16, probe: bool, took: Duration) {
    let mut all = ANSWERED.lock().unwrap();
    let (up_to, count) = all.entry((path(request).to_owned(), status, probe)).or_default();
    for (bound, within) in BUCKETS.iter().zip(up_to) {
        *within += u64::from(took.as_micros() <= u128::from(*bound));
    }
    *count += 1;
}

/// What it answered, as Prometheus reads it.
fn metrics() -> String {
    let mut text = "# TYPE http_requests_total counter\n# TYPE http_request_duration_seconds histogram\n".to_owned();
    for ((path, status, probe), (up_to, count)) in ANSWERED.lock().unwrap().iter() {
        let labels = format!("path=\"{path}\",status=\"{status}\",probe=\"{probe}\"");
        text += &format!("http_requests_total{{{labels}}} {count}\n");
        for (bound, within) in BUCKETS.iter().zip(up_to) {
            let seconds = *bound as f64 / 1e6;
            text += &format!("http_request_duration_seconds_bucket{{{labels},le=\"{seconds}\"}} {within}\n");
        }
        text += &format!("http_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}\n");
    }
    text
}

/// Whether this request is one of those that fail: evenly spread, and as many as were asked for.
fn fails() -> bool {
    let percent: u64 = env::var("FAIL_PERCENT").ok().and_then(|p| p.parse().ok()).unwrap_or(0);
    let before = REAL.fetch_add(1, Ordering::SeqCst);
    (before + 1) * percent / 100 > before * percent / 100
}

/// Sends its clients away, and waits until they have gone.
fn quit() {
    LAME_DUCK.store(true, Ordering::SeqCst);
    // Whoever was sent here before the endpoints followed comes within that time.
    for turn in 0..60 {
        if turn > 15 && CONNECTIONS.load(Ordering::SeqCst) <= 1 {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The number behind `"key":` in a small JSON text.
fn number(text: &str, key: &str) -> Option<u64> {
    let after = text.split_once(&format!("\"{key}\""))?.1.trim_start_matches([':', ' ']);
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn answer(request: &str, body: &str, mode: &str, probe: bool) -> (u16, String) {
    let version = env::var("N").unwrap_or_default();
    let slot = env::var("SERVICE_SLOT").unwrap_or_default();
    match path(request) {
        "/metrics" if env::var("METRICS").is_ok_and(|metrics| metrics == "off") => (404, "{}".to_owned()),
        "/metrics" => (200, metrics()),
        "/quit" => {
            quit();
            (200, "{}".to_owned())
        }
        "/ready" if mode == "never-ready" => (503, "{\"ready\":false}".to_owned()),
        "/slow" => {
            thread::sleep(Duration::from_millis(500));
            (200, format!("{{\"version\":\"{version}\"}}"))
        }
        "/_plimsoll/activate" => work(true, number(body, "generation").unwrap_or(0)),
        "/_plimsoll/deactivate" => work(false, number(body, "generation").unwrap_or(0)),
        "/_plimsoll/activation" => {
            let (active, seen) = *WORK.lock().unwrap();
            (200, format!("{{\"active\":{active},\"generation\":{seen},\"highest_seen\":{seen}}}"))
        }
        "/_plimsoll/lame-duck" if env::var("LAME").is_ok_and(|lame| lame == "off") => (404, "{}".to_owned()),
        "/_plimsoll/lame-duck" => {
            if request.starts_with("POST") {
                LAME_DUCK.store(body.contains("true"), Ordering::SeqCst);
            }
            let (others, busy) = (CONNECTIONS.load(Ordering::SeqCst) - 1, IN_FLIGHT.load(Ordering::SeqCst) - 1);
            let on = LAME_DUCK.load(Ordering::SeqCst);
            (200, format!("{{\"on\":{on},\"connections\":{others},\"in_flight\":{busy}}}"))
        }
        path if path.starts_with("/put/") => {
            let kept = format!("{}/kept", env::var("STATE_DIR").unwrap_or_default());
            let written = std::fs::write(kept, path.trim_start_matches("/put/"));
            (if written.is_ok() { 200 } else { 500 }, "{}".to_owned())
        }
        "/kept" => {
            let kept = format!("{}/kept", env::var("STATE_DIR").unwrap_or_default());
            (200, std::fs::read_to_string(kept).unwrap_or_default())
        }
        path => {
            let status = if !probe && path != "/ready" && fails() { 500 } else { 200 };
            (status, format!("{{\"version\":\"{version}\",\"slot\":\"{slot}\"}}"))
        }
    }
}

fn work(active: bool, generation: u64) -> (u16, String) {
    let mut work = WORK.lock().unwrap();
    if generation < work.1 {
        return (409, "{\"reason\":\"stale\"}".to_owned());
    }
    *work = (active, generation);
    (200, format!("{{\"active\":{active},\"generation\":{generation}}}"))
}
