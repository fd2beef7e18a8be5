//! What this executable is when it is not the tests.

#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "plays services, which print, read their environment and exit"
)]

use axum::{
    Router,
    extract::{Path as UrlPath, WebSocketUpgrade},
    http::StatusCode,
    routing,
};
use plimsoll_local::{LocalPaths, proxy, supervisor};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    io::Write as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) fn play(role: &str, args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role {
        "supervisor" => runtime.block_on(async {
            let own = std::env::current_exe().unwrap();
            let proxy = supervisor::Launch { program: own, args: vec!["role:proxy".to_owned(), args[0].clone()] };
            let served =
                supervisor::serve(LocalPaths::new(&args[0]), supervisor::Options { proxy, containers: None }).await;
            served.inspect_err(|e| eprintln!("{e:?}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }),
        "proxy" => runtime.block_on(async {
            let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
            let socket = LocalPaths::new(&args[0]).proxy_socket();
            let served = proxy::serve(control, &socket, proxy::ProxyOptions::default()).await;
            served.inspect_err(|e| eprintln!("{e:?}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }),
        "registry" => runtime.block_on(async {
            let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
            listener.set_nonblocking(true).unwrap();
            let pid = std::process::id().to_string();
            let router = Router::new().route("/v2/", routing::get(|| async move { pid }));
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            ExitCode::SUCCESS
        }),
        "save" | "load" => copy_state(role).map_or(ExitCode::from(9), |()| ExitCode::SUCCESS),
        _ => runtime.block_on(service()),
    }
}

/// The commands that copy the state of the service and put a copy back.
fn copy_state(role: &str) -> Option<()> {
    let kept = PathBuf::from(variable("STATE_DIR")).join("kept");
    if role == "save" {
        return std::io::copy(&mut File::open(kept).ok()?, &mut std::io::stdout()).ok().map(drop);
    }
    let copy = std::io::read_to_string(std::io::stdin()).ok()?;
    if variable("MODE") == "slow-load" {
        std::fs::write(kept.with_file_name("loading"), std::process::id().to_string()).ok()?;
        std::thread::sleep(Duration::from_secs(30));
    }
    if copy.starts_with("damaged") {
        eprintln!("this copy is damaged");
        return None;
    }
    std::fs::write(kept, copy).ok()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A worker's hold on its environment: a lock that the kernel takes back when the process dies, and orders placed one
/// after the other. Whoever finds the lock taken has caught two active slots; two who work at a time place an order
/// twice, because each counts on from what it read a moment before.
struct Shift {
    held: File,
    over: Arc<AtomicBool>,
    orders: tokio::task::JoinHandle<()>,
}

impl Shift {
    fn begin() -> Option<Self> {
        let directory = PathBuf::from(variable("STATE_DIR"));
        let held = File::create(directory.join("held")).unwrap();
        if flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            std::fs::write(directory.join("violation"), variable("SERVICE_SLOT")).unwrap();
            return None;
        }
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let orders = tokio::task::spawn_blocking(move || {
            while !seen.load(Ordering::SeqCst) {
                place_order(&directory.join("orders"));
            }
        });
        Some(Self { held, over, orders })
    }

    async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.orders.await.unwrap();
        drop(self.held);
    }
}

fn place_order(book: &Path) {
    let before = std::fs::read_to_string(book).unwrap_or_default().lines().count();
    // The moment in which another one that works as well would read the same.
    std::thread::sleep(Duration::from_millis(3));
    let line = format!("{} {}\n", before + 1, variable("SERVICE_SLOT"));
    File::options().append(true).create(true).open(book).unwrap().write_all(line.as_bytes()).unwrap();
}

async fn service() -> ExitCode {
    let mode = variable("MODE");
    println!("begins as {mode}");
    match mode.as_str() {
        "crash" => return ExitCode::from(3),
        "exit-0" => return ExitCode::SUCCESS,
        _ => {}
    }
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", variable("PORT"))).await.unwrap();
    let _deaf = (mode == "ignore-sigterm")
        .then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap());
    let router = traffic(&mode).merge(exclusive(mode == "stubborn"));
    // Tests are over long before; whatever happens to them, nothing is left behind for good.
    let _ = tokio::time::timeout(Duration::from_mins(10), axum::serve(listener, router)).await;
    ExitCode::SUCCESS
}

fn traffic(mode: &str) -> Router {
    let ready = if mode == "never-ready" { StatusCode::FOUND } else { StatusCode::OK };
    let who = format!("{} {} {}", variable("SERVICE_SLOT"), std::process::id(), variable("TOKEN"));
    let fragile = mode == "crash-after-switch";
    // One in so many requests fails, spread evenly.
    let fails: u64 = variable("FAIL_ONE_IN").parse().unwrap_or(u64::MAX);
    let asked = Arc::new(AtomicU64::new(0));
    let root = {
        let who = who.clone();
        move || async move {
            if fragile {
                // Only clients ask here, so the first one means that the switch has taken place.
                std::thread::spawn(|| {
                    std::thread::sleep(Duration::from_millis(50));
                    std::process::exit(7);
                });
            }
            let nth = asked.fetch_add(1, Ordering::Relaxed) + 1;
            let status = if nth.is_multiple_of(fails) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
            (status, who)
        }
    };
    let slow = move |UrlPath(millis): UrlPath<u64>| async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        who
    };
    let socket = |upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                let _ = socket.send(message).await;
            }
        })
    };
    let value = |UrlPath(name): UrlPath<String>| async move { format!("{name}={};", variable(&name)) };
    let kept = || PathBuf::from(variable("STATE_DIR")).join("kept");
    let put = move |UrlPath(word): UrlPath<String>| async move { std::fs::write(kept(), word).unwrap() };
    let get = move || async move { std::fs::read_to_string(kept()).unwrap_or_default() };
    let version = || async { std::fs::read_to_string(variable("PLIMSOLL_IDENTITY")).unwrap_or_default() };
    Router::new()
        .route("/ready", routing::get(move || async move { ready }))
        .route("/", routing::get(root))
        .route("/slow/{millis}", routing::get(slow))
        .route("/put/{word}", routing::get(put))
        .route("/kept", routing::get(get))
        .route("/ws", routing::any(socket))
        .route("/env/{name}", routing::get(value))
        .route("/version", routing::get(version))
        .route("/peer", routing::get(|| async { variable("API_URL") }))
}

fn exclusive(stubborn: bool) -> Router {
    let shift: Arc<tokio::sync::Mutex<Option<Shift>>> = Arc::default();
    let (activating, deactivating) = (shift.clone(), shift);
    let activate = move |body: String| async move {
        println!("activate {body}");
        let mut shift = activating.lock().await;
        if shift.is_none() {
            *shift = Some(Shift::begin().expect("nobody else is active"));
        }
    };
    let deactivate = move || async move {
        if stubborn {
            return StatusCode::CONFLICT;
        }
        if let Some(shift) = deactivating.lock().await.take() {
            shift.end().await;
        }
        StatusCode::OK
    };
    Router::new()
        .route("/_plimsoll/activate", routing::post(activate))
        .route("/_plimsoll/deactivate", routing::post(deactivate))
}
