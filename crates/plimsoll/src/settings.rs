//! What the environment variables say. The only module of this crate that knows their names.

use crate::cli_error::CliError;
use plimsoll_core::config::Profile;
use plimsoll_process::Environment;
use std::path::PathBuf;

/// What the environment says about how to behave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a variable that is set or not")]
pub(crate) struct Settings {
    /// Whether this is a job of GitHub Actions.
    pub(crate) github: bool,
    /// The file that GitHub shows as the job's summary.
    pub(crate) step_summary: Option<PathBuf>,
    /// Whether this is a job of any CI: nobody is there to be asked.
    pub(crate) ci: bool,
    /// Whether somebody looks at lines as they come rather than at a terminal.
    pub(crate) plain: bool,
    /// Whether colours are unwanted.
    pub(crate) no_color: bool,
    /// Who GitHub says started this.
    pub(crate) github_actor: Option<String>,
    /// Which run of GitHub's this is, as a web address, and on whose machine: `github-hosted` or another word.
    pub(crate) github_run: Option<(String, String)>,
    /// What started the job of GitHub Actions.
    pub(crate) github_event: Option<String>,
    /// The branch or tag that the job is of.
    pub(crate) github_ref: Option<String>,
    /// Who is logged in.
    pub(crate) user: Option<String>,
    /// Whether to say how long it took from `main` to exit.
    pub(crate) timings: bool,
}

fn text(environment: &Environment, name: &str) -> Option<String> {
    environment.get(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

fn directory(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn github_run(environment: &Environment) -> Option<(String, String)> {
    let [server, repository, run, attempt] =
        ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"].map(|n| text(environment, n));
    let address = format!("{}/{}/actions/runs/{}/attempts/{}", server?, repository?, run?, attempt?);
    Some((address, text(environment, "RUNNER_ENVIRONMENT").unwrap_or_else(|| "self-hosted".to_owned())))
}

impl Settings {
    pub(crate) fn of(environment: &Environment) -> Self {
        let set = |name: &str| text(environment, name).is_some();
        let github = text(environment, "GITHUB_ACTIONS").is_some_and(|value| value == "true");
        Self {
            github,
            step_summary: environment.get("GITHUB_STEP_SUMMARY").map(PathBuf::from).filter(|_| github),
            ci: set("CI") || github,
            plain: set("CI") || github || text(environment, "TERM").is_some_and(|term| term == "dumb"),
            no_color: set("NO_COLOR"),
            github_actor: text(environment, "GITHUB_ACTOR").filter(|_| github),
            github_event: text(environment, "GITHUB_EVENT_NAME").filter(|_| github),
            github_ref: text(environment, "GITHUB_REF_NAME").filter(|_| github),
            github_run: github_run(environment).filter(|_| github),
            user: text(environment, "USER").or_else(|| text(environment, "LOGNAME")),
            timings: text(environment, "PLIMSOLL_TIMINGS").is_some_and(|value| value == "1"),
        }
    }

    /// The profile when the command line names none.
    pub(crate) fn profile(&self) -> Profile {
        if self.github { Profile::Github } else { Profile::Local }
    }
}

/// Where the state of `project` lies. A relative directory would be another one in each directory the command is given in, so
/// `PLIMSOLL_STATE_DIR` is taken from `root`, and the others count only when they are absolute, as their specification asks.
pub(crate) fn state_dir(environment: &Environment, project: &str, root: &std::path::Path) -> Result<PathBuf, CliError> {
    if let Some(own) = environment.get("PLIMSOLL_STATE_DIR").filter(|value| !value.is_empty()) {
        return Ok(root.join(own));
    }
    let base = directory(environment, "XDG_STATE_HOME")
        .or_else(|| directory(environment, "HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("plimsoll").join(project)).ok_or(CliError::NoStateDir)
}

/// What `cargo` is called: cargo names itself to what it starts.
pub(crate) fn cargo(environment: &Environment) -> std::ffi::OsString {
    environment.get("CARGO").unwrap_or("cargo".as_ref()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(variables: &[(&str, &str)], expected: Option<&str>) {
        let environment = Environment::of(variables.iter().copied());
        let dir = state_dir(&environment, "shop", Path::new("/shop")).ok();
        assert_eq!(dir.as_deref(), expected.map(Path::new), "{variables:?}");
    }

    #[test]
    fn the_state_lies_where_the_first_of_three_variables_says() {
        check(&[("PLIMSOLL_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")], Some("/s"));
        check(&[("PLIMSOLL_STATE_DIR", "s")], Some("/shop/s"));
        check(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], Some("/x/plimsoll/shop"));
        check(&[("XDG_STATE_HOME", "x"), ("HOME", "/h")], Some("/h/.local/state/plimsoll/shop"));
        check(&[("PLIMSOLL_STATE_DIR", ""), ("HOME", "/h")], Some("/h/.local/state/plimsoll/shop"));
        check(&[], None);
    }

    #[test]
    fn github_is_believed_only_where_github_actions_is_true() {
        let of = |variables: &[(&str, &str)]| Settings::of(&Environment::of(variables.iter().copied()));
        let job = of(&[("GITHUB_ACTIONS", "true"), ("GITHUB_ACTOR", "mona"), ("GITHUB_STEP_SUMMARY", "/s")]);
        assert_eq!((job.profile(), job.plain, job.github_actor.as_deref()), (Profile::Github, true, Some("mona")));
        let laptop = of(&[("GITHUB_ACTOR", "mona"), ("GITHUB_STEP_SUMMARY", "/s"), ("NO_COLOR", "")]);
        assert_eq!(laptop, Settings::default());
    }
}
