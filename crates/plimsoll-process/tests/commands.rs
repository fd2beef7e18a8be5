//! Starting, streaming, collecting and failing, with real processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_process::{Cancel, Cmd, Environment, ProcessError, Redactor, Stream, output, run};

fn sh(script: &str) -> Cmd {
    Cmd::new("sh").args(["-c", script]).inherit_env(&Environment::capture(), &["PATH"])
}

async fn lines(cmd: &Cmd) -> Vec<(Stream, String)> {
    let lines = Mutex::new(Vec::new());
    let sink = |stream: Stream, line: &str| lines.lock().unwrap().push((stream, line.to_owned()));
    run(cmd, &sink, &Cancel::new()).await.unwrap();
    lines.into_inner().unwrap()
}

#[tokio::test]
async fn lines_come_from_both_streams_also_the_last_without_an_end() {
    let mut seen = lines(&sh("echo one; printf 'tw\\377o'; echo err >&2")).await;
    seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    let expected = [(Stream::Stdout, "one"), (Stream::Stdout, "tw\u{fffd}o"), (Stream::Stderr, "err")];
    assert_eq!(seen, expected.map(|(stream, line)| (stream, line.to_owned())));
}

#[tokio::test]
async fn a_secret_is_masked_across_writes_and_lines() {
    let redactor = Arc::new(Redactor::new(&[b"hunter2", b"short\nbut two"]).unwrap());
    let script = "printf hun; sleep 0.05; echo ter2; printf 'x short\\n'; sleep 0.05; echo 'but two y'";
    let seen = lines(&sh(script).redact(redactor)).await;
    assert_eq!(seen.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["***", "x *** y"]);
}

#[tokio::test]
async fn the_environment_is_cleared_but_for_what_is_named() {
    let cmd = Cmd::new("env").inherit_env(&Environment::of([("PATH", "/usr/bin:/bin"), ("TOKEN", "x")]), &["PATH"]);
    let printed = output(&cmd.env("A", "1").marker("m"), &Cancel::new()).await.unwrap();
    let text = printed.stdout_text().into_owned();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "PATH", "PLIMSOLL_TREE"]);
}

#[tokio::test]
async fn input_is_written_and_may_be_ignored() {
    let big = vec![b'x'; 1_000_000];
    let cat = Cmd::new("cat").inherit_env(&Environment::capture(), &["PATH"]).stdin(big.clone());
    assert_eq!(output(&cat, &Cancel::new()).await.unwrap().stdout, big);
    assert!(output(&sh("exit 0").stdin(big), &Cancel::new()).await.unwrap().exit.success());
}

#[tokio::test]
async fn the_working_directory_is_used_and_a_missing_one_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let printed = output(&sh("pwd -P").cwd(scratch.path()), &Cancel::new()).await.unwrap();
    assert_eq!(printed.stdout_text().trim(), scratch.path().canonicalize().unwrap().to_str().unwrap());
    let error = output(&sh("pwd").cwd(scratch.path().join("none")), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, ProcessError::WorkingDirectory { .. }), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_with_a_hint() {
    let error = output(&Cmd::new("no-such-program").env("PATH", "/bin"), &Cancel::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "program `no-such-program` was not found: it is in no directory of PATH=/bin");
    let error = output(&Cmd::new("sh"), &Cancel::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "program `sh` was not found: the command was given no PATH");
}

#[tokio::test]
async fn a_failure_keeps_the_last_lines_of_standard_error_redacted() {
    let redactor = Arc::new(Redactor::new(&[b"hunter2"]).unwrap());
    let cmd = sh("i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo line $i hunter2 >&2; done; exit 7").redact(redactor);
    let error = output(&cmd, &Cancel::new()).await.unwrap().check().unwrap_err();
    let ProcessError::Failed { code, stderr_tail, .. } = error else { panic!("{error}") };
    assert_eq!(code, Some(7));
    assert_eq!(
        (stderr_tail.len(), stderr_tail[0].as_str(), stderr_tail[19].as_str()),
        (20, "line 11 ***", "line 30 ***")
    );
}

#[tokio::test]
async fn an_end_by_a_signal_is_told_from_an_exit() {
    let exit = output(&sh("kill -9 $$"), &Cancel::new()).await.unwrap().exit;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(exit.check().unwrap_err().to_string(), "`sh` was ended by signal 9");
}

#[tokio::test]
async fn too_much_output_ends_the_command() {
    let cmd = sh("yes").output_limit(100_000).grace(Duration::from_millis(100));
    let error = output(&cmd, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, ProcessError::OutputTooLarge { limit: 100_000, .. }), "{error}");
}

#[tokio::test]
async fn a_cancelled_token_starts_nothing() {
    let cancel = Cancel::new();
    cancel.cancel();
    let scratch = tempfile::tempdir().unwrap();
    assert!(output(&sh("touch started").cwd(scratch.path()), &cancel).await.is_err());
    assert!(!scratch.path().join("started").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_at_once_keep_their_own_exit_codes() {
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200 {
        // Each leaves an orphan that ends by itself: reaping it must not take another's exit code.
        all.spawn(async move {
            let cmd = sh(&format!("(setsid true &); exit {}", number % 100)).grace(Duration::from_secs(20));
            (number, output(&cmd, &Cancel::new()).await.unwrap().exit.code)
        });
    }
    while let Some(ended) = all.join_next().await {
        let (number, code) = ended.unwrap();
        assert_eq!(code, Some(number % 100));
    }
}
