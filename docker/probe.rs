//! `probe URL…`: ends with 0 if a plain HTTP GET of each is answered with 200, else with 1 and the reasons.
//!
//! The images have no shell and no curl; this is what their health check and the chart's test run. It follows no
//! redirect, speaks no TLS and reads no body, so it needs nothing but the standard library: `rustc probe.rs`.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// For the connection, and again for each read: shorter than any health check waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer first lines are no answer of ours.
const LONGEST: u64 = 1024;

fn main() -> ExitCode {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        eprintln!("usage: probe http://HOST[:PORT]/PATH…");
        return ExitCode::from(2);
    }
    let failures = urls.iter().filter_map(|url| Some((url, reason(url)?)));
    let failed = failures.inspect(|(url, reason)| eprintln!("{url}: {reason}")).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Why a URL is not well; none if it is.
fn reason(url: &str) -> Option<String> {
    match ask(url) {
        Ok(line) if line.split(' ').nth(1) == Some("200") => None,
        Ok(line) => Some(format!("the answer begins with {:?}", line.trim_end())),
        Err(error) => Some(error.to_string()),
    }
}

/// The first line of the answer.
fn ask(url: &str) -> Result<String, Box<dyn Error>> {
    let (host, path) = parse(url).ok_or("no URL such as http://127.0.0.1:8080/health")?;
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs()?.next().ok_or("its host has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    Ok(line)
}

/// Host and path.
fn parse(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!host.is_empty()).then_some((host, if path.is_empty() { "/" } else { path }))
}
