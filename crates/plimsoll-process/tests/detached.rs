//! Children that outlive their starter, with real processes.

use std::fs::{self, File};
use std::time::Duration;

use plimsoll_process::{Cmd, Detached, Environment, ExitSeen, Signal, spawn_detached};

fn start(script: &str) -> (tempfile::TempDir, Detached) {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(scratch.path().join(name)).unwrap();
    let cmd = Cmd::new("sh")
        .args(["-c", script])
        .inherit_base(&Environment::capture())
        .env("PIDS", scratch.path().join("pids"));
    let detached = spawn_detached(&cmd, file("out"), file("err"), None).unwrap();
    (scratch, detached)
}

#[tokio::test]
async fn an_exit_code_of_our_own_child_is_seen_and_output_goes_to_the_files() {
    let (scratch, detached) = start("echo out; echo err >&2; exit 7");
    let adopted = detached.adopt().unwrap();
    assert_eq!(adopted.wait_exit().await.unwrap(), ExitSeen::Code(7));
    assert_eq!(adopted.wait_exit().await.unwrap(), ExitSeen::Code(7));
    assert_eq!(fs::read_to_string(scratch.path().join("out")).unwrap(), "out\n");
    assert_eq!(fs::read_to_string(scratch.path().join("err")).unwrap(), "err\n");
    assert!(detached.adopt().is_none(), "it was waited for and is gone");
    assert!(adopted.signal(Signal::TERM).is_err());
}

#[tokio::test]
async fn a_signal_reaches_it_through_the_handle() {
    let (_scratch, detached) = start("exec sleep 1000");
    let adopted = detached.adopt().unwrap();
    adopted.signal(Signal::TERM).unwrap();
    assert_eq!(adopted.wait_exit().await.unwrap(), ExitSeen::Signal(15));
}

#[tokio::test]
async fn another_start_time_or_boot_is_another_process_and_not_adopted() {
    let (_scratch, detached) = start("exec sleep 1000");
    assert!(Detached { start_time: detached.start_time + 1, ..detached.clone() }.adopt().is_none());
    assert!(Detached { boot_id: "another".into(), ..detached.clone() }.adopt().is_none());
    let stored = serde_json::to_string(&detached).unwrap();
    let adopted = serde_json::from_str::<Detached>(&stored).unwrap().adopt().unwrap();
    assert_eq!(adopted.kill_tree(Duration::from_secs(5)).await.unwrap(), ExitSeen::Signal(15));
}

#[tokio::test]
async fn its_tree_is_ended_with_it_also_what_left_the_group() {
    let (scratch, detached) =
        start("trap '' TERM; setsid -f sh -c 'echo $$ >>$PIDS; sleep 1000; :'; while :; do sleep 0.05; done");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let pid = loop {
        let pid = fs::read_to_string(scratch.path().join("pids")).unwrap_or_default();
        if pid.ends_with('\n') {
            break pid.trim().to_owned();
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let adopted = detached.adopt().unwrap();
    assert_eq!(adopted.kill_tree(Duration::from_millis(200)).await.unwrap(), ExitSeen::Signal(9));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| ") Z".into());
    assert!(stat.contains(") Z"), "{stat}");
}

#[tokio::test]
async fn an_exit_code_that_went_elsewhere_is_unobserved() {
    let (_scratch, detached) = start("exec sleep 1000");
    let first = detached.adopt().unwrap();
    let second = detached.adopt().unwrap();
    first.signal(Signal::KILL).unwrap();
    assert_eq!(first.wait_exit().await.unwrap(), ExitSeen::Signal(9));
    // The exit code went to the first handle: to the second it is as if another process had taken it.
    assert_eq!(second.wait_exit().await.unwrap(), ExitSeen::Unobserved);
}
