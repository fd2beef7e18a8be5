//! Whether a file is a static executable of this kind of machine, read out of its ELF headers (System V ABI, chapters 4 and 5).
//!
//! Bounded: one header and at most [`MAX_SEGMENTS`] program headers are read. What it is not: a check that the program works.

use plimsoll_core::{Classify, ErrorClass, Platform};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Program headers looked at; linkers write about ten.
const MAX_SEGMENTS: u16 = 128;
const PT_INTERP: u32 = 3;

/// Why a file cannot be run on its own.
#[derive(Debug, thiserror::Error)]
pub enum NotRunnable {
    /// It could not be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no static executable for the platform.
    #[error("`{path}` cannot run on {platform} by itself: {reason}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Where it should run.
        platform: Platform,
        /// Why it cannot.
        reason: String,
    },
}

impl Classify for NotRunnable {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unreadable { .. } => ErrorClass::External,
            Self::Unfit { .. } => ErrorClass::User,
        }
    }
}

/// Whether the file at `path` runs on `platform` without a dynamic linker; if not, why not.
pub fn static_executable(path: &Path, platform: Platform) -> Result<(), NotRunnable> {
    let unreadable = |source| NotRunnable::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut header = Vec::new();
    file.by_ref().take(64).read_to_end(&mut header).map_err(unreadable)?;
    let unfit = |reason: String| NotRunnable::Unfit { path: path.to_owned(), platform, reason };
    let table = judge_header(&header, platform).map_err(unfit)?;
    file.seek(SeekFrom::Start(table.offset)).map_err(unreadable)?;
    let mut segments = Vec::new();
    let length = u64::from(table.count) * u64::from(table.size);
    file.take(length).read_to_end(&mut segments).map_err(unreadable)?;
    judge_segments(&segments, &table).map_err(unfit)
}

struct Table {
    offset: u64,
    size: u16,
    count: u16,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn judge_header(header: &[u8], platform: Platform) -> Result<Table, String> {
    if !header.starts_with(b"\x7fELF") {
        let script = if header.starts_with(b"#!") { "it is a script" } else { "it is no ELF file" };
        return Err(script.to_owned());
    }
    if header.len() < 64 {
        return Err("its ELF header is cut off".to_owned());
    }
    if header[4] != 2 || header[5] != 1 {
        return Err("it is no 64-bit little-endian executable".to_owned());
    }
    if !matches!(u16_at(header, 16), 2 | 3) {
        return Err("it is an object file, not an executable".to_owned());
    }
    let (machine, wanted) = (u16_at(header, 18), machine_of(platform));
    if machine != wanted {
        let name = match machine {
            62 => "x86-64".to_owned(),
            183 => "64-bit ARM".to_owned(),
            other => format!("another machine (ELF number {other})"),
        };
        return Err(format!("it was built for {name}"));
    }
    let offset = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
    let (size, count) = (u16_at(header, 54), u16_at(header, 56));
    if count == 0 || count > MAX_SEGMENTS || !(56..=256).contains(&size) {
        return Err("its program headers make no sense".to_owned());
    }
    Ok(Table { offset, size, count })
}

const fn machine_of(platform: Platform) -> u16 {
    match platform {
        Platform::LinuxAmd64 => 62,
        Platform::LinuxArm64 => 183,
    }
}

fn judge_segments(segments: &[u8], table: &Table) -> Result<(), String> {
    if segments.len() < usize::from(table.size) * usize::from(table.count) {
        return Err("its program headers are cut off".to_owned());
    }
    let dynamic = segments
        .chunks_exact(usize::from(table.size))
        .any(|s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]) == PT_INTERP);
    if dynamic {
        return Err(
            "it needs a dynamic linker; build it for a musl target or with `-C target-feature=+crt-static`".into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A header for `machine` with one segment of each given type.
    fn elf(machine: u8, segments: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16] = 3;
        bytes[18] = machine;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(segments.len()).unwrap();
        for kind in segments {
            bytes.push(*kind);
            bytes.extend([0; 55]);
        }
        bytes
    }

    fn check(bytes: &[u8], expected: Result<(), &str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        match (static_executable(file.path(), Platform::LinuxAmd64), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}, expected {part}"),
            (got, _) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn what_cannot_run_is_refused_in_a_sentence() {
        check(&elf(62, &[1, 2]), Ok(()));
        check(&elf(62, &[1, 3]), Err("dynamic linker"));
        check(&elf(183, &[1]), Err("64-bit ARM"));
        check(&elf(8, &[1]), Err("ELF number 8"));
        check(&elf(62, &[1])[..90], Err("cut off"));
        check(&elf(62, &[1])[..30], Err("cut off"));
        check(&elf(62, &[]), Err("make no sense"));
        check(b"#!/bin/sh\n", Err("script"));
        check(b"", Err("no ELF"));
        let mut object = elf(62, &[1]);
        object[16] = 1;
        check(&object, Err("object file"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for (place, magic) in bytes.iter_mut().zip(b"\x7fELF\x02\x01") {
                *place = *magic;
            }
            if let Ok(table) = judge_header(&bytes, Platform::LinuxAmd64) {
                let _ = judge_segments(&bytes, &table);
            }
        }
    }
}
