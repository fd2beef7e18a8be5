//! Orders outlive their process: killed under load, backed up and restored by the real executable.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, GATEWAY, RISK, Service, command, start, text, wait};
use crate::{gateway, order, position};

/// Kills under load; each meets the process at another point of its work.
const ROUNDS: usize = 15;
/// Clients of each process.
const CLIENTS: usize = 3;
/// Orders acknowledged by all before a kill.
const SOME: usize = 12;

/// Places orders, each id once, until told to end or the service is gone; notes what was acknowledged.
fn place_orders(service: &Client, name: &str, end: &AtomicBool, acknowledged: &Mutex<BTreeSet<String>>) {
    for number in 0.. {
        let id = format!("{name}-{number}");
        match service.post("/orders", &order(&id, 1, Some(10.0))) {
            (200, _) => drop(acknowledged.lock().expect("not poisoned").insert(id)),
            // Killed: whether this one was decided is not known, which is why it was not acknowledged.
            (0, _) => return,
            (status, answer) => panic!("{status}: {answer}"),
        }
        if end.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Every id in the state, page by page.
fn ids(service: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    // Far more pages than the tests fill.
    for _ in 0..1000 {
        let page = service.get(&format!("/orders?since={}", ids.len())).1;
        let more = page["orders"].as_array().expect("orders");
        if more.is_empty() {
            return ids;
        }
        ids.extend(more.iter().map(|order| order["id"].as_str().expect("an id").to_owned()));
    }
    panic!("the orders have no end");
}

#[test]
fn kill_9_under_load_loses_no_acknowledged_order_in_any_round() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let variables = [("STATE_DIR", text(directory.path())), ("MAX_POSITION_SIZE", "1000000")];
    let mut pair = [start(RISK, &variables), start(RISK, &variables)];
    let acknowledged = Mutex::new(BTreeSet::new());
    for round in 0..ROUNDS {
        let [killed, survivor] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let end = AtomicBool::new(false);
        let clients: Vec<Client> = pair.iter().map(|service| Client::clone(service)).collect();
        let before = acknowledged.lock().expect("not poisoned").len();
        std::thread::scope(|scope| {
            for (which, client) in clients.iter().enumerate() {
                for number in 0..CLIENTS {
                    let (end, acknowledged) = (&end, &acknowledged);
                    scope.spawn(move || place_orders(client, &format!("{round}-{which}-{number}"), end, acknowledged));
                }
            }
            let so_far = || acknowledged.lock().expect("not poisoned").len();
            wait("orders to be acknowledged", || so_far() >= before + SOME);
            pair[killed].kill();
            let at_the_kill = so_far();
            // The other one goes on with the same state.
            wait("orders after the kill", || so_far() >= at_the_kill + SOME);
            end.store(true, Ordering::SeqCst);
        });
        let found = ids(&pair[survivor]);
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "an order stands twice");
        let acknowledged = acknowledged.lock().expect("not poisoned");
        let lost: Vec<&String> = acknowledged.iter().filter(|id| !distinct.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        assert!(found.len() <= acknowledged.len() + (round + 1) * CLIENTS, "only those under way may be unknown");
        pair[killed] = start(RISK, &variables);
        assert_eq!(ids(&pair[killed]), found, "a new process finds the same");
    }
    let mut pair = pair;
    pair.iter_mut().for_each(Service::kill);
    let last = start(RISK, &variables);
    let all = i64::try_from(ids(&last).len()).expect("few");
    assert_eq!(position(&last), all, "positions follow from the orders");
}

pub(crate) fn run(state: &Path, arguments: &[&str]) -> Output {
    command(RISK, &[("STATE_DIR", text(state))]).args(arguments).output().expect("ran")
}

pub(crate) fn printed(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

pub(crate) fn refused(output: &Output, code: i32) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{message}");
    message
}

#[test]
fn backups_taken_while_orders_go_on_are_each_a_moment_of_the_state() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = directory.path().join("state");
    let risk = start(RISK, &[("STATE_DIR", text(&state)), ("MAX_POSITION_SIZE", "1000000")]);
    let (end, placed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut last = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::SeqCst) {
                let number = placed.fetch_add(1, Ordering::SeqCst);
                assert_eq!(risk.post("/orders", &order(&number.to_string(), 1, Some(10.0))).0, 200);
            }
        });
        for round in 0..5 {
            wait("more orders", || placed.load(Ordering::SeqCst) > last + 3);
            let acknowledged = placed.load(Ordering::SeqCst) - 1;
            let backup = directory.path().join(format!("backup-{round}"));
            let manifest = printed(&run(&state, &["backup", text(&backup)]));
            let orders = usize::try_from(manifest["orders"].as_u64().expect("a number")).expect("few");
            assert!(orders >= acknowledged && orders > last, "{manifest} after {acknowledged}");
            assert_eq!(printed(&run(&state, &["verify", text(&backup)])), manifest);
            last = orders;
        }
        end.store(true, Ordering::SeqCst);
    });
    assert_eq!(printed(&run(&state, &["verify"]))["orders"], placed.load(Ordering::SeqCst));
}

#[test]
fn a_service_serves_a_restored_backup_at_once_and_a_damaged_one_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| directory.path().join(name);
    let risk = start(RISK, &[("STATE_DIR", text(&path("a")))]);
    for id in ["1", "2", "3"] {
        assert_eq!(risk.post("/orders", &order(id, 5, Some(10.0))).0, 200);
    }
    printed(&run(&path("a"), &["backup", text(&path("backup"))]));
    let other = start(RISK, &[("STATE_DIR", text(&path("b")))]);
    assert_eq!(position(&other), 0);

    let orders = path("backup").join("orders.jsonl");
    let whole = std::fs::read_to_string(&orders).expect("read");
    std::fs::write(&orders, whole.replacen("\"quantity\":5", "\"quantity\":6", 1)).expect("damaged");
    for arguments in [["verify", text(&path("backup"))], ["restore", text(&path("backup"))]] {
        let message = refused(&run(&path("b"), &arguments), 1);
        assert!(message.contains("orders.jsonl is damaged: expected") && message.contains("record 1 of"), "{message}");
    }
    assert_eq!(position(&other), 0);

    std::fs::write(&orders, whole).expect("mended");
    printed(&run(&path("b"), &["restore", text(&path("backup"))]));
    assert_eq!(position(&other), 15, "without a restart");
    assert_eq!(other.post("/orders", &order("3", 5, Some(10.0))).1["duplicate"], true);
    let message = refused(&run(&path("b"), &["restore", text(&path("backup"))]), 1);
    assert!(message.contains("holds 3 orders already"), "{message}");
}

#[test]
fn a_backup_goes_through_a_pipe_and_takes_the_place_of_whatever_state_there_is() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let state = directory.path().join("state");
    let orders = |first: u32, last: u32| {
        let risk = start(RISK, &[("STATE_DIR", text(&state))]);
        for id in first..=last {
            assert_eq!(risk.post("/orders", &order(&id.to_string(), 5, Some(10.0))).0, 200);
        }
    };
    orders(1, 3);
    let stream = run(&state, &["backup", "-"]);
    assert_eq!(stream.status.code(), Some(0), "{}", String::from_utf8_lossy(&stream.stderr));
    orders(4, 6);
    let put_back = |stream: &[u8], arguments: &[&str]| {
        let file = directory.path().join("stream");
        std::fs::write(&file, stream).expect("written");
        let mut command = command(RISK, &[("STATE_DIR", text(&state))]);
        command.args(arguments).stdin(std::fs::File::open(file).expect("opened")).output().expect("ran")
    };
    let mut damaged = stream.stdout.clone();
    let at = damaged.windows(12).position(|part| part == b"\"quantity\":5").expect("an order");
    damaged[at + 11] = b'6';
    let message = refused(&put_back(&damaged, &["restore", "--replace", "-"]), 1);
    assert!(message.contains("orders.jsonl is damaged: expected"), "{message}");
    let message = refused(&put_back(&stream.stdout, &["restore", "-"]), 1);
    assert!(message.contains("holds 6 orders already"), "{message}");
    assert_eq!(printed(&run(&state, &["verify"]))["orders"], 6, "nothing was touched");

    assert_eq!(printed(&put_back(&stream.stdout, &["restore", "--replace", "-"]))["orders"], 3);
    assert_eq!(printed(&run(&state, &["verify"]))["orders"], 3);
    let names = |prefix: &str| {
        let entries = std::fs::read_dir(&state).expect("read").map(|entry| entry.expect("an entry").file_name());
        entries.filter(|name| name.to_string_lossy().starts_with(prefix)).collect::<Vec<_>>()
    };
    assert_eq!((names("replaced-").len(), names(".").len()), (1, 0), "what was there is kept, and nothing else");
    // Also a database that nobody can open any more is replaced.
    std::fs::write(state.join("risk.redb"), "no database").expect("damaged");
    assert_eq!(printed(&put_back(&stream.stdout, &["restore", "--replace", "-"]))["orders"], 3);
    orders(4, 4);
}

#[test]
fn a_command_without_a_state_or_with_a_mistake_exits_2_and_help_exits_0() {
    let without = command(RISK, &[]).args(["backup", "somewhere"]).output().expect("ran");
    assert!(refused(&without, 2).contains("STATE_DIR is not set"));
    let directory = tempfile::tempdir().expect("temporary directory");
    assert!(refused(&run(directory.path(), &["bakcup"]), 2).contains("bakcup"));
    assert!(refused(&run(directory.path(), &["verify"]), 1).contains("there is no order database"));
    assert!(std::fs::read_dir(directory.path()).expect("read").next().is_none(), "and none was made");
    assert_eq!(run(directory.path(), &["--help"]).status.code(), Some(0));
}

#[test]
fn in_read_only_mode_new_orders_are_refused_and_everything_is_told() {
    let risk = start(RISK, &[]);
    let at_the_gateway = gateway(&risk, None, &[]);
    assert_eq!(at_the_gateway.post("/orders", &order("1", 5, Some(10.0))).0, 200);
    let switch = |service: &Client, on: bool| {
        assert_eq!(service.post("/_plimsoll/read-only", &json!({"on": on})), (200, json!({"on": on})));
        assert_eq!(service.get("/_plimsoll/read-only").1, json!({"on": on}));
        assert_eq!(service.get("/status").1["read_only"], on);
    };
    switch(&risk, true);
    let (status, answer) = at_the_gateway.post("/orders", &order("2", 5, Some(10.0)));
    assert_eq!((status, &answer["reason"]), (503, &json!("read-only: no new order is taken")));
    assert_eq!(at_the_gateway.post("/orders", &order("1", 5, Some(10.0))).1["duplicate"], true);
    assert_eq!((position(&risk), risk.get("/ready").0), (5, 200));
    switch(&risk, false);
    assert_eq!(at_the_gateway.post("/orders", &order("2", 5, Some(10.0))).0, 200);

    switch(&at_the_gateway, true);
    assert_eq!(at_the_gateway.post("/orders", &order("3", 5, Some(10.0))).0, 503);
    assert_eq!(at_the_gateway.get("/positions").0, 200);
    let closed = start(GATEWAY, &[("READ_ONLY", "true")]);
    assert_eq!(closed.post("/orders", &order("4", 5, Some(10.0))).0, 503);
}
