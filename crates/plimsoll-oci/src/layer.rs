//! Deterministic layers: the same entries give the same bytes on any machine, for any user, at any time.
//!
//! Entries are sorted, parents are made explicit, owners, modes and times are given and not looked up, the tar dialect is
//! plain ustar, and the compressor is a fixed one at a fixed level with a bare gzip header. A file is streamed: memory does not
//! depend on its size.

use crate::{BlobError, BlobStore, Descriptor, blob_store::BlobWriter, descriptor};
use flate2::{Compression as Level, GzBuilder, read::MultiGzDecoder, write::GzEncoder};
use plimsoll_core::{Classify, Digest, ErrorClass, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

/// One thing in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path inside the image: relative, `/` between parts, no `.` and no `..`.
    pub path: String,
    /// Permission bits, such as `0o755`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What is there.
    pub contents: Contents,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// The bytes of a file on this machine.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
    /// A directory.
    Dir,
    /// A symbolic link to this text.
    Symlink(String),
}

impl Entry {
    /// An entry that belongs to root.
    pub fn new(path: impl Into<String>, mode: u32, contents: Contents) -> Self {
        Self { path: path.into(), mode, uid: 0, gid: 0, contents }
    }
}

/// How the layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// As plain tar.
    None,
    /// As gzip, level 6, which everything reads.
    Gzip,
    /// As zstd, level 9: smaller, and unpacked several times as fast.
    Zstd,
}

/// A layer that lies in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Type, digest and size of the stored (compressed) bytes.
    pub descriptor: Descriptor,
    /// The digest of the tar stream before compression.
    pub diff_id: Digest,
}

/// Why a layer could not be built.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A path that must not be in an image.
    #[error("`{path}` cannot be a path in an image: {reason}")]
    Path {
        /// The path.
        path: String,
        /// The reason.
        reason: &'static str,
    },
    /// A file on this machine could not be read.
    #[error("cannot read `{path}` into a layer")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A layer that is there could not be read, or is torn.
    #[error("cannot read a layer")]
    Stream(#[source] io::Error),
    /// The layer could not be written.
    #[error("cannot write a layer")]
    Write(#[source] io::Error),
    /// The layer could not be stored.
    #[error("cannot store a layer")]
    Store(#[from] BlobError),
}

impl Classify for LayerError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Path { .. } => ErrorClass::User,
            Self::Read { .. } | Self::Stream(_) | Self::Write(_) | Self::Store(_) => ErrorClass::External,
        }
    }
}

/// The longest path of the ustar format: a prefix of 155 and a name of 100 bytes.
const MAX_PATH: usize = 255;
/// The largest file of the ustar format: eleven octal digits.
const MAX_FILE: u64 = 0o777_7777_7777;
/// How hard zstd tries.
const ZSTD_LEVEL: i32 = 9;
/// The window of a zstd frame, in powers of two: the most that decoders take without being told otherwise.
const WINDOW_LOG: u32 = 27;
/// What the compressor gets at once. Always full, so that its output does not depend on how a file happened to be read.
const PIECE: usize = 128 * 1024;

/// Checks a path of an image: relative, no `.`, no `..`, no empty part, no NUL, at most 255 bytes.
pub fn check_path(path: &str) -> Result<(), LayerError> {
    let err = |reason| LayerError::Path { path: path.chars().take(MAX_PATH).collect(), reason };
    match path {
        "" => Err(err("it is empty")),
        _ if path.len() > MAX_PATH => Err(err("it is longer than 255 bytes")),
        _ if path.starts_with('/') => Err(err("it is absolute")),
        _ if path.contains('\0') => Err(err("it has a NUL byte")),
        _ if path.split('/').any(|part| part == "..") => Err(err("it has a part `..`")),
        _ if path.split('/').any(|part| part.is_empty() || part == ".") => Err(err("it has an empty part or a `.`")),
        _ => Ok(()),
    }
}

/// Sorts entries, adds the directories they need, refuses what does not fit together.
fn arrange(entries: Vec<Entry>) -> Result<Vec<Entry>, LayerError> {
    let mut sorted: BTreeMap<String, Entry> = BTreeMap::new();
    let twice = |path: &str| LayerError::Path { path: path.to_owned(), reason: "it is there twice" };
    for entry in entries {
        check_path(&entry.path)?;
        let path = entry.path.clone();
        if sorted.insert(path.clone(), entry).is_some() {
            return Err(twice(&path));
        }
    }
    let mut parents = Vec::new();
    for path in sorted.keys() {
        let mut rest = path.as_str();
        while let Some((parent, _)) = rest.rsplit_once('/') {
            match sorted.get(parent).map(|e| &e.contents) {
                Some(Contents::Dir) => {}
                None => parents.push(parent.to_owned()),
                Some(_) => return Err(LayerError::Path { path: path.clone(), reason: "its parent is no directory" }),
            }
            rest = parent;
        }
    }
    for path in parents {
        sorted.insert(path.clone(), Entry::new(path, 0o755, Contents::Dir));
    }
    Ok(sorted.into_values().collect())
}

/// Builds a layer of `entries` into `store`; every entry's time is `epoch`, in seconds since 1970.
pub fn write_layer(
    store: &BlobStore,
    entries: Vec<Entry>,
    epoch: u64,
    compression: Compression,
) -> Result<Layer, LayerError> {
    let entries = arrange(entries)?;
    let mut tar = TarStream::into(store, compression)?;
    for entry in entries {
        tar.append(&entry, epoch)?;
    }
    // Two blocks of zeros end an archive.
    tar.write_all(&[0; 1024]).map_err(LayerError::Write)?;
    tar.finish()
}

/// Stores a layer that is there as a tar stream, compressed as those that are built here.
pub(crate) fn store_tar(store: &BlobStore, mut from: impl Read) -> Result<Layer, LayerError> {
    let mut tar = TarStream::into(store, Compression::Gzip)?;
    io::copy(&mut from, &mut tar).map_err(LayerError::Stream)?;
    tar.finish()
}

/// Stores a layer that is there as a gzip stream, as it is.
pub(crate) fn store_gzip(store: &BlobStore, from: impl Read) -> Result<Layer, LayerError> {
    let mut plain = MultiGzDecoder::new(Both { from, to: store.writer()? });
    let (diff_id, _) = hashed(&mut plain).map_err(LayerError::Stream)?;
    let (digest, size) = plain.into_inner().to.finish()?;
    Ok(Layer { descriptor: Descriptor::new(descriptor::LAYER_GZIP, digest, size), diff_id })
}

/// Stores a layer that is there as a zstd stream, as it is.
pub(crate) fn store_zstd(store: &BlobStore, from: impl Read) -> Result<Layer, LayerError> {
    let from = BufReader::with_capacity(PIECE, Both { from, to: store.writer()? });
    let mut plain = unzstd(from).map_err(LayerError::Stream)?;
    let (diff_id, _) = hashed(&mut plain).map_err(LayerError::Stream)?;
    let (digest, size) = plain.finish().into_inner().to.finish()?;
    Ok(Layer { descriptor: Descriptor::new(descriptor::LAYER_ZSTD, digest, size), diff_id })
}

/// What is compressed in a zstd stream. A frame may ask for 128 MiB of memory and no more.
pub(crate) fn unzstd<R: BufRead>(from: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut plain = zstd::Decoder::with_buffer(from)?;
    plain.window_log_max(WINDOW_LOG)?;
    Ok(plain)
}

/// The digest of all that is read, and how many bytes that is.
pub(crate) fn hashed(from: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; PIECE]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), size)),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

/// What is read is written too.
struct Both<R> {
    from: R,
    to: BlobWriter,
}

impl<R: Read> Read for Both<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

enum Sink {
    Plain(Box<BlobWriter>),
    Gzip(Box<GzEncoder<BlobWriter>>),
    Zstd(Box<zstd::Encoder<'static, BlobWriter>>),
}

/// A tar stream on its way through the hash of its plain bytes, the compressor and the hash of the stored bytes.
struct TarStream {
    hasher: Hasher,
    sink: Sink,
    block: Vec<u8>,
}

impl TarStream {
    fn into(store: &BlobStore, compression: Compression) -> Result<Self, LayerError> {
        let blob = store.writer()?;
        let sink = match compression {
            Compression::None => Sink::Plain(Box::new(blob)),
            Compression::Gzip => {
                let builder = GzBuilder::new().mtime(0).operating_system(255);
                Sink::Gzip(Box::new(builder.write(blob, Level::new(6))))
            }
            Compression::Zstd => Sink::Zstd(Box::new(zstd::Encoder::new(blob, ZSTD_LEVEL).map_err(LayerError::Write)?)),
        };
        Ok(Self { hasher: Hasher::new(), sink, block: Vec::with_capacity(PIECE) })
    }

    fn append(&mut self, entry: &Entry, epoch: u64) -> Result<(), LayerError> {
        let Entry { path, contents, .. } = entry;
        match contents {
            Contents::Dir => self.header(entry, epoch, 0, tar::EntryType::Directory),
            Contents::Symlink(_) => self.header(entry, epoch, 0, tar::EntryType::Symlink),
            Contents::Bytes(bytes) => {
                self.header(entry, epoch, bytes.len() as u64, tar::EntryType::Regular)?;
                self.write_all(bytes).map_err(LayerError::Write)?;
                self.pad(bytes.len() as u64).map_err(LayerError::Write)
            }
            Contents::File(source) => {
                let unreadable = |e| LayerError::Read { path: source.clone(), source: e };
                let file = File::open(source).map_err(unreadable)?;
                let size = file.metadata().map_err(unreadable)?.len();
                if size > MAX_FILE {
                    return Err(LayerError::Path { path: path.clone(), reason: "its file is larger than 8 GiB" });
                }
                self.header(entry, epoch, size, tar::EntryType::Regular)?;
                self.file(file, size, source)?;
                self.pad(size).map_err(LayerError::Write)
            }
        }
    }

    fn header(&mut self, entry: &Entry, epoch: u64, size: u64, kind: tar::EntryType) -> Result<(), LayerError> {
        let unfit = |reason| LayerError::Path { path: entry.path.clone(), reason };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(epoch.min(MAX_FILE));
        header.set_size(size);
        let path = if kind.is_dir() { format!("{}/", entry.path) } else { entry.path.clone() };
        header.set_path(path).map_err(|_| unfit("it does not split into ustar's prefix and name"))?;
        if let Contents::Symlink(target) = &entry.contents {
            header.set_link_name_literal(target).map_err(|_| unfit("its link target is too long"))?;
        }
        header.set_cksum();
        self.write_all(header.as_bytes()).map_err(LayerError::Write)
    }

    /// Exactly `size` bytes: a file that changes while it is read must not shift what comes after it.
    fn file(&mut self, mut file: File, size: u64, path: &Path) -> Result<(), LayerError> {
        let unreadable = |source| LayerError::Read { path: path.to_owned(), source };
        let mut left = size;
        let mut buffer = vec![0; PIECE];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut buffer[..want]).map_err(unreadable)?;
            self.write_all(&buffer[..want]).map_err(LayerError::Write)?;
            left -= want as u64;
        }
        if file.read(&mut buffer[..1]).map_err(unreadable)? > 0 {
            return Err(unreadable(io::Error::other("the file grew while it was read")));
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % 512).expect("a remainder of 512 fits");
        if over == 0 { Ok(()) } else { self.write_all(&[0; 512][over..]) }
    }

    fn flush_block(&mut self) -> io::Result<()> {
        self.hasher.update(&self.block);
        match &mut self.sink {
            Sink::Plain(blob) => blob.write_all(&self.block)?,
            Sink::Gzip(gzip) => gzip.write_all(&self.block)?,
            Sink::Zstd(zstd) => zstd.write_all(&self.block)?,
        }
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Layer, LayerError> {
        self.flush_block().map_err(LayerError::Write)?;
        let (media_type, blob) = match self.sink {
            Sink::Plain(blob) => (descriptor::LAYER, *blob),
            Sink::Gzip(gzip) => (descriptor::LAYER_GZIP, gzip.finish().map_err(LayerError::Write)?),
            Sink::Zstd(zstd) => (descriptor::LAYER_ZSTD, zstd.finish().map_err(LayerError::Write)?),
        };
        let (digest, size) = blob.finish()?;
        Ok(Layer { descriptor: Descriptor::new(media_type, digest, size), diff_id: self.hasher.finish() })
    }
}

impl Write for TarStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == PIECE {
            self.flush_block()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
