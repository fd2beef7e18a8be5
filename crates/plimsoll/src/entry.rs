//! From `main` to the exit code.

use crate::{
    cli::{Cli, Command},
    form,
    project::Project,
    report::{self, Console},
    seam,
    session::{self, Session},
    settings::Settings,
    verbs,
};
use clap::{CommandFactory, Parser};
use plimsoll_core::Classify;
use plimsoll_process::Environment;
use std::{ffi::OsString, process::ExitCode, sync::Arc, time::Instant};

/// Runs the command line of a project. To be called first thing in `main`, by both of a package's executables.
pub fn main(project: Project) -> ExitCode {
    let begun = Instant::now();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = seam::hidden(&args) {
        return code;
    }
    let environment = Arc::new(Environment::capture());
    let settings = Settings::of(&environment);
    let console = Console::new();
    let code = match Cli::try_parse_from(std::iter::once(OsString::from("xtask")).chain(args.iter().cloned())) {
        Ok(cli) => {
            Call { project, args, environment, settings: settings.clone(), console: console.clone() }.answer(&cli)
        }
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            // Help and version are no mistakes: clap knows which is which, and where each is printed.
            let _ = without_hidden(error).print();
            code
        }
    };
    if settings.timings {
        console.err(&format!("main to exit: {} ms\n", begun.elapsed().as_millis()));
    }
    code
}

/// Clap proposes also what nobody is meant to type.
fn without_hidden(mut error: clap::Error) -> clap::Error {
    let kind = clap::error::ContextKind::SuggestedSubcommand;
    if let Some(clap::error::ContextValue::Strings(near)) = error.get(kind).cloned() {
        let near = near.into_iter().filter(|name| !name.starts_with("__")).collect();
        error.insert(kind, clap::error::ContextValue::Strings(near));
    }
    error
}

/// One call of the command.
struct Call {
    project: Project,
    args: Vec<OsString>,
    environment: Arc<Environment>,
    settings: Settings,
    console: Console,
}

impl Call {
    fn answer(&self, cli: &Cli) -> ExitCode {
        let result = match &cli.command {
            Command::Completions { shell } => {
                self.console.out(&completions(*shell));
                Ok(ExitCode::SUCCESS)
            }
            _ => session::current_dir().and_then(|start| {
                let open = Session::open(&start, &cli.global, &self.settings, &self.environment, self.console.clone());
                match (&cli.command, open) {
                    (Command::Doctor, session) => Ok(verbs::doctor::run(session, &self.doctor_view(cli))),
                    (_, Err(error)) => Err(error),
                    (command, Ok(session)) => self.dispatch(&session, command),
                }
            }),
        };
        result.unwrap_or_else(|error| {
            self.console.err(&report::failure(&error));
            if self.settings.github {
                self.console.out(&report::github::error_command("plimsoll", &error.to_string(), None));
            }
            ExitCode::from(error.class().exit_code())
        })
    }

    fn doctor_view<'a>(&'a self, cli: &'a Cli) -> verbs::doctor::View<'a> {
        verbs::doctor::View { environment: &self.environment, console: &self.console, json: cli.global.json }
    }

    fn dispatch(&self, session: &Session, command: &Command) -> Result<ExitCode, crate::cli_error::CliError> {
        let elsewhere = !form::FULL && (command.needs_delivery() || verbs::plan::is_elsewhere(&self.project, command));
        if elsewhere {
            verbs::announce_full(session, &self.project);
            return Err(form::become_full(&self.project, &self.args, &self.environment));
        }
        verbs::run(session, &self.project, command, &self.args)
    }
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "xtask", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_answered_with_verbs_that_are_meant_to_be_typed() {
        let error = Cli::try_parse_from(["xtask", "relase"]).unwrap_err();
        let text = without_hidden(error).to_string();
        assert!(text.contains("'release'") && !text.contains("__resume"), "{text}");
    }

    #[test]
    fn completions_know_the_verbs() {
        let script = completions(clap_complete::Shell::Bash);
        assert!(script.contains("rollback") && script.contains("doctor"));
    }
}
