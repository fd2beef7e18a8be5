//! What is said of images, and whether it is believed.
//!
//! ```text
//! Bom (CycloneDX) ──────┐
//! Provenance (SLSA) ────┼─ Statement (in-toto) ─ signed (DSSE) ─ Bundle (Sigstore) ─ a referrer of the image
//! "it is signed" ───────┘
//!
//! bundles that a registry lists + public keys + what is expected ─ Policy ─ findings, by rule
//! ```
//!
//! The bundles are those of `cosign`, which reads and makes them too: `cosign verify` and `cosign verify-attestation` accept
//! what [`Bundle::sign`] makes.
//!
//! Pure: keys are handed in as text, statements go out as bytes. What it is not: a client of registries, of certificate
//! authorities or of transparency logs.

mod bom;
mod bundle;
mod dsse;
mod key;
mod policy;
mod provenance;
mod statement;

pub use bom::{Bom, Component, Linked};
pub use bundle::{BUNDLE, Bundle, CONTENT, PREDICATE, Untrusted};
pub use dsse::Envelope;
pub use key::{KeyError, PublicKey, SigningKey};
pub use policy::{Expected, Finding, Rule, Said, judge, libraries, linked_in};
pub use provenance::{Build, Builder, Material, Provenance, Told};
pub use statement::{CYCLONEDX, PROVENANCE, SIGNATURE, Statement, Subject};
