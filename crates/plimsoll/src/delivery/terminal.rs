//! Asking for an approval at a terminal.

use crate::{
    report::{self, RunReporter},
    session::Session,
};
use plimsoll_deploy::Evidence;
use plimsoll_steps::{Asker, Question, Reply, Verdict};
use std::{
    io::{BufRead, IsTerminal},
    sync::Arc,
};

/// The person at the terminal this command was given on.
pub(crate) struct Terminal {
    console: report::Console,
    /// What moves on this terminal otherwise.
    reporter: Arc<RunReporter>,
    actor: String,
}

impl Terminal {
    /// `None` where nobody can answer: no terminal, a machine-readable mode, or CI.
    pub(crate) async fn new(session: &Session, reporter: &Arc<RunReporter>) -> Option<Self> {
        let there = std::io::stdin().is_terminal() && session.console.is_terminal();
        if !there || session.global.json || session.settings.ci {
            return None;
        }
        let reporter = Arc::clone(reporter);
        Some(Self { console: session.console.clone(), reporter, actor: session.actor().await })
    }
}

impl Asker for Terminal {
    fn ask(&self, question: &Question) -> Option<Reply> {
        let _held = self.reporter.hold();
        self.console.err(&super::approve::render(question));
        self.console.err(&format!(
            "Approve for {}? Type `yes`, or a reason to refuse; an empty line lets the run wait: ",
            question.subject.environment
        ));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).ok()?;
        let verdict = match line.trim() {
            "" => return None,
            "yes" | "y" => Verdict::Approved,
            "no" | "n" => Verdict::Denied("no reason was given".to_owned()),
            reason => Verdict::Denied(reason.to_owned()),
        };
        Some(Reply {
            subject: question.subject.hash(),
            approver: self.actor.clone(),
            evidence: Evidence::Terminal,
            verdict,
            at: std::time::SystemTime::now().into(),
        })
    }
}
