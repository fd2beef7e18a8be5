//! What this executable is when it is not the tests.

#![expect(clippy::disallowed_macros, reason = "standard error is the log of supervisor and proxy")]

use plimsoll_docker::Containers;
use plimsoll_local::{LocalPaths, proxy, supervisor};
use std::{
    os::{fd::AsFd as _, unix::net::UnixStream},
    process::ExitCode,
    sync::Arc,
};

pub(crate) fn play(role: &str, args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let paths = LocalPaths::new(&args[0]);
    match role {
        "supervisor" => runtime.block_on(async {
            let own = std::env::current_exe().unwrap();
            let proxy = supervisor::Launch { program: own, args: vec!["role:proxy".to_owned(), args[0].clone()] };
            let options = supervisor::Options { proxy, containers: Some(Arc::new(Containers::default())) };
            let served = supervisor::serve(paths, options).await;
            served.inspect_err(|e| eprintln!("{e:?}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }),
        _ => runtime.block_on(async {
            let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
            let served = proxy::serve(control, &paths.proxy_socket(), proxy::ProxyOptions::default()).await;
            served.inspect_err(|e| eprintln!("{e:?}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }),
    }
}
