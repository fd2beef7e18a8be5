//! `runs` and `logs`: what the journals say, and where the logs lie.

use crate::{
    cli_error::CliError,
    report::{
        runs::{Listed, Runs, list as render},
        text::{size, table},
    },
    session::Session,
};
use plimsoll_core::RunId;
use plimsoll_engine::{Record, StateDir, log_path};
use std::{fs, process::ExitCode};

/// `runs`.
pub(crate) fn list(session: &Session) -> Result<ExitCode, CliError> {
    let mut runs = Vec::new();
    for id in ids(&session.state)? {
        match session.state.run(&id).read() {
            Ok((read, outcome)) => runs.extend(Listed::of(&id, &read.entries, outcome)),
            Err(error) => runs.push(Listed::unreadable(&id, &error)),
        }
    }
    let runs = Runs { runs };
    let text = if session.global.json { json(&runs) } else { render(&runs, session.mode.color) };
    session.console.out(&text);
    Ok(ExitCode::SUCCESS)
}

/// A report as JSON, with its line end.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a report is plain data");
    text.push('\n');
    text
}

fn ids(state: &StateDir) -> Result<Vec<RunId>, CliError> {
    let what = || format!("list the runs in {}", state.path().display());
    state.runs().map_err(|source| CliError::Io { what: what(), source })
}

/// The run whose id is or begins with `text`.
pub(crate) fn find(session: &Session, text: &str) -> Result<RunId, CliError> {
    choose(ids(&session.state)?, text)
}

fn choose(ids: Vec<RunId>, text: &str) -> Result<RunId, CliError> {
    if let Some(exact) = ids.iter().find(|id| id.as_str() == text) {
        return Ok(exact.clone());
    }
    let mut found: Vec<RunId> =
        ids.into_iter().filter(|id| !text.is_empty() && id.as_str().starts_with(text)).collect();
    match found.len() {
        0 => Err(CliError::UnknownRun { run: text.to_owned() }),
        1 => Ok(found.remove(0)),
        _ => Err(CliError::AmbiguousRun { run: text.to_owned(), found }),
    }
}

/// `logs RUN [STEP]`.
pub(crate) fn logs(session: &Session, run: &str, step: Option<&str>) -> Result<ExitCode, CliError> {
    let dir = session.state.run(&find(session, run)?);
    let (read, _) = dir.read()?;
    let Some(Record::Started { steps, .. }) = read.entries.first().map(|entry| &entry.record) else {
        return Err(CliError::UnknownRun { run: run.to_owned() });
    };
    let names: Vec<&str> = steps.iter().map(|print| print.name.as_str()).collect();
    match step {
        None => session.console.out(&overview(session, dir.path(), &names)),
        Some(step) => {
            if !names.contains(&step) {
                let known = names.into_iter().map(str::to_owned).collect();
                return Err(CliError::UnknownStep { step: step.to_owned(), known });
            }
            let path = log_path(dir.path(), step);
            match fs::File::open(&path) {
                Ok(file) => session.console.copy(file),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    session.console.err(&format!("{step} wrote no log in this run\n"));
                }
                Err(source) => return Err(CliError::Io { what: format!("read {}", path.display()), source }),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Each step's log with its size.
fn overview(session: &Session, run_dir: &std::path::Path, names: &[&str]) -> String {
    let logs: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let path = log_path(run_dir, name);
            let bytes = fs::metadata(&path).ok()?.len();
            Some((*name, path, bytes))
        })
        .collect();
    if session.global.json {
        let log = |(step, path, bytes): &(&str, std::path::PathBuf, u64)| serde_json::json!({ "step": step, "path": path, "bytes": bytes });
        return json(&serde_json::json!({ "logs": logs.iter().map(log).collect::<Vec<_>>() }));
    }
    if logs.is_empty() {
        return "no step of this run wrote a log\n".to_owned();
    }
    let row = |(step, path, bytes): &(&str, std::path::PathBuf, u64)| {
        vec![(*step).to_owned(), size(*bytes), path.display().to_string()]
    };
    table(&logs.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_the_beginning_of_its_id_if_that_means_one() {
        let ids =
            || ["20260102-000000-0001", "20260101-000000-0002", "20260101-000000-0001"].map(|id| id.parse().unwrap());
        let find = |text: &str| choose(ids().to_vec(), text).map(|id| id.to_string());
        assert_eq!(find("20260102").unwrap(), "20260102-000000-0001");
        assert_eq!(find("20260101-000000-0002").unwrap(), "20260101-000000-0002");
        assert!(matches!(find("20260101"), Err(CliError::AmbiguousRun { .. })));
        assert!(matches!(find("2025"), Err(CliError::UnknownRun { .. })));
        assert!(matches!(find(""), Err(CliError::UnknownRun { .. })));
    }
}
