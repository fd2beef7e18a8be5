//! The ready steps, one file each: adapters from the engine to the domain.
//!
//! A step file is a verb: [`fmt`](Fmt), `clippy`, `test`, `docs` check the workspace; with the feature `delivery`, `compile`,
//! `image`, `push`, `deploy`, `smoke`, `approve`, `promote`, `rollback` and `notify` ship it. Beside them stand what they share: the
//! [`Workspace`] (packages, sources, toolchain), [`Source`] (commit and version) and [`Inputs`], all that a pipeline's
//! graph is built from.
//!
//! Adding a step is one file here and one `mod` line.

mod advisories;
mod advisory_database;
mod cargo;
mod clippy;
mod deny;
mod docs;
mod fmt;
mod git;
mod inputs;
mod licences;
mod scan;
mod semver_checks;
mod test;
mod tidy;
mod unused;
mod version;
mod workspace;

#[cfg(feature = "delivery")]
mod approve;
#[cfg(feature = "delivery")]
mod attest;
#[cfg(feature = "delivery")]
mod compile;
#[cfg(feature = "delivery")]
mod context;
#[cfg(feature = "delivery")]
mod deploy;
#[cfg(feature = "delivery")]
mod deploying;
#[cfg(feature = "delivery")]
mod docker_build;
#[cfg(feature = "delivery")]
mod environment;
#[cfg(feature = "delivery")]
mod image;
#[cfg(feature = "delivery")]
mod made;
#[cfg(feature = "delivery")]
mod notify;
#[cfg(feature = "delivery")]
mod origin;
#[cfg(feature = "delivery")]
mod policy;
#[cfg(feature = "delivery")]
mod preview;
#[cfg(feature = "delivery")]
mod promote;
#[cfg(feature = "delivery")]
mod push;
#[cfg(feature = "delivery")]
mod ready;
#[cfg(feature = "delivery")]
mod release;
#[cfg(feature = "delivery")]
mod rollback;
#[cfg(feature = "delivery")]
mod shared_cache;
#[cfg(feature = "delivery")]
mod smoke;
#[cfg(feature = "delivery")]
mod targets;
mod toolchain;
#[cfg(feature = "delivery")]
mod trust;

pub use advisories::Advisories;
pub use advisory_database::{AdvisorySource, Known};
pub use clippy::Clippy;
pub use deny::Deny;
pub use docs::Docs;
pub use fmt::Fmt;
pub use git::{GitError, Source, last_change};
pub use inputs::{Inputs, Options, RenderedObjects};
pub use licences::Licences;
pub use scan::Scanned;
pub use semver_checks::SemverChecks;
pub use test::{Test, TestReport};
pub use tidy::{Directions, Tidy};
pub use toolchain::{Machine, MissingToolchain, Toolchain, Way};
pub use unused::Unused;
pub use version::{next_version, version_of};
pub use workspace::{Package, Workspace};

#[cfg(feature = "delivery")]
pub use {
    approve::{Approve, Asker, Asking, Question, Reply, Subject, Verdict, question_path, questions},
    attest::Attest,
    compile::{Compile, Compiled},
    deploy::Deploy,
    deploying::drive_failed,
    docker_build::DockerBuild,
    environment::{Approval, Attested, Deployed, Environment, Gated, Open, Pushed, PushedImage, Signer, Smoked},
    image::{Built, Image},
    made::Made,
    notify::{CutOverFigures, Failure, Notice, Notify, Say, Started, Waiting},
    origin::{Origin, Origins},
    policy::{Examined, examine, told},
    preview::preview,
    promote::Promote,
    push::{Push, Registry, RegistryAddress},
    ready::{built, shipped_packages, started},
    release::{policy, service_spec},
    rollback::{Pick, Rollback, pick},
    shared_cache::{CacheAccess, Pruned, RegistryCache, prune},
    smoke::Smoke,
    targets::Targets,
    trust::{FindKey, FindKeys, Trust, repository},
};
