//! Ports of this machine: free ones for replicas, the public ones that clients use, and who has one.
//!
//! Loopback, and the addresses under which containers reach this machine: nothing here binds an address that other machines
//! reach.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Connects that wait while no proxy accepts: a restart takes tens of milliseconds, at 10,000 connects a second.
pub(crate) const BACKLOG: i32 = 4096;

/// A port nobody listens on now. Another program may take it before the replica does; the replica then ends, and its
/// next start gets another one.
pub(crate) fn free() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Listens on a public port; 0 lets the system choose.
pub(crate) fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Connections of the proxy before this one may linger in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddr::from((address, port)))?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Whether a process of the tree under `root` listens on `port`: what answers there is then really that replica.
pub(crate) fn listens(port: u16, root: u32) -> bool {
    let inodes = inodes(port);
    // Nearly always the process itself; looking through all others is a matter of milliseconds.
    !inodes.is_empty() && (holds(root, &inodes) || owners(&inodes).into_iter().any(|pid| is_within(pid, root)))
}

/// The same, away from the runtime's threads.
pub(crate) async fn belongs(port: u16, root: u32) -> bool {
    tokio::task::spawn_blocking(move || listens(port, root)).await.unwrap_or(false)
}

/// Who listens on `port`, in words, as far as this user may see it.
pub(crate) fn describe_owner(port: u16) -> String {
    match owners(&inodes(port)).first() {
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} (`{}`)", name.trim_end())
        }
        None => "a process of another user".to_owned(),
    }
}

/// The sockets that listen on `port`.
fn inodes(port: u16) -> BTreeSet<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.iter().filter_map(|table| File::open(table).ok());
    tables.flat_map(|table| listening_inodes(BufReader::new(table), port)).collect()
}

/// The processes that hold one of these sockets.
fn owners(inodes: &BTreeSet<u64>) -> Vec<u32> {
    if inodes.is_empty() { Vec::new() } else { processes().filter(|pid| holds(*pid, inodes)).collect() }
}

/// The inodes of the sockets that listen on `port`, from the rows of a `/proc/net/tcp` table.
///
/// The kernel lists the listening sockets first. What follows is not read: with the connections of a busy proxy, most of
/// them in `TIME_WAIT`, the whole table takes up to a second.
fn listening_inodes(table: impl BufRead, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().map_while(Result::ok).skip(1);
    let listening = rows.map_while(|row| {
        let columns: Vec<&str> = row.split_whitespace().collect();
        // 0A is TCP_LISTEN.
        (*columns.get(3)? == "0A").then(|| (columns[1].ends_with(&suffix), columns.get(9).and_then(|i| i.parse().ok())))
    });
    listening.filter_map(|(ours, inode)| inode.filter(|_| ours)).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok())
}

fn holds(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let inode = |link: std::path::PathBuf| -> Option<u64> {
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| inode(std::fs::read_link(entry.path()).ok()?))
        .any(|found| inodes.contains(&found))
}

/// Whether `pid` is `root` or descends from it.
fn is_within(pid: u32, root: u32) -> bool {
    // Deeper trees than this are no service's.
    const DEPTH: usize = 64;
    let mut seen = BTreeSet::new();
    let mut at = pid;
    for _ in 0..DEPTH {
        if at == root {
            return true;
        }
        if at <= 1 || !seen.insert(at) {
            return false;
        }
        let Some(parent) = parent_of(at) else { return false };
        at = parent;
    }
    false
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, parentheses too; what follows the last one is state and parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::Read as _;

    #[test]
    fn only_listening_sockets_of_the_port_are_taken_from_the_table_and_the_rest_is_not_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 111 1\n\
            1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 333 1\n\
            2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000 0 222 1\n";
        assert_eq!(listening_inodes(table.as_bytes(), 8080), [111]);
        assert_eq!(listening_inodes(&b""[..], 8080), [0; 0]);
        let unread = io::BufReader::with_capacity(1, table.as_bytes().chain(io::repeat(b'x')));
        assert_eq!(listening_inodes(unread, 8081), [333]);
    }

    #[test]
    fn a_port_in_use_is_refused_and_its_owner_is_known() {
        let here = Ipv4Addr::LOCALHOST;
        let first = listen(here, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert_eq!(listen(here, port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(listens(port, std::process::id()));
        assert!(describe_owner(port).contains(&std::process::id().to_string()));

        assert!(!listens(free().unwrap(), std::process::id()));
    }
}
