//! Plain types every other crate speaks: names, digests, references, secrets, retry policy, events, configuration.
//!
//! Nothing here does I/O, looks at a clock or draws a random number: time and randomness are passed in.

mod class;
pub mod config;
mod digest;
mod event;
mod id;
mod image_ref;
mod quantity;
mod retry;
mod secret;
mod state;
mod time;

pub use class::{Classify, ErrorClass, chain};
pub use digest::{Algorithm, Digest, DigestError, Fingerprint, Hasher};
pub use event::{Ending, Event, RunOutcome};
pub use id::{EnvironmentName, Generation, NameError, Platform, RunId, ServiceName, Slot};
pub use image_ref::{ImageRef, ImageRefError};
pub use quantity::{ByteSize, Millicores, QuantityError};
pub use retry::{RetryDecision, RetryPolicy};
pub use secret::Secret;
pub use state::{BackupCommands, StateSchema};
pub use time::Timestamp;
