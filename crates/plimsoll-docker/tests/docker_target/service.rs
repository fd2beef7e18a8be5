//! The service that the tests put into an image: the standard library alone, so that `rustc` makes a static executable
//! of it in seconds. `MODE` says how it misbehaves.

#![expect(clippy::disallowed_methods, reason = "plays a service, which reads its environment and exits")]

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process,
    sync::Mutex,
    thread,
    time::Duration,
};

/// Whether this worker has its environment.
static ACTIVE: Mutex<bool> = Mutex::new(false);

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Serves until it is ended, or does what it is asked to with its state.
fn main() {
    if let Some(verb) = env::args().nth(1) {
        process::exit(copy_state(&verb).map_or(9, |()| 0));
    }
    println!("begins as {}", variable("MODE"));
    match variable("MODE").as_str() {
        "exit-101" => process::exit(101),
        "exit-0" => return,
        _ => {}
    }
    let address = format!("{}:{}", variable("HOST"), variable("PORT"));
    let listener = TcpListener::bind(&address).expect("the address is free");
    for stream in listener.incoming().flatten() {
        thread::spawn(move || converse(&stream));
    }
}

/// Copies the state, or puts a copy back.
fn copy_state(verb: &str) -> Option<()> {
    if verb == "save" {
        return io::copy(&mut fs::File::open(state("kept")).ok()?, &mut io::stdout()).ok().map(drop);
    }
    let copy = io::read_to_string(io::stdin()).ok()?;
    if copy.starts_with("damaged") {
        eprintln!("this copy is damaged");
        return None;
    }
    fs::write(state("kept"), copy).ok()
}

/// Answers the requests of one connection until its client closes it.
fn converse(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    // Ends when the client does.
    while let Some((path, close)) = request(&mut reader) {
        let (status, body) = answer(&path);
        let connection = if close { "close" } else { "keep-alive" };
        let text =
            format!("HTTP/1.1 {status} Is\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}", body.len());
        let mut writer = stream;
        if writer.write_all(text.as_bytes()).is_err() || close {
            return;
        }
    }
}

/// The path of the next request, and whether it is the last one.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<(String, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut close, mut length) = (false, 0);
    // Heads are short: their senders are the tests and the proxy.
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        close |= header == "connection: close";
        if let Some(value) = header.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    Some((path, close))
}

fn answer(path: &str) -> (u16, String) {
    let slot = variable("SERVICE_SLOT");
    match path {
        "/ready" if variable("MODE") == "never-ready" => (503, String::new()),
        "/ready" => (200, String::new()),
        "/" => (200, format!("{slot} {} {}", variable("HOSTNAME"), variable("TOKEN"))),
        "/version" => (200, fs::read_to_string(variable("PLIMSOLL_IDENTITY")).unwrap_or_default()),
        "/peer" => ask(&variable("API_URL")).map_or_else(|e| (502, e.to_string()), |body| (200, body)),
        "/confined" => (200, confined()),
        "/exit" => process::exit(7),
        "/eat" => (200, eat().to_string()),
        "/_plimsoll/activate" => activate(&slot),
        "/_plimsoll/deactivate" => {
            *ACTIVE.lock().expect("no panic") = false;
            let _ = fs::remove_file(state("held"));
            (200, String::new())
        }
        "/kept" => (200, fs::read_to_string(state("kept")).unwrap_or_default()),
        other if other.starts_with("/put/") => {
            let written = fs::write(state("kept"), other.trim_start_matches("/put/"));
            (if written.is_ok() { 200 } else { 500 }, String::new())
        }
        other => match (other.strip_prefix("/env/"), other.strip_prefix("/slow/")) {
            (Some(name), _) => (200, format!("{name}={};", variable(name))),
            (_, Some(millis)) => {
                thread::sleep(Duration::from_millis(millis.parse().unwrap_or(0)));
                (200, slot)
            }
            _ => (404, String::new()),
        },
    }
}

/// Takes memory until it is ended for it.
fn eat() -> usize {
    let mut eaten = Vec::new();
    // A gigabyte, each page of it written to.
    for _ in 0..1024 {
        eaten.push(vec![1_u8; 1 << 20]);
    }
    eaten.iter().map(Vec::len).sum()
}

fn state(name: &str) -> PathBuf {
    PathBuf::from(variable("STATE_DIR")).join(name)
}

/// Takes the environment. A file that another slot left there means that two are active at a time.
fn activate(slot: &str) -> (u16, String) {
    let mut active = ACTIVE.lock().expect("no panic");
    if let Ok(other) = fs::read_to_string(state("held"))
        && other != slot
    {
        fs::write(state("violation"), &other).expect("the state directory is writable");
        return (409, other);
    }
    fs::write(state("held"), slot).expect("the state directory is writable");
    *active = true;
    (200, String::new())
}

/// What the container may do, in words: its user, its privileges, where it can write.
fn confined() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let writable = |path: &str| fs::write(path, "x").is_ok();
    format!(
        "uid={} caps={} no_new_privs={} root={} tmp={} identity={}",
        field("Uid:"),
        field("CapBnd:"),
        field("NoNewPrivs:"),
        writable("/written"),
        writable("/tmp/written"),
        writable(&variable("PLIMSOLL_IDENTITY")),
    )
}

/// The body that `url` answers with.
fn ask(url: &str) -> std::io::Result<String> {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
}
