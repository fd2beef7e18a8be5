//! `doctor`: what this machine can do, and the exact fix for what it cannot. Looks; changes nothing that stays.

use crate::{
    cli_error::CliError,
    report::{Console, Finding, doctor as render},
    running, seam,
    session::Session,
    verbs::runs::json,
};
use plimsoll_core::{Platform, config::Severity};
use plimsoll_process::{Cancel, Cmd, Environment, which};
use plimsoll_steps::Machine;
use std::{fs, path::Path, process::ExitCode};

/// Where and for whom to look.
pub(crate) struct View<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) console: &'a Console,
    pub(crate) json: bool,
}

/// Below this a build of this size of workspace is likely to fill the disk: a debug and a release tree of dependencies.
const ENOUGH_DISK: u64 = 3 << 30;

/// `doctor`. Exit code 1 if something required is missing.
pub(crate) fn run(session: Result<Session, CliError>, view: &View<'_>) -> ExitCode {
    let mut findings = tools(view.environment);
    match &session {
        Ok(session) => {
            findings.push(Finding::ok("plimsoll.toml", session.root.join("plimsoll.toml").display().to_string()));
            findings.push(writable(session.state.path()));
            findings.push(disk(&session.root));
            findings.extend(compilers(session));
            findings.extend(seam::doctor(session));
        }
        Err(error) => findings.push(Finding::required(
            "plimsoll.toml",
            error.to_string(),
            error.hint().unwrap_or_else(|| "mend it as the message says".to_owned()),
        )),
    }
    let color = session.is_ok_and(|session| session.mode.color);
    let healthy = render::healthy(&findings);
    let text = if view.json {
        json(&serde_json::json!({ "healthy": healthy, "findings": findings }))
    } else {
        render::list(&findings, color)
    };
    view.console.out(&text);
    ExitCode::from(u8::from(!healthy))
}

fn tools(environment: &Environment) -> Vec<Finding> {
    let version = |program: &str, arg: &str| first_line(environment, program, &[arg]);
    let mut findings = vec![
        match (version("rustc", "--version"), version("cargo", "--version")) {
            (Some(rustc), Some(_)) => Finding::ok("rust", rustc),
            _ => Finding::required("rust", "no working `rustc` and `cargo`", "install Rust from https://rustup.rs"),
        },
        match version("git", "--version") {
            Some(found) => Finding::ok("git", found),
            None => Finding::required("git", "no working `git`", "install the package `git`"),
        },
        match ["cc", "gcc", "clang"].into_iter().find_map(|program| which(program, environment)) {
            Some(path) => Finding::ok("C linker", path.display().to_string()),
            None => Finding::required("C linker", "no `cc`", "install the package `gcc` (or `build-essential`)"),
        },
        match (version("rustfmt", "--version"), which("cargo-clippy", environment)) {
            (Some(_), Some(_)) => Finding::ok("rustfmt, clippy", "installed"),
            _ => Finding::required("rustfmt, clippy", "not both installed", "rustup component add rustfmt clippy"),
        },
        match which("cargo-nextest", environment) {
            Some(path) => Finding::ok("cargo-nextest", path.display().to_string()),
            None => Finding::optional(
                "cargo-nextest",
                "not installed: tests run by `cargo test`",
                "cargo install --locked cargo-nextest",
            ),
        },
    ];
    let scanners = [
        ("cargo-deny", "licences, duplicates and sources are"),
        ("cargo-machete", "unused dependencies are"),
        ("cargo-semver-checks", "what libraries offer is"),
    ];
    findings.extend(scanners.map(|(program, what)| {
        let missing = || {
            let fix = format!("cargo install --locked {program}");
            Finding::optional(program, format!("not installed: {what} not looked at"), fix)
        };
        which(program, environment).map_or_else(missing, |path| Finding::ok(program, path.display().to_string()))
    }));
    findings.extend(emulators(environment));
    findings
}

/// How static executables are compiled for each configured platform, or what to install for it.
fn compilers(session: &Session) -> Vec<Finding> {
    let Some(sysroot) = first_line(&session.environment, "rustc", &["--print", "sysroot"]) else { return Vec::new() };
    let images = &session.config.images;
    let machine = Machine::look(Path::new(&sysroot), &session.environment, &images.toolchains);
    let strict = session.config.profile(session.profile).missing_toolchain == Severity::Error;
    images.platforms.iter().map(|platform| compiler(&machine, *platform, strict)).collect()
}

fn compiler(machine: &Machine, platform: Platform, strict: bool) -> Finding {
    let name = format!("compiler for {platform}");
    match machine.choose(platform) {
        Ok(toolchain) => Finding::ok(&name, toolchain.to_string()),
        Err(missing) if strict => Finding::required(&name, "nothing compiles for it", missing.fix),
        Err(missing) => Finding::optional(&name, "nothing compiles for it: its images are left out", missing.fix),
    }
}

fn emulators(environment: &Environment) -> Vec<Finding> {
    let foreign = Platform::ALL.into_iter().filter(|platform| Platform::host() != Some(*platform));
    let look = |platform: Platform| {
        let name = format!("run {platform}");
        let qemu = format!("qemu-{}-static", platform.rust_arch());
        match which(&qemu, environment) {
            Some(path) => Finding::ok(&name, path.display().to_string()),
            None => Finding::optional(
                &name,
                format!("no `{qemu}`: images of this platform are built and not run here"),
                "install the package `qemu-user-static`",
            ),
        }
    };
    foreign.map(look).collect()
}

/// The first line a program prints, if it works.
fn first_line(environment: &Environment, program: &str, args: &[&str]) -> Option<String> {
    let cmd = Cmd::new(program)
        .args(args.iter().copied())
        .inherit_base(environment)
        .timeout(std::time::Duration::from_secs(20));
    let output =
        running::runtime().ok()?.block_on(plimsoll_process::output(&cmd, &Cancel::new())).ok()?.check().ok()?;
    output.stdout_text().lines().next().map(|line| line.trim().to_owned())
}

/// Whether state can be written: asked of the nearest directory that is there, so that looking makes nothing.
fn writable(state: &Path) -> Finding {
    let there = state.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let probe = there.join(format!(".plimsoll-doctor-{}", std::process::id()));
    let written = fs::File::options().write(true).create_new(true).open(&probe);
    match written.and_then(|_| fs::remove_file(&probe)) {
        Ok(()) => Finding::ok("state directory", state.display().to_string()),
        Err(error) => Finding::required(
            "state directory",
            format!("{} cannot be written: {error}", state.display()),
            format!("make {} yours, or set PLIMSOLL_STATE_DIR", there.display()),
        ),
    }
}

fn disk(root: &Path) -> Finding {
    let Ok(stat) = rustix::fs::statvfs(root) else {
        return Finding::optional("disk", "free space cannot be told", "look with `df`");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = format!("{} free at {}", crate::report::text::size(free), root.display());
    if free >= ENOUGH_DISK {
        Finding::ok("disk", found)
    } else {
        Finding::optional("disk", found, "make room: a build and its images take about 3 GiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::doctor::Verdict;

    #[test]
    fn a_platform_that_nothing_compiles_for_says_what_to_install() {
        let [own, foreign] = [true, false].map(|own| {
            Platform::ALL.into_iter().find(|platform| (Platform::host() == Some(*platform)) == own).unwrap()
        });
        let musl = |platform: Platform| format!("{}-unknown-linux-musl", platform.rust_arch());
        let mut machine = Machine { host: Some(own), ..Machine::default() };
        machine.targets.insert(musl(own));
        machine.linkers.insert("cc".to_owned());
        assert_eq!(compiler(&machine, own, true).verdict, Verdict::Ok);
        let finding = compiler(&machine, foreign, false);
        assert_eq!(finding.verdict, Verdict::MissingOptional);
        let fix = finding.fix.unwrap();
        assert!(fix.starts_with(&format!("run `rustup target add {}", musl(foreign))), "{fix}");
        assert_eq!(compiler(&machine, foreign, true).verdict, Verdict::MissingRequired);
    }

    #[test]
    fn looking_for_a_writable_directory_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(writable(&dir.path().join("not/there")).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_machine_without_tools_lacks_what_is_required() {
        let findings = tools(&Environment::of([("PATH", "/nowhere")]));
        for name in ["rust", "git", "C linker"] {
            let finding = findings.iter().find(|finding| finding.name == name).unwrap();
            assert_eq!(finding.verdict, Verdict::MissingRequired, "{name}");
            assert!(finding.fix.is_some());
        }
    }
}
