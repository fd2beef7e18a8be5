//! What an executable was made with and of: the tools that would have made other bytes had they been others, and what is
//! linked in. Its bill of materials and its provenance tell it; `image --verify` says by it what cannot be compared.

use crate::{
    cargo::cargo_variables,
    toolchain::{Toolchain, Way},
    workspace::Workspace,
};
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
    /// The executable's digest, where it is known.
    #[serde(default)]
    pub executable: Option<Digest>,
    /// Files that decided which of its sources come from elsewhere, by path.
    #[serde(default)]
    pub files: BTreeMap<String, Digest>,
    /// What is linked in: a [`Linked`] as JSON, in the blob store.
    pub of: Digest,
}

/// The tools that link an executable. Asked before it is linked: what is on the machine afterwards may be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    /// By role.
    pub(crate) with: BTreeMap<String, String>,
    release: String,
    libc: Option<Digest>,
}

impl Tools {
    /// Asks them. What nobody here knows is left out.
    pub(crate) async fn ask(cx: &Cx, toolchain: &Toolchain) -> Result<Self, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let version = match &toolchain.rustc {
            Some(rustc) => asked(cx, Cmd::new(rustc).arg("-vV")).await?,
            None => workspace.toolchain().to_owned(),
        };
        let rustc = Compiler::read(&version);
        let sysroot = match &toolchain.rustc {
            Some(rustc) => asked(cx, Cmd::new(rustc).args(["--print", "sysroot"])).await?.trim().into(),
            None => workspace.sysroot().to_owned(),
        };
        let (linker, libc) = match (toolchain.way, &toolchain.linker) {
            // zig brings its own C library along.
            (Way::Zigbuild, _) => {
                (asked(cx, Cmd::new("zig").arg("version")).await.ok().map(|v| format!("zig {}", v.trim())), None)
            }
            (_, None) if is_set_elsewhere(cx) => (None, None),
            (_, linker) => {
                let linker = linker.as_deref().unwrap_or("cc");
                (named(cx, linker, &sysroot, &toolchain.triple).await, libc(cx, toolchain, linker, &sysroot).await)
            }
        };
        let libc = libc.as_deref().and_then(digest_of);
        let with = [
            ("target", Some(toolchain.triple.clone())),
            ("rustc", Some(rustc.to_string())),
            ("linker", linker),
            ("libc", libc.as_ref().map(ToString::to_string)),
        ];
        let with = with.into_iter().filter_map(|(role, fact)| Some((role.to_owned(), fact?))).collect();
        Ok(Self { with, release: rustc.release, libc })
    }
}

/// Says what was made with these tools, and asks cargo of what.
pub(crate) async fn made(
    cx: &Cx,
    package: &str,
    toolchain: &Toolchain,
    tools: Tools,
    executable: &Digest,
) -> Result<Made, StepError> {
    let inside = linked(cx, package, &toolchain.triple, toolchain.rustc.as_deref()).await?;
    let kind = if toolchain.triple.ends_with("-musl") { "musl" } else { "glibc" };
    let inside = inside.with(component("std", tools.release, None)).with(component(kind, String::new(), tools.libc));
    Ok(Made { with: tools.with, executable: Some(executable.clone()), files: lock_file(cx)?, of: keep(cx, &inside)? })
}

/// Whether cargo's own configuration may name the linker.
fn is_set_elsewhere(cx: &Cx) -> bool {
    let home = cx.environment().get("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(cx.environment().get("HOME")?).join(".cargo")));
    let above = cx.root().ancestors().map(|directory| directory.join(".cargo")).chain(home);
    let mut files = above.flat_map(|directory| ["config.toml", "config"].map(|name| directory.join(name)));
    files.any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("linker")))
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

/// The linker's driver, as it calls itself, with the digest of the program that it has link.
async fn named(cx: &Cx, linker: &str, sysroot: &Path, triple: &str) -> Option<String> {
    let said = asked(cx, Cmd::new(linker).arg("--version")).await.ok()?;
    // For one target the compiler brings a linker along, and has it used where it lies there.
    let own = sysroot.join("lib/rustlib").join(triple).join("bin");
    let program = if triple == "x86_64-unknown-linux-gnu" && own.join("gcc-ld/ld.lld").exists() {
        Some(own.join("rust-lld"))
    } else {
        let ld = asked(cx, Cmd::new(linker).arg("-print-prog-name=ld")).await.unwrap_or_default();
        which(ld.trim(), cx.environment()).or_else(|| which(linker, cx.environment()))
    };
    let digest = program.as_deref().and_then(digest_of).map(|digest| format!(" ({digest})")).unwrap_or_default();
    Some(format!("{}{digest}", said.lines().next()?.trim()))
}

/// The C library that is linked in: musl comes with the target, glibc with the linker.
async fn libc(cx: &Cx, toolchain: &Toolchain, linker: &str, sysroot: &Path) -> Option<PathBuf> {
    if toolchain.triple.ends_with("-musl") {
        return Some(sysroot.join("lib/rustlib").join(&toolchain.triple).join("lib/self-contained/libc.a"));
    }
    let path = asked(cx, Cmd::new(linker).arg("-print-file-name=libc.a")).await.ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| path.is_absolute())
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
