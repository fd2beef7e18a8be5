//! A small web service: answers over HTTP/1.1 until it is ended. Its faults are switched on by environment variables.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process,
    sync::Once,
    thread,
    time::Duration,
};

const GREETING: &str = "one";

static FIRST: Once = Once::new();

fn main() {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("web says {GREETING} on {port}");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || serve(&stream));
    }
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (mut close, mut routed, mut length) = (false, false, 0);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            close |= header == "connection: close";
            // Only the proxy writes this one: the request is a user's.
            routed |= header.starts_with("x-forwarded-for:");
            length = header.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap_or(0));
        }
        io::copy(&mut io::Read::take(&mut reader, length), &mut io::sink())?;
        if let Some(after) = number("CRASH_AFTER_MS").filter(|_| routed) {
            FIRST.call_once(|| drop(thread::spawn(move || crash(after))));
        }
        let target = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let (status, body) = answer(&target);
        let end = if close { "close" } else { "keep-alive" };
        write!(
            &mut &*stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {end}\r\n\r\n{body}",
            body.len()
        )?;
        if close {
            return Ok(());
        }
    }
}

fn answer(target: &str) -> (&'static str, String) {
    match target.split('?').next().unwrap_or_default() {
        "/ready" if env::var_os("NEVER_READY").is_some() => {
            println!("the warehouse does not answer");
            ("503 Service Unavailable", "{}".to_owned())
        }
        "/version" => {
            let text = fs::read_to_string(env::var("PLIMSOLL_IDENTITY").unwrap()).unwrap_or_default();
            let rest = text.trim().strip_prefix('{').unwrap_or("}").to_owned();
            ("200 OK", format!("{{\"service\":\"web\",\"greeting\":\"{GREETING}\",{rest}"))
        }
        "/slow" => {
            let millis = target.split("ms=").nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
            thread::sleep(Duration::from_millis(millis));
            ("200 OK", format!("{{\"greeting\":\"{GREETING}\"}}"))
        }
        "/ready" | "/health" => ("200 OK", "{}".to_owned()),
        _ => ("404 Not Found", "{}".to_owned()),
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn crash(after: u64) {
    thread::sleep(Duration::from_millis(after));
    println!("the shelf fell down");
    process::exit(17);
}
