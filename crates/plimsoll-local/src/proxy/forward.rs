//! One request: admitted to a target, sent to one of its replicas, answered. What may be sent again, and when, is
//! decided here.

use super::{
    accept::Client,
    body::{BodyFate, OutBody, UpBody},
    head::{self, RELEASE, SLOT},
    pool::{Pooled, Unanswered},
    reply,
    state::{ResolvedRoute, State},
    table::Pause,
    target::{End, InFlight, Phase, Target},
    upgrade,
};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
    upgrade::OnUpgrade,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How often one request is sent at most: two chances more than the first cover a stale connection and a cut-over.
const MAX_SENDS: usize = 3;

/// How often a request that no replica took, and that was therefore not sent, goes on to another table's replicas.
/// More tables than these within the second or two that it may wait are a service that flaps.
const MAX_MOVES: usize = 4;

/// Looks at a fresh table how often, when the target picked is being drained: the table that replaces it is in effect
/// before the drain begins, so the second look suffices.
const MAX_PICKS: usize = 3;

/// How long a request that no replica took waits for another table: whoever keeps the replicas sees one end within
/// milliseconds, and says where to go instead.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);

/// The client's connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut because its slot is not drained")]
pub(crate) struct Cut;

/// Answers one request.
pub(crate) async fn handle(
    state: Arc<State>,
    client: Arc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<OutBody>, Cut> {
    if let Some(refusal) = refuse(&request) {
        return Ok(refusal);
    }
    let probe = request.headers().contains_key(head::PROBE);
    let (flight, route) = match admit(&state, &client, probe).await {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(refusal),
    };
    if request.body().size_hint().lower() > route.max_body_bytes {
        flight.answered(413);
        return Ok(reply::too_long(&client.key));
    }
    let protocol = head::wanted_upgrade(request.headers());
    let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
    let (request, spare, fate) = prepare(request, &client, protocol.clone(), route.max_body_bytes);
    let exchange = Exchange { state: &state, client: &client, flight, spare, fate, timeout: route.timeout };
    let mut response = match exchange.run(request).await? {
        Ok((response, came)) => match (response.status(), upgrade, protocol) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade), Some(protocol)) => {
                switch(&state, &client, response, came, upgrade, &protocol)
            }
            (StatusCode::SWITCHING_PROTOCOLS, ..) => {
                came.flight.answered(502);
                reply::broken(&client.key)
            }
            _ => pass(response, came).await,
        },
        Err(own) => own,
    };
    if state.retiring() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Refuses what no service is asked about.
fn refuse(request: &Request<Incoming>) -> Option<Response<OutBody>> {
    if head::is_control_path(request.uri().path()) {
        return Some(reply::not_found());
    }
    if request.method() == Method::CONNECT {
        return Some(reply::plain(StatusCode::METHOD_NOT_ALLOWED));
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    // RFC 9112 §3.2: exactly one, but for HTTP/1.0, which may do without.
    let hosts_fit = hosts == 1 || (hosts == 0 && request.version() == Version::HTTP_10);
    (!hosts_fit).then(|| reply::plain(StatusCode::BAD_REQUEST))
}

/// Finds the target for a request and counts it in; waits while the service is paused.
async fn admit(
    state: &State,
    client: &Client,
    probe: bool,
) -> Result<(InFlight, Arc<ResolvedRoute>), Response<OutBody>> {
    let begun = Instant::now();
    for _ in 0..MAX_PICKS {
        let route = loop {
            let Some(route) = state.table.load().routes.get(&client.key).cloned() else {
                return Err(reply::unavailable(&client.key, "no route"));
            };
            match route.paused {
                None => break route,
                Some(pause) => wait_while_paused(state, client, &route, pause, begun).await?,
            }
        };
        let Some(target) = route.pick() else { return Err(reply::unavailable(&client.key, "no live backend")) };
        if let Some(flight) = target.enter(probe) {
            return Ok((flight, route));
        }
    }
    Err(reply::unavailable(&client.key, "the live backend is being drained"))
}

async fn wait_while_paused(
    state: &State,
    client: &Client,
    route: &ResolvedRoute,
    pause: Pause,
    begun: Instant,
) -> Result<(), Response<OutBody>> {
    struct Queued<'a>(&'a ResolvedRoute);
    impl Drop for Queued<'_> {
        fn drop(&mut self) {
            self.0.queued.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let mut changed = state.changed.subscribe();
    let before = route.queued.fetch_add(1, Ordering::SeqCst);
    let _queued = Queued(route);
    if before >= pause.max_queued || state.retiring() {
        return Err(reply::unavailable(&client.key, "paused, and too many requests wait"));
    }
    let same = |table: &super::state::Resolved| {
        table.routes.get(&client.key).is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), route))
    };
    if !same(&state.table.load()) {
        return Ok(());
    }
    match tokio::time::timeout_at(begun + Duration::from_millis(pause.max_ms), changed.changed()).await {
        Ok(_) => Ok(()),
        Err(_) => Err(reply::unavailable(&client.key, "paused for longer than requests wait")),
    }
}

/// What it takes to send a request once more.
type Spare = Option<(Method, Uri, HeaderMap)>;

/// Makes the request for the service out of the client's.
fn prepare(
    request: Request<Incoming>,
    client: &Client,
    upgrade: Option<HeaderValue>,
    max_body_bytes: u64,
) -> (Request<UpBody>, Spare, Option<Arc<BodyFate>>) {
    let (mut parts, incoming) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        // RFC 9112 §3.2.2: the authority of an absolute target replaces Host.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            parts.headers.insert(HOST, host);
        }
        parts.uri = parts.uri.path_and_query().map_or_else(|| Uri::from_static("/"), |p| Uri::from(p.clone()));
    }
    head::for_service(&mut parts.headers, &client.address, upgrade);
    parts.version = Version::HTTP_11;
    if incoming.is_end_stream() {
        let spare = repeatable(&parts.method).then(|| (parts.method.clone(), parts.uri.clone(), parts.headers.clone()));
        return (Request::from_parts(parts, UpBody::Empty), spare, None);
    }
    if incoming.size_hint().exact().is_none() {
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let fate = Arc::new(BodyFate::default());
    let body = UpBody::Client { incoming, left: max_body_bytes, fate: Arc::clone(&fate) };
    (Request::from_parts(parts, body), None, Some(fate))
}

/// A response, where it came from and on what.
struct Came {
    flight: InFlight,
    pooled: Pooled,
    replica: usize,
}

/// Why a replica gave no response head.
enum Failed {
    /// No replica took the connection; nothing was sent.
    Refused(Request<UpBody>),
    /// The connection ended before anything was sent.
    Unsent(Request<UpBody>),
    /// It ended when something may have been sent.
    Broken,
}

/// The service's response, or one of the proxy's own.
type Exchanged = Result<(Response<Incoming>, Came), Response<OutBody>>;

struct Exchange<'a> {
    state: &'a State,
    client: &'a Client,
    flight: InFlight,
    spare: Spare,
    fate: Option<Arc<BodyFate>>,
    timeout: Duration,
}

impl Exchange<'_> {
    /// Sends the request until there is a response, of the service or (`Err`) the proxy's own.
    async fn run(mut self, mut request: Request<UpBody>) -> Result<Exchanged, Cut> {
        let key = &self.client.key;
        let timeout = tokio::time::sleep(self.timeout);
        tokio::pin!(timeout);
        let (mut sends, mut moves) = (1, 0);
        // Ends by the bounds on both.
        loop {
            let target = Arc::clone(&self.flight.target);
            let sent = tokio::select! {
                biased;
                sent = send(&target, request, sends == 1) => sent,
                () = target.reached(Phase::Ended) => return self.ended(&target),
                () = &mut timeout => {
                    self.flight.answered(504);
                    return Ok(Err(reply::timed_out(key, self.timeout)));
                }
            };
            let failed = match sent {
                Ok((response, pooled, replica)) => {
                    return Ok(Ok((response, Came { flight: self.flight, pooled, replica })));
                }
                Err(failed) => failed,
            };
            let again = match failed {
                Failed::Refused(unsent)
                    if moves < MAX_MOVES && (self.move_on(&target) || self.wait_for_another(&target).await) =>
                {
                    moves += 1;
                    request = unsent;
                    continue;
                }
                Failed::Refused(_) => {
                    self.flight.answered(503);
                    return Ok(Err(reply::unavailable(key, "no replica of the live backend accepts connections")));
                }
                Failed::Unsent(unsent) if sends < MAX_SENDS => Some(unsent),
                Failed::Unsent(_) | Failed::Broken if sends == MAX_SENDS => None,
                Failed::Unsent(_) | Failed::Broken => self.spare.clone().map(rebuild),
            };
            let Some(next) = again else { return Ok(Err(self.give_up())) };
            self.flight.target.counters.retries.fetch_add(1, Ordering::Relaxed);
            self.move_on(&target);
            sends += 1;
            request = next;
        }
    }

    /// Moves to the target that is picked now, if that is another one.
    fn move_on(&mut self, from: &Arc<Target>) -> bool {
        if !Arc::ptr_eq(&self.flight.target, from) {
            return true;
        }
        let table = self.state.table.load();
        let live = table.routes.get(&self.client.key).and_then(|route| route.live.as_ref());
        let Some(flight) = live.filter(|t| !Arc::ptr_eq(t, from)).and_then(|t| t.enter(self.flight.probe())) else {
            return false;
        };
        std::mem::replace(&mut self.flight, flight).moved();
        true
    }

    /// Waits for a table that leads elsewhere, and moves there.
    async fn wait_for_another(&mut self, from: &Arc<Target>) -> bool {
        let mut changed = self.state.changed.subscribe();
        let begun = Instant::now();
        // Ends by the limits on both kinds of waiting, which count from the beginning.
        loop {
            changed.mark_unchanged();
            let Some(route) = self.state.table.load().routes.get(&self.client.key).cloned() else { return false };
            if let Some(pause) = route.paused {
                if wait_while_paused(self.state, self.client, &route, pause, begun).await.is_err() {
                    return false;
                }
                continue;
            }
            if self.move_on(from) {
                return true;
            }
            let hopeless = route.live.is_none() || self.state.retiring();
            if hopeless || tokio::time::timeout_at(begun + REFUSED_LIMIT, changed.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// The drain's deadline has come before the response's head.
    fn ended(self, target: &Target) -> Result<Exchanged, Cut> {
        if target.phase() == Phase::Cut {
            self.flight.finish(End::Aborted);
            return Err(Cut);
        }
        self.flight.finish(End::TimedOut);
        Ok(Err(reply::drained(&self.client.key, target.slot())))
    }

    /// The request may have reached a replica, and cannot be sent again.
    fn give_up(self) -> Response<OutBody> {
        let key = &self.client.key;
        if self.fate.as_ref().is_some_and(|fate| fate.too_long()) {
            self.flight.answered(413);
            return reply::too_long(key);
        }
        if self.fate.as_ref().is_some_and(|fate| fate.client_gone()) {
            self.flight.finish(End::ClientGone);
            return reply::plain(StatusCode::BAD_REQUEST);
        }
        self.flight.target.counters.lost.fetch_add(1, Ordering::Relaxed);
        self.flight.answered(502);
        reply::broken(key)
    }
}

/// Whether a request without a body may reach a service twice (RFC 9110 §9.2.1).
fn repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn rebuild((method, uri, headers): (Method, Uri, HeaderMap)) -> Request<UpBody> {
    let mut request = Request::new(UpBody::Empty);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
}

/// Sends a request to the next replica that takes a connection.
async fn send(
    target: &Target,
    mut request: Request<UpBody>,
    reuse: bool,
) -> Result<(Response<Incoming>, Pooled, usize), Failed> {
    let first = target.first_replica();
    let look = !(repeatable(request.method()) && request.body().is_end_stream());
    for offset in 0..target.replicas.len() {
        let index = (first + offset) % target.replicas.len();
        let replica = &target.replicas[index];
        // Each turn takes one from the idle connections, which are bounded.
        while let Some(mut pooled) = if reuse { replica.idle.take() } else { None } {
            if !std::future::poll_fn(|cx| std::task::Poll::Ready(pooled.is_ready(cx, look))).await {
                continue;
            }
            match pooled.send(request).await {
                Ok(response) => return Ok((response, pooled, index)),
                Err(Unanswered { unsent: Some(unsent), .. }) => request = unsent,
                Err(Unanswered { error, .. }) => return Err(broken(target, &error)),
            }
        }
        let mut pooled = match Pooled::connect(replica.address).await {
            Ok(pooled) => pooled,
            Err(error) => {
                tracing::debug!(key = %target.key, address = %replica.address, %error, "a replica refused a connection");
                target.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        return match pooled.send(request).await {
            Ok(response) => Ok((response, pooled, index)),
            Err(Unanswered { unsent: Some(unsent), .. }) => Err(Failed::Unsent(unsent)),
            Err(Unanswered { error, .. }) => Err(broken(target, &error)),
        };
    }
    Err(Failed::Refused(request))
}

fn broken(target: &Target, error: &hyper::Error) -> Failed {
    tracing::debug!(key = %target.key, slot = %target.slot(), %error, "a replica gave no answer");
    Failed::Broken
}

/// Passes a service's response on.
async fn pass(response: Response<Incoming>, came: Came) -> Response<OutBody> {
    let Came { mut flight, pooled, replica } = came;
    let (mut parts, incoming) = response.into_parts();
    flight.head(parts.status.as_u16());
    head::strip_hop_by_hop(&mut parts.headers);
    sign(&mut parts.headers, &flight.target);
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, OutBody::pass(incoming, replica, flight, pooled).await)
}

/// Passes a 101 on, and everything after it.
fn switch(
    state: &Arc<State>,
    client: &Arc<Client>,
    mut response: Response<Incoming>,
    came: Came,
    upgrade: OnUpgrade,
    protocol: &HeaderValue,
) -> Response<OutBody> {
    let Came { mut flight, pooled, .. } = came;
    let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    flight.head(101);
    flight.upgraded();
    let service = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    sign(&mut parts.headers, &flight.target);
    let ends = upgrade::Ends { client: upgrade, service, pooled };
    tokio::spawn(upgrade::tunnel(Arc::clone(state), Arc::clone(client), flight, ends, websocket));
    Response::from_parts(parts, OutBody::Own(None))
}

fn sign(headers: &mut HeaderMap, target: &Target) {
    headers.insert(SLOT, HeaderValue::from_static(target.slot().as_str()));
    headers.insert(RELEASE, target.release.clone());
}
