//! A small worker: while it is active it appends a line to its log every 20 ms, and never while it is passive.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const GREETING: &str = "one";

#[derive(Default)]
struct Work {
    active: bool,
    generation: u64,
    done: u64,
}

fn main() {
    if let Some(verb) = env::args().nth(1) {
        return copy_state(&verb);
    }
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    println!("worker says {GREETING} on {port}");
    let work = Arc::new(Mutex::new(Work::default()));
    let hands = Arc::clone(&work);
    thread::spawn(move || labour(&hands));
    for stream in listener.incoming().flatten() {
        let work = Arc::clone(&work);
        thread::spawn(move || serve(&stream, &work));
    }
}

/// Copies the log, or puts a copy back.
fn copy_state(verb: &str) {
    let log = PathBuf::from(env::var("STATE_DIR").unwrap()).join("work.log");
    match verb {
        "save" => drop(io::copy(&mut File::open(log).unwrap(), &mut io::stdout()).unwrap()),
        _ => fs::write(log, io::read_to_string(io::stdin()).unwrap()).unwrap(),
    }
}

/// A line is written under the lock, so that nothing is written after a deactivation was answered.
fn labour(work: &Mutex<Work>) {
    let directory = PathBuf::from(env::var("STATE_DIR").unwrap());
    let slot = env::var("SERVICE_SLOT").unwrap();
    let mut log = File::options().create(true).append(true).open(directory.join("work.log")).unwrap();
    loop {
        thread::sleep(Duration::from_millis(20));
        let mut work = work.lock().unwrap();
        if work.active {
            work.done += 1;
            let line = format!("{slot} {} {} {}\n", work.generation, process::id(), work.done);
            log.write_all(line.as_bytes()).unwrap();
        }
    }
}

fn serve(stream: &TcpStream, work: &Mutex<Work>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (mut close, mut length) = (false, 0);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            close |= header == "connection: close";
            length = header.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap_or(0));
        }
        let mut body = String::new();
        Read::take(&mut reader, length).read_to_string(&mut body)?;
        let (status, body) = answer(line.split(' ').nth(1).unwrap_or("/"), &body, work);
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

fn answer(target: &str, body: &str, work: &Mutex<Work>) -> (&'static str, String) {
    let order = |active: bool| {
        let digits: String = body.chars().filter(char::is_ascii_digit).collect();
        let generation = digits.parse().unwrap_or(0);
        let mut work = work.lock().unwrap();
        if generation < work.generation {
            return ("409 Conflict", "{}".to_owned());
        }
        (work.active, work.generation) = (active, generation);
        ("200 OK", "{}".to_owned())
    };
    match target {
        "/ready" | "/health" => ("200 OK", "{}".to_owned()),
        "/version" => {
            let text = fs::read_to_string(env::var("PLIMSOLL_IDENTITY").unwrap()).unwrap_or_default();
            let rest = text.trim().strip_prefix('{').unwrap_or("}").to_owned();
            ("200 OK", format!("{{\"service\":\"worker\",\"greeting\":\"{GREETING}\",{rest}"))
        }
        "/_plimsoll/activate" => order(true),
        "/_plimsoll/deactivate" => order(false),
        "/_plimsoll/activation" => {
            let work = work.lock().unwrap();
            ("200 OK", format!("{{\"active\":{},\"generation\":{}}}", work.active, work.generation))
        }
        _ => ("404 Not Found", "{}".to_owned()),
    }
}
