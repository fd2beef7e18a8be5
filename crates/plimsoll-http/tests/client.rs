//! The client against servers that misbehave on purpose.

use plimsoll_core::{Classify, ErrorClass, RetryPolicy};
use plimsoll_http::{Client, ClientOptions, HttpError, Method, Repeat, StatusCode, Url, file_body, read_limited};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    time::Duration,
};

const QUICK: RetryPolicy = RetryPolicy {
    attempts: 4,
    base: Duration::from_millis(1),
    factor: 1.0,
    cap: Duration::from_millis(20),
    budget: Duration::from_secs(10),
};

/// A server that gives each answer once, one connection each, and reports the head and body of each request.
fn scripted(answers: Vec<String>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line.to_ascii_lowercase());
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            head.push_str(&String::from_utf8_lossy(&body));
            let _ = tx.send(head);
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    (address, rx)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn client() -> Client {
    Client::new(&ClientOptions { no_proxy: true, ..ClientOptions::default() }).unwrap()
}

fn url(address: SocketAddr, path: &str) -> Url {
    format!("http://{address}{path}").parse().unwrap()
}

async fn get(client: &Client, url: &Url) -> Result<plimsoll_http::Response, HttpError> {
    client
        .send_with_retry(&QUICK, Repeat::IfIdempotent, || Client::build(client.request(Method::GET, url.clone())))
        .await
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again() {
    let (address, seen) = scripted(vec![
        answer("503 Busy", "", ""),
        answer("429 Slow down", "retry-after: 0\r\n", ""),
        "garbage\r\n\r\n".to_owned(),
        answer("200 OK", "", "hello"),
    ]);
    let response = get(&client(), &url(address, "/x")).await.unwrap();
    assert_eq!(read_limited(response, 5).await.unwrap(), "hello");
    assert_eq!(seen.iter().count(), 4);
}

#[tokio::test]
async fn the_last_answer_is_returned_when_attempts_run_out() {
    let (address, seen) = scripted(vec![answer("502 Bad", "", "why"); 4]);
    let response = get(&client(), &url(address, "/x")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(seen.iter().count(), 4);
}

#[tokio::test]
async fn a_refusal_is_not_asked_again() {
    let (address, seen) = scripted(vec![answer("404 No", "", "")]);
    assert_eq!(get(&client(), &url(address, "/x")).await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(seen.iter().count(), 1);
}

#[tokio::test]
async fn a_post_is_sent_once_unless_told() {
    let (address, seen) = scripted(vec![answer("503 Busy", "", ""), answer("200 OK", "", "")]);
    let client = client();
    let build = || Client::build(client.request(Method::POST, url(address, "/x")).body("b"));
    let response = client.send_with_retry(&QUICK, Repeat::IfIdempotent, build).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let response = client.send_with_retry(&QUICK, Repeat::Always, build).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(seen.iter().count(), 2);
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let (foreign, abroad) = scripted(vec![answer("200 OK", "", "there")]);
    let location = format!("location: http://{foreign}/blob?sig=1\r\n");
    let (address, home) = scripted(vec![answer("307 Elsewhere", &location, "")]);
    let client = client();
    let request = client
        .request(Method::GET, url(address, "/blob"))
        .header("authorization", "Bearer s3cret")
        .header("cookie", "session=s3cret");
    let response = client.send(Client::build(request).unwrap()).await.unwrap();
    assert_eq!(read_limited(response, 100).await.unwrap(), "there");
    assert!(home.recv().unwrap().contains("authorization: bearer s3cret"));
    let there = abroad.recv().unwrap();
    assert!(!there.contains("s3cret"), "{there}");
}

#[tokio::test]
async fn a_redirect_out_of_loopback_into_plain_text_is_refused() {
    let (address, _seen) = scripted(vec![answer("302 Elsewhere", "location: http://192.0.2.1/\r\n", "")]);
    let client = client();
    let request = Client::build(client.request(Method::GET, url(address, "/"))).unwrap();
    assert!(matches!(client.send(request).await, Err(HttpError::Broken { .. })));
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let client = client();
    let url: Url = "http://user:pass@192.0.2.1/x?token=s3cret".parse().unwrap();
    let error = get(&client, &url).await.unwrap_err();
    assert!(matches!(&error, HttpError::PlainHttp { url } if url == "http://192.0.2.1/x"), "{error:?}");
    assert_eq!(error.class(), ErrorClass::User);
}

#[tokio::test]
async fn errors_show_neither_query_nor_credentials() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = get(&client(), &url(address, "/v2/?token=s3cret")).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::External);
    let mut chain = format!("{error:?}");
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        chain.push_str(&error.to_string());
        next = error.source();
    }
    assert!(!chain.contains("s3cret"), "{chain}");
}

#[tokio::test]
async fn a_body_longer_than_its_bound_is_refused_declared_or_not() {
    let declared = answer("200 OK", "", "123456");
    let undeclared = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n123456".to_owned();
    let (address, _seen) = scripted(vec![declared, undeclared]);
    for _ in 0..2 {
        let response = get(&client(), &url(address, "/")).await.unwrap();
        assert!(matches!(read_limited(response, 5).await, Err(HttpError::TooLarge { limit: 5, .. })));
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ClientOptions { no_proxy: true, timeout: Duration::from_millis(50), ..ClientOptions::default() };
    let client = Client::new(&options).unwrap();
    let request = client.request(Method::GET, url(listener.local_addr().unwrap(), "/"));
    let error = client.send(Client::build(request).unwrap()).await.unwrap_err();
    assert!(matches!(error, HttpError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_part_of_a_file_is_sent_with_its_length() {
    let (address, seen) = scripted(vec![answer("201 Created", "", "")]);
    let file = std::env::temp_dir().join(format!("plimsoll-http-body-{}", std::process::id()));
    std::fs::write(&file, "0123456789").unwrap();
    let (tx, counted) = mpsc::channel();
    let body = file_body(&file, 2, 5, move |n| tx.send(n).unwrap()).unwrap();
    let client = client();
    let request = client.request(Method::PUT, url(address, "/")).header("content-length", 5).body(body);
    client.send(Client::build(request).unwrap()).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let seen = seen.recv().unwrap();
    assert!(seen.ends_with("23456") && !seen.contains("transfer-encoding"), "{seen}");
    assert_eq!(counted.iter().sum::<usize>(), 5);
}
