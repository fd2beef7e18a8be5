//! How one process begins, says who it is, and ends.

use serde_json::json;

use crate::support::{Client, RISK, command, start, text, wait};

#[test]
fn a_version_follows_its_identity_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("identity.json");
    let risk =
        start(RISK, &[("PLIMSOLL_IDENTITY", text(&path)), ("SERVICE_VERSION", "1.0.0"), ("SERVICE_SLOT", "blue")]);
    assert_eq!(risk.get("/version").1["version"], "1.0.0");
    let identity =
        json!({"version": "2.0.0", "revision": "abc", "run": "r1", "environment": "staging", "generation": 4});
    std::fs::write(&path, identity.to_string()).expect("written");
    let version = risk.get("/version").1;
    for (key, value) in identity.as_object().expect("an object") {
        assert_eq!(&version[key], value);
    }
    assert_eq!((&version["service"], &version["slot"]), (&json!("risk-manager"), &json!("blue")));
    assert_eq!(risk.get("/slow?ms=1").1, json!({"slot": "blue", "version": "2.0.0"}));
    std::fs::write(&path, "{").expect("written");
    assert_eq!(risk.get("/version").1["version"], "1.0.0");
}

#[test]
fn a_termination_finishes_the_slow_request_and_exits_0() {
    let mut risk = start(RISK, &[]);
    std::thread::scope(|scope| {
        let slow = Client::clone(&risk);
        let request = scope.spawn(move || slow.get("/slow?ms=1500").0);
        wait("the request to be in flight", || risk.in_flight() == 1);
        risk.terminate();
        wait("no more connections", || risk.get("/health").0 == 0);
        assert_eq!(request.join().expect("joined"), 200);
    });
    assert_eq!(risk.ended().code(), Some(0));
}

#[test]
fn a_termination_does_not_wait_longer_than_the_grace() {
    let mut risk = start(RISK, &[("DRAIN_GRACE_MS", "50")]);
    std::thread::scope(|scope| {
        let slow = Client::clone(&risk);
        let request = scope.spawn(move || slow.get("/slow?ms=30000").0);
        wait("the request to be in flight", || risk.in_flight() == 1);
        risk.terminate();
        assert_eq!(risk.ended().code(), Some(0));
        assert_eq!(request.join().expect("joined"), 0);
    });
}

#[test]
fn bad_configuration_exits_2_and_names_everything() {
    let output = command(RISK, &[("PORT", "x"), ("RISK_LIMIT_PCT", "101")]).output().expect("ran");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(message.contains("PORT=\"x\"") && message.contains("RISK_LIMIT_PCT=\"101\""), "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_port_in_use_exits_3_and_names_it() {
    let risk = start(RISK, &[]);
    let port = risk.address.rsplit(':').next().expect("a port").to_owned();
    let output = command(RISK, &[("PORT", &port)]).output().expect("ran");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).expect("UTF-8").contains(&port));
}

#[test]
fn the_environment_wins_over_the_file_and_a_secret_is_in_no_log() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("kairos.toml");
    std::fs::write(&path, "port = 1\nmax_position_size = 7\n").expect("written");
    let risk = start(RISK, &[("KAIROS_CONFIG", text(&path))]);
    assert_eq!(risk.get("/positions").1["max_position_size"], 7);

    // A file where the state directory should be ends the start after its first log lines.
    let variables = [("KAIROS_CONFIG", text(&path)), ("KAIROS_API_KEY", "hush-hush"), ("STATE_DIR", text(&path))];
    let output = command(RISK, &variables).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    let (log, message) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(log.contains("\"message\":\"listening\"") && message.contains("open the orders"), "{log}{message}");
    assert!(!log.contains("hush-hush") && !message.contains("hush-hush"), "{log}{message}");
}
