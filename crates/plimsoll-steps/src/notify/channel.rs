//! Getting a notice to where it is read. What goes wrong is a note that names the channel and the cause, never an
//! address: that is a secret.

use super::{
    message::{Notice, one_line},
    slack,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use plimsoll_core::{
    RetryPolicy, Secret, Timestamp,
    config::{self, SecretSource},
};
use plimsoll_engine::{Cx, StepError};
use plimsoll_http::{
    Client, HttpError, Method, Request, Response, StatusCode, Url, Verdict, header, read_limited, retry,
};
use sha2::Sha256;
use std::{
    error::Error,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    time::Duration,
};

/// Three attempts: enough for a restart at the other end, and no person waits longer for a notice.
const RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    base: Duration::from_millis(500),
    factor: 3.0,
    cap: Duration::from_secs(5),
    budget: WITHIN,
};
/// The time one channel gets, all attempts and waits together.
const WITHIN: Duration = Duration::from_secs(15);
/// The time of one attempt: slower than any working endpoint, and three of them fit.
const ATTEMPT: Duration = Duration::from_secs(5);
/// A secret is a line; more is the wrong file.
const LARGEST_SECRET: u64 = 64 * 1024;
/// As much of an answer as can be a word of explanation.
const LARGEST_ANSWER: u64 = 4096;

/// When a signed notice was made, in seconds since 1970.
const TIMESTAMP: &str = "x-plimsoll-timestamp";
/// `sha256=` and the HMAC-SHA256, in hex, of the timestamp, a dot and the body.
const SIGNATURE: &str = "x-plimsoll-signature";
/// The same in every attempt to deliver a notice, so that a receiver can tell a repeated one.
const DELIVERY: &str = "x-plimsoll-delivery";

/// Why a notice did not get to its channel. No message holds an address or a key.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error("{source_name} is not set")]
    Missing { source_name: String },
    #[error("{source_name} cannot be read")]
    Unreadable {
        source_name: String,
        #[source]
        cause: io::Error,
    },
    #[error("{source_name} does not hold the address of a web server")]
    NoAddress { source_name: String },
    #[error("the address is plain HTTP to another machine; use https")]
    PlainHttp,
    #[error("no answer: {cause}")]
    NoAnswer { cause: String },
    #[error("it answered {status}{why}")]
    Refused { status: StatusCode, why: String },
    #[error("it took longer than {} s", WITHIN.as_secs())]
    TooSlow,
    #[error("the run was told to stop")]
    Cancelled,
    #[error("{0}")]
    Host(StepError),
}

/// What is posted, and whether a receiver can tell that it got it before.
struct Post {
    url: Url,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    marked: bool,
}

/// Tells every channel that wants to hear of `notice`.
pub(super) async fn tell(cx: &Cx, channels: &config::Notify, notice: &Notice) {
    if channels.console.enabled {
        cx.note(notice.plain());
    }
    let slack = async {
        if let Some(channel) = channels.slack.as_ref().filter(|c| notice.concerns(&c.events)) {
            report(cx, "slack", to_slack(cx, channel, notice).await);
        }
    };
    let webhook = async {
        if let Some(channel) = channels.webhook.as_ref().filter(|c| notice.concerns(&c.events)) {
            report(cx, "webhook", to_webhook(cx, channel, notice).await);
        }
    };
    tokio::join!(slack, webhook);
}

/// Tells every channel, whatever it asked for, and returns what went wrong with each.
pub(super) async fn tell_all(cx: &Cx, channels: &config::Notify, notice: &Notice) -> Vec<String> {
    if channels.console.enabled {
        cx.note(notice.plain());
    }
    let mut wrong = Vec::new();
    if let Some(channel) = &channels.slack {
        wrong.extend(failure(cx, "slack", to_slack(cx, channel, notice).await));
    }
    if let Some(channel) = &channels.webhook {
        wrong.extend(failure(cx, "webhook", to_webhook(cx, channel, notice).await));
    }
    wrong
}

fn failure(cx: &Cx, channel: &str, sent: Result<(), ChannelError>) -> Option<String> {
    match sent {
        Ok(()) => {
            cx.log(&format!("{channel} was told"));
            None
        }
        Err(error) => Some(format!("{channel} was not told: {error}{}", causes(&error))),
    }
}

fn report(cx: &Cx, channel: &str, sent: Result<(), ChannelError>) {
    if let Some(wrong) = failure(cx, channel, sent) {
        cx.note(wrong);
    }
}

async fn to_slack(cx: &Cx, channel: &config::SlackChannel, notice: &Notice) -> Result<(), ChannelError> {
    let url = address(cx, &channel.webhook).await?;
    let body = serde_json::to_vec(&slack::render(notice)).expect("blocks are plain data");
    deliver(cx, Post { url, headers: Vec::new(), body, marked: false }).await
}

async fn to_webhook(cx: &Cx, channel: &config::WebhookChannel, notice: &Notice) -> Result<(), ChannelError> {
    let url = address(cx, &channel.url).await?;
    let key = match &channel.secret {
        Some(source) => Some(secret(cx, source).await?),
        None => None,
    };
    let body = serde_json::to_vec(notice).expect("a notice is plain data");
    let event = serde_json::to_value(notice.event).expect("an event is a word");
    let delivery = format!("{}/{}", cx.key(), event.as_str().unwrap_or_default());
    let mut headers = signed(key.as_ref(), cx.now(), &body);
    headers.push((DELIVERY, delivery));
    deliver(cx, Post { url, headers, body, marked: true }).await
}

/// The headers that say when a body was made, and by whom. Pure.
fn signed(key: Option<&Secret>, now: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
    let time = now.as_secs().to_string();
    let signature = key.map(|key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).expect("a key of HMAC has any length");
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(body);
        let mut text = "sha256=".to_owned();
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        (SIGNATURE, text)
    });
    signature.into_iter().chain([(TIMESTAMP, time)]).collect()
}

async fn address(cx: &Cx, source: &SecretSource) -> Result<Url, ChannelError> {
    let text = secret(cx, source).await?;
    let url =
        text.expose().trim().parse::<Url>().ok().filter(|u| u.has_host() && matches!(u.scheme(), "http" | "https"));
    url.ok_or_else(|| ChannelError::NoAddress { source_name: source.to_string() })
}

/// The value of a secret, looked up when it is needed.
async fn secret(cx: &Cx, source: &SecretSource) -> Result<Secret, ChannelError> {
    let unreadable = |cause| ChannelError::Unreadable { source_name: source.to_string(), cause };
    let value = match source {
        SecretSource::Env(name) => match cx.environment().get(name) {
            Some(value) => value
                .to_str()
                .ok_or_else(|| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?
                .to_owned(),
            None => String::new(),
        },
        SecretSource::File(path) => {
            let path = cx.root().join(path);
            let text =
                cx.blocking(move || read_secret(&path)).await.map_err(ChannelError::Host)?.map_err(unreadable)?;
            let line = text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t));
            line.to_owned()
        }
    };
    if value.is_empty() {
        return Err(ChannelError::Missing { source_name: source.to_string() });
    }
    Ok(Secret::new(value))
}

fn read_secret(path: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(LARGEST_SECRET + 1).read_to_string(&mut text)?;
    if read as u64 > LARGEST_SECRET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than a secret can be"));
    }
    Ok(text)
}

async fn deliver(cx: &Cx, post: Post) -> Result<(), ChannelError> {
    let client = cx.resource::<Client>().map_err(ChannelError::Host)?;
    let sending =
        retry(&RETRY, |sent| judge(sent, post.marked), || async { client.send(request(&client, &post)?).await });
    let sent = tokio::select! {
        biased;
        sent = tokio::time::timeout(WITHIN, sending) => sent.map_err(|_| ChannelError::TooSlow)?,
        () = cx.cancel().cancelled() => return Err(ChannelError::Cancelled),
    };
    let response = sent.map_err(|e| no_answer(&e))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(ChannelError::Refused { status, why: explanation(response).await })
}

fn request(client: &Client, post: &Post) -> Result<Request, HttpError> {
    let mut request = client
        .request(Method::POST, post.url.clone())
        .timeout(ATTEMPT)
        .header(header::CONTENT_TYPE, "application/json")
        .body(post.body.clone());
    for (name, value) in &post.headers {
        request = request.header(*name, value);
    }
    Client::build(request)
}

/// Whether to try again. An answer that says "not now" is safe to repeat, and so is a connection that was never made. When the
/// answer is missing, the notice may have got there: only a receiver who can tell a repeated one gets it again.
fn judge(sent: &Result<Response, HttpError>, marked: bool) -> Verdict {
    let again = match sent {
        Ok(response) => response.status() == StatusCode::TOO_MANY_REQUESTS || response.status().is_server_error(),
        Err(HttpError::Connect { .. }) => true,
        Err(error) => marked && error.is_transient(),
    };
    if again { Verdict::Transient(None) } else { Verdict::Final }
}

/// The client's error without the address it names.
fn no_answer(error: &HttpError) -> ChannelError {
    if matches!(error, HttpError::PlainHttp { .. }) {
        return ChannelError::PlainHttp;
    }
    let what = match error {
        HttpError::Connect { .. } => "it cannot be connected to",
        HttpError::Timeout { .. } => "it took too long",
        HttpError::Malformed { .. } => "no request can be made of it",
        _ => "the exchange broke off",
    };
    ChannelError::NoAnswer { cause: format!("{what}{}", causes(error)) }
}

/// The causes of an error, each after a colon. Those of the client name no address.
fn causes(error: &dyn Error) -> String {
    let (mut text, mut next) = (String::new(), error.source());
    // An error chain is a list; the bound only guards against one that points at itself.
    for _ in 0..8 {
        let Some(cause) = next else { break };
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    one_line(&text, 300)
}

/// The word by which an endpoint such as Slack's explains itself (`invalid_blocks`). Anything longer stays unsaid: it may hold what
/// was sent.
async fn explanation(response: Response) -> String {
    let body = read_limited(response, LARGEST_ANSWER).await.unwrap_or_default();
    let word = std::str::from_utf8(&body).unwrap_or_default().trim();
    let is_word = (1..=40).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if is_word { format!(": {word}") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_time_and_body() {
        let headers = |key: Option<&str>, millis, body: &str| {
            signed(key.map(Secret::new).as_ref(), Timestamp::from_millis(millis), body.as_bytes())
        };
        // `printf '1700000000.{"format":1}' | openssl dgst -sha256 -hmac key`
        let expected = "sha256=8b3fb7a042414005f2f805d50b45d176958e4ec57214b9648f5f99362d4da942";
        let known = headers(Some("key"), 1_700_000_000_123, r#"{"format":1}"#);
        assert_eq!(known, [(SIGNATURE, expected.to_owned()), (TIMESTAMP, "1700000000".to_owned())]);
        for other in
            [headers(Some("kez"), 1_700_000_000_123, r#"{"format":1}"#), headers(Some("key"), 0, r#"{"format":1}"#)]
        {
            assert_ne!(other[0], known[0]);
        }
        assert_eq!(headers(None, 0, "").len(), 1, "without a key there is the time alone");
    }
}
