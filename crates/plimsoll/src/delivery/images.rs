//! `image --output` and `--load`: what a run built, as files or in this machine's Docker Engine.

use super::{rebuilt, resources::engine};
use crate::{cli::ImageArgs, cli_error::CliError, report::text::size, session::Session};
use plimsoll_core::{Platform, ServiceName};
use plimsoll_engine::{Report, StepError};
use plimsoll_oci::{BlobStore, LayoutError, NamedImage, write_archive, write_layout};
use plimsoll_steps::Built;
use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::ExitCode,
};

/// Hands the images of a run out as its command asked for.
pub(crate) async fn images(
    session: &Session,
    args: &ImageArgs,
    version: &str,
    report: &Report,
) -> Result<ExitCode, CliError> {
    if args.output.is_none() && !args.load && args.verify.is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let store = BlobStore::open(session.cache.join("cache/blobs")).map_err(|e| StepError::of(&e))?;
    let images = named(session.config.project.name.as_str(), version, report);
    if let Some(output) = &args.output {
        written(&store, &images, output)?;
        session.console.out(&format!("{} images in {}\n", images.len(), output.display()));
    }
    if args.load {
        let platform = Platform::host().ok_or_else(|| StepError::user("this machine is neither amd64 nor arm64"))?;
        let file = tempfile::NamedTempFile::new_in(&session.cache)
            .map_err(|source| CliError::Io { what: format!("write in {}", session.cache.display()), source })?;
        archived(&store, &images, platform, true, file.path())?;
        let loaded = plimsoll_docker::load(&engine(&session.environment)?, file.path()).await;
        loaded.map_err(|e| StepError::of(&e))?;
        for image in &images {
            session.console.out(&format!("{} in the Docker Engine\n", image.name));
        }
    }
    match &args.verify {
        Some(reference) => rebuilt::compare(session, &store, reference, built(report)).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What the image steps of the run built.
fn built(report: &Report) -> impl Iterator<Item = Built> {
    let builds = report.steps.iter().filter(|step| {
        let kind = step.name.split('[').next().unwrap_or_default();
        matches!(kind, "image" | "docker-build")
    });
    builds.filter_map(|step| serde_json::from_str(step.output.as_deref()?).ok())
}

/// The images that steps of the run built, named after project, service and version.
fn named(project: &str, version: &str, report: &Report) -> Vec<NamedImage> {
    let tag = version.replace('+', "-");
    let name = |service: &ServiceName| format!("{project}/{service}:{tag}");
    built(report).map(|built| NamedImage { name: name(&built.service), digest: built.digest }).collect()
}

fn written(store: &BlobStore, images: &[NamedImage], output: &Path) -> Result<(), CliError> {
    if output.extension().is_none_or(|extension| extension != "tar") {
        return Ok(write_layout(store, images, output).map_err(|e| StepError::of(&e))?);
    }
    let host = Platform::host().unwrap_or(Platform::LinuxAmd64);
    archived(store, images, host, false, output)
}

fn archived(
    store: &BlobStore,
    images: &[NamedImage],
    platform: Platform,
    only: bool,
    path: &Path,
) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: format!("write {}", path.display()), source };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    write_archive(store, images, platform, only, &mut file).map_err(|e: LayoutError| StepError::of(&e))?;
    file.flush().map_err(failed)?;
    let written = file.get_ref().metadata().map_err(failed)?.len();
    tracing::debug!(path = %path.display(), size = size(written), "an archive of images");
    Ok(())
}
