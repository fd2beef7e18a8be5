//! OCI images without a daemon: layers, indexes, push and pull, an embedded registry.
//!
//! ```text
//! entries ─ layer ─┐
//!                  ├─ image ─ BlobStore ─ client ─ registry (ours or any other)
//! image spec ──────┘                        └─ BlobStore ─ unpack ─ a directory to run from
//! ```
//!
//! Everything lies in a [`BlobStore`] by digest; what is pushed, pulled or unpacked is checked against the digest that asked
//! for it. What it is not: a container runtime, and no reader of image formats other than OCI's, Docker's schema 2
//! and the archives that Docker Engines export.

mod archive;
mod artifact;
mod blob_store;
mod client;
mod compare;
mod descriptor;
mod elf;
mod image;
mod layer;
mod layout;
pub mod registry;
mod unpack;

pub use archive::{ArchiveError, import_archive};
pub use artifact::{Artifact, Said, write_artifact, write_collection};
pub use blob_store::{BlobError, BlobStore, BlobWriter};
pub use client::{
    AuthSource, ClientError, CredentialHelpers, Credentials, HostOptions, PullReport, PushEvent, PushReport, Referrer,
    RegistryClient, RegistryOptions, Verified,
};
pub use compare::{Difference, Stored, first_difference};
pub use descriptor::{
    CONFIG, DOCKER_LAYER_GZIP, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, LAYER, LAYER_GZIP, LAYER_ZSTD,
    MANIFEST, MAX_MANIFEST, ManifestError, ManifestView, PlatformSpec,
};
pub use elf::{NotRunnable, static_executable};
pub use image::{
    Base, ImageError, ImageSpec, IndexSpec, ServiceImage, service_image, service_images, write_image, write_index,
};
pub use layer::{Compression, Contents, Entry, Layer, LayerError, check_path, write_layer};
pub use layout::{LayoutError, NamedImage, write_archive, write_layout};
pub use unpack::{Rootfs, UnpackError, UnpackLimits, unpack};
