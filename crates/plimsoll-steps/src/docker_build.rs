//! `docker-build`: a service's image from a Dockerfile, by a Docker Engine, for those who want one.
//!
//! From here on it is an image as any other: pushed by digest, approved, promoted. What it is not: reproducible, and for more
//! platforms than the engine's own; `image` is both. Its context is what neither git nor
//! `.dockerignore` ignores, so what was built or downloaded here neither reaches an image nor makes it be built again.

use crate::{
    context::context_files,
    image::{Built, is_stored, labels},
    made::{Made, keep, linked, lock_file},
    origin::{Origin, Origins},
    workspace::Workspace,
};
use plimsoll_core::{ServiceName, config::DockerBuild as Configured};
use plimsoll_docker::{Build, build, export};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_oci::{ArchiveError, BlobStore, IndexSpec, import_archive, write_index};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
};

/// Builds one service's image from a Dockerfile.
#[derive(Debug, Serialize)]
pub struct DockerBuild {
    /// The service.
    pub service: ServiceName,
    /// The cargo package that the Dockerfile builds: its lock file says what is linked in.
    pub package: String,
    /// The project, for the image's title, and for the name that the engine knows it by.
    pub project: String,
    /// The web address of the sources, if they have one.
    pub source: Option<String>,
    /// The Dockerfile, and what it is told.
    pub build: Configured,
}

impl Step for DockerBuild {
    const NAME: &'static str = "docker-build";
    const VERSION: u32 = 3;
    type In = ();
    type Out = Built;

    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_hours(1)
    }
}

impl Pure for DockerBuild {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut reads = Reads::nothing();
        workspace.add_files(&mut reads, &context_files(&workspace, &self.build.dockerfile)?)?;
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone();
        reads.add("commit", origin.revision.as_bytes());
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Built, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone();
        let host = cx.environment().get("DOCKER_HOST").map(|host| host.to_string_lossy());
        let Ok(socket) = plimsoll_docker::socket(host.as_deref()) else {
            let host = host.unwrap_or_default();
            return Err(StepError::user(format!(
                "DOCKER_HOST is `{host}`, and a build needs a Docker Engine on a local socket"
            )));
        };
        let directory = tempfile::tempdir_in(cx.run_dir())
            .map_err(|e| StepError::external("cannot make a directory for the context").caused_by(&e))?;
        let (packed, archive) = (directory.path().join("context.tar"), directory.path().join("image.tar"));

        let (files, root, to) =
            (context_files(&workspace, &self.build.dockerfile)?, workspace.root().to_owned(), packed.clone());
        let done = cx.blocking(move || pack(&root, &files, &to)).await?;
        done.map_err(|e| StepError::external("cannot pack the context of the build").caused_by(&e))?;
        let labels = labels(&self.project, &self.service, &origin, self.source.as_deref());
        let what = Build {
            dockerfile: self.build.dockerfile.clone(),
            target: self.build.target.clone(),
            args: self.build.args.clone(),
            name: format!("{}/{}:docker-build", self.project, self.service),
            labels: labels.clone(),
        };
        let image = build(&socket, &what, &packed, &|line| cx.log(line)).await.map_err(|e| StepError::of(&e))?;
        export(&socket, &image, &archive).await.map_err(|e| StepError::of(&e))?;

        let store = cx.resource::<BlobStore>()?;
        let stored = cx.blocking(move || {
            let (platform, image) = import_archive(&store, BufReader::new(File::open(archive)?))?;
            let platforms = BTreeMap::from([(platform, image.digest.clone())]);
            let index = write_index(&store, &IndexSpec { images: vec![(platform, image)], annotations: labels })?;
            Ok::<_, ArchiveError>((index.digest, platforms))
        });
        let (digest, platforms) = stored.await?.map_err(|e| StepError::of(&e))?;
        let mut made = BTreeMap::new();
        for platform in platforms.keys() {
            // What the Dockerfile compiles with, and adds, nobody here knows.
            match linked(cx, &self.package, &format!("{}-unknown-linux-gnu", platform.rust_arch()), None).await {
                Ok(linked) => {
                    let made_of =
                        Made { with: BTreeMap::new(), executable: None, files: lock_file(cx)?, of: keep(cx, &linked)? };
                    made.insert(*platform, made_of);
                }
                Err(error) => cx.note(format!("{} gets no bill of materials: {error}", self.service)),
            }
        }
        let Origin { revision, committed_at } = origin;
        Ok(Built { service: self.service.clone(), digest, platforms, revision, committed_at, made })
    }

    fn usable(&self, cx: &Cx, built: &Built) -> bool {
        is_stored(cx, built)
    }
}

/// Writes files as a tar archive; who owns them and when they were written does not count.
fn pack(root: &Path, files: &[PathBuf], to: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(BufWriter::new(File::create(to)?));
    tar.mode(tar::HeaderMode::Deterministic);
    tar.follow_symlinks(false);
    for file in files {
        tar.append_path_with_name(root.join(file), file)?;
    }
    tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}
