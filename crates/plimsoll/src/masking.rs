//! What must not appear in a log: the values of the secrets that `plimsoll.toml` refers to.

use crate::{cli_error::CliError, session::Session};
use plimsoll_core::config::{Config, SecretSource};
use plimsoll_engine::StepError;
use plimsoll_process::{MIN_SECRET, Redactor};
use std::{collections::BTreeSet, fs, sync::Arc};

/// All references to secrets.
fn sources(config: &Config) -> Vec<&SecretSource> {
    let services = config.services.values().flat_map(|service| service.secrets.values());
    let slack = config.notify.slack.iter().map(|slack| &slack.webhook);
    let webhook = config.notify.webhook.iter().flat_map(|hook| std::iter::once(&hook.url).chain(&hook.secret));
    let tokens =
        config.environments.values().filter_map(|environment| environment.canary.prometheus.as_ref()?.token.as_ref());
    let registries = config.registries.values().filter_map(|access| access.password.as_ref());
    let signing = config.signing.key.iter().chain(&config.signing.password);
    services.chain(slack).chain(webhook).chain(tokens).chain(registries).chain(signing).collect()
}

/// A redactor of all secrets that are there. One that is not is missed by the step that needs it, not here; one that is too short
/// to be masked is refused, because it would be shown.
pub(crate) fn redactor(session: &Session, config: &Config) -> Result<Option<Arc<Redactor>>, CliError> {
    let mut values: BTreeSet<Vec<u8>> = BTreeSet::new();
    for source in sources(config) {
        let value = match source {
            SecretSource::Env(name) => session.environment.get(name).map(|value| value.as_encoded_bytes().to_vec()),
            SecretSource::File(path) => fs::read(session.root.join(path)).ok(),
        };
        let Some(value) = value.filter(|value| !value.trim_ascii_end().is_empty()) else { continue };
        if value.trim_ascii_end().len() < MIN_SECRET {
            let hint = format!("a secret has at least {MIN_SECRET} bytes");
            return Err(StepError::user(format!("the secret {source} is too short to be kept out of logs"))
                .with_hint(hint)
                .into());
        }
        values.extend(lines_of_key(&value));
        values.insert(value);
    }
    if values.is_empty() {
        return Ok(None);
    }
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let redactor =
        Redactor::new(&values).map_err(|e| StepError::user("the secrets cannot be kept out of logs").caused_by(&e))?;
    Ok(Some(Arc::new(redactor)))
}

/// The lines of a key in PEM that hold it: whoever prints it may print one of them, or indent them.
fn lines_of_key(value: &[u8]) -> Vec<Vec<u8>> {
    if !value.starts_with(b"-----BEGIN ") {
        return Vec::new();
    }
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| line.len() >= MIN_SECRET && !line.starts_with(b"-----")).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_services_channels_metrics_registries_and_signatures_are_found() {
        let text = "[project]\nname = \"shop\"\n[services.web]\npackage = \"web\"\nsecrets = { KEY = { env = \"A\" } }\n\
                    [notify.slack]\nwebhook = { file = \"b\" }\n[notify.webhook]\nurl = { env = \"C\" }\nsecret = { env = \"D\" }\n\
                    [environments.staging]\nstrategy = { kind = \"canary\" }\n[environments.staging.canary.prometheus]\n\
                    url = \"https://p.example\"\nrequests = \"{slot}\"\nfailed = \"{slot}\"\nlatency = \"{slot}\"\n\
                    token = { env = \"E\" }\n[registries.\"a.io\"]\nusername = \"ci\"\npassword = { file = \"f\" }\n\
                    [signing]\nkey = { env = \"G\" }\npassword = { env = \"H\" }\n";
        let config = Config::parse(text, "plimsoll.toml").unwrap();
        let names: Vec<String> = sources(&config).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["env:A", "file:b", "env:C", "env:D", "env:E", "file:f", "env:G", "env:H"]);
    }

    #[test]
    fn each_line_of_a_key_is_masked_and_its_first_and_last_are_not() {
        let key = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----\n";
        assert_eq!(lines_of_key(key), [b"MIGHAgEAMBMGByqGSM49".to_vec(), b"AwEHBG0wawIBAQQg".to_vec()]);
        assert!(lines_of_key(b"hunter2 and\nmore").is_empty());
    }
}
