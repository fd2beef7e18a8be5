//! Whole process trees, with real processes: nothing is left, whatever a command does.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use plimsoll_process::{Cancel, Cmd, Environment, ProcessError, Stream, end_marked, output, run};

fn sh(script: &str) -> Cmd {
    Cmd::new("sh").args(["-c", script]).inherit_base(&Environment::capture()).grace(Duration::from_millis(300))
}

/// Whether a process with this pid runs (a zombie does not).
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with(['Z', 'X']))
}

fn pids(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Waits for a fact, at most ten seconds.
async fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !fact() {
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a script that writes the pids of `count` processes to `$PIDS` and then takes for ever; cancels it when they are there.
async fn check_gone_after_cancel(script: &str, count: usize) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pids");
    let (cancel, cmd) = (Cancel::new(), sh(script).env("PIDS", &file));
    let running = tokio::spawn({
        let cancel = cancel.clone();
        async move { run(&cmd, &|_: Stream, _: &str| {}, &cancel).await }
    });
    until("all processes are there", || pids(&file).len() == count).await;
    let started = pids(&file);
    assert!(started.iter().all(|pid| runs(pid)), "{started:?}");
    cancel.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, ProcessError::Cancelled { .. }), "{error}");
    for pid in &started {
        assert!(!runs(pid), "{pid} of {started:?} is still there after `{script}`");
    }
}

#[tokio::test]
async fn a_cancelled_tree_is_gone_whatever_it_does() {
    check_gone_after_cancel("echo $$ >>$PIDS; sleep 1000 & echo $! >>$PIDS; wait", 2).await;
    check_gone_after_cancel("trap '' TERM; echo $$ >>$PIDS; while :; do sleep 0.05; done", 1).await;
    check_gone_after_cancel("setsid -f sh -c 'trap \"\" TERM; echo $$ >>$PIDS; sleep 1000; sleep 1000'; sleep 1000", 1)
        .await;
    check_gone_after_cancel(
        "(setsid sh -c '(trap \"\" TERM; exec setsid sh -c \"echo \\$\\$ >>$PIDS; while :; do sleep 1; done\") & exit' &); sleep 1000",
        1,
    )
    .await;
    // A cleared environment has no marker; the line of parents finds it.
    check_gone_after_cancel("env -i setsid sh -c 'echo $$ >>'$PIDS'; sleep 1000; :' & wait", 1).await;
}

#[tokio::test]
async fn a_timeout_ends_a_tree_that_ignores_sigterm_within_its_grace() {
    let cmd = sh("trap '' TERM; while :; do sleep 0.05; done").timeout(Duration::from_millis(200));
    let started = Instant::now();
    let error = output(&cmd, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, ProcessError::TimedOut { after, .. } if after == Duration::from_millis(200)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn sigterm_comes_first_and_last_words_are_heard() {
    let lines = Mutex::new(Vec::new());
    let cmd =
        sh("trap 'echo cleaned; exit' TERM; echo ready; while :; do sleep 0.02; done").grace(Duration::from_secs(10));
    let cancel = Cancel::new();
    // The shell itself remarks on standard error that its `sleep` was terminated too.
    let sink = |stream: Stream, line: &str| {
        if stream == Stream::Stdout {
            lines.lock().unwrap().push(line.to_owned());
            cancel.cancel();
        }
    };
    assert!(run(&cmd, &sink, &cancel).await.is_err());
    assert_eq!(*lines.lock().unwrap(), ["ready", "cleaned"]);
}

#[tokio::test]
async fn a_background_process_that_holds_the_pipes_does_not_hang_the_call() {
    let printed = output(&sh("sleep 1000 & echo $!"), &Cancel::new()).await.unwrap();
    let pid = printed.stdout_text().trim().to_owned();
    assert!(printed.exit.success());
    assert_eq!(printed.exit.leftovers, [pid.parse::<u32>().unwrap()]);
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_background_process_that_finishes_within_the_grace_is_left_to_finish() {
    let cmd = sh("echo soon; (sleep 0.2; echo late) &").grace(Duration::from_secs(20));
    let printed = output(&cmd, &Cancel::new()).await.unwrap();
    assert_eq!(printed.stdout_text(), "soon\nlate\n");
    assert!(printed.exit.leftovers.is_empty());
}

#[tokio::test]
async fn a_background_process_that_is_exiting_is_waited_for_and_was_not_left_behind() {
    // An exiting process closes one file after the other. The last one here has no name any more, so that closing it frees
    // what it holds, which takes a while: the pipes are closed, and the process is not gone.
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = scratch.path().join("large");
    fs::write(&file, vec![1; 200 << 20]).unwrap();
    let cmd = sh("exec 4>&1 3<>$FILE 1>/dev/null 2>&1; rm $FILE; sleep 0.2 &").env("FILE", &file);
    let printed = output(&cmd.grace(Duration::from_secs(20)), &Cancel::new()).await.unwrap();
    assert!(printed.exit.leftovers.is_empty(), "{:?}", printed.exit);
}

#[tokio::test]
async fn a_daemon_that_closed_its_pipes_and_left_the_group_is_found_after_a_normal_exit() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pids");
    let script = "setsid -f sh -c 'echo $$ >>$PIDS; sleep 1000; :' </dev/null >/dev/null 2>&1; while [ ! -s $PIDS ]; do sleep 0.01; done";
    let exit = run(&sh(script).env("PIDS", &file), &|_: Stream, _: &str| {}, &Cancel::new()).await.unwrap();
    let daemon = pids(&file).remove(0);
    assert!(exit.leftovers.contains(&daemon.parse().unwrap()), "{exit:?}");
    assert!(!runs(&daemon));
}

#[tokio::test]
async fn dropping_the_future_kills_the_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pids");
    let cmd = sh("setsid -f sh -c 'echo $$ >>$PIDS; sleep 1000; :'; echo $$ >>$PIDS; sleep 1000; :").env("PIDS", &file);
    let running = tokio::spawn(async move { output(&cmd, &Cancel::new()).await });
    until("both run", || pids(&file).len() == 2).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    for pid in pids(&file) {
        until("it is gone", || !runs(&pid)).await;
    }
}

#[tokio::test]
async fn trees_are_ended_by_marker_and_no_other_is() {
    let lines = |cancel: Cancel, marker: &str| {
        let cmd = sh("exec sleep 1000").marker(marker);
        tokio::spawn(async move { output(&cmd, &cancel).await })
    };
    let cancel = Cancel::new();
    let (ours, other) = (lines(cancel.clone(), "run-41"), lines(cancel.clone(), "run-412"));
    let mut ended = Vec::new();
    for _ in 0..1000 {
        ended = end_marked("run-41", Duration::from_secs(5)).await;
        if !ended.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.len(), 1);
    assert_eq!(ours.await.unwrap().unwrap().exit.signal, Some(15));
    assert!(!other.is_finished());
    cancel.cancel();
    assert!(other.await.unwrap().is_err());
}
