//! What this executable is when it is not the tests.

use axum::{Router, http::StatusCode, routing};
use plimsoll_local::{LocalPaths, proxy, supervisor};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::File,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

pub(crate) fn play(role: &str, args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role {
        "supervisor" => runtime.block_on(async {
            let own = std::env::current_exe().unwrap();
            let proxy = supervisor::Launch { program: own, args: vec!["role:proxy".to_owned(), args[0].clone()] };
            let served = supervisor::serve(LocalPaths::new(&args[0]), supervisor::Options { proxy }).await;
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
        _ => runtime.block_on(service()),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A worker's hold on its environment: a lock that the kernel takes back when the process dies. Whoever finds it taken
/// has caught two active slots.
fn take() -> Option<File> {
    let directory = PathBuf::from(variable("STATE_DIR"));
    let file = File::create(directory.join("held")).unwrap();
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        std::fs::write(directory.join("violation"), variable("SERVICE_SLOT")).unwrap();
        return None;
    }
    Some(file)
}

async fn service() -> ExitCode {
    let mode = variable("MODE");
    println!("begins as {mode}");
    match mode.as_str() {
        "crash" => return ExitCode::from(3),
        "exit-0" => return ExitCode::SUCCESS,
        _ => {}
    }
    let ready = if mode == "never-ready" { StatusCode::FOUND } else { StatusCode::OK };
    let held: Arc<Mutex<Option<File>>> = Arc::default();
    let (activating, deactivating) = (held.clone(), held);
    let stubborn = mode == "stubborn";
    let who = format!("{} {} {}", variable("SERVICE_SLOT"), std::process::id(), variable("TOKEN"));
    let activate = move |body: String| async move {
        println!("activate {body}");
        let mut held = activating.lock().unwrap();
        if held.is_none() {
            *held = Some(take().expect("nobody else is active"));
        }
    };
    let deactivate = move || async move {
        if stubborn {
            return StatusCode::CONFLICT;
        }
        deactivating.lock().unwrap().take();
        StatusCode::OK
    };
    let version = || async { std::fs::read_to_string(variable("PLIMSOLL_IDENTITY")).unwrap_or_default() };
    let router = Router::new()
        .route("/ready", routing::get(move || async move { ready }))
        .route("/", routing::get(move || async move { who }))
        .route("/version", routing::get(version))
        .route("/peer", routing::get(|| async { variable("API_URL") }))
        .route("/_plimsoll/activate", routing::post(activate))
        .route("/_plimsoll/deactivate", routing::post(deactivate));
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", variable("PORT"))).await.unwrap();
    let _deaf = (mode == "ignore-sigterm")
        .then(|| tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap());
    // Tests are over long before; whatever happens to them, nothing is left behind for good.
    let _ = tokio::time::timeout(Duration::from_mins(10), axum::serve(listener, router)).await;
    ExitCode::SUCCESS
}
