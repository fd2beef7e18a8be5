//! The key that signs what is released, and the keys whose signatures count.

use super::resources::secrets;
use crate::{report::Finding, session::Session, settings::Settings};
use plimsoll_attest::{Builder, PublicKey, SigningKey};
use plimsoll_core::{
    Secret,
    config::{Profile, Signing},
};
use plimsoll_engine::StepError;
use plimsoll_steps::{FindKey, Trust};
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What `doctor` calls the key that signs.
const SIGNING: &str = "signing key";

/// Who signs and who is believed, as `plimsoll.toml` and this machine have it. Nothing is read or made before it is asked for.
pub(super) fn trust(session: &Session) -> Trust {
    let (root, paths) = (session.root.clone(), session.config.signing.trusted.clone());
    let trusted = Box::new(move || paths.iter().map(|path| public_key(&root, path)).collect());
    Trust::new(signer(session), trusted, builder(&session.settings))
}

/// The keys whose signatures count, for somebody who only looks: no key is made for it.
pub(super) fn keys(session: &Session) -> Result<Vec<PublicKey>, StepError> {
    let Signing { key, trusted, .. } = &session.config.signing;
    if trusted.is_empty() && key.is_none() && !own_path(session).exists() {
        let error = StepError::user("nobody's signature counts here: no key is named, and this machine has none yet");
        return Err(error.with_hint("name public keys in plimsoll.toml: [signing] trusted = [\"…\"]"));
    }
    trust(session).keys()
}

/// What `doctor` says of the keys: nothing is made for it.
pub(super) fn findings(session: &Session) -> Vec<Finding> {
    let (own, signing) = (own_path(session), &session.config.signing);
    let mut findings = Vec::new();
    findings.push(if signing.key.is_none() && session.profile != Profile::Github && !own.exists() {
        Finding::ok(SIGNING, "the first release makes a key of this machine".to_owned())
    } else {
        let how = signing.key.as_ref().map_or_else(|| own.display().to_string(), |key| format!("the key of `{key}`"));
        match signer(session)() {
            Ok(key) => Finding::ok(SIGNING, format!("{how}, {}", key.public())),
            Err(error) => Finding::optional(SIGNING, error.one_line(), "name a key in plimsoll.toml: [signing]"),
        }
    });
    for path in &signing.trusted {
        findings.push(match public_key(&session.root, path) {
            Ok(key) => Finding::ok("trusted key", format!("{}, {key}", path.display())),
            Err(error) => {
                Finding::required("trusted key", error.one_line(), "name public keys in PEM: [signing] trusted")
            }
        });
    }
    findings
}

fn public_key(root: &Path, path: &Path) -> Result<PublicKey, StepError> {
    let text = fs::read_to_string(root.join(path))
        .map_err(|e| StepError::user(format!("cannot read the public key {}", path.display())).caused_by(&e))?;
    PublicKey::from_pem(&text)
        .map_err(|e| StepError::user(format!("{} is no public key that counts", path.display())).caused_by(&e))
}

/// Where this machine's own key lies.
fn own_path(session: &Session) -> PathBuf {
    session.state.path().join("signing/plimsoll.key")
}

fn signer(session: &Session) -> FindKey {
    let signing = session.config.signing.clone();
    let secrets = secrets(&session.environment, session.root.clone());
    let (profile, own) = (session.profile, own_path(session));
    let known: OnceLock<SigningKey> = OnceLock::new();
    Box::new(move || {
        if let Some(key) = known.get() {
            return Ok(key.clone());
        }
        let secret = |source: &plimsoll_core::config::SecretSource| {
            secrets(&source.to_string()).map_err(|e| StepError::user(e).during("cannot have the key that signs"))
        };
        let key = match &signing {
            Signing { key: Some(key), password, .. } => {
                let password = password.as_ref().map(secret).transpose()?;
                let read = SigningKey::from_pem(&secret(key)?, password.as_ref());
                read.map_err(|e| StepError::user(format!("the key that `{key}` names cannot sign")).caused_by(&e))?
            }
            _ if profile == Profile::Github => {
                let error = StepError::user("nothing is released from GitHub without a key that signs it");
                return Err(error.with_hint("name one in plimsoll.toml: [signing] key = { env = \"…\" }"));
            }
            _ => own_key(&own)?,
        };
        Ok(known.get_or_init(|| key).clone())
    })
}

/// This machine's own key, made when there is none yet.
fn own_key(path: &Path) -> Result<SigningKey, StepError> {
    let directory = path.parent().unwrap_or(path);
    let failed = |what: &str| {
        let message = format!("cannot {what} this machine's key {}", path.display());
        move |e: io::Error| StepError::external(message).caused_by(&e)
    };
    if !path.exists() {
        let mut random = [0; 32];
        // The bytes that are no key are fewer than one in 2 to the 32nd.
        let key = loop {
            getrandom::fill(&mut random)
                .map_err(|e| StepError::external("the system has no random numbers").caused_by(&e))?;
            if let Some(key) = SigningKey::of_random(&random) {
                break key;
            }
        };
        fs::create_dir_all(directory).map_err(failed("make a place for"))?;
        // Readable for its owner alone; whoever comes first makes the key that all have.
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("write"))?;
        file.write_all(key.to_pem().expose().as_bytes()).map_err(failed("write"))?;
        file.as_file().sync_all().map_err(failed("write"))?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("keep")(error.error));
            }
            _ => {}
        }
    }
    let text = fs::read_to_string(path).map_err(failed("read"))?;
    let key = SigningKey::from_pem(&Secret::new(text), None)
        .map_err(|e| StepError::user(format!("{} is damaged", path.display())).caused_by(&e))?;
    let public = path.with_extension("pub");
    if !public.exists() {
        fs::write(&public, key.public().to_pem()).map_err(failed("write the public half of"))?;
    }
    Ok(key)
}

/// Who builds here, as a provenance tells it.
fn builder(settings: &Settings) -> Builder {
    settings.github_run.as_ref().map_or_else(Builder::local, |(run, machine)| Builder {
        id: format!("https://github.com/actions/runner/{machine}"),
        run: Some(run.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_machine_keeps_its_key_to_itself_and_shows_its_public_half() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("signing");
        let key = own.join("plimsoll.key");
        let first = own_key(&key).unwrap();
        assert_eq!(own_key(&key).unwrap().public(), first.public());
        let mode = |name: &str| fs::metadata(own.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("plimsoll.key"), 0o600);
        let public = fs::read_to_string(own.join("plimsoll.pub")).unwrap();
        assert_eq!(&PublicKey::from_pem(&public).unwrap(), first.public());
        fs::write(&key, "rubbish").unwrap();
        assert!(own_key(&key).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn builders_are_a_machine_or_a_run_of_github() {
        assert_eq!(builder(&Settings::default()), Builder::local());
        let run = "https://github.com/example/shop/actions/runs/1/attempts/2";
        let settings = Settings { github_run: Some((run.into(), "github-hosted".into())), ..Settings::default() };
        let told = builder(&settings);
        assert_eq!(told.id, "https://github.com/actions/runner/github-hosted");
        assert_eq!(told.run.as_deref(), Some(run));
    }
}
