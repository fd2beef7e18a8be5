//! Images from Dockerfiles: an engine builds one, and gives it out again.
//!
//! The engine's own builder does it, without `BuildKit`: stages and its cache of layers are what it has. Base images are pulled
//! by the engine, without a login.

use crate::{EngineError, engine::Engine};
use bollard::{
    body_try_stream,
    errors::Error,
    query_parameters::{BuildImageOptionsBuilder, ImportImageOptionsBuilder},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::try_unfold};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    path::Path,
    time::Duration,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

/// A failed build tells so many of its last lines.
const LAST_LINES: usize = 20;

/// How long the engine may take before it begins to answer: it takes the whole context first, or packs the whole image.
const BEGIN: Duration = Duration::from_mins(15);

/// How much of a context is sent at once.
const PIECE: usize = 128 * 1024;

/// What is to be built.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// The Dockerfile, as a path in the context.
    pub dockerfile: String,
    /// The stage to build; the last one if none is named.
    pub target: Option<String>,
    /// Values of `ARG`s.
    pub args: BTreeMap<String, String>,
    /// What the engine calls the image. With a name it keeps what it was made of, and builds only what changed the next time.
    pub name: String,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// Has the engine behind `socket` build an image out of `context`, a tar archive; gives the image's id. Each line that the
/// build says goes to `say`. Takes as long as the build does; who drops the future ends it.
///
/// A build that fails is [`EngineError::Build`], with its instruction and last words.
pub async fn build(
    socket: &Path,
    what: &Build,
    context: &Path,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<String, EngineError> {
    let engine = Engine::connect(socket).await?;
    let body = pieces(context).await?;
    let unordered = |map: &BTreeMap<String, String>| map.clone().into_iter().collect::<HashMap<_, _>>();
    let options = BuildImageOptionsBuilder::new().dockerfile(&what.dockerfile).t(&what.name).rm(true).forcerm(true);
    let options = options.buildargs(&unordered(&what.args)).labels(&unordered(&what.labels));
    let options = what.target.iter().fold(options, |options, target| options.target(target)).build();
    let api = engine.api.clone().with_timeout(BEGIN);
    let mut stream = api.build_image(options, None, Some(body_try_stream(body)));
    let mut told = Told::default();
    let mut image = None;
    // Ends with the build; a step's time bounds it, and who goes away ends it.
    while let Some(info) = stream.next().await {
        match info {
            Ok(info) => {
                for line in info.stream.iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty()) {
                    told.add(line);
                    say(line);
                }
                image = info.aux.and_then(|aux| aux.id).or(image);
            }
            Err(Error::DockerStreamError { error }) => return Err(told.failed(what, error)),
            Err(Error::DockerResponseServerError { status_code: 400, message }) => {
                return Err(told.failed(what, message));
            }
            Err(source) => return Err(engine.failed(format!("build `{}`", what.dockerfile), source)),
        }
    }
    image.ok_or_else(|| EngineError::Lacks { what: format!("image after it built `{}`", what.dockerfile) })
}

/// What a build said last.
#[derive(Default)]
struct Told {
    instruction: String,
    last: VecDeque<String>,
}

impl Told {
    fn add(&mut self, line: &str) {
        if line.starts_with("Step ") {
            line.split_once(" : ").map_or(line, |(_, instruction)| instruction).clone_into(&mut self.instruction);
            self.last.clear();
        } else if !line.starts_with(" ---> ") {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(line.to_owned());
        }
    }

    fn failed(self, what: &Build, reason: String) -> EngineError {
        let (dockerfile, last) = (what.dockerfile.clone(), self.last.into());
        EngineError::Build { dockerfile, instruction: self.instruction, reason, last }
    }
}

/// Has the engine load the images of the tar archive `file`. One that does not take them within a quarter of an hour is an
/// error.
pub async fn load(socket: &Path, file: &Path) -> Result<(), EngineError> {
    let engine = Engine::connect(socket).await?;
    let api = engine.api.clone().with_timeout(BEGIN);
    let body = pieces(file).await?;
    let mut told =
        std::pin::pin!(api.import_image_stream(ImportImageOptionsBuilder::new().quiet(true).build(), body, None));
    // Ends with what the engine says of it.
    while let Some(line) = told.next().await {
        let line = line.map_err(|e| engine.failed("load images", e))?;
        if let Some(error) = line.error_detail.and_then(|detail| detail.message) {
            let source = Box::new(Error::DockerStreamError { error });
            return Err(EngineError::Failed { what: "load images".to_owned(), source });
        }
    }
    Ok(())
}

/// A file, piece by piece.
async fn pieces(file: &Path) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, EngineError> {
    let opened = File::open(file).await.map_err(|source| EngineError::Context { path: file.to_owned(), source })?;
    Ok(try_unfold(opened, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE);
        file.read_buf(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| (piece.into(), file)))
    }))
}

/// Writes an image of the engine to `file`, as a tar archive. An engine that does not begin within a quarter of an hour is an
/// error, as is an image that it does not have.
pub async fn export(socket: &Path, image: &str, file: &Path) -> Result<(), EngineError> {
    let engine = Engine::connect(socket).await?;
    let unwritable = |source| EngineError::Context { path: file.to_owned(), source };
    let mut to = File::create(file).await.map_err(unwritable)?;
    let api = engine.api.clone().with_timeout(BEGIN);
    let mut pieces = std::pin::pin!(api.export_image(image));
    // Ends with the archive.
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| engine.failed(format!("export the image {image}"), e))?;
        to.write_all(&piece).await.map_err(unwritable)?;
    }
    to.flush().await.map_err(unwritable)
}
