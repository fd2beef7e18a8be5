//! What one call of the command knows before it does anything: the workspace, its configuration, where state lies, who asks,
//! and how to report.

use crate::{
    cli::{Global, Wanted},
    cli_error::CliError,
    report::{Console, Mode},
    settings::{self, Settings},
};
use plimsoll_core::{
    EnvironmentName,
    config::{Config, Profile},
};
use plimsoll_engine::{StateDir, StepError};
use plimsoll_process::{Cancel, Cmd, Environment};
use plimsoll_steps::{Inputs, Options, Source, Workspace};
use semver::Version;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a call of the command knows.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The directory `plimsoll.toml` lies in.
    pub(crate) root: PathBuf,
    /// Where runs, executables and local environments are kept.
    pub(crate) state: StateDir,
    /// What may be lost: `.plimsoll` in the workspace.
    pub(crate) cache: PathBuf,
    /// The variables this process was started with.
    pub(crate) environment: Arc<Environment>,
    /// Whose rules hold.
    pub(crate) profile: Profile,
    /// The text of `plimsoll.toml`.
    pub(crate) config_text: String,
    /// What it says.
    pub(crate) config: Arc<Config>,
    /// The options every verb takes.
    pub(crate) global: Global,
    /// What the environment variables say.
    pub(crate) settings: Settings,
    /// How to report.
    pub(crate) mode: Mode,
    /// Where to report.
    pub(crate) console: Console,
}

impl Session {
    /// Finds and reads what the verbs stand on, from the directory `start`.
    pub(crate) fn open(
        start: &Path,
        global: &Global,
        settings: &Settings,
        environment: &Arc<Environment>,
        console: Console,
    ) -> Result<Self, CliError> {
        let Some(root) = root_above(start) else {
            let root = cargo_root(start, environment);
            return Err(CliError::NoConfig { start: start.to_owned(), root });
        };
        let path = root.join("plimsoll.toml");
        let read = |source| CliError::Io { what: format!("read {}", path.display()), source };
        let config_text = fs::read_to_string(&path).map_err(read)?;
        let config = Arc::new(Config::parse(&config_text, "plimsoll.toml")?);
        let state = settings::state_dir(environment, config.project.name.as_str(), &root)?;
        Ok(Self {
            cache: root.join(".plimsoll"),
            root,
            state: StateDir::new(state),
            environment: Arc::clone(environment),
            profile: global.profile.map_or_else(|| settings.profile(), Into::into),
            config_text,
            config,
            mode: Mode::of(global, settings, console.is_terminal()),
            global: global.clone(),
            settings: settings.clone(),
            console,
        })
    }

    /// Reads the workspace, the checkout and who asks, all at once, and makes a pipeline's inputs of them.
    pub(crate) async fn inputs(&self, wanted: Wanted) -> Result<(Inputs, Workspace), CliError> {
        let environment = match &wanted.environment {
            None => None,
            Some(name) => Some(self.environment_name(name)?),
        };
        let known = manifest_version(&fs::read_to_string(self.root.join("Cargo.toml")).unwrap_or_default());
        let source = async {
            match &known {
                Some(version) => Some(Source::read(&self.root, &self.environment, version).await),
                None => None,
            }
        };
        let workspace = Workspace::load(&self.root, &self.cache, &self.environment);
        let (source, workspace, actor) = tokio::join!(source, workspace, self.actor());
        // Git's own sentence about a missing repository or commit comes before what follows from it.
        let source = source.transpose()?;
        if workspace.is_err() && source.is_none() {
            Source::read(&self.root, &self.environment, &Version::new(0, 1, 0)).await?;
        }
        let workspace = workspace?;
        let source = match source {
            Some(source) => source,
            None => Source::read(&self.root, &self.environment, &first_version(&workspace)).await?,
        };
        let Wanted { pipeline, only, to, no_drain, afresh, .. } = wanted;
        let options = Options { only, yes: self.global.yes, environment, to, no_drain, afresh };
        let mut inputs = Inputs::new(pipeline, self.config_text.clone(), source, actor, self.profile, options)?;
        inputs.objects = crate::seam::rendered(self).await?;
        Ok((inputs, workspace))
    }

    /// The name of an environment that the configuration knows.
    pub(crate) fn environment_name(&self, name: &str) -> Result<EnvironmentName, CliError> {
        let unknown = || {
            let known: Vec<&str> = self.config.environments.keys().map(EnvironmentName::as_str).collect();
            StepError::user(format!("plimsoll.toml has no environment `{name}`")).with_hint(if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            })
        };
        let parsed: EnvironmentName = name.parse().map_err(|_| unknown())?;
        if self.config.environments.contains_key(&parsed) { Ok(parsed) } else { Err(unknown().into()) }
    }

    /// Who asks: GitHub's name for them, else git's, else the login name.
    pub(crate) async fn actor(&self) -> String {
        if let Some(actor) = &self.settings.github_actor {
            return actor.clone();
        }
        let cmd = Cmd::new("git")
            .args(["config", "--get-regexp", r"^user\.(email|name)$"])
            .cwd(&self.root)
            .inherit_base(&self.environment);
        let answer = plimsoll_process::output(&cmd, &Cancel::new()).await;
        let answer = answer.map(|output| output.stdout_text().into_owned()).unwrap_or_default();
        git_user(&answer).or_else(|| self.settings.user.clone()).unwrap_or_else(|| "unknown".to_owned())
    }
}

/// The e-mail address or else the name in what `git config --get-regexp` printed; the last of each counts, as in git.
fn git_user(answer: &str) -> Option<String> {
    let last = |key: &str| {
        let values = answer.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        values.map(str::trim).rfind(|value| !value.is_empty()).map(str::to_owned)
    };
    last("user.email").or_else(|| last("user.name"))
}

/// The nearest directory at or above `start` with a `plimsoll.toml`.
pub(crate) fn root_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| dir.join("plimsoll.toml").is_file()).map(Path::to_owned)
}

/// The root of the cargo workspace, for a message; `None` if cargo knows of none.
fn cargo_root(start: &Path, environment: &Environment) -> Option<PathBuf> {
    let cmd = Cmd::new(settings::cargo(environment))
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .cwd(start)
        .inherit_base(environment);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let output = runtime.block_on(plimsoll_process::output(&cmd, &Cancel::new())).ok()?.check().ok()?;
    Path::new(output.stdout_text().trim()).parent().map(Path::to_owned)
}

/// The version in a root manifest: the workspace's, else its own package's.
fn manifest_version(text: &str) -> Option<Version> {
    let manifest: toml::Table = text.parse().ok()?;
    let at = |table: Option<&toml::Value>| table?.get("package")?.get("version")?.as_str()?.parse().ok();
    let own = || manifest.get("package")?.get("version")?.as_str()?.parse().ok();
    at(manifest.get("workspace")).or_else(own)
}

/// The version of the first member that has a usable one.
fn first_version(workspace: &Workspace) -> Version {
    let mut versions = workspace.packages().values().filter_map(|package| package.version.parse().ok());
    versions.next().unwrap_or(Version::new(0, 1, 0))
}

/// Where this command was given.
pub(crate) fn current_dir() -> Result<PathBuf, CliError> {
    std::env::current_dir()
        .map_err(|source: io::Error| CliError::Io { what: "find the current directory".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_begins_at_the_nearest_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(root_above(&inner), None);
        fs::write(dir.path().join("plimsoll.toml"), "").unwrap();
        assert_eq!(root_above(&inner).as_deref(), Some(dir.path()));
        fs::write(dir.path().join("a/plimsoll.toml"), "").unwrap();
        assert_eq!(root_above(&inner), Some(dir.path().join("a")));
    }

    #[test]
    fn the_first_version_is_the_workspaces_or_the_packages() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(manifest_version(text).map(|v| v.to_string()).as_deref(), expected, "{text}");
        };
        check("[workspace.package]\nversion = \"1.2.3\"\n[package]\nversion = \"9.0.0\"", Some("1.2.3"));
        check("[package]\nversion = \"0.4.0\"", Some("0.4.0"));
        check("[package]\nversion.workspace = true", None);
        check("[workspace]\nmembers = []", None);
        check("not toml", None);
    }

    #[test]
    fn the_last_address_git_knows_is_the_actor() {
        let check =
            |answer: &str, expected: Option<&str>| assert_eq!(git_user(answer).as_deref(), expected, "{answer}");
        check("user.name Ada\nuser.email a@x\nuser.email b@y\n", Some("b@y"));
        check("user.name Ada Lovelace\n", Some("Ada Lovelace"));
        check("user.email \nuser.name Ada\n", Some("Ada"));
        check("", None);
    }
}
