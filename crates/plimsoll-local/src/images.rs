//! What a slot runs: an unpacked image with its entry point, and where such things come from.
//!
//! No sandbox: a service runs as the user who runs the supervisor and sees that user's files.

use plimsoll_core::{Digest, ImageRef, Platform};
use plimsoll_deploy::TargetError;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, future::Future, path::PathBuf, pin::Pin};

/// An unpacked image, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The executable, as an absolute path on this machine.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The image's environment variables.
    pub env: BTreeMap<String, String>,
    /// The directory to run in, as an absolute path on this machine.
    pub cwd: PathBuf,
}

/// Where images come from.
pub trait ImageSource: Send + Sync {
    /// Makes the image with this digest ready to be started on `platform`; does nothing when it is ready already.
    fn fetch<'a>(
        &'a self,
        image: &'a ImageRef,
        digest: &'a Digest,
        platform: Platform,
    ) -> Pin<Box<dyn Future<Output = Result<Rootfs, TargetError>> + Send + 'a>>;
}
