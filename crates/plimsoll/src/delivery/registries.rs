//! Registries as this machine and `plimsoll.toml` have them: who logs in, which certificates vouch for them.

use super::resources::secrets;
use crate::session::Session;
use plimsoll_core::{RetryPolicy, config::RegistryAccess};
use plimsoll_deploy::SecretSource;
use plimsoll_engine::StepError;
use plimsoll_http::{Client, ClientOptions};
use plimsoll_oci::{AuthSource, CredentialHelpers, Credentials, HostOptions, RegistryClient, RegistryOptions};
use plimsoll_process::{Cancel, Cmd, Environment};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

/// A helper may ask a person, or a cloud's service.
const HELPER: Duration = Duration::from_mins(1);

/// The client for all registries; `options` are those of `http`.
pub(super) fn client(session: &Session, options: &ClientOptions, http: Client) -> Result<RegistryClient, StepError> {
    let secrets = secrets(&session.environment, session.root.clone());
    let mut hosts = std::collections::BTreeMap::new();
    for (host, access) in &session.config.registries {
        let found = of_host(session, options, access, &secrets);
        hosts.insert(host.clone(), found.map_err(|e| e.during(format!("cannot reach the registry {host}")))?);
    }
    // Registries that many share ask for longer waits than services do.
    let policy = RetryPolicy { cap: Duration::from_mins(1), budget: Duration::from_mins(5), ..RetryPolicy::default() };
    Ok(RegistryClient::new(http, RegistryOptions { auth: auth(&session.environment), policy, hosts }))
}

fn of_host(
    session: &Session,
    options: &ClientOptions,
    access: &RegistryAccess,
    secrets: &SecretSource,
) -> Result<HostOptions, StepError> {
    let roots = match &access.ca {
        Some(path) => {
            let read = fs::read(session.root.join(path));
            read.map_err(|e| StepError::user(format!("cannot read {}", path.display())).caused_by(&e))?
        }
        None => Vec::new(),
    };
    let own = !roots.is_empty() || access.plain_http;
    let options = ClientOptions { roots, plain_http: access.plain_http, ..options.clone() };
    let http = own.then(|| Client::new(&options)).transpose();
    let http = http.map_err(|e| StepError::user("its certificates cannot be used").caused_by(&e))?;
    let credentials = match (&access.username, &access.password) {
        (Some(username), Some(password)) => {
            let password = secrets(&password.to_string()).map_err(StepError::user)?;
            Some(Credentials { username: username.clone(), password })
        }
        _ => None,
    };
    Ok(HostOptions { http, plain_http: access.plain_http, credentials, mirrors: access.mirrors.clone() })
}

/// Docker's own file, if there is one.
fn auth(environment: &Arc<Environment>) -> AuthSource {
    let directory = environment
        .get("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(".docker")));
    let file = directory.map(|directory| directory.join("config.json")).filter(|file| file.exists());
    let helpers = helpers(Arc::clone(environment));
    file.map_or(AuthSource::Anonymous, |path| AuthSource::DockerConfig { path, helpers })
}

/// Starts `docker-credential-NAME get` with the registry on its standard input.
fn helpers(environment: Arc<Environment>) -> CredentialHelpers {
    CredentialHelpers::new(move |name, server| {
        let cmd = Cmd::new(format!("docker-credential-{name}")).arg("get").envs(environment.iter());
        let cmd = cmd.stdin(server).timeout(HELPER).output_limit(64 * 1024);
        Box::pin(async move {
            let output = plimsoll_process::output(&cmd, &Cancel::new()).await;
            let output = output.map_err(|_| "cannot be started, or did not answer in time".to_owned())?;
            let said = output.stdout_text();
            // The words of Docker's own library of helpers.
            if said.contains("credentials not found") {
                return Ok(None);
            }
            // What it said may hold the secret.
            let output = output.check().map_err(|_| "failed".to_owned())?;
            let credentials = Credentials::of_helper(output.stdout_text().as_bytes());
            credentials.map(Some).ok_or_else(|| "answers something that is no credentials".to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::Secret;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    /// What the client knows of `r.example` if the file names the helper `test`, which is this script.
    fn asked(script: &str) -> Result<Option<Credentials>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-test");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("config.json"), r#"{"credHelpers":{"r.example":"test"}}"#).unwrap();
        let here = directory.path().to_str().unwrap();
        let environment =
            Environment::of([("PATH", format!("{here}:/usr/bin:/bin")), ("DOCKER_CONFIG", here.to_owned())]);
        let http = Client::new(&ClientOptions::default()).unwrap();
        let options = RegistryOptions { auth: auth(&Arc::new(environment)), ..RegistryOptions::default() };
        let client = RegistryClient::new(http, options);
        let runtime = crate::running::runtime().unwrap();
        runtime.block_on(client.credentials("r.example")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_credential_helper_is_asked_and_what_it_says_is_not_repeated() {
        let good = r#"read server; [ "$1 $server" = "get r.example" ] && echo '{"ServerURL":"r.example","Username":"ci","Secret":"hunter2"}'"#;
        let credentials = Credentials { username: "ci".to_owned(), password: Secret::new("hunter2") };
        assert_eq!(asked(good), Ok(Some(credentials)));
        assert_eq!(asked("echo 'credentials not found in native keychain'; exit 1"), Ok(None));
        for bad in ["echo hunter2; exit 1", "echo hunter2"] {
            let error = asked(bad).unwrap_err();
            assert!(error.contains("docker-credential-test") && !error.contains("hunter2"), "{error}");
        }
    }
}
