//! Clients that watch a cut-over beside the load: one asks all the time who answers, some have a slow request under way at
//! any moment, one holds a WebSocket.

use crate::world::{get, version_at};
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio_tungstenite::tungstenite::{self, Message, protocol::frame::coding::CloseCode};

/// How many slow requests there are at any time; each begins a part of its time after the one before.
const SLOW: u32 = 8;
const SLOW_TIME: Duration = Duration::from_secs(2);
/// How long before a cut-over a slow request must have been sent to be sure to have reached the slot before.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// One answer, or one row of equal answers.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Slot and version.
    pub(crate) who: (String, String),
    pub(crate) first_ended: Instant,
    pub(crate) last_began: Instant,
}

/// A slow request: when it was under way, and the slot and version that answered.
#[derive(Debug)]
struct Slow {
    began: Instant,
    ended: Instant,
    who: Result<(String, String), String>,
}

/// How a WebSocket was ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By a close frame with this code.
    Closed(u16),
    /// By us, when all else was over: it was served all the time.
    Served,
    Broken(String),
}

/// The slot that first answered on a WebSocket, the number of echoes, the end, and who answers on the next one.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) who: String,
    pub(crate) echoes: u64,
    pub(crate) ended: Ended,
    pub(crate) next: Result<String, String>,
}

/// The clients at work.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    asking: JoinHandle<Vec<String>>,
    slow: Vec<JoinHandle<Vec<Slow>>>,
    socket: JoinHandle<Socket>,
}

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Sights {
    pub(crate) seen: Vec<Seen>,
    /// Everything that was not answered as it must be.
    pub(crate) failed: Vec<String>,
    pub(crate) slow: usize,
    /// Slow requests that were under way when the traffic moved.
    pub(crate) across: usize,
    pub(crate) socket: Socket,
}

impl Watch {
    /// Begins when each client has something under way.
    pub(crate) fn on(url: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (began, ready) = std::sync::mpsc::channel();
        let asking = {
            let (url, over, seen) = (url.to_owned(), Arc::clone(&over), Arc::clone(&seen));
            std::thread::spawn(move || ask(&url, &over, &seen))
        };
        let slow = (0..SLOW).map(|number| {
            let (url, over, began) = (url.to_owned(), Arc::clone(&over), began.clone());
            std::thread::spawn(move || {
                // Not all of them should begin and end together.
                let first = SLOW_TIME * number / SLOW;
                let mut all = vec![slow(&url, first)];
                began.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    all.push(slow(&url, SLOW_TIME));
                }
                all
            })
        });
        let slow = slow.collect();
        let socket = {
            let (url, over) = (url.to_owned(), Arc::clone(&over));
            std::thread::spawn(move || hold(&url, &over, &began))
        };
        for _ in 0..=SLOW {
            ready.recv_timeout(Duration::from_mins(1)).expect("the clients begin");
        }
        Self { over, seen, asking, slow, socket }
    }

    /// Who answers now.
    pub(crate) fn now(&self) -> Option<Seen> {
        self.seen.lock().unwrap().last().cloned()
    }

    /// Whether the WebSocket has come to its end.
    pub(crate) fn socket_is_over(&self) -> bool {
        self.socket.is_finished()
    }

    pub(crate) fn stop(self) -> Sights {
        self.over.store(true, Ordering::Relaxed);
        let mut failed = self.asking.join().unwrap();
        let slow: Vec<Slow> = self.slow.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let socket = self.socket.join().unwrap();
        let seen = self.seen.lock().unwrap().clone();
        let mut across = 0;
        for request in &slow {
            match &request.who {
                Err(error) => failed.push(format!("slow request: {error}")),
                Ok(who) => {
                    let (spans, mistake) = judge(request, who, &seen);
                    across += usize::from(spans);
                    failed.extend(mistake);
                }
            }
        }
        Sights { seen, failed, slow: slow.len(), across, socket }
    }
}

/// Whether a slow request was under way across a change of who answers, and what was wrong with who answered it.
fn judge(request: &Slow, who: &(String, String), seen: &[Seen]) -> (bool, Option<String>) {
    for (before, after) in seen.iter().zip(seen.iter().skip(1)) {
        let sent = request.began + UNDER_WAY <= before.last_began;
        if sent && request.ended >= after.first_ended {
            // The version is told when the answer is made, by a file that all slots of the environment follow.
            let wrong = (who.0 != before.who.0).then(|| format!("begun on {:?}, answered by {who:?}", before.who));
            return (true, wrong);
        }
    }
    // Sent after an answer of the newest: nobody else may get it any more.
    let wrong = seen.last().filter(|last| request.began >= last.first_ended && who.0 != last.who.0);
    (false, wrong.map(|last| format!("begun on {:?}, answered by {who:?}", last.who)))
}

fn ask(url: &str, over: &AtomicBool, seen: &Mutex<Vec<Seen>>) -> Vec<String> {
    let mut failed = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        let said = version_at(url);
        let ended = Instant::now();
        match said {
            Err(error) => failed.push(format!("/version: {error}")),
            Ok(said) => {
                let (mut seen, who) = (seen.lock().unwrap(), who(&said));
                match seen.last_mut().filter(|last| last.who == who) {
                    Some(last) => last.last_began = began,
                    None => seen.push(Seen { who, first_ended: ended, last_began: began }),
                }
            }
        }
        // One of very many: the load is what keeps the services busy.
        std::thread::sleep(Duration::from_millis(2));
    }
    failed
}

fn who(said: &Value) -> (String, String) {
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    (text("slot"), text("version"))
}

fn slow(url: &str, time: Duration) -> Slow {
    let began = Instant::now();
    let body = get(url, &format!("/slow?ms={}", time.as_millis())).map_err(|error| error.to_string());
    let said = body.and_then(|body| serde_json::from_str::<Value>(&body).map_err(|error| format!("{error}: {body}")));
    Slow { began, ended: Instant::now(), who: said.map(|said| who(&said)) }
}

type Stream = tungstenite::WebSocket<std::net::TcpStream>;

/// A WebSocket and the slot that it says it is served by.
fn open(url: &str) -> Result<(Stream, String), String> {
    let address = url.trim_start_matches("http://");
    let stream = std::net::TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| error.to_string())?;
    let opened = tungstenite::client(format!("ws://{address}/ws"), stream);
    let (mut socket, _) = opened.map_err(|error| error.to_string())?;
    let first = socket.read().map_err(|error| error.to_string())?;
    let said: Value = serde_json::from_str(first.to_text().unwrap_or_default()).map_err(|error| error.to_string())?;
    Ok((socket, who(&said).0))
}

/// Talks on a WebSocket until it is ended, and opens the next one.
fn hold(url: &str, over: &AtomicBool, began: &std::sync::mpsc::Sender<()>) -> Socket {
    let (mut socket, who) = open(url).expect("a WebSocket opens");
    began.send(()).unwrap();
    let mut echoes = 0;
    let ended = loop {
        if over.load(Ordering::Relaxed) {
            break Ended::Served;
        }
        let text = format!("tick {echoes}");
        // What was sent when the other side had closed is answered by its close frame.
        let _ = socket.send(Message::text(text.as_str()));
        match socket.read() {
            Ok(Message::Text(said)) if said.as_str() == text => echoes += 1,
            Ok(Message::Close(frame)) => {
                let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                let _ = socket.flush();
                break Ended::Closed(code.into());
            }
            Ok(other) => break Ended::Broken(format!("{other:?} for {text}")),
            Err(error) => break Ended::Broken(error.to_string()),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Socket { who, echoes, ended, next: open(url).map(|(_, who)| who) }
}
