//! `compile`: one service's binary for one platform, static, by its own `cargo build`, so that no other service's features
//! reach it. Built twice, in other directories and by other users, it is the same bytes.

use crate::{
    cargo::{self, target_dir},
    made::{Made, Tools, made},
    origin::{Origins, outside},
    toolchain::{Machine, Toolchain, Way},
    workspace::Workspace,
};
use plimsoll_core::{Digest, Platform, ServiceName, config::Severity};
use plimsoll_engine::{Cx, Leaf, Pure, Reads, Step, StepError};
use plimsoll_oci::{BlobStore, static_executable};
use plimsoll_process::Cmd;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Compiles one service for one platform.
#[derive(Debug, Serialize)]
pub struct Compile {
    /// The service.
    pub service: ServiceName,
    /// The cargo package that has its binary.
    pub package: String,
    /// The binary.
    pub bin: String,
    /// The platform.
    pub platform: Platform,
    /// Whether everything is compiled anew, in a directory of its own.
    #[serde(skip)]
    pub afresh: bool,
    /// What a platform that cannot be compiled for is: an error, or left out, visibly.
    pub missing: Severity,
}

/// A compiled binary, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compiled {
    /// A binary in the blob store.
    Binary {
        /// What it runs on.
        platform: Platform,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What it was made with and of.
        made: Made,
        /// Files of the workspace that it was built from and that are in none of its packages.
        #[serde(default)]
        outside: BTreeSet<PathBuf>,
    },
    /// The platform is left out.
    LeftOut {
        /// Which platform.
        platform: Platform,
        /// Why, and what would help.
        reason: String,
    },
}

impl Compile {
    fn toolchain(&self, cx: &Cx) -> Result<Result<Toolchain, String>, StepError> {
        let machine = cx.resource::<Machine>()?;
        match machine.choose(self.platform) {
            Ok(toolchain) => Ok(Ok(toolchain)),
            Err(missing) if self.missing == Severity::Warn => Ok(Err(missing.to_string())),
            Err(missing) => Err(StepError::user(missing.to_string())),
        }
    }

    /// Where cargo builds.
    fn directory(&self, cx: &Cx) -> PathBuf {
        if self.afresh {
            cx.run_dir().join("target").join(self.service.as_str()).join(self.platform.architecture())
        } else {
            target_dir(cx.root())
        }
    }

    fn cargo(&self, cx: &Cx, toolchain: &Toolchain, epoch: i64) -> Cmd {
        let environment = cx.environment();
        let target_dir = self.directory(cx);
        let verb = if toolchain.way == Way::Zigbuild { "zigbuild" } else { "build" };
        let mut cmd = Cmd::new("cargo")
            .args([verb, "--locked", "--release", "--package", &self.package, "--bin", &self.bin])
            .args(["--target", &toolchain.triple, "--target-dir"])
            .arg(&target_dir)
            .cwd(cx.root())
            .inherit_base(environment)
            .inherit_env(environment, &["CARGO_NET_OFFLINE", "CARGO_NET_GIT_FETCH_WITH_CLI", "CARGO_BUILD_JOBS"])
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_INCREMENTAL", "0")
            .env("SOURCE_DATE_EPOCH", epoch.to_string())
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(cx, toolchain, &target_dir).join("\x1f"))
            .timeout(self.timeout());
        if let Some(rustc) = &toolchain.rustc {
            cmd = cmd.env("RUSTC", rustc);
        }
        if let Some(linker) = &toolchain.linker {
            let triple = toolchain.triple.to_uppercase().replace('-', "_");
            cmd = cmd.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
            // Packages with code in C compile it by what links it, if that is a compiler; `cc` reads the target with
            // underscores.
            if ["gcc", "clang", "cc"].iter().any(|compiler| linker.ends_with(compiler)) {
                cmd = cmd.env(format!("CC_{}", toolchain.triple.replace('-', "_")), linker);
            }
        }
        cmd
    }
}

impl Compile {
    /// Removes what other tools linked: cargo knows of another compiler, but not of another linker or C library.
    async fn forget_other(&self, cx: &Cx, toolchain: &Toolchain, tools: &Tools) -> Result<(), StepError> {
        let directory = self.directory(cx).join(&toolchain.triple);
        let kept = directory.join(format!("linked-{}.json", self.bin));
        let now = serde_json::to_vec(&tools.with).expect("names are plain data");
        if fs::read(&kept).is_ok_and(|before| before == now) {
            return Ok(());
        }
        if directory.join("release").join(&self.bin).exists() {
            let environment = cx.environment();
            let cmd = Cmd::new("cargo")
                .args(["clean", "--release", "--package", &self.package, "--target", &toolchain.triple, "--target-dir"])
                .arg(self.directory(cx))
                .cwd(cx.root())
                .inherit_base(environment)
                .env("CARGO_TERM_COLOR", "never");
            cargo::check(cx, "cargo clean", cmd).await?;
        }
        let failed = |e: io::Error| StepError::external(format!("cannot write {}", kept.display())).caused_by(&e);
        fs::create_dir_all(&directory).and_then(|()| fs::write(&kept, now)).map_err(failed)
    }
}

/// Flags that take the place and the time of the build out of the result.
fn rustflags(cx: &Cx, toolchain: &Toolchain, target: &Path) -> Vec<String> {
    let home = |variable: &str, default: &str| {
        let environment = cx.environment();
        let given = environment.get(variable).map(PathBuf::from);
        given.or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(default)))
    };
    let mut flags = vec![
        "-Cstrip=symbols".to_owned(),
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
        format!("--remap-path-prefix={}=/source", cx.root().display()),
        // The last one that fits counts: what build scripts write has one name wherever it lies.
        format!("--remap-path-prefix={}=/target", target.display()),
    ];
    if let Some(cargo) = home("CARGO_HOME", ".cargo") {
        flags.push(format!("--remap-path-prefix={}=/cargo", cargo.display()));
    }
    if toolchain.crt_static {
        flags.push("-Ctarget-feature=+crt-static".to_owned());
    }
    flags
}

impl Step for Compile {
    const NAME: &'static str = "compile";
    const VERSION: u32 = 3;
    type In = ();
    type Out = Compiled;

    fn exclusive(&self) -> Option<&'static str> {
        Some("cargo's release directory")
    }

    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_hours(1)
    }
}

impl Pure for Compile {
    fn is_shared(&self) -> bool {
        true
    }

    fn leaves(&self, _: &Cx, output: &Compiled) -> Option<Vec<Leaf>> {
        match output {
            Compiled::Binary { digest, made, .. } => {
                Some([digest, &made.of].map(|blob| Leaf::Blob(blob.clone())).into())
            }
            // Another machine may have what this one lacks.
            Compiled::LeftOut { .. } => None,
        }
    }

    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let workspace = cx.resource::<Workspace>()?;
        let mut reads = workspace.sources_of_binary(&self.package, &self.bin)?;
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone();
        reads.add("commit time", &origin.committed_at.to_le_bytes());
        let toolchain = serde_json::to_vec(&self.toolchain(cx)?).expect("a toolchain is plain data");
        reads.add(format!("toolchain for {}", self.platform), &toolchain);
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Compiled, StepError> {
        let toolchain = match self.toolchain(cx)? {
            Ok(toolchain) => toolchain,
            Err(reason) => {
                cx.note(format!("{} is left out of {}: {reason}", self.platform, self.service));
                return Ok(Compiled::LeftOut { platform: self.platform, reason });
            }
        };
        let origin = cx.resource::<Origins>()?.of(&self.service)?.clone();
        let tools = Tools::ask(cx, &toolchain).await?;
        self.forget_other(cx, &toolchain, &tools).await?;
        let cmd = self.cargo(cx, &toolchain, origin.committed_at);
        cargo::check(cx, "the compiler", cmd)
            .await
            .map_err(|e| e.during(format!("cannot compile {}", self.service)))?;
        let directory = self.directory(cx);
        let path = directory.join(&toolchain.triple).join("release").join(&self.bin);
        let outside = discover(cx, &self.package, &path)?;
        static_executable(&path, self.platform).map_err(|e| {
            StepError::internal(format!("the binary of {} is not fit for an image", self.service)).caused_by(&e)
        })?;
        let store = cx.resource::<BlobStore>()?;
        let (digest, size) = cx
            .blocking(move || store_file(&store, &path))
            .await?
            .map_err(|e| StepError::external(format!("cannot store the binary of {}", self.service)).caused_by(&*e))?;
        if self.afresh {
            // Nobody builds in it again.
            fs::remove_dir_all(&directory)
                .map_err(|e| StepError::external(format!("cannot remove {}", directory.display())).caused_by(&e))?;
        }
        let made = made(cx, &self.package, &toolchain, tools, &digest).await?;
        Ok(Compiled::Binary { platform: self.platform, digest, size, made, outside })
    }

    fn usable(&self, cx: &Cx, output: &Compiled) -> bool {
        match output {
            Compiled::Binary { digest, made, .. } => {
                cx.resource::<BlobStore>().is_ok_and(|store| store.contains(digest) && store.contains(&made.of))
            }
            // What is left out is said every time: it costs nothing to look again.
            Compiled::LeftOut { .. } => false,
        }
    }
}

/// Adds what rustc opened beyond the declared sources, such as a file that another directory's `include_str!` names: cargo
/// lists it in the dep-info beside the binary. Gives those that are in none of the package's own.
fn discover(cx: &Cx, package: &str, binary: &Path) -> Result<BTreeSet<PathBuf>, StepError> {
    let Ok(text) = fs::read_to_string(binary.with_extension("d")) else { return Ok(BTreeSet::new()) };
    let workspace = cx.resource::<Workspace>()?;
    let inside = dep_info(&text).into_iter().filter_map(|path| path.strip_prefix(cx.root()).map(Path::to_owned).ok());
    let mut reads = Reads::nothing();
    let inside: Vec<PathBuf> = inside.collect();
    workspace.add_files(&mut reads, &inside)?;
    cx.discover(&reads);
    outside(&workspace, package, &inside)
}

/// The paths on the right of the colon in a dep-info file; spaces in them are escaped by a backslash.
fn dep_info(text: &str) -> Vec<PathBuf> {
    let line = text.lines().next().and_then(|l| l.split_once(": ")).map_or("", |(_, paths)| paths);
    let unescaped = line.replace("\\ ", "\0");
    unescaped.split(' ').filter(|p| !p.is_empty()).map(|p| PathBuf::from(p.replace('\0', " "))).collect()
}

fn store_file(store: &Arc<BlobStore>, path: &Path) -> Result<(Digest, u64), Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = store.writer()?;
    io::copy(&mut File::open(path)?, &mut writer)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_info_lists_paths_with_spaces_too() {
        let text = "/t/release/web: /w/src/lib.rs /w/my\\ data/x.txt /cargo/y.rs\n";
        let paths = dep_info(text);
        assert_eq!(paths, ["/w/src/lib.rs", "/w/my data/x.txt", "/cargo/y.rs"].map(PathBuf::from));
        assert!(dep_info("").is_empty());
    }
}
