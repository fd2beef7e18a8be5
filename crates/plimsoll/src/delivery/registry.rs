//! `registry`: a registry of its own to serve, and what can be done with a registry's directory.

use crate::{
    cli::registry::{GcArgs, Registry, RegistryPlace, ServeArgs},
    cli_error::CliError,
    interrupt,
    report::text::size,
    session::Session,
    verbs::runs::json,
};
use plimsoll_engine::StepError;
use plimsoll_oci::registry::{self, Access, Certificate, Garbage, Options};
use plimsoll_process::Cancel;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub(crate) async fn registry(session: &Session, verb: &Registry) -> Result<ExitCode, CliError> {
    match verb {
        Registry::Serve(args) => serve(session, args).await,
        Registry::Gc(args) => collect(session, args).await,
        Registry::List { place } => list(session, place).await,
    }
}

/// The directory of the registry that is meant.
fn root(session: &Session, place: &RegistryPlace) -> PathBuf {
    place.root.clone().unwrap_or_else(|| session.state.path().join("registry"))
}

/// The same, unless nothing was pushed to the embedded one yet. A directory that somebody names must be a registry's.
fn existing(session: &Session, place: &RegistryPlace) -> Result<Option<PathBuf>, CliError> {
    let root = root(session, place);
    match root.join("blobs").is_dir() {
        true => Ok(Some(root)),
        false if place.root.is_none() => Ok(None),
        false => Err(StepError::user(format!("there is no registry in {}", root.display())).into()),
    }
}

async fn serve(session: &Session, args: &ServeArgs) -> Result<ExitCode, CliError> {
    let options = options(args)?;
    let (root, scheme) = (root(session, &args.place), if options.tls.is_some() { "https" } else { "http" });
    let io = |source| CliError::Io { what: format!("listen on {}", args.addr), source };
    let listener = TcpListener::bind(args.addr).map_err(io)?;
    let address = listener.local_addr().map_err(io)?;
    let cancel = Cancel::new();
    interrupt::watch(cancel.clone());
    let serving = registry::serve(listener, root.clone(), options, async move { cancel.cancelled().await });
    session.console.out(&format!("registry of {} on {scheme}://{address}; Ctrl-C ends it\n", root.display()));
    serving.await.map_err(|e| StepError::of(&e))?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &ServeArgs) -> Result<Options, CliError> {
    let access = args.htpasswd.as_deref().map(|path| users(path, args.anonymous_pull)).transpose()?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => {
            let read = Certificate::read(chain, key);
            Some(read.map_err(|e| StepError::user("the registry's certificate cannot be used").caused_by(&e))?)
        }
        _ => None,
    };
    Ok(Options { read_only: args.read_only, access, tls, url: args.url.clone() })
}

fn users(path: &Path, anonymous_pull: bool) -> Result<Access, CliError> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        StepError::user(format!("the users of {} cannot be used", path.display())).caused_by(error)
    };
    let text = fs::read_to_string(path).map_err(|e| failed(&e))?;
    Ok(Access::from_htpasswd(&text, anonymous_pull).map_err(|e| failed(&e))?)
}

async fn collect(session: &Session, args: &GcArgs) -> Result<ExitCode, CliError> {
    let garbage = Garbage { grace: args.grace.duration(), untagged: args.untagged, dry_run: args.dry_run };
    let collected = match existing(session, &args.place)? {
        Some(root) => on_disk(move || registry::collect(&root, &garbage)).await?,
        None => registry::Collected::default(),
    };
    if session.global.json {
        session.console.out(&json(&collected));
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    session.console.out(&format!(
        "{verb} {} manifests, {} blobs and {} unfinished uploads: {}\n",
        collected.manifests,
        collected.blobs,
        collected.uploads,
        size(collected.bytes),
    ));
    Ok(ExitCode::SUCCESS)
}

async fn list(session: &Session, place: &RegistryPlace) -> Result<ExitCode, CliError> {
    let repositories = match existing(session, place)? {
        Some(root) => on_disk(move || registry::list(&root)).await?,
        None => Vec::new(),
    };
    if session.global.json {
        session.console.out(&json(&repositories));
        return Ok(ExitCode::SUCCESS);
    }
    if repositories.is_empty() {
        session.console.out("nothing was pushed yet\n");
    }
    for repository in repositories {
        let (manifests, bytes) = (repository.manifests, size(repository.bytes));
        session.console.out(&format!("{}  {manifests} manifests, {bytes}\n", repository.name));
        for tag in repository.tags {
            session.console.out(&format!("  {}  {}\n", tag.name, tag.digest));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Does what keeps the disk busy where it may.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, registry::RegistryError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await.expect("work on a disk does not panic");
    Ok(done.map_err(|e| StepError::of(&e))?)
}
