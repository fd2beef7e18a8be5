//! What follows its file while a service runs, and what a mistake in the file does: nothing.

use std::path::Path;

use serde_json::json;

use crate::support::{GATEWAY, RISK, start, text, wait};
use crate::{gateway, order};

/// Replaces a file as an editor does.
fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).expect("written");
    std::fs::rename(&beside, path).expect("renamed");
}

#[test]
fn limits_and_trading_follow_the_file_and_other_keys_wait_for_a_restart() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("kairos.toml");
    std::fs::write(&path, "max_position_size = 10\n").expect("written");
    let risk = start(RISK, &[("KAIROS_CONFIG", text(&path))]);
    let gateway = gateway(&risk, None, &[("KAIROS_CONFIG", text(&path))]);
    assert_eq!(gateway.post("/orders", &order("1", 11, Some(10.0))).0, 422);

    replace(&path, "max_position_size = 20\nenable_trading = false\ntick_ms = 7\n");
    wait("the limit", || risk.get("/positions").1["max_position_size"] == 20);
    wait("trading off", || gateway.get("/status").1["trading_enabled"] == false);
    assert_eq!(gateway.post("/orders", &order("2", 11, Some(10.0))).0, 403);
    let config = &risk.get("/status").1["config"];
    assert_eq!((&config["needs_restart"], &config["error"]), (&json!(["TICK_MS"]), &json!(null)), "{config}");
    assert_eq!(risk.metric("kairos_config_reloads_total"), 1);
    wait("a line about it", || risk.log().contains("TICK_MS"));

    // Written in place, as `echo` does.
    std::fs::write(&path, "max_position_size = 20\n").expect("written");
    wait("trading on", || gateway.get("/status").1["trading_enabled"] == true);
    assert_eq!(gateway.post("/orders", &order("3", 11, Some(10.0))).0, 200);
    wait("nothing to wait for", || risk.get("/status").1["config"]["needs_restart"] == json!([]));
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_is_told_everywhere_until_it_is_right() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("kairos.toml");
    std::fs::write(&path, "max_position_size = 10\n").expect("written");
    let risk = start(RISK, &[("KAIROS_CONFIG", text(&path))]);
    assert_eq!((risk.metric("kairos_config_valid"), risk.metric("kairos_config_rejected_total")), (1, 0));
    let mistakes = [
        ("max_position_size = 20\nrisk_limit_pct = 0\n", "RISK_LIMIT_PCT=\"0\""),
        ("max_position_size = 20\nno_such_key = 1\n", "no_such_key"),
        ("max_position_size = 20\nkairos_api_key = \"hush\n", "parse the configuration file"),
    ];
    for (rejected, (content, told)) in (1..).zip(mistakes) {
        replace(&path, content);
        wait("the mistake", || {
            risk.get("/status").1["config"]["error"].as_str().is_some_and(|error| error.contains(told))
        });
        assert_eq!(risk.get("/positions").1["max_position_size"], 10, "none of it has an effect");
        assert_eq!((risk.metric("kairos_config_valid"), risk.metric("kairos_config_rejected_total")), (0, rejected));
        assert!(risk.get("/ready").0 == 200);
    }
    let told = format!("{}{}", risk.log(), risk.get("/status").1);
    assert!(told.contains("the configuration stays as it was") && !told.contains("hush"), "{told}");
    std::fs::remove_file(&path).expect("removed");
    wait("its absence", || risk.metric("kairos_config_rejected_total") == 4);
    replace(&path, "max_position_size = 30\n");
    wait("the limit", || risk.get("/positions").1["max_position_size"] == 30);
    assert_eq!(risk.metric("kairos_config_valid"), 1);
}

#[test]
fn the_environment_stays_above_a_changed_file_and_the_log_follows_its_level() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("kairos.toml");
    std::fs::write(&path, "max_position_size = 10\n").expect("written");
    let risk = start(RISK, &[("KAIROS_CONFIG", text(&path)), ("MAX_POSITION_SIZE", "15")]);
    assert_eq!(risk.post("/orders", &order("loud", 1, Some(10.0))).0, 200);
    wait("a line", || risk.log().contains("\"loud\""));
    replace(&path, "max_position_size = 20\nlog_level = \"error\"\n");
    wait("the level", || risk.get("/status").1["log_level"] == "error");
    assert_eq!(risk.post("/orders", &order("quiet", 1, Some(10.0))).0, 200);
    assert_eq!(risk.get("/positions").1["max_position_size"], 15);
    replace(&path, "log_level = \"info\"\n");
    wait("the level", || risk.get("/status").1["log_level"] == "info");
    assert_eq!(risk.post("/orders", &order("loud again", 1, Some(10.0))).0, 422);
    assert_eq!(risk.post("/orders", &order("loud-again", 1, Some(10.0))).0, 200);
    wait("a line", || risk.log().contains("\"loud-again\""));
    assert!(!risk.log().contains("\"quiet\""), "{}", risk.log());
}

#[test]
fn a_rotated_key_overlaps_with_the_one_before_also_in_a_mounted_secret() {
    let directory = tempfile::tempdir().expect("temporary directory");
    // A mounted secret: the file is a link into a directory behind another link, which is replaced.
    let mount = |name: &str, key: &str| {
        let version = directory.path().join(name);
        std::fs::create_dir(&version).expect("made");
        std::fs::write(version.join("key"), key).expect("written");
        let link = directory.path().join("..data.new");
        std::os::unix::fs::symlink(name, &link).expect("linked");
        std::fs::rename(&link, directory.path().join("..data")).expect("replaced");
    };
    mount("..1", "hush-1\n");
    let path = directory.path().join("key");
    std::os::unix::fs::symlink("..data/key", &path).expect("linked");
    let risk = start(RISK, &[]);
    let variables = [("KAIROS_API_KEY_FILE", text(&path)), ("KAIROS_API_KEY_GRACE_MS", "3000")];
    let gateway = gateway(&risk, None, &variables);
    let status = |key: &str| gateway.post_with_key("/orders", key, &order("1", 1, Some(10.0)));
    assert_eq!((status("hush-1"), status("hush-2")), (200, 401));

    mount("..2", "hush-2\n");
    wait("the new key", || status("hush-2") == 200);
    assert_eq!(status("hush-1"), 200, "both work");
    wait("the end of the old one", || status("hush-1") == 401);
    assert_eq!((status("hush-2"), gateway.metric("kairos_api_key_rotations_total")), (200, 1));

    mount("..3", "\n");
    wait("the empty file", || gateway.get("/status").1["config"]["key_error"].is_string());
    assert_eq!(status("hush-2"), 200, "an empty file is no key");
    assert!(!format!("{}{}", gateway.log(), gateway.get("/status").1).contains("hush"));
}

#[test]
fn a_gateway_without_its_key_does_not_start() {
    let output = crate::support::command(GATEWAY, &[("KAIROS_API_KEY_FILE", "/no/such/key")]).output().expect("ran");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/key"));
}
