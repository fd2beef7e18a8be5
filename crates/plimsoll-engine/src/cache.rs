//! The content cache: recorded outputs of pure steps by fingerprint, and how long steps took.
//!
//! One append-only file of JSON lines, read whole at the start of a run: a look-up costs no system call. It may be lost at any
//! time, and any line in it that cannot be read counts as not there. The newest line of a fingerprint wins.

use crate::reads::Component;
use plimsoll_core::Fingerprint;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A recorded output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The recorded output.
    #[serde(rename = "o")]
    pub output: Arc<str>,
    /// What doing the work found it reads beyond what it declared; the hit counts only while these hold.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub discovered: Vec<Component>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    print: Option<Fingerprint>,
    #[serde(rename = "s")]
    step: Arc<str>,
    #[serde(rename = "m")]
    millis: u64,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    output: Option<Arc<str>>,
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    discovered: Vec<Component>,
}

/// The cache of one workspace.
pub struct Cache {
    dir: PathBuf,
    file: Option<File>,
    hits: HashMap<Fingerprint, Hit>,
    millis: HashMap<Arc<str>, u64>,
}

/// When the file is longer than this it is written anew with the newest lines only. About 100,000 outputs.
const COMPACT_AT: u64 = 32 * 1024 * 1024;
/// How many of the newest lines survive that.
const KEEP: usize = 50_000;

impl Cache {
    /// Opens the cache in `dir`, making the directory where it is missing. A cache that cannot be written serves what
    /// it holds and forgets the rest.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("steps.jsonl");
        let text = fs::read(&path).unwrap_or_default();
        let mut this = Self { dir: dir.to_owned(), file: None, hits: HashMap::new(), millis: HashMap::new() };
        if text.len() as u64 > COMPACT_AT {
            this.compact(&path, &text)?;
        }
        for line in text.split(|b| *b == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                this.millis.insert(Arc::clone(&line.step), line.millis);
                if let (Some(print), Some(output)) = (line.print, line.output) {
                    this.hits.insert(print, Hit { output, discovered: line.discovered });
                }
            }
        }
        Ok(this)
    }

    /// The recorded output for `print`.
    pub fn get(&self, print: &Fingerprint) -> Option<&Hit> {
        self.hits.get(print)
    }

    /// How long `step` took when it last did its work.
    pub fn expected_millis(&self, step: &str) -> Option<u64> {
        self.millis.get(step).copied()
    }

    /// Records an output. Failures to write are returned, but the output is remembered for this process all the same.
    pub fn put(&mut self, print: Fingerprint, step: &Arc<str>, hit: Hit, millis: u64) -> io::Result<()> {
        let Hit { output, discovered } = hit.clone();
        let line = Line { print: Some(print), step: Arc::clone(step), millis, output: Some(output), discovered };
        self.hits.insert(print, hit);
        self.append(&line)
    }

    /// Records how long an effect took.
    pub fn put_millis(&mut self, step: &Arc<str>, millis: u64) -> io::Result<()> {
        self.millis.insert(Arc::clone(step), millis);
        self.append(&Line { print: None, step: Arc::clone(step), millis, output: None, discovered: Vec::new() })
    }

    /// The components `step` had when its output was last recorded.
    pub fn components(&self, step: &str) -> Option<Vec<Component>> {
        match fs::read(self.components_path(step)) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            // A step that reads nothing has no file of its own.
            Err(_) => self.millis.contains_key(step).then(Vec::new),
        }
    }

    /// Records the components of `step`, for the reason of a later miss.
    pub fn put_components(&self, step: &str, components: &[Component]) -> io::Result<()> {
        let path = self.components_path(step);
        if components.is_empty() {
            return match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        fs::create_dir_all(path.parent().expect("the path has a directory by construction"))?;
        fs::write(path, serde_json::to_vec(components).expect("components are plain data"))
    }

    fn components_path(&self, step: &str) -> PathBuf {
        self.dir.join("reads").join(format!("{}.json", Fingerprint::of(step.as_bytes())))
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        if self.file.is_none() {
            fs::create_dir_all(&self.dir)?;
            self.file = Some(File::options().create(true).append(true).open(self.dir.join("steps.jsonl"))?);
        }
        let mut text = serde_json::to_vec(line).expect("cache lines are plain data");
        text.push(b'\n');
        // One write per line with O_APPEND: two runs at once do not tear each other's lines.
        self.file.as_mut().expect("it was opened above").write_all(&text)
    }

    fn compact(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let temp = self.dir.join(format!("steps.jsonl.{}", std::process::id()));
        fs::write(&temp, lines[lines.len().saturating_sub(KEEP)..].concat())?;
        fs::rename(temp, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(text: &str) -> Hit {
        Hit { output: text.into(), discovered: Vec::new() }
    }

    #[test]
    fn an_output_is_found_by_the_next_process_and_the_newest_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (print, step) = (Fingerprint::of(b"p"), Arc::from("compile[a]"));
        let mut cache = Cache::open(dir.path()).unwrap();
        cache.put(print, &step, hit("1"), 10).unwrap();
        cache.put(print, &step, hit("2"), 20).unwrap();
        let again = Cache::open(dir.path()).unwrap();
        assert_eq!(again.get(&print), Some(&hit("2")));
        assert_eq!(again.expected_millis("compile[a]"), Some(20));
    }

    #[test]
    fn a_line_that_cannot_be_read_counts_as_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        cache.put(Fingerprint::of(b"p"), &"a".into(), hit("1"), 1).unwrap();
        let path = dir.path().join("steps.jsonl");
        let mut bytes = b"{\"f\":\x00garbage\n".to_vec();
        bytes.extend(fs::read(&path).unwrap());
        bytes.extend(b"{\"f\":");
        fs::write(&path, bytes).unwrap();
        assert_eq!(Cache::open(dir.path()).unwrap().get(&Fingerprint::of(b"p")), Some(&hit("1")));
    }
}
