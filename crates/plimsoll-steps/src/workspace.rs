//! The cargo workspace: its packages, the files git knows, the toolchain; and from them what a cargo step reads.

use crate::{
    cargo::{CARGO_ENV, cargo_variables},
    git,
};
use plimsoll_core::Fingerprint;
use plimsoll_engine::{Reads, StepError, hash_file, write_atomically};
use plimsoll_process::{Cancel, Cmd, Environment, which};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A member of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its directory, relative to the workspace's root; empty for a package in the root.
    pub dir: PathBuf,
    /// Members it depends on to be built.
    pub dependencies: BTreeSet<String>,
    /// Members it depends on besides for its tests.
    pub dev_dependencies: BTreeSet<String>,
    /// Its binaries, each with the path of its root module, relative to the workspace's root.
    pub bins: BTreeMap<String, PathBuf>,
    /// Its integration tests, by the names of their targets.
    pub tests: BTreeSet<String>,
}

impl Package {
    /// Paths in the package that its binary `bin` is not built from, by cargo's conventions: tests, benches, examples, and the
    /// other binaries. For a package that only is a dependency there is no `bin`.
    pub fn apart_from(&self, bin: Option<&str>) -> Vec<PathBuf> {
        let conventional = ["tests", "benches", "examples"].iter().map(|dir| self.dir.join(dir));
        let others = self.bins.iter().filter(|(name, _)| Some(name.as_str()) != bin).map(|(_, path)| {
            // `src/bin/NAME/main.rs` brings its directory, `src/bin/NAME.rs` and `src/main.rs` only themselves.
            let module_dir = path.file_name().is_some_and(|n| n == "main.rs") && !path.ends_with("src/main.rs");
            path.parent().filter(|_| module_dir).unwrap_or(path).to_owned()
        });
        conventional.chain(others).collect()
    }
}

/// What tells that a file was written since: length, inode, and time of change.
type Stat = (u64, u64, i64, i64);

/// The workspace as it is now.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    packages: BTreeMap<String, Package>,
    files: Vec<PathBuf>,
    toolchain: String,
    sysroot: PathBuf,
    hashes: Mutex<HashMap<PathBuf, (Stat, Fingerprint)>>,
}

impl Workspace {
    /// Looks at the workspace at `root`. `cargo metadata` and `rustc -vV` are asked only when something they depend on
    /// changed since `cache` was written.
    pub async fn load(root: &Path, cache: &Path, environment: &Environment) -> Result<Self, StepError> {
        const FILES: [&str; 5] = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed = git::git(root, environment, &FILES).await.map_err(|e| StepError::of(&e))?;
        let mut files: Vec<PathBuf> = listed.split('\0').filter(|f| !f.is_empty()).map(PathBuf::from).collect();
        files.sort_unstable();
        files.dedup();
        let mut this = Self {
            root: root.to_owned(),
            packages: BTreeMap::new(),
            files,
            toolchain: String::new(),
            sysroot: PathBuf::new(),
            hashes: Mutex::default(),
        };
        let key = toolchain_key(root, environment);
        this.toolchain = this.remembered(cache, "rustc", &key, environment).await?;
        this.sysroot = PathBuf::from(this.remembered(cache, "sysroot", &key, environment).await?.trim());
        let key = this.manifests_key()?;
        let metadata = this.remembered(cache, "metadata", &key, environment).await?;
        this.packages = packages(root, &metadata)?;
        Ok(this)
    }

    /// A command's answer, from `cache` while `key` is the same.
    async fn remembered(
        &self,
        cache: &Path,
        what: &str,
        key: &str,
        environment: &Environment,
    ) -> Result<String, StepError> {
        let path = cache.join(format!("{what}.json"));
        let known = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<(String, String)>(&b).ok());
        if let Some((_, answer)) = known.filter(|(k, _)| k == key) {
            return Ok(answer);
        }
        let rustc = || Cmd::new(environment.get("RUSTC").unwrap_or("rustc".as_ref()));
        let cmd = match what {
            "rustc" => rustc().arg("-vV"),
            "sysroot" => rustc().args(["--print", "sysroot"]),
            _ => Cmd::new("cargo").args(["metadata", "--format-version=1", "--no-deps"]),
        };
        let cmd = cmd.cwd(&self.root).inherit_base(environment).envs(cargo_variables(environment));
        let output = plimsoll_process::output(&cmd, &Cancel::new()).await.and_then(plimsoll_process::Output::check);
        let answer = output.map_err(StepError::from)?.stdout_text().into_owned();
        // A cache that cannot be written costs the next run these milliseconds again, and nothing else.
        let _ = write_atomically(&path, &serde_json::to_vec(&(key, &answer)).expect("two strings are plain data"));
        Ok(answer)
    }

    fn manifests_key(&self) -> Result<String, StepError> {
        // Targets are found by the files that are there, so their names count as well as the manifests.
        let is_target = |p: &&PathBuf| p.extension().is_some_and(|e| e == "rs");
        let mut reads = self.manifest_reads()?;
        let names = self.files.iter().filter(is_target).map(|p| p.as_os_str().as_encoded_bytes());
        reads.add_hashed("targets", Fingerprint::of_parts(names));
        let parts = reads.components().iter().map(|c| c.hash.as_bytes().as_slice());
        let (root, toolchain) = (self.root.as_os_str().as_encoded_bytes(), self.toolchain.as_bytes());
        Ok(Fingerprint::of_parts(parts.chain([root, toolchain])).to_string())
    }

    /// The workspace's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its members by name.
    pub fn packages(&self) -> &BTreeMap<String, Package> {
        &self.packages
    }

    /// All files git tracks or would track, relative to the root, sorted.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What `rustc -vV` says.
    pub fn toolchain(&self) -> &str {
        &self.toolchain
    }

    /// Where the compiler keeps its targets.
    pub fn sysroot(&self) -> &Path {
        &self.sysroot
    }

    /// The members that `packages` are built from, themselves included; with `dev`, also what their tests need.
    pub fn closure(&self, packages: &[String], dev: bool) -> Result<BTreeSet<String>, StepError> {
        let mut open: Vec<(&str, bool)> = if packages.is_empty() {
            self.packages.keys().map(|p| (p.as_str(), dev)).collect()
        } else {
            packages.iter().map(|p| (p.as_str(), dev)).collect()
        };
        let mut closed = BTreeSet::new();
        while let Some((name, dev)) = open.pop() {
            let package = self.packages.get(name).ok_or_else(|| {
                let known: Vec<&str> = self.packages.keys().map(String::as_str).collect();
                StepError::user(format!("there is no package `{name}` in the workspace"))
                    .with_hint(format!("it has {}", known.join(", ")))
            })?;
            let new = closed.insert(name.to_owned());
            if new || dev {
                // A dependency's own tests are not built: its development dependencies do not count.
                let direct = package.dependencies.iter().chain(package.dev_dependencies.iter().filter(|_| dev));
                open.extend(direct.filter(|d| !closed.contains(*d)).map(|d| (d.as_str(), false)));
            }
        }
        Ok(closed)
    }

    /// The files of a member: those below its directory that belong to no other member.
    pub fn files_of(&self, package: &Package) -> Vec<&PathBuf> {
        let inner: Vec<&Path> = self
            .packages
            .values()
            .filter(|p| p.name != package.name && p.dir.starts_with(&package.dir))
            .map(|p| p.dir.as_path())
            .collect();
        let mine = |p: &&PathBuf| p.starts_with(&package.dir) && !inner.iter().any(|dir| p.starts_with(dir));
        self.files.iter().filter(mine).collect()
    }

    /// Whether a build script may read any file of the package.
    fn has_build_script(&self, package: &Package) -> bool {
        self.files.binary_search(&package.dir.join("build.rs")).is_ok()
    }

    /// Paths that the binary `bin` of `package` is not built from, over its whole closure.
    pub fn apart_from(&self, package: &str, bin: &str) -> Result<Vec<PathBuf>, StepError> {
        let closure = self.closure(&[package.to_owned()], false)?;
        let members = closure.iter().map(|name| &self.packages[name]).filter(|p| !self.has_build_script(p));
        Ok(members.flat_map(|p| p.apart_from((p.name == package).then_some(bin))).collect())
    }

    /// What the binary `bin` of `package` is built from, as far as cargo's conventions tell; dep-info tells the rest.
    pub fn sources_of_binary(&self, package: &str, bin: &str) -> Result<Reads, StepError> {
        let apart = self.apart_from(package, bin)?;
        let mut reads = self.shared_reads()?;
        for name in self.closure(&[package.to_owned()], false)? {
            let files = self.files_of(&self.packages[&name]).into_iter();
            self.add_files(&mut reads, files.filter(|f| !apart.iter().any(|dir| f.starts_with(dir))))?;
        }
        Ok(reads)
    }

    /// The toolchain alone, as reads.
    pub fn toolchain_reads(&self) -> Reads {
        let mut reads = Reads::nothing();
        reads.add("tool rustc", self.toolchain.as_bytes());
        reads
    }

    /// What a cargo step over `packages` (all when empty) reads: see [`Workspace::sources_of`], and the environment.
    pub fn reads_of(&self, packages: &[String], dev: bool, environment: &Environment) -> Result<Reads, StepError> {
        let mut reads = self.sources_of(packages, dev)?;
        let variables = cargo_variables(environment);
        for name in CARGO_ENV {
            let value = variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_encoded_bytes());
            reads.env(name, value);
        }
        for (name, value) in variables.iter().filter(|(n, _)| CARGO_ENV.iter().all(|c| *n != *c)) {
            reads.env(&name.to_string_lossy(), Some(value.as_encoded_bytes()));
        }
        Ok(reads)
    }

    /// The sources of the closure of `packages` (all when empty), manifests, lock file, cargo's and clippy's
    /// configuration, and the toolchain.
    pub fn sources_of(&self, packages: &[String], dev: bool) -> Result<Reads, StepError> {
        let mut reads = self.shared_reads()?;
        for name in self.closure(packages, dev)? {
            self.add_files(&mut reads, self.files_of(&self.packages[&name]))?;
        }
        Ok(reads)
    }

    /// All manifests and the lock file: what the workspace depends on.
    pub fn manifest_reads(&self) -> Result<Reads, StepError> {
        let mut reads = Reads::nothing();
        self.add_files(&mut reads, self.files.iter().filter(|file| is_manifest(file)))?;
        Ok(reads)
    }

    fn shared_reads(&self) -> Result<Reads, StepError> {
        const SHARED: [&str; 7] = [
            "Cargo.toml",
            "Cargo.lock",
            ".cargo/config.toml",
            ".cargo/config",
            "clippy.toml",
            "rust-toolchain.toml",
            "rust-toolchain",
        ];
        let mut reads = self.toolchain_reads();
        let shared: Vec<PathBuf> = SHARED.iter().map(PathBuf::from).collect();
        self.add_files(&mut reads, &shared)?;
        Ok(reads)
    }

    /// Adds files to `reads`; a file is hashed once, however many steps read it, until it is written again.
    pub fn add_files<'a>(
        &self,
        reads: &mut Reads,
        files: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<(), StepError> {
        for file in files {
            let hash = self
                .hash(file)
                .map_err(|e| StepError::external(format!("cannot read {}", file.display())).caused_by(&e))?;
            reads.add_hashed(format!("file {}", file.display()), hash);
        }
        Ok(())
    }

    fn hash(&self, file: &Path) -> std::io::Result<Fingerprint> {
        let path = self.root.join(file);
        let Ok(meta) = fs::symlink_metadata(&path) else { return hash_file(&path) };
        let stat = (meta.len(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        let known = self.hashes.lock().unwrap_or_else(PoisonError::into_inner).get(file).copied();
        if let Some((_, hash)) = known.filter(|(then, _)| *then == stat) {
            return Ok(hash);
        }
        let hash = hash_file(&path)?;
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), (stat, hash));
        Ok(hash)
    }
}

fn is_manifest(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "Cargo.toml" || name == "Cargo.lock")
}

/// What decides which compiler `rustc` is: rustup's choice and the compiler's own file.
fn toolchain_key(root: &Path, environment: &Environment) -> String {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for name in ["RUSTC", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "PATH"] {
        parts.push(environment.get(name).map(|v| v.as_encoded_bytes().to_vec()).unwrap_or_default());
    }
    for file in ["rust-toolchain.toml", "rust-toolchain"] {
        parts.push(fs::read(root.join(file)).unwrap_or_default());
    }
    let home = environment
        .get("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(environment.get("HOME")?).join(".rustup")));
    let settings = home.as_ref().map(|h| fs::read(h.join("settings.toml")).unwrap_or_default());
    parts.push(settings.unwrap_or_default());
    let toolchain =
        environment.get("RUSTUP_TOOLCHAIN").zip(home).map(|(t, h)| h.join("toolchains").join(t).join("bin/rustc"));
    for path in [which("rustc", environment), toolchain].into_iter().flatten() {
        if let Ok(meta) = fs::metadata(&path) {
            parts
                .push(format!("{} {} {} {}", path.display(), meta.len(), meta.mtime(), meta.mtime_nsec()).into_bytes());
        }
    }
    Fingerprint::of_parts(parts.iter().map(Vec::as_slice)).to_string()
}

/// Reads the members out of cargo's metadata.
fn packages(root: &Path, metadata: &str) -> Result<BTreeMap<String, Package>, StepError> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Member>,
    }
    #[derive(Deserialize)]
    struct Member {
        name: String,
        version: String,
        manifest_path: PathBuf,
        dependencies: Vec<Dependency>,
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Dependency {
        kind: Option<String>,
        path: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
        src_path: PathBuf,
    }
    let metadata: Metadata = serde_json::from_str(metadata)
        .map_err(|e| StepError::external("cargo's metadata cannot be understood").caused_by(&e))?;
    let dir_of = |manifest: &Path| manifest.parent().unwrap_or(root).to_owned();
    let by_dir: HashMap<PathBuf, String> =
        metadata.packages.iter().map(|m| (dir_of(&m.manifest_path), m.name.clone())).collect();
    let member = |m: Member| {
        let dir = dir_of(&m.manifest_path);
        let depends = |dev: bool| {
            let wanted = move |d: &&Dependency| (d.kind.as_deref() == Some("dev")) == dev;
            m.dependencies.iter().filter(wanted).filter_map(|d| by_dir.get(d.path.as_ref()?).cloned()).collect()
        };
        let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
        let bins = m.targets.iter().filter(|t| t.kind.iter().any(|k| k == "bin"));
        let bins = bins.map(|t| (t.name.clone(), relative(&t.src_path))).collect();
        let package = Package {
            dependencies: depends(false),
            dev_dependencies: depends(true),
            bins,
            tests: m.targets.iter().filter(|t| t.kind.iter().any(|k| k == "test")).map(|t| t.name.clone()).collect(),
            version: m.version.clone(),
            dir: dir.strip_prefix(root).map(Path::to_owned).unwrap_or(dir),
            name: m.name.clone(),
        };
        (m.name, package)
    };
    Ok(metadata.packages.into_iter().map(member).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(packages: &[(&str, &str, &[&str], &[&str])], files: &[&str]) -> Workspace {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let package = |(name, dir, deps, dev): &(&str, &str, &[&str], &[&str])| Package {
            name: (*name).to_owned(),
            version: "0.1.0".to_owned(),
            dir: PathBuf::from(dir),
            dependencies: set(deps),
            dev_dependencies: set(dev),
            tests: BTreeSet::new(),
            bins: BTreeMap::new(),
        };
        Workspace {
            root: PathBuf::from("/nowhere"),
            packages: packages.iter().map(|p| (p.0.to_owned(), package(p))).collect(),
            files: files.iter().map(PathBuf::from).collect(),
            toolchain: "rustc 1".to_owned(),
            sysroot: PathBuf::new(),
            hashes: Mutex::default(),
        }
    }

    #[test]
    fn the_closure_holds_what_a_package_is_built_from_and_no_tests_of_others() {
        let w = workspace(
            &[
                ("app", "app", &["lib"], &["fixtures"]),
                ("lib", "lib", &["base"], &["app"]),
                ("base", "base", &[], &[]),
                ("fixtures", "f", &[], &["base"]),
            ],
            &[],
        );
        let closure = |of: &str, dev| w.closure(&[of.to_owned()], dev).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(closure("app", false), ["app", "base", "lib"]);
        assert_eq!(closure("app", true), ["app", "base", "fixtures", "lib"]);
        assert_eq!(closure("base", true), ["base"]);
        assert!(w.closure(&["nope".to_owned()], false).unwrap_err().to_string().contains("nope"));
    }

    #[test]
    fn a_binary_is_not_built_from_tests_or_from_the_other_binaries() {
        let files = [
            "a/build.rs",
            "b/src/bin/one.rs",
            "b/src/bin/two/main.rs",
            "b/src/bin/two/part.rs",
            "b/src/lib.rs",
            "b/tests/t.rs",
        ];
        let mut w = workspace(&[("a", "a", &[], &[]), ("b", "b", &["a"], &[])], &files);
        let bins = [("one", "b/src/bin/one.rs"), ("two", "b/src/bin/two/main.rs")];
        w.packages.get_mut("b").unwrap().bins = bins.iter().map(|(n, p)| ((*n).to_owned(), PathBuf::from(p))).collect();
        let apart = |bin: &str| {
            let paths = w.apart_from("b", bin).unwrap().into_iter().map(|p| p.display().to_string());
            paths.filter(|p| !p.ends_with("benches") && !p.ends_with("examples")).collect::<Vec<_>>()
        };
        // `a` has a build script, which may read anything in it.
        assert_eq!(apart("one"), ["b/tests", "b/src/bin/two"]);
        assert_eq!(apart("two"), ["b/tests", "b/src/bin/one.rs"]);
    }

    #[test]
    fn a_package_in_the_root_does_not_own_the_files_of_the_others() {
        let w =
            workspace(&[("root", "", &[], &[]), ("a", "crates/a", &[], &[])], &["src/lib.rs", "crates/a/src/lib.rs"]);
        let files =
            |p: &str| w.files_of(&w.packages()[p]).into_iter().map(|f| f.display().to_string()).collect::<Vec<_>>();
        assert_eq!(files("root"), ["src/lib.rs"]);
        assert_eq!(files("a"), ["crates/a/src/lib.rs"]);
    }
}
