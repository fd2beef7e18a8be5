//! The proxy with real sockets: a supervisor's end of the control connection, real backends, clients that count.

use axum::{
    Router,
    extract::{Path as UrlPath, Request, WebSocketUpgrade},
    routing::{any, get},
};
use futures_util::{SinkExt, StreamExt, stream};
use plimsoll_core::Slot;
use plimsoll_local::proxy::{
    Backend, Door, ListenerKey, ListenerSet, Pause, ProxyClient, ProxyClientError, ProxyError, ProxyOptions, Route,
    RoutingTable, SlotStats, serve,
};
use std::{
    net::SocketAddr,
    os::unix::net::UnixStream as StdUnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

/// How long any fact may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

fn key() -> ListenerKey {
    "production/api".parse().unwrap()
}

fn backend(slot: Slot, replicas: &[SocketAddr]) -> Backend {
    Backend { slot, release: format!("{slot}-1"), replicas: replicas.to_vec() }
}

fn table(version: u64, live: Backend, change: impl FnOnce(&mut Route)) -> RoutingTable {
    let mut route = Route {
        live: Some(live),
        standby: None,
        canary_percent: 0,
        paused: None,
        max_body_bytes: None,
        request_timeout_ms: 20_000,
    };
    change(&mut route);
    RoutingTable { version, routes: [(key(), route)].into() }
}

struct Proxy {
    client: Arc<ProxyClient>,
    address: SocketAddr,
    listeners: ListenerSet,
    task: JoinHandle<Result<(), ProxyError>>,
    directory: tempfile::TempDir,
}

impl Proxy {
    async fn start(options: ProxyOptions) -> Self {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.sock");
        let task = tokio::spawn(async move { serve(theirs, &path, options).await });
        let client = Arc::new(ProxyClient::from_stream(ours).unwrap());
        let mut listeners = ListenerSet::default();
        let address = listeners.bind(key(), 0).unwrap();
        client.listen(key(), listeners.get(&key()).unwrap()).await.unwrap();
        Self { client, address, listeners, task, directory }
    }

    async fn with(live: Backend, change: impl FnOnce(&mut Route)) -> Self {
        let proxy = Self::start(ProxyOptions::default()).await;
        proxy.client.route(table(1, live, change)).await.unwrap();
        proxy
    }

    async fn stats(&self, slot: Slot) -> SlotStats {
        self.client.stats().await.unwrap().into_iter().find(|s| s.slot == slot).unwrap()
    }

    /// Waits until the counters of a slot satisfy `fact`.
    async fn until(&self, slot: Slot, fact: impl Fn(&SlotStats) -> bool) -> SlotStats {
        let begun = Instant::now();
        loop {
            let stats = self.stats(slot).await;
            if fact(&stats) {
                return stats;
            }
            assert!(begun.elapsed() < PATIENCE, "still {stats:?}");
            tokio::task::yield_now().await;
        }
    }
}

/// A backend whose requests to `/slow` wait for a permit of the gate.
async fn app(name: &'static str, gate: Arc<Semaphore>) -> SocketAddr {
    let slow = move || async move {
        gate.acquire().await.unwrap().forget();
        name
    };
    let echo = move |request: Request| async move {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        format!("{name}:{}", body.len())
    };
    let headers = |request: Request| async move {
        let lines = request.headers().iter().map(|(n, v)| format!("{n}={}\n", v.to_str().unwrap()));
        let keep = [("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=9")];
        (keep, lines.collect::<String>())
    };
    let socket = |upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                _ = socket.send(message).await;
            }
        })
    };
    let stream = || async {
        let first = stream::iter([Ok::<_, std::io::Error>("data: 1\n\n")]);
        axum::body::Body::from_stream(first.chain(stream::pending()))
    };
    let number = move |UrlPath(n): UrlPath<String>| async move { format!("{name}:{n}") };
    let router = Router::new()
        .route("/n/{n}", get(number))
        .route("/slow", any(slow))
        .route("/echo", any(echo))
        .route("/headers", any(headers))
        .route("/stream", any(stream))
        .route("/ws", any(socket))
        .fallback(move || async move { name });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn open_gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1_000_000))
}

/// A client that keeps one connection and never retries.
struct Caller(BufReader<TcpStream>);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Caller {
    async fn new(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn head(&mut self) -> std::io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        head.make_ascii_lowercase();
        Ok(head)
    }

    async fn answer(&mut self) -> std::io::Result<Answer> {
        let head = self.head().await?;
        let length = head.split("content-length: ").nth(1).map_or("0", |rest| rest.lines().next().unwrap());
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, "", "").await.unwrap()
    }

    async fn call(&mut self, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<Answer> {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let text = format!("{method} {path} HTTP/1.1\r\nhost: shop.example\r\n{length}{headers}\r\n{body}");
        self.0.write_all(text.as_bytes()).await?;
        tokio::time::timeout(PATIENCE, self.answer()).await.expect("an answer")
    }
}

/// Keep-alive callers that count; each checks every body and slot, and stops at the first failure.
fn load(address: SocketAddr, callers: usize, stop: &Arc<AtomicBool>) -> (Arc<[AtomicUsize; 2]>, Vec<JoinHandle<()>>) {
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let tasks = (0..callers).map(|_| {
        let (seen, stop) = (Arc::clone(&seen), Arc::clone(stop));
        tokio::spawn(async move {
            let mut caller = Caller::new(address).await;
            let mut n = 0;
            while !stop.load(SeqCst) {
                n += 1;
                let answer = caller.get(&format!("/n/{n}")).await;
                let slot = usize::from(answer.head.contains("x-plimsoll-slot: green"));
                let name = ["blue", "green"][slot];
                assert_eq!((answer.status, answer.body), (200, format!("{name}:{n}")));
                assert!(answer.head.contains(&format!("x-plimsoll-release: {name}-1")), "{}", answer.head);
                seen[slot].fetch_add(1, SeqCst);
            }
        })
    });
    let tasks = tasks.collect();
    (seen, tasks)
}

async fn until(what: &str, fact: impl Fn() -> bool) {
    let begun = Instant::now();
    while !fact() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_over_under_load_loses_no_request_and_closes_no_connection() {
    let (blue, green) = (app("blue", open_gate()).await, app("green", open_gate()).await);
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, callers) = load(proxy.address, 16, &stop);
    for turn in 1..=10_u64 {
        let aim = usize::try_from(turn).unwrap() * 300;
        let (from, to, address) = if turn % 2 == 1 { (0, Slot::Green, green) } else { (1, Slot::Blue, blue) };
        until("requests are answered", || seen[from].load(SeqCst) >= aim / 2).await;
        proxy.client.route(table(turn + 1, backend(to, &[address]), |_| ())).await.unwrap();
        let drained = proxy.client.drain(&key(), to.other(), PATIENCE).await.unwrap();
        assert_eq!((drained.aborted, drained.timed_out), (0, 0));
    }
    until("requests are answered", || seen.iter().map(|n| n.load(SeqCst)).sum::<usize>() >= 6_000).await;
    stop.store(true, SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }
    let counted = proxy.stats(Slot::Blue).await.requests + proxy.stats(Slot::Green).await.requests;
    assert_eq!(counted, seen.iter().map(|n| n.load(SeqCst) as u64).sum::<u64>());
}

/// Ten requests wait on blue while the table changes to green and blue is drained. How many of them were answered.
async fn slow_requests_at_a_cut_over(limit: Duration) -> usize {
    let gate = Arc::new(Semaphore::new(0));
    let (blue, green) = (app("blue", Arc::clone(&gate)).await, app("green", open_gate()).await);
    let proxy = Proxy::start(ProxyOptions::default()).await;
    proxy.client.route(table(1, backend(Slot::Blue, &[blue]), |_| ())).await.unwrap();
    let address = proxy.address;
    let slow: Vec<_> = (0..10)
        .map(|_| tokio::spawn(async move { Caller::new(address).await.call("GET", "/slow", "", "").await }))
        .collect();
    proxy.until(Slot::Blue, |s| s.in_flight == 10).await;
    proxy.client.route(table(2, backend(Slot::Green, &[green]), |_| ())).await.unwrap();
    let client = Arc::clone(&proxy.client);
    let drain = tokio::spawn(async move { client.drain(&key(), Slot::Blue, limit).await.unwrap() });
    let mut caller = Caller::new(address).await;
    for _ in 0..100 {
        assert_eq!(caller.get("/").await.body, "green");
    }
    gate.add_permits(10);
    let mut answered = 0;
    for call in slow {
        answered += usize::from(call.await.unwrap().is_ok_and(|a| a.status == 200 && a.body == "blue"));
    }
    let drained = drain.await.unwrap();
    assert_eq!((drained.finished, drained.aborted), (answered as u64, 10 - answered as u64));
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_finish_on_the_old_slot_while_new_ones_go_to_the_new() {
    assert_eq!(slow_requests_at_a_cut_over(PATIENCE).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_draining_the_same_cut_over_loses_requests() {
    assert_eq!(slow_requests_at_a_cut_over(Duration::ZERO).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_deadline_of_a_drain_a_request_gets_504_that_names_it() {
    let (blue, green) = (app("blue", Arc::new(Semaphore::new(0))).await, app("green", open_gate()).await);
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let address = proxy.address;
    let slow = tokio::spawn(async move { Caller::new(address).await.get("/slow").await });
    proxy.until(Slot::Blue, |s| s.in_flight == 1).await;
    let refused = proxy.client.drain(&key(), Slot::Blue, PATIENCE).await.unwrap_err();
    assert!(matches!(refused, ProxyClientError::Refused { current: 1, .. }), "{refused}");
    proxy.client.route(table(2, backend(Slot::Green, &[green]), |_| ())).await.unwrap();
    let drained = proxy.client.drain(&key(), Slot::Blue, Duration::from_millis(300)).await.unwrap();
    assert_eq!((drained.timed_out, drained.finished, drained.aborted), (1, 0, 0));
    assert!(drained.millis >= 300, "{drained:?}");
    let answer = slow.await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(answer.body.contains("the drain of slot blue"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_until_the_deadline_and_is_then_broken_off_and_counted() {
    let (blue, green) = (app("blue", open_gate()).await, app("green", open_gate()).await);
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let mut caller = Caller::new(proxy.address).await;
    caller.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(caller.head().await.unwrap().starts_with("http/1.1 200"));
    proxy.client.route(table(2, backend(Slot::Green, &[green]), |_| ())).await.unwrap();
    let drained = proxy.client.drain(&key(), Slot::Blue, Duration::from_millis(200)).await.unwrap();
    assert_eq!((drained.aborted, drained.finished, drained.timed_out), (1, 0, 0));
    let mut rest = String::new();
    _ = tokio::time::timeout(PATIENCE, caller.0.read_to_string(&mut rest)).await.unwrap();
    assert!(rest.contains("data: 1") && !rest.ends_with("0\r\n\r\n"), "no proper end: {rest:?}");
    assert_eq!(proxy.stats(Slot::Blue).await.aborted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_socket_gets_1001_at_the_cut_over_and_reconnects_to_the_new_slot() {
    let (blue, green) = (app("blue", open_gate()).await, app("green", open_gate()).await);
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let url = format!("ws://{}/ws", proxy.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    socket.send(Message::text("x".repeat(70_000))).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 70_000);
    assert_eq!(proxy.stats(Slot::Blue).await.upgraded, 1);
    proxy.client.route(table(2, backend(Slot::Green, &[green]), |_| ())).await.unwrap();
    let drained = proxy.client.drain(&key(), Slot::Blue, PATIENCE).await.unwrap();
    assert_eq!(drained.websockets_closed, 1);
    assert!(drained.millis < 5_000, "{drained:?}");
    let Message::Close(Some(close)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame") };
    assert_eq!(close.code, CloseCode::Away);
    let (_, response) = tokio_tungstenite::connect_async(&url).await.unwrap();
    assert_eq!(response.headers()["x-plimsoll-slot"], "green");
    proxy.until(Slot::Blue, |s| s.upgraded == 0 && s.in_flight == 0).await;
}

/// A backend that answers the first request of a connection and closes it when the second has come. Counts requests.
async fn one_answer_each() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut caller = BufReader::new(stream);
                for turn in 0..2 {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if caller.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    counted.fetch_add(1, SeqCst);
                    if turn == 0 {
                        caller.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn on_a_connection_that_breaks_a_get_is_sent_again_and_a_post_is_not() {
    let (address, requests) = one_answer_each().await;
    let proxy = Proxy::with(backend(Slot::Blue, &[address]), |_| ()).await;
    let mut caller = Caller::new(proxy.address).await;
    assert_eq!(caller.get("/").await.status, 200);
    assert_eq!(caller.get("/").await.status, 200);
    assert_eq!(requests.load(SeqCst), 3, "the second was sent on the kept connection, then again");
    let post = caller.call("POST", "/", "", "").await.unwrap();
    assert_eq!((post.status, requests.load(SeqCst)), (502, 4));
    let stats = proxy.stats(Slot::Blue).await;
    assert_eq!((stats.retries, stats.lost, stats.requests), (1, 1, 3));
}

#[tokio::test]
async fn a_dead_replica_is_passed_over_and_a_dead_backend_is_503() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let alive = app("blue", open_gate()).await;
    let proxy = Proxy::with(backend(Slot::Blue, &[dead, alive]), |_| ()).await;
    let mut caller = Caller::new(proxy.address).await;
    for _ in 0..4 {
        assert_eq!(caller.call("POST", "/echo", "", "abc").await.unwrap().body, "blue:3");
    }
    assert!(proxy.stats(Slot::Blue).await.connect_failures >= 1);
    proxy.client.route(table(2, backend(Slot::Green, &[dead]), |_| ())).await.unwrap();
    let answer = caller.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert!(answer.body.contains(r#""service":"api""#) && answer.body.contains("production"), "{}", answer.body);
    // A canary that cannot be reached costs no request.
    let canary = |r: &mut Route| (r.standby, r.canary_percent) = (Some(backend(Slot::Green, &[dead])), 100);
    proxy.client.route(table(3, backend(Slot::Blue, &[alive]), canary)).await.unwrap();
    assert_eq!(caller.get("/").await.body, "blue");
}

#[tokio::test]
async fn a_request_that_no_replica_takes_waits_for_the_table_that_leads_elsewhere() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let blue = app("blue", open_gate()).await;
    let proxy = Proxy::with(backend(Slot::Green, &[dead]), |_| ()).await;
    let address = proxy.address;
    let call = tokio::spawn(async move { Caller::new(address).await.call("POST", "/echo", "", "abc").await });
    proxy.until(Slot::Green, |s| s.connect_failures > 0).await;
    // First nothing is there at all, then the release before it.
    let nothing = |r: &mut Route| (r.live, r.paused) = (None, Some(Pause { max_ms: 20_000, max_queued: 10 }));
    proxy.client.route(table(2, backend(Slot::Green, &[dead]), nothing)).await.unwrap();
    proxy.client.route(table(3, backend(Slot::Blue, &[blue]), |_| ())).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap().body, "blue:3");
    assert_eq!(proxy.stats(Slot::Green).await.requests, 0);
}

#[tokio::test]
async fn control_paths_are_nobodys_and_bodies_have_a_bound() {
    let blue = app("blue", open_gate()).await;
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |r| r.max_body_bytes = Some(1000)).await;
    let mut caller = Caller::new(proxy.address).await;
    for path in ["/_plimsoll/health", "/%5fplimsoll/", "/x/../_plimsoll/", "http://shop.example/_plimsoll/x"] {
        assert_eq!(caller.get(path).await.status, 404, "{path}");
    }
    assert_eq!(caller.get("/other").await.body, "blue");
    assert_eq!(caller.call("POST", "/echo", "", &"x".repeat(1000)).await.unwrap().body, "blue:1000");
    assert_eq!(caller.call("POST", "/echo", "", &"x".repeat(1001)).await.unwrap().status, 413);
    let mut caller = Caller::new(proxy.address).await;
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    caller.send(&format!("POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}")).await;
    assert_eq!(caller.answer().await.unwrap().status, 413);
}

#[tokio::test]
async fn fields_for_one_connection_do_not_pass_and_forwarding_fields_do() {
    let blue = app("blue", open_gate()).await;
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let mut caller = Caller::new(proxy.address).await;
    let sent = "connection: x-secret, keep-alive\r\nx-secret: 1\r\nte: trailers\r\nkeep-alive: 5\r\n\
                x-forwarded-for: 10.0.0.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\n";
    let answer = caller.call("GET", "/headers", sent, "").await.unwrap();
    let mut lines: Vec<_> = answer.body.lines().collect();
    lines.sort_unstable();
    let expected = [
        "host=shop.example",
        "x-forwarded-for=10.0.0.9, 127.0.0.1",
        "x-forwarded-host=shop.example",
        "x-forwarded-proto=http",
    ];
    assert_eq!(lines, expected);
    assert!(!answer.head.contains("x-hop") && !answer.head.contains("keep-alive"), "{}", answer.head);
    caller.send("HEAD /n/1 HTTP/1.1\r\nhost: a\r\nx-plimsoll-probe: 1\r\n\r\n").await;
    let head = caller.head().await.unwrap();
    assert!(head.contains("content-length: 6"), "{head}");
    let stats = proxy.until(Slot::Blue, |s| s.requests == 2).await;
    assert_eq!((stats.probe_requests, stats.real.count(), stats.probe.count()), (1, 1, 1));
}

#[tokio::test]
async fn a_stale_table_is_refused_and_the_one_in_effect_stays() {
    let blue = app("blue", open_gate()).await;
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    proxy.client.route(table(5, backend(Slot::Blue, &[blue]), |_| ())).await.unwrap();
    let refused = proxy.client.route(table(4, backend(Slot::Green, &[blue]), |_| ())).await.unwrap_err();
    assert!(matches!(refused, ProxyClientError::Refused { current: 5, .. }), "{refused}");
    assert_eq!(proxy.client.hello().await.unwrap().version, 5);
    assert!(Caller::new(proxy.address).await.get("/").await.head.contains("x-plimsoll-slot: blue"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_proxy_takes_the_listeners_over_while_clients_call() {
    let blue = app("blue", open_gate()).await;
    let first = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped, calls) = (first.address, Arc::clone(&stop), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    // Opens a new connection whenever it is told that the old one closes, and at no other time.
    let client = tokio::spawn(async move {
        let mut caller = Caller::new(address).await;
        while !stopped.load(SeqCst) {
            let answer = caller.get("/").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "blue"));
            counted.fetch_add(1, SeqCst);
            if answer.head.contains("connection: close") {
                caller = Caller::new(address).await;
            }
        }
    });
    until("calls succeed", || calls.load(SeqCst) > 100).await;
    // A new supervisor finds the proxy by its socket, and supersedes the old one.
    let supervisor = ProxyClient::connect(&first.directory.path().join("proxy.sock")).await.unwrap();
    let listeners = supervisor.take_listeners().await.unwrap();
    assert_eq!(supervisor.hello().await.unwrap().listeners, [Door::from(key())]);
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    let path = first.directory.path().join("proxy.sock");
    let second = tokio::spawn(async move { serve(theirs, &path, ProxyOptions::default()).await });
    let next = ProxyClient::from_stream(ours).unwrap();
    next.route(table(1, backend(Slot::Blue, &[blue]), |_| ())).await.unwrap();
    for (key, listener) in &listeners {
        next.listen(key.clone(), listener).await.unwrap();
    }
    supervisor.retire(PATIENCE).await.unwrap();
    first.task.await.unwrap().unwrap();
    let before = calls.load(SeqCst);
    until("calls go on", || calls.load(SeqCst) > before + 100).await;
    stop.store(true, SeqCst);
    client.await.unwrap();
    drop(first.listeners);
    let stats = next.stats().await.unwrap();
    // One answer of the first may have been read after the others were counted.
    assert!(stats[0].requests >= 100, "{stats:?}");
    next.retire(Duration::ZERO).await.unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_proxy_outlives_its_supervisor_and_keeps_its_table() {
    let blue = app("blue", open_gate()).await;
    let Proxy { client, address, task, directory, .. } = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    drop(client);
    assert_eq!(Caller::new(address).await.get("/").await.body, "blue");
    let later = ProxyClient::connect(&directory.path().join("proxy.sock")).await.unwrap();
    let hello = later.hello().await.unwrap();
    assert_eq!((hello.version, hello.listeners, hello.pid), (1, vec![Door::from(key())], std::process::id()));
    later.retire(Duration::ZERO).await.unwrap();
    task.await.unwrap().unwrap();
    assert!(!directory.path().join("proxy.sock").exists());
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_counted_and_frees_its_slot() {
    let blue = app("blue", Arc::new(Semaphore::new(0))).await;
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), |_| ()).await;
    let mut waiting = Caller::new(proxy.address).await;
    waiting.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut sending = Caller::new(proxy.address).await;
    sending.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\npart").await;
    proxy.until(Slot::Blue, |s| s.in_flight == 2).await;
    drop((waiting, sending));
    let stats = proxy.until(Slot::Blue, |s| s.in_flight == 0).await;
    assert_eq!((stats.client_gone, stats.classes[3], stats.lost), (2, 2, 0));
}

#[tokio::test]
async fn paused_requests_wait_for_the_next_table_and_those_beyond_the_bounds_get_503() {
    let blue = app("blue", open_gate()).await;
    let pause = |max_ms, max_queued| move |r: &mut Route| r.paused = Some(Pause { max_ms, max_queued });
    let proxy = Proxy::with(backend(Slot::Blue, &[blue]), pause(50, 1)).await;
    let mut caller = Caller::new(proxy.address).await;
    let late = caller.get("/").await;
    assert!(late.status == 503 && late.head.contains("retry-after: 1"), "{late:?}");
    proxy.client.route(table(2, backend(Slot::Blue, &[blue]), pause(20_000, 1))).await.unwrap();
    let address = proxy.address;
    let call = || tokio::spawn(async move { Caller::new(address).await.get("/").await });
    let (mut one, mut other) = (call(), call());
    let (first, last) = tokio::select! {
        first = &mut one => (first, other),
        first = &mut other => (first, one),
    };
    assert_eq!(first.unwrap().status, 503, "one waits, the other is one too many");
    proxy.client.route(table(3, backend(Slot::Blue, &[blue]), |_| ())).await.unwrap();
    assert_eq!(last.await.unwrap().body, "blue");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_504_and_connections_beyond_the_bound_are_shed() {
    let blue = app("blue", Arc::new(Semaphore::new(0))).await;
    let proxy = Proxy::start(ProxyOptions { max_connections: 1 }).await;
    proxy.client.route(table(1, backend(Slot::Blue, &[blue]), |r| r.request_timeout_ms = 50)).await.unwrap();
    let mut caller = Caller::new(proxy.address).await;
    assert_eq!(caller.get("/slow").await.status, 504);
    let mut second = Caller::new(proxy.address).await;
    let shed = second.answer().await.unwrap();
    assert!(shed.status == 503 && shed.head.contains("connection: close"), "{shed:?}");
    assert_eq!(caller.get("/").await.status, 200);
}
