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
        let environment = &question.subject.environment;
        let heard = (0..TRIES).find_map(|_| {
            self.console.err(&format!(
                "Approve for {environment}? Type `yes`, or `no` and why; an empty line lets the run wait: "
            ));
            let mut line = String::new();
            // A terminal that is gone gives no line, as one on which nothing is typed.
            let _ = std::io::stdin().lock().read_line(&mut line);
            hear(&line)
        });
        let Some(Heard::Verdict(verdict)) = heard else { return None };
        Some(Reply {
            subject: question.subject.hash(),
            approver: self.actor.clone(),
            evidence: Evidence::Terminal,
            verdict,
            at: std::time::SystemTime::now().into(),
        })
    }
}

/// Somebody who gave no answer so often is not about to.
const TRIES: usize = 5;

/// What a line says.
#[derive(Debug, PartialEq)]
enum Heard {
    Verdict(Verdict),
    /// The run is to wait.
    Nothing,
}

/// What a line says; `None` when that is not clear, and it is asked again.
fn hear(line: &str) -> Option<Heard> {
    let line = line.trim();
    let (word, reason) = line.split_once([' ', ',', ':']).unwrap_or((line, ""));
    let verdict = match (word.to_ascii_lowercase().as_str(), reason.trim()) {
        ("", _) => return Some(Heard::Nothing),
        ("yes" | "y", "") => Verdict::Approved,
        ("no" | "n", "") => Verdict::Denied("no reason was given".to_owned()),
        ("no" | "n", reason) => Verdict::Denied(reason.to_owned()),
        _ => return None,
    };
    Some(Heard::Verdict(verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_a_yes_and_only_no_is_a_no() {
        let denied = |reason: &str| Some(Heard::Verdict(Verdict::Denied(reason.to_owned())));
        assert_eq!(hear("yes\n"), Some(Heard::Verdict(Verdict::Approved)));
        assert_eq!(hear("no: not before the audit\n"), denied("not before the audit"));
        assert_eq!(hear("No\n"), denied("no reason was given"));
        assert_eq!(hear("\n"), Some(Heard::Nothing));
        for unclear in ["maybe", "yes please", "yess", "not yet"] {
            assert_eq!(hear(unclear), None, "{unclear}");
        }
    }
}
