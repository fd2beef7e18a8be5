//! Uploads on their way: a file that grows and the hash of what it holds.

use super::{
    error::ApiError,
    storage::{Storage, UPLOADS},
};
use axum::{
    body::Body,
    http::{StatusCode, header},
};
use bytes::Bytes;
use futures_util::StreamExt;
use plimsoll_core::{Algorithm, Digest, Hasher};
use std::{
    collections::HashMap,
    fs::{self, File},
    hash::{BuildHasher, Hasher as _, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedMutexGuard, mpsc};

/// Uploads open at once; a push has a handful.
const MAX_OPEN: usize = 1024;
/// The largest blob: larger than any layer registries accept.
const MAX_BLOB: u64 = 64 << 30;
/// A sender that is silent for longer is gone.
const IDLE: Duration = Duration::from_mins(1);
/// An upload that nobody went on with for so long takes no room among the open ones.
const FORGET: Duration = Duration::from_mins(10);
/// How long a request waits for another one that writes to the same upload.
const BUSY: Duration = Duration::from_secs(5);
/// Pieces waiting for the disk; a piece is what the connection reads at once, 400 KiB at most.
const AHEAD: usize = 4;

/// One upload. Its file is open while a request writes to it only, so that removing it frees its bytes.
pub(super) struct Upload {
    path: PathBuf,
    hasher: Hasher,
    pub(super) offset: u64,
    used: Instant,
}

pub(super) type Held = OwnedMutexGuard<Upload>;

#[derive(Default)]
pub(super) struct Uploads {
    open: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Upload>>>>,
}

impl Uploads {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<Upload>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload; gives its id.
    pub(super) fn start(&self, storage: &Storage, repository: &str) -> Result<String, ApiError> {
        // What is idle, and in nobody's hands, is read again from its file when somebody goes on with it.
        let is_idle = |upload: &Arc<tokio::sync::Mutex<Upload>>| {
            Arc::strong_count(upload) == 1 && upload.try_lock().is_ok_and(|upload| upload.used.elapsed() > FORGET)
        };
        self.map().retain(|_, upload| !is_idle(upload));
        if self.map().len() >= MAX_OPEN {
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many uploads are open"));
        }
        let id = format!("{:016x}{:016x}", random(), random());
        let dir = storage.dir(repository, UPLOADS);
        fs::create_dir_all(&dir)?;
        let path = dir.join(&id);
        File::options().append(true).create_new(true).open(&path)?;
        let upload = Upload { path, hasher: Hasher::new(), offset: 0, used: Instant::now() };
        self.map().insert(id.clone(), Arc::new(tokio::sync::Mutex::new(upload)));
        Ok(id)
    }

    /// Finds an upload, also one that was begun before a restart.
    pub(super) fn find(&self, storage: &Storage, repository: &str, id: &str) -> Result<Open, ApiError> {
        let path = storage.dir(repository, UPLOADS).join(id);
        if let Some(known) = self.map().get(id) {
            return Ok(Open { upload: Arc::clone(known), path });
        }
        let upload = reopen(path.clone()).map_err(lost)?;
        let upload = Arc::new(tokio::sync::Mutex::new(upload));
        Ok(Open { upload: self.map().entry(id.to_owned()).or_insert(upload).clone(), path })
    }

    /// Forgets an upload and removes what it holds.
    pub(super) fn abandon(&self, id: &str, held: &Held) {
        self.map().remove(id);
        let _ = fs::remove_file(&held.path);
    }

    /// Makes a finished upload a blob of its repository, if it is the one announced.
    pub(super) fn finish(
        &self,
        storage: &Storage,
        repository: &str,
        id: &str,
        held: &Held,
        expected: &Digest,
    ) -> Result<(), ApiError> {
        let actual = match expected.algorithm() {
            Algorithm::Sha256 => held.hasher.clone().finish(),
            // Which one it is to be is told at the end.
            algorithm @ Algorithm::Sha512 => read_again(&held.path, algorithm)?.0.finish(),
        };
        if actual != *expected {
            self.abandon(id, held);
            let message = format!("what was sent has the digest {actual}, not {expected}");
            return Err(ApiError::bad("DIGEST_INVALID", message));
        }
        let file = File::open(&held.path).map_err(lost)?;
        if file.metadata()?.len() != held.offset {
            return Err(ApiError::bad("BLOB_UPLOAD_INVALID", "the upload was changed by somebody else"));
        }
        // What takes long is done before the turn: others may want it alone.
        file.sync_all()?;
        let _turn = storage.shared()?;
        if !held.path.is_file() {
            return Err(unknown());
        }
        storage.blobs.adopt(&held.path, expected)?;
        storage.link(repository, expected)?;
        self.map().remove(id);
        Ok(())
    }
}

/// An upload that another request may be writing to.
pub(super) struct Open {
    upload: Arc<tokio::sync::Mutex<Upload>>,
    path: PathBuf,
}

impl Open {
    /// Takes hold of it. A request whose line broke may not have come to its end yet.
    pub(super) async fn hold(self) -> Result<Held, ApiError> {
        let held = tokio::time::timeout(BUSY, self.upload.lock_owned()).await.map_err(|_| {
            ApiError::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
        })?;
        // An upload belongs to the repository it was begun in.
        if held.path == self.path { Ok(held) } else { Err(unknown()) }
    }
}

fn unknown() -> ApiError {
    ApiError::absent("BLOB_UPLOAD_UNKNOWN", "there is no such upload")
}

/// Why an upload's file does not open: one that is gone was given up.
fn lost(error: io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::NotFound { unknown() } else { error.into() }
}

fn reopen(path: PathBuf) -> io::Result<Upload> {
    let (hasher, offset) = read_again(&path, Algorithm::Sha256)?;
    Ok(Upload { path, hasher, offset, used: Instant::now() })
}

/// What an upload holds: its hash so far and how many bytes it is.
fn read_again(path: &Path, algorithm: Algorithm) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::by(algorithm);
    let size = crate::blob_store::copy(&mut File::open(path)?, &mut hasher)?;
    Ok((hasher, size))
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Upload {
    fn append(&mut self, file: &mut File, piece: &[u8]) -> io::Result<()> {
        if self.offset + piece.len() as u64 > MAX_BLOB {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.write_all(piece).inspect_err(|_| {
            // A piece written in part would not be in the hash: take it back.
            let _ = file.set_len(self.offset);
        })?;
        self.hasher.update(piece);
        self.offset += piece.len() as u64;
        Ok(())
    }
}

/// Appends `body` to the upload, with bounded memory. What arrived stays, also when the sender breaks off.
pub(super) async fn receive(held: Held, body: Body) -> Result<Held, ApiError> {
    let (tx, mut rx) = mpsc::channel::<Bytes>(AHEAD);
    let writer = tokio::task::spawn_blocking(move || {
        let mut held = held;
        let mut file = File::options().append(true).open(&held.path).map_err(lost)?;
        // A piece that was written in part, as when the disk was full, is not in the hash.
        file.set_len(held.offset)?;
        while let Some(piece) = rx.blocking_recv() {
            held.append(&mut file, &piece)?;
        }
        held.used = Instant::now();
        Ok::<_, ApiError>(held)
    });
    let mut pieces = body.into_data_stream();
    let mut cut = None;
    loop {
        match tokio::time::timeout(IDLE, pieces.next()).await {
            Ok(Some(Ok(piece))) => {
                if tx.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => cut = Some("the request broke off"),
            Err(_) => cut = Some("nothing was sent for too long"),
        }
        if cut.is_some() {
            break;
        }
    }
    drop(tx);
    let held = writer.await.map_err(|e| ApiError::internal(&e))??;
    match cut {
        None => Ok(held),
        Some(reason) => Err(ApiError::bad("BLOB_UPLOAD_INVALID", reason)),
    }
}

/// Checks a chunk's `Content-Range` (`first-last`) against what is here.
pub(super) fn check_range(range: Option<&str>, offset: u64, length: Option<u64>) -> Result<(), ApiError> {
    let Some(range) = range else { return Ok(()) };
    let parsed = range.trim_start_matches("bytes ").split_once('-').and_then(|(first, last)| {
        let last = last.split('/').next()?;
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    let fits = parsed.is_some_and(|(first, last)| {
        first == offset && last >= first && length.is_none_or(|length| (last - first).checked_add(1) == Some(length))
    });
    if fits {
        return Ok(());
    }
    let message = format!("the chunk's range does not follow the {offset} bytes that are here");
    let mut error = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
    error.headers.push((header::RANGE, held_range(offset)));
    Err(error)
}

/// The `Range` header for `offset` bytes held.
pub(super) fn held_range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}
