//! Bodies with bounds: an answer read up to a limit, a file sent with constant memory.

use crate::{HttpError, guard::shown};
use bytes::{Bytes, BytesMut};
use reqwest::{Body, Method, Response};
use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes of a file read at once: large enough that the system calls vanish beside the hashing on the other side.
const PIECE: usize = 256 * 1024;
/// Pieces read ahead of the network: one on its way, one ready.
const AHEAD: usize = 2;

/// The body of `response`, refused once it is longer than `limit` bytes.
pub async fn read_limited(mut response: Response, limit: u64) -> Result<Bytes, HttpError> {
    let url = response.url().clone();
    let too_large = || HttpError::TooLarge { url: shown(&url), limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if (body.len() + piece.len()) as u64 > limit => return Err(too_large()),
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => return Err(HttpError::from_reqwest(&Method::GET, &url, error)),
        }
    }
}

/// A body of `length` bytes of the file at `path` from `offset`; `sent` is told of each piece that goes out.
///
/// The caller sets `Content-Length`: a file that got shorter meanwhile breaks the request instead of ending it early.
pub fn file_body(
    path: &Path,
    offset: u64,
    length: u64,
    sent: impl Fn(usize) + Send + 'static,
) -> Result<Body, HttpError> {
    let open = || -> io::Result<std::fs::File> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    };
    let file = open().map_err(|source| HttpError::File { path: path.display().to_string(), source })?;
    let (tx, rx) = tokio::sync::mpsc::channel::<io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut file = file.take(length);
        let mut left = length;
        while left > 0 {
            let piece = read_piece(&mut file, left);
            let count = piece.as_ref().map_or(0, Bytes::len);
            if count > 0 {
                sent(count);
            }
            left -= count as u64;
            // A closed channel means that the request ended: nothing is left to do.
            if tx.blocking_send(piece).is_err() || count == 0 {
                return;
            }
        }
    });
    Ok(Body::wrap_stream(futures_util::stream::unfold(rx, |mut rx| async { rx.recv().await.map(|item| (item, rx)) })))
}

fn read_piece(file: &mut impl Read, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut piece = vec![0; size];
    match file.read(&mut piece)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file got shorter while it was sent")),
        count => {
            piece.truncate(count);
            Ok(piece.into())
        }
    }
}
