//! Environments as types, and the proofs that lead into them.
//!
//! ```text
//! Pushed → Attested → Deployed<Staging> → Smoked<Staging> → Approval<Production> → Deployed<Production>
//! ```
//!
//! Each proof holds the one before it, has private fields and no `Deserialize`: the only ways to have one are its step
//! and the engine's replay. So a pipeline that promotes without an approval, or approves what was not smoke-tested, does
//! not compile.

use crate::image::Built;
use plimsoll_core::{EnvironmentName, ImageRef, ServiceName};
use plimsoll_deploy::{ApprovalRecord, Outcome, SmokeReport};
use plimsoll_engine::{Output, Replay};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, marker::PhantomData};

/// An environment: a unit type in the pipelines, configured by its name in `plimsoll.toml`.
///
/// Its gate is part of the type: `plimsoll.toml` may tighten it, never loosen it.
///
/// ```
/// use plimsoll_steps::{Approval, Environment};
/// struct Production;
/// impl Environment for Production {
///     const NAME: &'static str = "production";
///     type Gate = Approval<Self>;
/// }
/// ```
pub trait Environment: Sized + Send + Sync + 'static {
    /// Its name in `plimsoll.toml`.
    const NAME: &'static str;
    /// What must be had before anything is deployed to it: [`Open`] or [`Approval`].
    type Gate: Gated;

    /// The name, checked.
    fn name() -> EnvironmentName {
        Self::NAME.parse().expect("an environment's type has a well-formed name")
    }
}

/// A kind of gate.
pub trait Gated: Output {
    /// Whether a person's yes is needed. What `plimsoll.toml` says of an environment must agree with it.
    const APPROVAL: bool;
}

impl<E: Environment> Gated for Open<E> {
    const APPROVAL: bool = false;
}

impl<E: Environment> Gated for Approval<E> {
    const APPROVAL: bool = true;
}

/// The gate of an environment that everything may enter.
pub struct Open<E>(PhantomData<fn() -> E>);

/// One service's image in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushedImage {
    /// Where it lies, by digest.
    pub image: ImageRef,
    /// What was built.
    pub built: Built,
}

macro_rules! proof {
    ($(#[$doc:meta])* $name:ident $(<$env:ident>)? { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        pub struct $name$(<$env>)? {
            $($field: $type,)*
            $(of: PhantomData<fn() -> $env>,)?
        }

        impl$(<$env: Environment>)? $name$(<$env>)? {
            pub(crate) const fn prove($($field: $type),*) -> Self {
                Self { $($field,)* $(of: PhantomData::<fn() -> $env>,)? }
            }
        }

        impl$(<$env>)? Clone for $name$(<$env>)? {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone(),)* $(of: PhantomData::<fn() -> $env>,)? }
            }
        }

        impl$(<$env: Environment>)? Output for $name$(<$env>)? {
            fn encode(&self) -> String {
                let name: Option<&str> = [$(Some($env::NAME),)? None][0];
                let fields = ($(&EncodedField(&self.$field),)*);
                serde_json::to_string(&(name, fields)).expect("proofs hold plain data")
            }

            fn decode(text: &str, replay: &Replay) -> Result<Self, String> {
                let expected: Option<&str> = [$(Some($env::NAME),)? None][0];
                #[allow(unused_parens, reason = "one field makes a tuple of one")]
                let (name, ($($field,)*)): (Option<String>, ($(proof!(@text $field),)*)) =
                    serde_json::from_str(text).map_err(|e| e.to_string())?;
                if name.as_deref() != expected {
                    return Err(format!("it was recorded for {}", name.as_deref().unwrap_or("no environment")));
                }
                Ok(Self {
                    $($field: <$type as Output>::decode(&$field, replay)?,)*
                    $(of: PhantomData::<fn() -> $env>,)?
                })
            }
        }
    };
    (@text $field:ident) => { String };
}

/// A field of a proof goes in as its own recorded form: a proof within a proof has no other.
struct EncodedField<'a, T>(&'a T);

impl<T: Output> Serialize for EncodedField<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.encode())
    }
}

proof! {
    /// Every image of the release is in the registry, by digest, after all checks were green.
    Pushed { images: BTreeMap<ServiceName, PushedImage> }
}

proof! {
    /// It is said beside every image what it is made of and how it was built, signed by a key whose public half this is.
    Attested { pushed: Pushed, signer: Signer }
}

proof! {
    /// The release serves in `E`, under an approval where `E` asks for one.
    Deployed<E> { pushed: Pushed, signer: Signer, approval: Option<ApprovalRecord>, outcome: Outcome }
}

proof! {
    /// The release answered its smoke requests in `E`.
    Smoked<E> { pushed: Pushed, signer: Signer, report: SmokeReport }
}

proof! {
    /// A person said yes to this release in `E`.
    Approval<E> { pushed: Pushed, signer: Signer, record: ApprovalRecord, replaces: plimsoll_core::Generation }
}

/// The public half of the key that signed what is said of a release, in PEM. It goes with the release: whoever goes on with a run
/// on another machine has another key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signer(pub(crate) String);

impl Pushed {
    /// The images, by service.
    pub const fn images(&self) -> &BTreeMap<ServiceName, PushedImage> {
        &self.images
    }
}

impl Attested {
    /// What was pushed.
    pub const fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    /// Who signed what is said of it.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }
}

impl<E: Environment> Deployed<E> {
    /// What was pushed.
    pub const fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    /// Who signed what is said of it.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The approval it serves under, where its environment asks for one.
    pub const fn approval(&self) -> Option<&ApprovalRecord> {
        self.approval.as_ref()
    }

    /// What the deployment did.
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }
}

impl<E: Environment> Smoked<E> {
    /// What was pushed.
    pub const fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    /// Who signed what is said of it.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// What was asked and answered.
    pub const fn report(&self) -> &SmokeReport {
        &self.report
    }
}

impl<E: Environment> Approval<E> {
    /// What was pushed.
    pub const fn pushed(&self) -> &Pushed {
        &self.pushed
    }

    /// Who signed what is said of it.
    pub const fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Who said yes, how, until when, to which subject.
    pub const fn record(&self) -> &ApprovalRecord {
        &self.record
    }

    /// The generation that is to be replaced.
    pub const fn replaces(&self) -> plimsoll_core::Generation {
        self.replaces
    }
}

impl<E> Clone for Open<E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<E: Environment> Output for Open<E> {
    fn encode(&self) -> String {
        E::NAME.to_owned()
    }

    fn decode(text: &str, _: &Replay) -> Result<Self, String> {
        if text == E::NAME { Ok(Self(PhantomData)) } else { Err(format!("it was recorded for {text}")) }
    }
}
