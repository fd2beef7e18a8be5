//! Who signs what is released, and whose signatures count: a resource of the steps, because keys belong to machines and not to
//! plans.

use crate::{environment::Signer, inputs::Inputs};
use plimsoll_attest::{Builder, PublicKey, SigningKey};
use plimsoll_engine::StepError;

/// Finds the key that signs, making it where that is wanted.
pub type FindKey = Box<dyn Fn() -> Result<SigningKey, StepError> + Send + Sync>;

/// Finds the keys whose signatures count, where they are named; none means the signer's own.
pub type FindKeys = Box<dyn Fn() -> Result<Vec<PublicKey>, StepError> + Send + Sync>;

/// Who signs, whose signatures count, and who builds. Nothing is looked for before it is asked for.
pub struct Trust {
    signer: FindKey,
    trusted: FindKeys,
    builder: Builder,
}

impl Trust {
    /// From those who find the keys.
    pub fn new(signer: FindKey, trusted: FindKeys, builder: Builder) -> Self {
        Self { signer, trusted, builder }
    }

    /// The key that signs.
    pub fn signer(&self) -> Result<SigningKey, StepError> {
        (self.signer)()
    }

    /// The keys whose signatures count.
    pub fn keys(&self) -> Result<Vec<PublicKey>, StepError> {
        let trusted = (self.trusted)()?;
        if trusted.is_empty() { Ok(vec![self.signer()?.public().clone()]) } else { Ok(trusted) }
    }

    /// The keys whose signatures count for a release: those that are named, or else the one that signed it when it was
    /// pushed, on whatever machine that was.
    pub(crate) fn keys_of(&self, signer: &Signer) -> Result<Vec<PublicKey>, StepError> {
        let trusted = (self.trusted)()?;
        if !trusted.is_empty() {
            return Ok(trusted);
        }
        let key = PublicKey::from_pem(&signer.0);
        Ok(vec![key.map_err(|e| StepError::internal("the key that signed is recorded as none").caused_by(&e))?])
    }

    /// Who builds here.
    pub const fn builder(&self) -> &Builder {
        &self.builder
    }
}

/// Where the sources of a release lie: as configured, else git's remote, else a name for the project that is no address.
pub fn repository(inputs: &Inputs) -> String {
    let project = &inputs.config().project;
    let known = project.repository.as_ref().or(inputs.source.repository.as_ref());
    let known = known.map(|address| address.trim_end_matches('/').trim_end_matches(".git").to_owned());
    known.unwrap_or_else(|| format!("urn:plimsoll:project:{}", project.name))
}
