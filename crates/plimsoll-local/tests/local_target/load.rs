//! Clients that count. They never retry; each answer's status and body are checked.

use crate::world::World;
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinHandle,
};

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) sent: AtomicU64,
    pub(crate) blue: AtomicU64,
    pub(crate) green: AtomicU64,
    /// Connects that were refused.
    pub(crate) refused: AtomicU64,
    /// Requests that were sent and got no whole answer.
    pub(crate) broken: AtomicU64,
    /// The longest wait for an answer, in milliseconds.
    pub(crate) slowest: AtomicU64,
    /// The first answers that were not what they should be.
    pub(crate) wrong: Mutex<Vec<String>>,
}

impl Seen {
    pub(crate) fn answered(&self) -> u64 {
        self.blue.load(Relaxed) + self.green.load(Relaxed)
    }

    /// Figures in one line.
    pub(crate) fn line(&self) -> String {
        let [sent, refused, broken, slowest] =
            [&self.sent, &self.refused, &self.broken, &self.slowest].map(|n| n.load(Relaxed));
        let answered = self.answered();
        format!(
            "{sent} requests, {answered} answered, {refused} refused, {broken} in flight lost, slowest {slowest} ms"
        )
    }

    /// Panics unless every request was answered as it should be, but for `broken` ones.
    pub(crate) fn check(&self, may_break: bool) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{}: {wrong:?}", self.line());
        assert_eq!(self.refused.load(Relaxed), 0, "{}", self.line());
        assert!(may_break || self.broken.load(Relaxed) == 0, "{}", self.line());
        assert_eq!(self.sent.load(Relaxed), self.answered() + self.broken.load(Relaxed));
    }
}

/// Clients at work.
pub(crate) struct Load {
    pub(crate) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients that keep their connection, and so many that open one for each request.
    pub(crate) async fn start(world: &World, service: &str, keep_alive: usize, fresh: usize) -> Self {
        let port = world.port(service).await;
        let (seen, stop) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let clients = (0..keep_alive + fresh).map(|n| {
            let (seen, stop) = (seen.clone(), stop.clone());
            tokio::spawn(async move { client(port, n < keep_alive, &seen, &stop).await })
        });
        let clients = clients.collect();
        Self { seen, stop, clients }
    }

    /// Waits until so many more requests were answered.
    pub(crate) async fn more(&self, requests: u64) {
        let aim = self.seen.answered() + requests;
        crate::world::eventually("requests are answered", || async { self.seen.answered() >= aim }).await;
    }

    /// Lets every client finish its request.
    pub(crate) async fn stop(self) -> Arc<Seen> {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.seen
    }
}

async fn client(port: u16, keep_alive: bool, seen: &Seen, stop: &AtomicBool) {
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Relaxed) {
        let kept = connection.take();
        let fresh = async || TcpStream::connect(("127.0.0.1", port)).await.ok().map(BufReader::new);
        let Some(mut stream) = (if kept.is_some() { kept } else { fresh().await }) else {
            seen.refused.fetch_add(1, Relaxed);
            // A closed port answers at once, and this is no contest.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        seen.sent.fetch_add(1, Relaxed);
        let begun = Instant::now();
        match exchange(&mut stream, "/", keep_alive).await {
            Ok((200, body, stays)) if body.starts_with("blue ") || body.starts_with("green ") => {
                let slot = if body.starts_with("blue ") { &seen.blue } else { &seen.green };
                slot.fetch_add(1, Relaxed);
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap();
                seen.slowest.fetch_max(millis, Relaxed);
                connection = (keep_alive && stays).then_some(stream);
            }
            Ok((status, body, _)) => {
                let mut wrong = seen.wrong.lock().unwrap();
                if wrong.len() < 5 {
                    wrong.push(format!("{status} {body}"));
                }
            }
            Err(_) => drop(seen.broken.fetch_add(1, Relaxed)),
        }
    }
}

/// One request; the answer's status and body, and whether the connection stays open.
pub(crate) async fn exchange(
    stream: &mut BufReader<TcpStream>,
    path: &str,
    keep_alive: bool,
) -> io::Result<(u16, String, bool)> {
    let close = if keep_alive { "" } else { "connection: close\r\n" };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{close}\r\n").as_bytes()).await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    head.make_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, String::from_utf8_lossy(&body).into_owned(), !head.contains("connection: close")))
}
