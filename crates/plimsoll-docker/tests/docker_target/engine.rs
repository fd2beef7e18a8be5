//! The engine as seen from outside: the `docker` command, which is not ours.

use plimsoll_local::{LocalPaths, supervisor::project};
use plimsoll_process::{Cancel, Cmd, Environment};
use std::{path::PathBuf, time::Duration};
use tokio::time::timeout;

fn environment() -> Environment {
    Environment::capture()
}

/// Whether this runs where nothing may be left out.
pub(crate) fn is_ci() -> bool {
    environment().get("CI").is_some_and(|value| value == "true")
}

/// The socket of the engine under test.
pub(crate) fn socket() -> PathBuf {
    let environment = environment();
    let host = environment.get("DOCKER_HOST").map(|value| value.to_string_lossy());
    plimsoll_docker::socket(host.as_deref()).expect("DOCKER_HOST names a socket of this machine")
}

/// Why nothing can be tested here, if so.
pub(crate) fn answers() -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { plimsoll_docker::version(&socket()).await.map_err(|e| e.to_string()) })
}

/// How long a command may take: `docker` asks its engine without an end.
const COMMAND: Duration = Duration::from_mins(2);

/// What a command prints; a command that fails, or does not end, is the test's failure.
pub(crate) async fn run(program: &str, args: &[&str]) -> String {
    let cmd = Cmd::new(program).args(args.iter().copied()).inherit_base(&environment());
    let cmd = cmd.inherit_env(&environment(), &["DOCKER_HOST"]);
    let ended = timeout(COMMAND, plimsoll_process::output(&cmd, &Cancel::new())).await;
    let output = ended.unwrap_or_else(|_| panic!("{program} {args:?} did not end within {COMMAND:?}"));
    let output = output.expect("the command starts");
    let said = output.stderr_text().into_owned();
    let output = output.check().unwrap_or_else(|e| panic!("{program} {args:?}: {e}: {said}"));
    output.stdout_text().trim().to_owned()
}

pub(crate) async fn docker(args: &[&str]) -> String {
    run("docker", args).await
}

/// The filter for everything of a project.
pub(crate) fn label(paths: &LocalPaths) -> String {
    format!("label=dev.plimsoll.project={}", project(paths))
}

/// The names of a project's containers that run, or of all.
pub(crate) async fn containers(paths: &LocalPaths, all: bool) -> Vec<String> {
    let filter = label(paths);
    let mut args = vec!["ps", "--filter", &filter, "--format", "{{.Names}}"];
    if all {
        args.push("--all");
    }
    let mut names: Vec<String> = docker(&args).await.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// One field of a container.
pub(crate) async fn inspect(name: &str, format: &str) -> String {
    docker(&["inspect", "--format", format, name]).await
}

/// Removes everything of a project.
pub(crate) async fn clear(paths: &LocalPaths) {
    for name in containers(paths, true).await {
        docker(&["rm", "--force", "--volumes", &name]).await;
    }
    let networks = docker(&["network", "ls", "--quiet", "--filter", &label(paths)]).await;
    for network in networks.lines() {
        docker(&["network", "rm", network]).await;
    }
}

/// What the engine has of a project, in lines.
pub(crate) async fn left(paths: &LocalPaths) -> String {
    let networks = docker(&["network", "ls", "--filter", &label(paths), "--format", "{{.Name}}"]).await;
    [containers(paths, true).await.join("\n"), networks].concat()
}
