//! Which compiler and linker make a static executable for a platform. Pure: what the machine has is passed in.
//!
//! What the configuration names comes first. Then musl, because a static glibc cannot load name-service modules: linked by a
//! C compiler, or by `cargo-zigbuild` where there is none for the platform. Then the GNU target with `crt-static`, and last a
//! distribution's own compiler with its cross libraries.

use plimsoll_core::{Platform, config::PlatformToolchain};
use plimsoll_process::{Environment, which};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// What a machine has, and what the configuration says of it.
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
    /// What the configuration names.
    pub configured: BTreeMap<Platform, PlatformToolchain>,
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
    /// How it was found.
    pub way: Way,
}

/// How a toolchain was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The configuration names it.
    Configured,
    /// The default compiler has the musl target.
    Musl,
    /// `cargo-zigbuild` links for the musl target.
    Zigbuild,
    /// The default compiler has the GNU target.
    Gnu,
    /// A distribution's compiler has the GNU target.
    System,
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
    pub fn look(sysroot: &Path, environment: &Environment, configured: &BTreeMap<Platform, PlatformToolchain>) -> Self {
        let system = Path::new("/usr/bin/rustc");
        let linkers = ["cc", "cargo-zigbuild"].into_iter().map(str::to_owned);
        let gnu = Platform::ALL.map(|platform| format!("{}-linux-gnu-gcc", platform.rust_arch()));
        let musl = Platform::ALL.map(|platform| format!("{}-linux-musl-gcc", platform.rust_arch()));
        Self {
            host: Platform::host(),
            targets: targets(sysroot),
            system: (system.exists() && sysroot != Path::new("/usr"))
                .then(|| (system.to_owned(), targets(Path::new("/usr")))),
            linkers: linkers.chain(gnu).chain(musl).filter(|program| which(program, environment).is_some()).collect(),
            configured: configured.clone(),
        }
    }

    /// The first way to compile for `platform`.
    pub fn choose(&self, platform: Platform) -> Result<Toolchain, MissingToolchain> {
        let arch = platform.rust_arch();
        let (musl, gnu) = (format!("{arch}-unknown-linux-musl"), format!("{arch}-unknown-linux-gnu"));
        if let Some(named) = self.configured.get(&platform) {
            let triple = named.target.clone().unwrap_or(musl);
            let (rustc, linker) = (named.rustc.clone(), named.linker.clone());
            return Ok(Toolchain { crt_static: triple.ends_with("-gnu"), triple, rustc, linker, way: Way::Configured });
        }
        let native = self.host == Some(platform);
        let found = |linker: &String| self.linkers.contains(linker);
        let (cc, cross) = ("cc".to_owned(), format!("{arch}-linux-gnu-gcc"));
        let musl_linker =
            if native { [cc.clone(), cross.clone()] } else { [format!("{arch}-linux-musl-gcc"), cross.clone()] };
        // The musl target brings its own C library: any linker of the architecture will do.
        let musl_linker = musl_linker.into_iter().find(found);
        let gnu_linker = [cc, cross].into_iter().skip(usize::from(!native)).find(found);
        let named = |linker: String| (linker != "cc").then_some(linker);
        let toolchain = |triple: &str, linker: Option<String>, way| Toolchain {
            triple: triple.to_owned(),
            rustc: None,
            linker,
            crt_static: triple.ends_with("-gnu"),
            way,
        };
        if self.targets.contains(&musl) {
            if let Some(linker) = musl_linker {
                return Ok(toolchain(&musl, named(linker), Way::Musl));
            }
            if self.linkers.contains("cargo-zigbuild") {
                return Ok(toolchain(&musl, None, Way::Zigbuild));
            }
        }
        if let Some(linker) = gnu_linker {
            if self.targets.contains(&gnu) {
                return Ok(toolchain(&gnu, named(linker), Way::Gnu));
            }
            if let Some((rustc, _)) = self.system.as_ref().filter(|(_, targets)| targets.contains(&gnu)) {
                return Ok(Toolchain { rustc: Some(rustc.clone()), ..toolchain(&gnu, named(linker), Way::System) });
            }
        }
        let install = match (native, platform) {
            (true, _) => "a C compiler".to_owned(),
            (false, Platform::LinuxAmd64) => "gcc-x86-64-linux-gnu or cargo-zigbuild".to_owned(),
            (false, Platform::LinuxArm64) => "gcc-aarch64-linux-gnu or cargo-zigbuild".to_owned(),
        };
        Err(MissingToolchain { platform, fix: format!("run `rustup target add {musl}` and install {install}") })
    }
}

/// The targets that the compiler with this sysroot has a standard library for.
fn targets(sysroot: &Path) -> BTreeSet<String> {
    let libs = std::fs::read_dir(sysroot.join("lib/rustlib")).into_iter().flatten().flatten();
    let has_std = |dir: &std::fs::DirEntry| {
        let files = std::fs::read_dir(dir.path().join("lib")).into_iter().flatten().flatten();
        // A target has a few dozen libraries.
        files.take(200).any(|f| f.file_name().to_string_lossy().starts_with("libstd-"))
    };
    libs.filter(has_std).map(|d| d.file_name().to_string_lossy().into_owned()).collect()
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.triple)?;
        if let Some(rustc) = &self.rustc {
            write!(f, " by {}", rustc.display())?;
        }
        if let Some(linker) = &self.linker {
            write!(f, ", linked by {linker}")?;
        }
        match self.way {
            Way::Configured => write!(f, ", as plimsoll.toml says"),
            Way::Musl => Ok(()),
            Way::Zigbuild => write!(f, ", by cargo-zigbuild"),
            Way::Gnu | Way::System => {
                let musl = self.triple.replace("-gnu", "-musl");
                write!(f, " with crt-static; `rustup target add {musl}` is preferred")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD: Platform = Platform::LinuxAmd64;
    const ARM: Platform = Platform::LinuxArm64;

    fn machine(targets: &[&str], linkers: &[&str], system: Option<&[&str]>) -> Machine {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        Machine {
            host: Some(AMD),
            targets: set(targets),
            linkers: set(linkers),
            system: system.map(|t| (PathBuf::from("/usr/bin/rustc"), set(t))),
            configured: BTreeMap::new(),
        }
    }

    fn check(machine: &Machine, platform: Platform, expected: Result<(&str, Way), &str>) {
        match (machine.choose(platform), expected) {
            (Ok(found), Ok((text, way))) => assert_eq!((found.to_string().as_str(), found.way), (text, way)),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn musl_comes_first_then_gnu_then_the_distributions_compiler() {
        let both = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"];
        check(&machine(&both, &["cc"], None), AMD, Ok(("x86_64-unknown-linux-musl", Way::Musl)));
        let gnu =
            "x86_64-unknown-linux-gnu with crt-static; `rustup target add x86_64-unknown-linux-musl` is preferred";
        check(&machine(&both[..1], &["cc"], None), AMD, Ok((gnu, Way::Gnu)));
        check(&machine(&both, &["cc"], None), ARM, Err("rustup target add aarch64-unknown-linux-musl"));
        let cross = &["cc", "aarch64-linux-gnu-gcc"];
        let arm = Ok(("aarch64-unknown-linux-musl, linked by aarch64-linux-gnu-gcc", Way::Musl));
        check(&machine(&["aarch64-unknown-linux-musl"], cross, None), ARM, arm);
        let debian = machine(&both, cross, Some(&["aarch64-unknown-linux-gnu"]));
        let system = "aarch64-unknown-linux-gnu by /usr/bin/rustc, linked by aarch64-linux-gnu-gcc with crt-static; \
                      `rustup target add aarch64-unknown-linux-musl` is preferred";
        check(&debian, ARM, Ok((system, Way::System)));
        check(&machine(&both, &[], None), AMD, Err("a C compiler"));
    }

    #[test]
    fn zig_links_where_no_compiler_of_the_platform_is_there() {
        let zig = |linkers: &[&str]| machine(&["aarch64-unknown-linux-musl"], linkers, None);
        let by_zig = Ok(("aarch64-unknown-linux-musl, by cargo-zigbuild", Way::Zigbuild));
        check(&zig(&["cc", "cargo-zigbuild"]), ARM, by_zig);
        let by_gcc = Ok(("aarch64-unknown-linux-musl, linked by aarch64-linux-musl-gcc", Way::Musl));
        check(&zig(&["cargo-zigbuild", "aarch64-linux-musl-gcc"]), ARM, by_gcc);
        // It brings the linker, and not the standard library.
        check(&machine(&[], &["cargo-zigbuild"], None), ARM, Err("rustup target add"));
    }

    #[test]
    fn what_the_configuration_names_is_not_looked_for() {
        let mut machine = machine(&["aarch64-unknown-linux-musl"], &["cc", "aarch64-linux-gnu-gcc"], None);
        let named = PlatformToolchain { linker: Some("clang".to_owned()), ..PlatformToolchain::default() };
        machine.configured.insert(ARM, named);
        let musl = "aarch64-unknown-linux-musl, linked by clang, as plimsoll.toml says";
        check(&machine, ARM, Ok((musl, Way::Configured)));
        let target = Some("aarch64-unknown-linux-gnu".to_owned());
        machine.configured.insert(ARM, PlatformToolchain { target, rustc: Some("/opt/rustc".into()), linker: None });
        check(&machine, ARM, Ok(("aarch64-unknown-linux-gnu by /opt/rustc, as plimsoll.toml says", Way::Configured)));
        assert!(machine.choose(ARM).unwrap().crt_static);
    }
}
