//! Which compiler and linker make a static executable for a platform. Pure: what the machine has is passed in.
//!
//! musl comes first, because a static glibc cannot load name-service modules; then the GNU target with `crt-static`; then a
//! distribution's own compiler with its cross libraries.

use plimsoll_core::Platform;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// What a machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The platform it is itself.
    pub host: Option<Platform>,
    /// Target triples whose standard library the default compiler has.
    pub targets: BTreeSet<String>,
    /// A distribution's compiler beside the default one, with the targets it has.
    pub system: Option<(PathBuf, BTreeSet<String>)>,
    /// Programs that can link, by name.
    pub linkers: BTreeSet<String>,
}

/// A way to compile for a platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The target triple.
    pub triple: String,
    /// The compiler, where it is not the default one.
    pub rustc: Option<PathBuf>,
    /// The linker, where it is not the default one.
    pub linker: Option<String>,
    /// Whether `-C target-feature=+crt-static` has to be given; musl targets are static without.
    pub crt_static: bool,
}

/// No way to compile for a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing here compiles for {platform}; {fix}")]
pub struct MissingToolchain {
    /// For which platform.
    pub platform: Platform,
    /// What to install.
    pub fix: String,
}

impl Machine {
    /// Looks at the machine: `sysroot` is the default compiler's.
    pub fn look(sysroot: &Path, environment: &plimsoll_process::Environment) -> Self {
        let targets = |sysroot: &Path| -> BTreeSet<String> {
            let libs = std::fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
            let has_std = |dir: &std::fs::DirEntry| {
                let files = std::fs::read_dir(dir.path().join("lib")).into_iter().flatten().flatten();
                files.take(200).any(|f| f.file_name().to_string_lossy().starts_with("libstd-"))
            };
            libs.filter(has_std).map(|d| d.file_name().to_string_lossy().into_owned()).collect()
        };
        let system = Path::new("/usr/bin/rustc");
        let linkers = ["cc", "musl-gcc", "aarch64-linux-gnu-gcc", "x86_64-linux-gnu-gcc", "aarch64-linux-musl-gcc"];
        Self {
            host: Platform::host(),
            targets: targets(sysroot),
            system: (system.exists() && sysroot != Path::new("/usr"))
                .then(|| (system.to_owned(), targets(Path::new("/usr")))),
            linkers: linkers
                .into_iter()
                .filter(|l| plimsoll_process::which(l, environment).is_some())
                .map(str::to_owned)
                .collect(),
        }
    }

    /// The first way to compile for `platform`.
    pub fn choose(&self, platform: Platform) -> Result<Toolchain, MissingToolchain> {
        let arch = platform.rust_arch();
        let (musl, gnu) = (format!("{arch}-unknown-linux-musl"), format!("{arch}-unknown-linux-gnu"));
        let native = self.host == Some(platform);
        let cross = format!("{arch}-linux-gnu-gcc");
        let linker =
            |candidates: &[&str]| candidates.iter().find(|l| self.linkers.contains(**l)).map(|l| (*l).to_owned());
        let toolchain = |triple: &str, rustc: Option<&PathBuf>, linker: Option<String>| Toolchain {
            triple: triple.to_owned(),
            rustc: rustc.cloned(),
            linker,
            crt_static: triple.ends_with("-gnu"),
        };
        if self.targets.contains(&musl) {
            // The musl target brings its own C library: any linker of the architecture will do.
            let found = if native { linker(&["cc"]) } else { linker(&[&format!("{arch}-linux-musl-gcc"), &cross]) };
            if let Some(found) = found {
                return Ok(toolchain(&musl, None, (!native).then_some(found)));
            }
        }
        let gnu_linker = if native { linker(&["cc", &cross]) } else { linker(&[&cross]) };
        if let Some(found) = gnu_linker {
            let named = (!native || found != "cc").then_some(found);
            if self.targets.contains(&gnu) {
                return Ok(toolchain(&gnu, None, named));
            }
            if let Some((rustc, _)) = self.system.as_ref().filter(|(_, targets)| targets.contains(&gnu)) {
                return Ok(toolchain(&gnu, Some(rustc), named));
            }
        }
        let install = if native {
            "a C compiler".to_owned()
        } else {
            format!("gcc-{arch}-linux-gnu").replace("x86_64", "x86-64")
        };
        Err(MissingToolchain { platform, fix: format!("run `rustup target add {musl}` and install {install}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(targets: &[&str], linkers: &[&str], system: Option<&[&str]>) -> Machine {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        Machine {
            host: Some(Platform::LinuxAmd64),
            targets: set(targets),
            linkers: set(linkers),
            system: system.map(|t| (PathBuf::from("/usr/bin/rustc"), set(t))),
        }
    }

    fn check(machine: &Machine, platform: Platform, expected: Result<(&str, Option<&str>, bool), &str>) {
        let found = machine.choose(platform);
        match (&found, expected) {
            (Ok(t), Ok((triple, linker, system))) => {
                assert_eq!((t.triple.as_str(), t.linker.as_deref(), t.rustc.is_some()), (triple, linker, system));
            }
            (Err(e), Err(text)) => assert!(e.to_string().contains(text), "{e}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn musl_comes_first_then_gnu_then_the_distributions_compiler() {
        const AMD: Platform = Platform::LinuxAmd64;
        const ARM: Platform = Platform::LinuxArm64;
        let both = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"];
        check(&machine(&both, &["cc"], None), AMD, Ok(("x86_64-unknown-linux-musl", None, false)));
        check(&machine(&both[..1], &["cc"], None), AMD, Ok(("x86_64-unknown-linux-gnu", None, false)));
        check(&machine(&both, &["cc"], None), ARM, Err("rustup target add aarch64-unknown-linux-musl"));
        let cross = &["cc", "aarch64-linux-gnu-gcc"];
        let arm = Ok(("aarch64-unknown-linux-musl", Some("aarch64-linux-gnu-gcc"), false));
        check(&machine(&["aarch64-unknown-linux-musl"], cross, None), ARM, arm);
        let debian = machine(&both, cross, Some(&["aarch64-unknown-linux-gnu"]));
        check(&debian, ARM, Ok(("aarch64-unknown-linux-gnu", Some("aarch64-linux-gnu-gcc"), true)));
        check(&machine(&both, &[], None), AMD, Err("a C compiler"));
    }
}
