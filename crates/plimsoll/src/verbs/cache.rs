//! `cache verify`: whether work that is not done again because its output is recorded comes to that output still.

use crate::{
    cli::{Wanted, cache::VerifyCacheArgs},
    cli_error::CliError,
    project::Project,
    report::{RunReporter, text::one_line},
    running,
    session::Session,
    verbs::runs::json,
};
use plimsoll_core::RunId;
use plimsoll_engine::system_clock;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode, sync::Arc};

/// The longest value that is shown of a difference, in characters.
const SHOWN: usize = 120;

/// `cache verify --json`.
#[derive(Debug, Serialize)]
struct Verdict {
    /// Steps whose output is recorded.
    recorded: usize,
    /// Steps that were done again, what they need included.
    verified: Vec<String>,
    different: Vec<Different>,
}

/// A step that came to another output.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Different {
    step: String,
    /// Where in the output, as a JSON pointer (RFC 6901).
    at: String,
    recorded: String,
    made: String,
}

/// Does the work of some steps again and compares.
pub(crate) fn verify(session: &Session, project: &Project, args: &VerifyCacheArgs) -> Result<ExitCode, CliError> {
    let Some(name) = project.names().find(|name| *name == args.pipeline) else {
        let known = project.names().map(str::to_owned).collect();
        return Err(CliError::UnknownPipeline { pipeline: args.pipeline.clone(), known });
    };
    running::runtime()?.block_on(async {
        let recorded = recorded(session, project, name).await?;
        let chosen = chosen(recorded.keys(), args.count.get(), running::random);
        if chosen.is_empty() {
            session.console.out("nothing of this pipeline is recorded: there is nothing to verify\n");
            return Ok(ExitCode::SUCCESS);
        }
        let wanted = Wanted { pipeline: name, only: chosen, afresh: true, ..Wanted::default() };
        let (inputs, workspace) = session.inputs(wanted).await?;
        let (code, report) = running::start(session, &project.build(&inputs)?, &inputs, workspace).await?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
        let made = report.steps.iter().filter_map(|step| {
            let (recorded, made) = (recorded.get(&step.name)?, step.output.as_ref()?);
            Some((step.name.to_string(), difference(recorded, made)))
        });
        let made: Vec<(String, Option<Places>)> = made.collect();
        let verified = made.iter().map(|(step, _)| step.clone()).collect();
        let different = made.into_iter().filter_map(|(step, found)| {
            let (at, recorded, made) = found?;
            Some(Different { step, at, recorded, made })
        });
        let verdict = Verdict { recorded: recorded.len(), verified, different: different.collect() };
        session.console.out(&if session.global.json { json(&verdict) } else { verdict.to_text() });
        Ok(ExitCode::from(u8::from(!verdict.different.is_empty())))
    })
}

/// Where two outputs differ, and what is there in each.
type Places = (String, String, String);

/// The outputs that a run of the pipeline would take, by step.
async fn recorded(
    session: &Session,
    project: &Project,
    pipeline: &'static str,
) -> Result<BTreeMap<Arc<str>, Arc<str>>, CliError> {
    let (inputs, workspace) = session.inputs(Wanted { pipeline, ..Wanted::default() }).await?;
    let reporter = Arc::new(RunReporter::new(session));
    let built = project.build(&inputs)?;
    let setup = running::setup(session, &inputs, workspace, &reporter).await?;
    Ok(setup.recorded(&built, &RunId::new(system_clock()(), 0))?)
}

/// So many names, taken at random.
fn chosen<'a>(names: impl Iterator<Item = &'a Arc<str>>, count: usize, random: impl Fn() -> u64) -> Vec<String> {
    let mut left: Vec<&str> = names.map(|name| &**name).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let at = usize::try_from(random() % left.len() as u64).expect("it is less than a length");
        chosen.push(left.swap_remove(at).to_owned());
    }
    chosen.sort_unstable();
    chosen
}

/// The first place in which two outputs differ, with what is there in each.
fn difference(recorded: &str, made: &str) -> Option<Places> {
    if recorded == made {
        return None;
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let (mut at, mut a, mut b) = (String::new(), read(recorded), read(made));
    loop {
        let keys: Vec<String> = match (&a, &b) {
            (Value::Object(x), Value::Object(y)) => x.keys().chain(y.keys()).cloned().collect(),
            (Value::Array(x), Value::Array(y)) => (0..x.len().max(y.len())).map(|n| n.to_string()).collect(),
            _ => Vec::new(),
        };
        let inner = |value: &Value, key: &str| match value {
            Value::Array(list) => key.parse::<usize>().ok().and_then(|n| list.get(n)).cloned().unwrap_or_default(),
            other => other.get(key).cloned().unwrap_or_default(),
        };
        let Some(key) = keys.into_iter().find(|key| inner(&a, key) != inner(&b, key)) else { break };
        (a, b) = (inner(&a, &key), inner(&b, &key));
        at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    }
    let shown = |value: &Value| one_line(&value.to_string()).chars().take(SHOWN).collect::<String>();
    Some((at, shown(&a), shown(&b)))
}

impl Verdict {
    fn to_text(&self) -> String {
        let mut out = String::new();
        for Different { step, at, recorded, made } in &self.different {
            let _ = writeln!(out, "different: {step} at {at}: recorded {recorded}, made again {made}");
        }
        let (verified, recorded) = (self.verified.len(), self.recorded);
        let same = verified - self.different.len();
        let _ =
            writeln!(out, "{same} of {verified} steps made again came to what is recorded; {recorded} are recorded");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_place() {
        assert_eq!(difference("{\"a\":1}", "{\"a\":1}"), None);
        let (at, recorded, made) = difference("{\"a\":{\"b/c\":[1,2]}}", "{\"a\":{\"b/c\":[1,3]}}").unwrap();
        assert_eq!((at.as_str(), recorded.as_str(), made.as_str()), ("/a/b~1c/1", "2", "3"));
        let (at, recorded, made) = difference("null", "{}").unwrap();
        assert_eq!((at.as_str(), recorded.as_str(), made.as_str()), ("", "null", "{}"));
    }

    #[test]
    fn steps_are_taken_at_random_and_each_once() {
        let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        assert_eq!(chosen(names.iter(), 2, || 0), ["a", "c"]);
        assert_eq!(chosen(names.iter(), 9, || 1), ["a", "b", "c"]);
        assert!(chosen([].iter(), 2, || 0).is_empty());
    }
}
