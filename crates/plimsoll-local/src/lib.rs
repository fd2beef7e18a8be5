//! The local target: a supervisor that owns listeners and processes, and a proxy that routes each request.

pub mod proxy;

mod images;
pub mod supervisor;
mod target;

pub use images::{ImageSource, OciImages, Payload, Rootfs};
pub use supervisor::LocalPaths;
pub use target::LocalTarget;
