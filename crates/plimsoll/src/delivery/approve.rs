//! `approve`: answers what a parked run waits for. The answer goes into the run's journal; `resume` takes it up.

use crate::{cli::ApproveArgs, cli_error::CliError, session::Session, verbs::find_run};
use plimsoll_deploy::Evidence;
use plimsoll_engine::{StepError, answer, system_clock};
use plimsoll_steps::{Question, Reply, Verdict, questions};
use std::{fmt::Write, io::IsTerminal, process::ExitCode};

/// Answers each question of the run.
pub(crate) async fn approve(session: &Session, args: &ApproveArgs) -> Result<ExitCode, CliError> {
    let run = find_run(session, &args.run)?;
    let dir = session.state.run(&run);
    let questions = questions(dir.path());
    if questions.is_empty() {
        return Err(StepError::user(format!("run {run} waits for no approval")).into());
    }
    let actor = session.actor().await;
    for question in &questions {
        session.console.out(&render(question));
        let verdict = match (&args.reason, args.deny) {
            (Some(reason), true) => Verdict::Denied(reason.clone()),
            _ => Verdict::Approved,
        };
        // What is typed at a terminal by a person is worth more than what a script says.
        let at_terminal = std::io::stdin().is_terminal() && session.console.is_terminal() && !session.global.yes;
        let reply = Reply {
            subject: question.subject.hash(),
            approver: actor.clone(),
            evidence: if at_terminal { Evidence::Terminal } else { Evidence::None },
            verdict,
            at: std::time::SystemTime::now().into(),
        };
        let value = serde_json::to_value(&reply).expect("a reply is plain data");
        answer(&session.state, &run, &question.gate, value, system_clock())?;
    }
    let word = if args.deny { "denied" } else { "approved" };
    session.console.out(&format!("{word} by {actor}; go on with: cargo xtask resume {run}\n"));
    Ok(ExitCode::SUCCESS)
}

/// The question as a person reads it.
pub(crate) fn render(question: &Question) -> String {
    let subject = &question.subject;
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string can always be written to");
    line(format!(
        "{} to {} (generation {}), started by {}",
        subject.version, subject.environment, subject.replaces, question.actor
    ));
    line(format!("  commit   {}", question.revision));
    for text in question.diff.to_string().lines() {
        line(format!("  {text}"));
    }
    for (service, digest) in &subject.indexes {
        line(format!("  image    {service} {digest}"));
    }
    line(format!("  subject  {}", subject.hash()));
    out
}
