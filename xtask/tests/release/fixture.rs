//! What all tests of this process share: the executable under test, and a repository in which it has built everything
//! once. Making it costs seconds, copying it nothing.

use crate::place::Place;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const CONFIG: &str = include_str!("shop/plimsoll.toml");
const WEB: &str = include_str!("shop/web.rs");
const WORKER: &str = include_str!("shop/worker.rs");

/// What a program of this machine prints; it must succeed.
pub(crate) fn tool(program: &str, args: &[&str], directory: impl AsRef<Path>) -> String {
    let output = clean(program).args(args).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A program that gets nothing of what cargo tells to a test, nor of what this machine is set to.
pub(crate) fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO", "PLIMSOLL", "GITHUB", "RUSTFLAGS", "RUSTDOCFLAGS", "LD_LIBRARY_PATH", "GIT_"];
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE"];
        if text == "CI" || (ours.iter().any(|o| text.starts_with(o)) && !kept.contains(&text.as_ref())) {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_NET_OFFLINE", "true");
    command
}

/// The full executable, built once for all tests.
pub(crate) fn executable() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| crate::executable::build_into(shared()))
}

/// What all tests of this process share. A static is never dropped, so the next process removes it.
fn shared() -> &'static Path {
    const PREFIX: &str = "plimsoll-release-";
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let temporary = env::temp_dir();
        for entry in fs::read_dir(&temporary).unwrap().flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                // Another process may be removing it as well.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let own = temporary.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&own).unwrap();
        own
    })
}

/// A repository with two commits, `first` and `second`, whose checks and images are in its cache.
pub(crate) fn warm() -> &'static Path {
    static WARM: OnceLock<PathBuf> = OnceLock::new();
    WARM.get_or_init(|| {
        let base = shared().to_owned();
        let place = Place::around(tempfile::tempdir().unwrap(), base.join("repository"));
        write_shop(place.repository());
        place.git(&["init", "--quiet", "--initial-branch=main"]);
        place.who();
        place.commit("the first shop");
        place.git(&["tag", "first"]);
        place.release().expect(0);
        place.greet("web", "two");
        place.greet("worker", "two");
        place.commit("another greeting");
        place.git(&["tag", "second"]);
        place.release().expect(0);
        fs::remove_dir_all(place.repository().join("target")).unwrap();
        base
    })
}

/// What is known of crates: an advisory about the versions of one below `mended`.
pub(crate) fn advise(root: &Path, id: &str, collection: &str, package: &str, mended: &str) {
    let directory = root.join("advisories").join(collection).join(package);
    fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-01-01\"\n[versions]\n\
         patched = [\">= {mended}\"]\n```\n\n# Reads on\n\nIt does.\n"
    );
    fs::write(directory.join(format!("{id}.md")), text).unwrap();
}

fn write_shop(root: &Path) {
    let architecture = if env::consts::ARCH == "aarch64" { "linux/arm64" } else { "linux/amd64" };
    let config = CONFIG.replace("linux/amd64", architecture);
    for (package, source) in [("web", WEB), ("worker", WORKER)] {
        fs::create_dir_all(root.join(package).join("src")).unwrap();
        fs::write(root.join(package).join("src/main.rs"), source).unwrap();
        let manifest = format!("[package]\nname = \"{package}\"\nversion = \"0.3.0\"\nedition = \"2024\"\n");
        fs::write(root.join(package).join("Cargo.toml"), manifest).unwrap();
    }
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in ["rust-toolchain.toml", "rustfmt.toml"] {
        fs::copy(ours.join(file), root.join(file)).unwrap();
    }
    fs::write(root.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\nmembers = [\"web\", \"worker\"]\n").unwrap();
    let locked = |name: &str| format!("\n[[package]]\nname = \"{name}\"\nversion = \"0.3.0\"\n");
    fs::write(root.join("Cargo.lock"), format!("version = 4\n{}{}", locked("web"), locked("worker"))).unwrap();
    fs::write(root.join("plimsoll.toml"), config).unwrap();
    advise(root, "RUSTSEC-2026-0001", "crates", "unrelated", "1.0.0");
    fs::write(root.join(".gitignore"), "/target\n/.plimsoll\n").unwrap();
}
