//! The command line: verbs, options and their help. What a verb does is in [`crate::verbs`].

pub(crate) mod cache;
pub(crate) mod registry;

use clap::{Args, Parser, Subcommand, ValueEnum};
use plimsoll_core::config::{Period, Profile};
use std::path::PathBuf;

/// Checks, builds, ships and puts back: the same steps on a laptop and in CI.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  cargo xtask ci                     all checks, as CI runs them\n  cargo xtask release                check, build, stage, smoke-test, ask, cut over\n  cargo xtask plan release           what would run, and why\n  cargo xtask status                 what is live, since when, who approved it\n  cargo xtask rollback production    put the previous version back\n\nExit codes: 0 done; 1 a check failed; 2 wrong input; 3 something outside failed; 70 a bug; 75 parked, waiting for a person;\n130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every verb takes.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Global {
    /// How many steps may work at once [default: the number of processors]
    #[arg(long, short, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Stop everything at the first failure, instead of only what depends on it
    #[arg(long, global = true)]
    pub(crate) fail_fast: bool,
    /// Do not use recorded outputs
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// Report as JSON on standard output; runs report one event per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Answer approvals with yes, as weak evidence: an environment that wants more refuses it
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Say only what failed
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Whose rules hold [default: github in GitHub Actions, else local]
    #[arg(long, global = true, value_name = "PROFILE")]
    pub(crate) profile: Option<ProfileArg>,
    /// No colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// A profile, as it is written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Everything embedded, on this machine
    Local,
    /// A job of GitHub Actions
    Github,
}

impl From<ProfileArg> for Profile {
    fn from(arg: ProfileArg) -> Self {
        match arg {
            ProfileArg::Local => Self::Local,
            ProfileArg::Github => Self::Github,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Run all checks
    Ci,
    /// Run the checks that build nothing that is run: format, lints, documentation
    Lint,
    /// Look for what is known to be wrong with dependencies: advisories, licences, duplicates, unused ones
    Scan,
    /// Run the tests
    Test {
        /// Only the tests of these packages
        packages: Vec<String>,
    },
    /// Compile the services
    Build,
    /// Build the images
    #[command(
        after_help = "Examples:\n  cargo xtask image\n  cargo xtask image --load                 then: docker run shop/web:0.3.0\n  cargo xtask image --output images.tar    an archive for `docker load`, skopeo and others\n  cargo xtask image --output layout        a directory: an OCI image layout"
    )]
    Image(ImageArgs),
    /// Push the images to the registry
    Push,
    /// Release as far as an environment: check, build, push, cut over; asks where its gate does
    Deploy {
        /// The environment, as in plimsoll.toml
        env: String,
    },
    /// Ask what is live in an environment whether it works
    Smoke {
        /// The environment, as in plimsoll.toml
        env: String,
    },
    /// Check, build, push, stage, smoke-test, ask for approval, cut over
    #[command(
        after_help = "Without a terminal the run parks at the approval (exit code 75); then\n  cargo xtask approve RUN\n  cargo xtask resume RUN"
    )]
    Release {
        /// Cut over without letting requests finish; shows what draining is for
        #[arg(long, hide = true)]
        no_drain: bool,
    },
    /// A release up to its last cut-over: what did not change is not done again
    Promote,
    /// Answer the approval a run waits for
    #[command(after_help = "Example:\n  cargo xtask approve 20260301-1200 --deny --reason \"wait for the audit\"")]
    Approve(ApproveArgs),
    /// Put an earlier version back, without a build
    #[command(
        after_help = "Examples:\n  cargo xtask rollback production\n  cargo xtask rollback production --to 1.4.2 --dry-run"
    )]
    Rollback(RollbackArgs),
    /// Go on with a run that failed, parked or was interrupted
    Resume {
        /// The run or the beginning of its id [default: the newest unfinished one]
        run: Option<String>,
    },
    /// Verify what is recorded; keep the shared cache small
    #[command(subcommand)]
    Cache(cache::Cache),
    /// List the runs
    Runs,
    /// Show a step's log, or where a run's logs lie
    Logs {
        /// The run or the beginning of its id
        run: String,
        /// The step
        step: Option<String>,
    },
    /// Print what a pipeline would do, with a reason for each step
    Plan {
        /// The pipeline
        pipeline: String,
        /// How to print it [default: tree]
        #[arg(long, value_name = "FORMAT")]
        format: Option<PlanFormat>,
    },
    /// Say what would be done with a step, and why
    Explain {
        /// The step
        step: String,
        /// The pipeline it is in [default: the first that has it]
        #[arg(long)]
        pipeline: Option<String>,
    },
    /// Say what is live, since when, and who approved it
    Status,
    /// Compare what a release of this checkout would make with what is live; builds and changes nothing
    #[command(
        after_help = "Configuration, drift and, in a cluster, objects are compared. What an image will be is known when it is built;\nof secrets only whether they changed is shown."
    )]
    Diff {
        /// The environment, as in plimsoll.toml
        env: String,
    },
    /// Go on from Deployments in a cluster that somebody else made: a copy of each becomes the first slot
    #[command(
        after_help = "Deployments are found by what the Services named like the services select. They run on, and lose their clients to\ntheir copies; a line tells how to delete them. Services stay, and lead to slots from then on.\n\nExamples:\n  cargo xtask adopt production --dry-run\n  cargo xtask adopt production"
    )]
    Adopt(AdoptArgs),
    /// Propose what services in a cluster should ask for, from what their pods use
    #[command(
        after_help = "Proposes lines of plimsoll.toml and changes nothing:\n  cpu           the 95th percentile, rounded up to 5m\n  memory        the most and 20 %, rounded up to 4Mi\n  memory_limit  the most and 50 %, rounded up to 4Mi\n  cpu_limit     stays, unless more was used: then twice that\n\nExample:\n  cargo xtask rightsize production --for 30m"
    )]
    Rightsize {
        /// The environment, as in plimsoll.toml
        env: String,
        /// How long to look, every 10 s; load that does not come meanwhile is not reckoned with
        #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = looking)]
        length: Period,
    },
    /// Stop an environment's services
    Stop {
        /// The environment
        env: String,
        /// Why; `status` shows it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Start an environment's services again
    Start {
        /// The environment
        env: String,
        /// Also after a restore that did not come to its end
        #[arg(long)]
        as_it_is: bool,
    },
    /// Copy the states of an environment's services, while they work
    #[command(
        after_help = "A service says by `backup` in plimsoll.toml how its state is copied.\n\nExample:\n  cargo xtask backup production --keep-days 30"
    )]
    Backup(BackupArgs),
    /// Put a backup in the place of an environment's states; its services are stopped meanwhile
    #[command(
        after_help = "A damaged backup is refused before anything is stopped.\n\nExamples:\n  cargo xtask restore production --dry-run\n  cargo xtask restore production --from /mnt/backups/20261122-060000"
    )]
    Restore(RestoreArgs),
    /// Rehearse a disaster
    #[command(subcommand)]
    Drill(Drill),
    /// Serve images to others, and look after a registry's directory
    #[command(subcommand)]
    Registry(registry::Registry),
    /// Look at an image as the policy before a gated environment does: its bytes, its signature, where it was built, its contents
    Verify(VerifyArgs),
    /// Stop all that runs on this machine: services, proxy, registry, supervisor
    Down,
    /// Say what this machine can do, and the fix for what it cannot
    Doctor,
    /// Check the workspace's own rules: crate directions, module headers
    Tidy,
    /// Send a notice to the configured channels, to see that they work
    Notify {
        /// What to say
        message: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Go on with a run in the executable that began it
    #[command(name = "__resume", hide = true)]
    ResumeHere {
        /// The run
        run: String,
    },
}

/// `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct VerifyArgs {
    /// The image: `registry/repository@digest` or `:tag`, or a service of this project with a tag or digest
    pub(crate) reference: String,
    /// The commit that its sources have to come from; any, if it is left out
    #[arg(long)]
    pub(crate) commit: Option<String>,
}

/// `image`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ImageArgs {
    /// Write them too: into a directory, absent or empty, or into an archive where the name ends in `.tar`
    #[arg(long, value_name = "DIR|TAR")]
    pub(crate) output: Option<PathBuf>,
    /// Load those for this machine's platform into its Docker Engine
    #[arg(long)]
    pub(crate) load: bool,
    /// Build one service's image once more, with nothing that was built before, and say whether an image of a registry is the same,
    /// different, and in which file, or not to be compared, and why
    #[arg(long, value_name = "REFERENCE", conflicts_with_all = ["output", "load"])]
    pub(crate) verify: Option<String>,
}

/// `approve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApproveArgs {
    /// The run or the beginning of its id
    pub(crate) run: String,
    /// Say no
    #[arg(long, requires = "reason")]
    pub(crate) deny: bool,
    /// Why not
    #[arg(long, requires = "deny")]
    pub(crate) reason: Option<String>,
}

/// `rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RollbackArgs {
    /// The environment
    pub(crate) env: String,
    /// The version [default: the one before]
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// Say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `backup`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BackupArgs {
    /// The environment
    pub(crate) env: String,
    /// A directory for it, absent or empty [default: one named after the moment, in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Then remove the environment's backups beside it that are older than N days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) keep_days: Option<u32>,
}

/// `restore`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestoreArgs {
    /// The environment
    pub(crate) env: String,
    /// The backup's directory [default: the newest one in the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Check the backup and say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take a backup of another environment
    #[arg(long)]
    pub(crate) other_environment: bool,
    /// Leave the states of services that are not in the backup as they are
    #[arg(long)]
    pub(crate) partial: bool,
}

/// `drill`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Drill {
    /// Bring what is live in an environment up in another one, with its state, and ask whether it works
    #[command(
        after_help = "The other environment is one of plimsoll.toml, such as another cluster's: its namespace or machine is used and\nleft stopped. What serves is copied and not touched.\n\nExamples:\n  cargo xtask drill failover production --to production-west\n  cargo xtask drill failover production --to production-west --from /mnt/backups/20261122-060000 --keep"
    )]
    Failover(FailoverArgs),
}

/// `drill failover`.
#[derive(Debug, Clone, Args)]
pub(crate) struct FailoverArgs {
    /// The environment that is imagined lost
    pub(crate) env: String,
    /// The environment that takes over
    #[arg(long, value_name = "ENV")]
    pub(crate) to: String,
    /// A backup to begin with, as if there were nothing else left [default: one is made now]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// Let the other environment go on afterwards
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `adopt`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AdoptArgs {
    /// The environment, as in plimsoll.toml
    pub(crate) env: String,
    /// Say what would be copied and what is refused
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The longest look at what pods use; its samples are held in memory.
const LONGEST_LOOK: Period = Period::from_secs(24 * 60 * 60);

fn looking(text: &str) -> Result<Period, String> {
    let length: Period = text.parse().map_err(|e: plimsoll_core::config::PeriodError| e.to_string())?;
    if length > LONGEST_LOOK { Err(format!("the longest is \"{LONGEST_LOOK}\"")) } else { Ok(length) }
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// Indented text
    Tree,
    /// A Mermaid flowchart
    Mermaid,
    /// A Graphviz digraph
    Dot,
    /// JSON
    Json,
}

/// What a verb that runs a pipeline asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) pipeline: &'static str,
    pub(crate) only: Vec<String>,
    pub(crate) environment: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) no_drain: bool,
    /// Nothing that was built before counts.
    pub(crate) afresh: bool,
}

impl Command {
    /// The pipeline and the steps of it that the verb runs; `None` for a verb that runs none.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let of = |pipeline, only: &[&str]| Wanted {
            pipeline,
            only: only.iter().map(|kind| (*kind).to_owned()).collect(),
            ..Wanted::default()
        };
        let at = |kind: &str, env: &String| Wanted {
            pipeline: "release",
            // An environment with an open gate is deployed to, a gated one is promoted to.
            only: vec![format!("{kind}[{env}]"), format!("promote[{env}]")],
            environment: Some(env.clone()),
            ..Wanted::default()
        };
        Some(match self {
            Self::Ci => of("ci", &[]),
            Self::Lint => of("ci", &["fmt", "clippy", "docs"]),
            Self::Scan => of("ci", &["advisories", "deny", "licences", "semver-checks", "unused"]),
            Self::Test { packages } if packages.is_empty() => of("ci", &["test"]),
            Self::Test { packages } => {
                Wanted { only: packages.iter().map(|p| format!("test[{p}]")).collect(), ..of("ci", &[]) }
            }
            Self::Tidy => of("ci", &["tidy"]),
            Self::Build => of("release", &["compile", "build"]),
            Self::Image(ImageArgs { verify: Some(reference), .. }) => {
                // The last part of the repository's name is the service's.
                let name = reference.split('@').next().unwrap_or_default();
                let name = name.rsplit('/').next().unwrap_or_default();
                let service = name.split(':').next().unwrap_or_default();
                let only = ["image", "docker-build"].map(|kind| format!("{kind}[{service}]")).into();
                Wanted { only, afresh: true, ..of("release", &[]) }
            }
            Self::Image(_) => of("release", &["image", "docker-build"]),
            Self::Push => of("release", &["push", "attest"]),
            Self::Deploy { env } => at("deploy", env),
            Self::Rollback(args) if !args.dry_run => Wanted {
                pipeline: "rollback",
                environment: Some(args.env.clone()),
                to: args.to.clone(),
                ..Wanted::default()
            },
            Self::Release { no_drain } => Wanted { no_drain: *no_drain, ..of("release", &[]) },
            Self::Promote => of("release", &["promote"]),
            _ => return None,
        })
    }

    /// Whether only an executable with delivery in it can do this.
    pub(crate) fn needs_delivery(&self) -> bool {
        match self {
            Self::Approve(_)
            | Self::Rollback(_)
            | Self::Smoke { .. }
            | Self::Status
            | Self::Diff { .. }
            | Self::Adopt(_)
            | Self::Rightsize { .. }
            | Self::Stop { .. }
            | Self::Start { .. }
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Drill(_)
            | Self::Registry(_)
            | Self::Cache(_)
            | Self::Verify(_)
            | Self::Down
            | Self::Notify { .. }
            | Self::Image(_) => true,
            other => other.wanted().is_some_and(|wanted| wanted.pipeline != "ci"),
        }
    }

    /// The verb as it is typed.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Approve(_) => "approve",
            Self::Rollback(_) => "rollback",
            Self::Status => "status",
            Self::Diff { .. } => "diff",
            Self::Adopt(_) => "adopt",
            Self::Rightsize { .. } => "rightsize",
            Self::Stop { .. } => "stop",
            Self::Start { .. } => "start",
            Self::Backup(_) => "backup",
            Self::Restore(_) => "restore",
            Self::Drill(_) => "drill",
            Self::Registry(_) => "registry",
            Self::Cache(_) => "cache",
            Self::Verify(_) => "verify",
            Self::Down => "down",
            Self::Notify { .. } => "notify",
            _ => "this",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &str) -> Command {
        Cli::try_parse_from(std::iter::once("xtask").chain(args.split_whitespace())).unwrap().command
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_contract_is_understood() {
        for line in [
            "ci",
            "lint",
            "test",
            "build",
            "image",
            "image --output images.tar --load",
            "image --verify web:1.2.3 --json",
            "push",
            "deploy staging",
            "smoke staging",
            "release",
            "promote",
            "approve R",
            "approve R --deny --reason no",
            "rollback production --to 1.2.3 --dry-run",
            "resume",
            "resume R",
            "scan",
            "cache verify --count 2 --pipeline ci",
            "cache prune --dry-run",
            "runs --json",
            "logs R",
            "logs R compile[api]",
            "plan release --format mermaid",
            "explain fmt",
            "status --json",
            "diff staging --json",
            "adopt staging",
            "adopt staging --dry-run --json",
            "rightsize staging --for 90s --json",
            "stop staging",
            "start staging --as-it-is",
            "backup production --to here --keep-days 30 --json",
            "restore production --from here --dry-run --other-environment --partial",
            "drill failover production --to west --from here --keep --json",
            "registry serve --addr 127.0.0.1:0 --root here --read-only --htpasswd users --anonymous-pull",
            "registry serve --tls-cert chain.pem --tls-key key.pem",
            "registry gc --root here --grace 24h --untagged --dry-run --json",
            "registry list --json",
            "verify web:1.2.3 --commit 0123 --json",
            "verify r.example/shop/web@sha256:00",
            "down",
            "doctor --json",
            "tidy",
            "notify",
            "completions bash",
            "__resume R",
            "release --yes --jobs 4 --fail-fast --no-cache --quiet --profile github --no-color",
        ] {
            parse(line);
        }
    }

    #[test]
    fn a_look_has_a_length_and_an_end() {
        let look = |length: &str| Cli::try_parse_from(["xtask", "rightsize", "staging", "--for", length]);
        assert!(look("24h").is_ok() && look("25h").is_err() && look("2").is_err());
    }

    #[test]
    fn a_denial_wants_a_reason() {
        assert!(Cli::try_parse_from(["xtask", "approve", "R", "--deny"]).is_err());
        // A reason without the word must not count as a yes.
        assert!(Cli::try_parse_from(["xtask", "approve", "R", "--reason", "not today"]).is_err());
    }

    #[test]
    fn verbs_that_run_steps_name_them() {
        let only = |line: &str| parse(line).wanted().unwrap().only.join(" ");
        assert_eq!(only("ci"), "");
        assert_eq!(only("lint"), "fmt clippy docs");
        assert_eq!(only("test core http"), "test[core] test[http]");
        let verified = "image[web] docker-build[web]";
        assert_eq!(only("image --verify 127.0.0.1:5000/shop/web:1.2@sha256:00"), verified);
        assert_eq!(
            (only("image --verify web").as_str(), parse("image --verify web").wanted().unwrap().afresh),
            (verified, true)
        );
        assert_eq!(only("deploy staging"), "deploy[staging] promote[staging]");
        assert_eq!(parse("status").wanted(), None);
    }

    #[test]
    fn checks_and_reports_are_done_by_the_thin_executable() {
        for (line, expected) in [
            ("ci", false),
            ("lint", false),
            ("test", false),
            ("tidy", false),
            ("runs", false),
            ("logs R", false),
            ("plan ci", false),
            ("resume", false),
            ("doctor", false),
            ("completions zsh", false),
            ("release", true),
            ("build", true),
            ("status", true),
            ("diff staging", true),
            ("adopt staging", true),
            ("rightsize staging", true),
            ("rollback production", true),
            ("notify", true),
            ("backup production", true),
            ("restore production", true),
            ("drill failover production --to west", true),
            ("registry list", true),
            ("verify web", true),
        ] {
            assert_eq!(parse(line).needs_delivery(), expected, "{line}");
        }
    }
}
