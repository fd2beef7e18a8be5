//! An API server that fails on purpose: a proxy in front of the real one.
//!
//! It counts writes, and can lose one: before the API server gets it, or its answer. It can be away altogether. A
//! request that was lost on its way is kept, and can arrive late.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use plimsoll_kubernetes::Access;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// When a write is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// On its way: the API server never hears of it.
    Request,
    /// On its way back: it was done.
    Answer,
}

/// Which write is lost, and what follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Counted from the moment the fault is set, from 1.
    pub(crate) write: u32,
    pub(crate) loss: Loss,
    /// Whether nothing gets through afterwards, as when the client's process is killed.
    pub(crate) for_good: bool,
}

/// A write, so that it may be sent later.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    head: http::request::Parts,
    body: Vec<u8>,
}

impl Kept {
    /// Its method and what it is about.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri.path())
    }

    /// Whether it changes a Service.
    pub(crate) fn is_switch(&self) -> bool {
        self.head.method == "PATCH" && self.head.uri.path().contains("/services/")
    }

    fn request(&self) -> Request<Body> {
        Request::from_parts(self.head.clone(), Body::from(self.body.clone()))
    }
}

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    writes: u32,
    lost: Option<Kept>,
}

struct Shared {
    real: Client,
    plan: Mutex<Plan>,
    /// Whether the fault has happened.
    hit: watch::Sender<bool>,
    away: watch::Sender<bool>,
}

/// The proxy; it ends with this value.
pub(crate) struct Proxy {
    /// Leads to it.
    pub(crate) access: Access,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts one in front of the cluster that `access` leads to.
    pub(crate) async fn start(access: &Access) -> Self {
        let kubeconfig = Kubeconfig::read_from(&access.kubeconfig[0]).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let real = Client::try_from(config.expect("it leads to a cluster")).expect("a client");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: proxy\n\
             clusters: [{{name: proxy, cluster: {{server: \"http://{address}\"}}}}]\n\
             users: [{{name: nobody, user: {{}}}}]\n\
             contexts: [{{name: proxy, context: {{cluster: proxy, user: nobody}}}}]\n"
        );
        std::fs::write(&file, text).expect("the kubeconfig is written");
        let (hit, away) = (watch::Sender::new(false), watch::Sender::new(false));
        let shared = Arc::new(Shared { real, plan: Mutex::default(), hit, away });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { access: Access { kubeconfig: vec![file], context: None }, shared, task, _directory: directory }
    }

    /// Has a write fail. Only the first call after [`Proxy::heal`] counts.
    pub(crate) fn fail(&self, fault: Fault) {
        let mut plan = self.shared.plan();
        if plan.fault.is_none() {
            *plan = Plan { fault: Some(fault), ..Plan::default() };
        }
    }

    /// Returns when the fault has happened.
    pub(crate) async fn hit(&self) {
        let mut hit = self.shared.hit.subscribe();
        hit.wait_for(|hit| *hit).await.expect("the proxy goes on");
    }

    /// Everything gets through again. Returns the write that was lost, if it came to that.
    pub(crate) fn heal(&self) -> Option<Kept> {
        self.shared.hit.send_replace(false);
        std::mem::take(&mut *self.shared.plan()).lost
    }

    /// Cuts all connections and accepts none, or accepts them again.
    pub(crate) fn away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    /// Sends a write that was kept, and returns the status of its answer.
    pub(crate) async fn late(&self, kept: &Kept) -> u16 {
        self.shared.real.send(kept.request()).await.expect("the API server answers").status().as_u16()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends with the proxy, which aborts it.
    while let Ok((stream, _)) = listener.accept().await {
        if !*shared.away.borrow() {
            tokio::spawn(connection(stream, Arc::clone(&shared)));
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut away = shared.away.subscribe();
    let service = service_fn(|request| forward(request, Arc::clone(&shared)));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A request that is lost on purpose ends its connection with an error.
        _ = served => {}
        _ = away.wait_for(|away| *away) => {}
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is lost, and where.
    fn loses(&self, request: &Kept) -> Option<Loss> {
        let mut plan = self.plan();
        let fault = plan.fault?;
        if plan.lost.is_some() && fault.for_good {
            return Some(Loss::Request);
        }
        let asks_a_pod = request.head.uri.path().contains("/proxy/");
        if request.head.method == "GET" || asks_a_pod {
            return None;
        }
        plan.writes += 1;
        if plan.writes != fault.write {
            return None;
        }
        plan.lost = Some(request.clone());
        Some(fault.loss)
    }
}

async fn forward(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, io::Error> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    head.headers.remove(http::header::HOST);
    head.extensions.clear();
    let kept = Kept { head, body };
    let broken_off = || io::Error::other("lost on purpose");
    let loss = shared.loses(&kept);
    if loss == Some(Loss::Request) {
        shared.hit.send_replace(true);
        return Err(broken_off());
    }
    let mut answer = shared.real.send(kept.request()).await.map_err(io::Error::other)?;
    if loss == Some(Loss::Answer) {
        shared.hit.send_replace(true);
        return Err(broken_off());
    }
    answer.headers_mut().remove(http::header::TRANSFER_ENCODING);
    Ok(answer)
}
