//! Health checks by the executables themselves: what an image without a shell asks a service with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::{GATEWAY, INGESTOR, RISK, STRATEGY, command, start};

/// In a container the variables of the service are set, too; nothing of them is needed.
fn health(binary: &str, urls: &[&str]) -> Output {
    command(binary, &[]).env_remove("PORT").arg("health").args(urls).output().expect("ran")
}

/// That it is unhealthy, and why.
fn reasons(output: &Output) -> String {
    let reasons = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{reasons}");
    reasons
}

/// The URL of a server that sends `answer` to the request of one client, and then nothing more while that stays.
fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/health", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let mut client = BufReader::new(listener.accept().expect("a client").0);
        let head = client.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        assert!(head.count() > 0, "a request");
        client.get_mut().write_all(answer.as_bytes()).expect("sent");
        // Until the client has gone.
        let _ = client.read_to_end(&mut Vec::new());
    });
    url
}

#[test]
fn every_executable_is_a_health_check_for_every_service() {
    let binaries = [GATEWAY, RISK, INGESTOR, STRATEGY];
    let services = binaries.map(|binary| start(binary, &[]));
    let urls: Vec<String> = services.iter().map(|service| format!("{}/ready", service.url())).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for binary in binaries {
        let output = health(binary, &urls);
        assert_eq!(output.status.code(), Some(0), "{binary}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{binary}");
    }
}

#[test]
fn each_url_that_is_not_well_is_told_with_its_reason() {
    let service = start(INGESTOR, &[]);
    let (well, missing) = (format!("{}/health", service.url()), format!("{}/nothing", service.url()));
    let gone = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let gone = format!("http://{gone}/health");
    // 204 is a success to a browser, and no answer of ours.
    let empty = server("HTTP/1.1 204 No Content\r\n\r\n");
    let told = reasons(&health(RISK, &[&missing, &well, &gone, &empty]));
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], format!("{missing}: the answer is 404 Not Found"));
    assert!(told[1].contains(&gone) && told[1].contains("refused"), "{told:?}");
    assert_eq!(told[2], format!("{empty}: the answer is 204 No Content"));
}

#[test]
fn an_answer_that_is_not_whole_within_a_second_is_none() {
    let begun = Instant::now();
    let silent = [server(""), server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")];
    let told = reasons(&health(GATEWAY, &[&silent[0], &silent[1]]));
    assert_eq!(told.matches("no answer within 1000 ms").count(), 2, "{told}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_line_that_cannot_be_read_exits_2_and_names_what_it_cannot_read() {
    for (arguments, told) in [
        (&["health"][..], "<URL>"),
        (&["health", "https://127.0.0.1/health"], "https://127.0.0.1/health"),
        (&["health", "127.0.0.1:8080"], "no URL such as http://"),
        (&["haelth", "http://127.0.0.1/"], "haelth"),
    ] {
        for binary in [GATEWAY, RISK] {
            let output = command(binary, &[]).args(arguments).output().expect("ran");
            let message = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{message}");
            assert!(message.contains(told), "{message}");
        }
    }
    let backup = command(GATEWAY, &[]).args(["backup", "somewhere"]).output().expect("ran");
    assert_eq!(backup.status.code(), Some(2), "the gateway has no state");
}
