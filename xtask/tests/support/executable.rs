//! The full executable, as the tests start it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What cargo tells a test of its package. Passed on, it would look to build scripts like a change, and much would be built
/// anew, here and the next time outside.
const OF_THE_PACKAGE: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// Builds it, as these tests are built, and copies it into a directory: another build may replace it while they run.
pub(crate) fn build_into(directory: &Path) -> PathBuf {
    let thin = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let (profile, target) = (thin.parent().unwrap(), thin.parent().unwrap().parent().unwrap());
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", "xtask", "--features", "delivery", "--bin", "xtask-delivery"]);
    cargo.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OF_THE_PACKAGE.iter().any(|start| name.starts_with(start))) {
            cargo.env_remove(&name);
        }
    }
    assert!(cargo.status().unwrap().success(), "the full executable does not compile");
    let copy = directory.join("xtask-delivery");
    fs::copy(profile.join("xtask-delivery"), &copy).unwrap();
    copy
}
