//! What an executable was made with and of: the tools that would have made other bytes had they been others, and what is
//! linked in. Its bill of materials and its provenance tell it; `image --verify` says by it what cannot be compared.

use crate::{cargo::cargo_variables, toolchain::Toolchain, workspace::Workspace};
use plimsoll_attest::{Component, Linked};
use plimsoll_core::{Digest, Hasher};
use plimsoll_engine::{Cx, StepError};
use plimsoll_oci::BlobStore;
use plimsoll_process::{Cmd, which};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

const LOCK: &str = "Cargo.lock";

/// What an executable was made with and of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The tools, by role: `target`, `rustc`, `linker`, `libc`.
    pub with: BTreeMap<String, String>,
    /// Files that decided which of its sources come from elsewhere, by path.
    #[serde(default)]
    pub files: BTreeMap<String, Digest>,
    /// What is linked in: a [`Linked`] as JSON, in the blob store.
    pub of: Digest,
}

/// Asks the tools and cargo.
pub(crate) async fn made(cx: &Cx, package: &str, toolchain: &Toolchain) -> Result<Made, StepError> {
    let workspace = cx.resource::<Workspace>()?;
    let version = match &toolchain.rustc {
        Some(rustc) => asked(cx, Cmd::new(rustc).arg("-vV")).await?,
        None => workspace.toolchain().to_owned(),
    };
    let rustc = Compiler::read(&version);
    let linker = toolchain.linker.clone().unwrap_or_else(|| "cc".to_owned());
    let libc = libc(cx, toolchain, &linker, workspace.sysroot()).await;
    let linker = linker_facts(cx, &linker).await;
    let libc_digest = libc.as_deref().and_then(digest_of);
    let with = [
        ("target", Some(toolchain.triple.clone())),
        ("rustc", Some(rustc.to_string())),
        ("linker", linker),
        ("libc", libc_digest.as_ref().map(ToString::to_string)),
    ];
    let with = with.into_iter().filter_map(|(role, fact)| Some((role.to_owned(), fact?))).collect();
    let inside = linked(cx, package, &toolchain.triple, toolchain.rustc.as_deref()).await?;
    let kind = if toolchain.triple.ends_with("-musl") { "musl" } else { "glibc" };
    let inside = inside.with(component("std", rustc.release, None)).with(component(kind, String::new(), libc_digest));
    Ok(Made { with, files: lock_file(cx)?, of: keep(cx, &inside)? })
}

/// What is linked in, into the blob store.
pub(crate) fn keep(cx: &Cx, linked: &Linked) -> Result<Digest, StepError> {
    let bytes = serde_json::to_vec(linked).expect("names and versions are plain data");
    cx.resource::<BlobStore>()?.put(&bytes).map_err(|e| StepError::of(&e))
}

/// The lock file, by its digest.
pub(crate) fn lock_file(cx: &Cx) -> Result<BTreeMap<String, Digest>, StepError> {
    Ok(BTreeMap::from([(LOCK.to_owned(), Digest::of(lock_text(cx)?.as_bytes()))]))
}

fn lock_text(cx: &Cx) -> Result<String, StepError> {
    fs::read_to_string(cx.root().join(LOCK))
        .map_err(|e| StepError::external(format!("cannot read {LOCK}")).caused_by(&e))
}

fn component(name: &str, version: String, digest: Option<Digest>) -> Component {
    let sha256 = digest.map(|digest| digest.hex().to_owned());
    Component { name: name.to_owned(), version, purl: None, licence: None, sha256 }
}

/// What cargo says is linked into the executables of a package for a target.
pub(crate) async fn linked(cx: &Cx, package: &str, target: &str, rustc: Option<&Path>) -> Result<Linked, StepError> {
    let environment = cx.environment();
    let mut cmd = Cmd::new("cargo")
        .args(["tree", "--locked", "--package", package, "--target", target])
        // What build scripts and procedural macros need runs at compile time.
        .args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--charset", "ascii", "--format", "{p}\t{l}"])
        .cwd(cx.root())
        .inherit_base(environment)
        .envs(cargo_variables(environment))
        .env("CARGO_TERM_COLOR", "never");
    if let Some(rustc) = rustc {
        cmd = cmd.env("RUSTC", rustc);
    }
    let tree = asked(cx, cmd).await?;
    Linked::parse(&tree, &lock_text(cx)?)
        .ok_or_else(|| StepError::internal(format!("`cargo tree` says of {package} what cannot be understood")))
}

async fn asked(cx: &Cx, cmd: Cmd) -> Result<String, StepError> {
    let output = plimsoll_process::output(&cmd.inherit_base(cx.environment()), cx.cancel()).await;
    let output = output.and_then(plimsoll_process::Output::check).map_err(StepError::from)?;
    Ok(output.stdout_text().into_owned())
}

/// What `rustc -vV` says, as far as it counts.
struct Compiler {
    release: String,
    commit: String,
}

impl Compiler {
    fn read(text: &str) -> Self {
        let of = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            value.unwrap_or("unknown").to_owned()
        };
        Self { release: of("release"), commit: of("commit-hash") }
    }
}

impl std::fmt::Display for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.release, self.commit)
    }
}

/// The linker's driver, as it calls itself, with the digest of the program that links.
async fn linker_facts(cx: &Cx, linker: &str) -> Option<String> {
    let said = asked(cx, Cmd::new(linker).arg("--version")).await.ok()?;
    let ld = asked(cx, Cmd::new(linker).arg("-print-prog-name=ld")).await.unwrap_or_default();
    let program = which(ld.trim(), cx.environment()).or_else(|| which(linker, cx.environment()));
    let digest = program.as_deref().and_then(digest_of).map(|digest| format!(" ({digest})")).unwrap_or_default();
    Some(format!("{}{digest}", said.lines().next()?.trim()))
}

/// The C library that is linked in: musl comes with the target, glibc with the linker.
async fn libc(cx: &Cx, toolchain: &Toolchain, linker: &str, sysroot: &Path) -> Option<PathBuf> {
    if !toolchain.triple.ends_with("-musl") {
        let path = asked(cx, Cmd::new(linker).arg("-print-file-name=libc.a")).await.ok()?;
        return Some(PathBuf::from(path.trim())).filter(|path| path.is_absolute());
    }
    let sysroot = match &toolchain.rustc {
        Some(rustc) => asked(cx, Cmd::new(rustc).args(["--print", "sysroot"])).await.ok()?.trim().into(),
        None => sysroot.to_owned(),
    };
    Some(sysroot.join("lib/rustlib").join(&toolchain.triple).join("lib/self-contained/libc.a"))
}

fn digest_of(path: &Path) -> Option<Digest> {
    let (mut file, mut hasher, mut piece) = (File::open(path).ok()?, Hasher::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece).ok()? {
            0 => return Some(hasher.finish()),
            count => hasher.update(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_known_by_its_release_and_its_commit() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e\nrelease: 1.95.0\n";
        assert_eq!(Compiler::read(text).to_string(), "1.95.0 (59807616e)");
        assert_eq!(Compiler::read("").to_string(), "unknown (unknown)");
    }
}
