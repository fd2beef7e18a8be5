//! `advisories`: no crate in the lock file that is known to be vulnerable above the limit. What is known changes without the
//! workspace, so a verdict counts for an hour, and as long as the database is the same.

use crate::{
    advisory_database::AdvisorySource,
    inputs::Inputs,
    scan::{Scanned, conclude},
};
use plimsoll_core::{Fingerprint, config::Advisories as Rules};
use plimsoll_engine::{Cx, Pure, Reads, Step, StepError};
use plimsoll_scan::Lockfile;
use serde::Serialize;
use std::{fs, path::PathBuf};

const LOCK: &str = "Cargo.lock";

/// Compares the lock file with a database of advisories.
#[derive(Debug, Serialize)]
pub struct Advisories {
    rules: Rules,
}

impl Advisories {
    /// As `[advisories]` has it.
    pub fn new(inputs: &Inputs) -> Self {
        Self { rules: inputs.config().advisories.clone() }
    }
}

impl Step for Advisories {
    const NAME: &'static str = "advisories";
    const VERSION: u32 = 1;
    type In = ();
    type Out = Scanned;
}

impl Pure for Advisories {
    fn reads(&self, cx: &Cx) -> Result<Reads, StepError> {
        let mut reads = Reads::nothing();
        reads.files(cx.root(), [PathBuf::from(LOCK)])?;
        let source = AdvisorySource::new(cx.root(), &self.rules);
        reads.add_volatile("what is known of crates", source.identity(cx.now()));
        // What is ignored until a day counts again after it, and a database gets old.
        reads.add_volatile("today", Fingerprint::of(&cx.now().readable().as_bytes()[..10]));
        Ok(reads)
    }

    async fn run(&self, cx: &Cx, (): ()) -> Result<Scanned, StepError> {
        let source = AdvisorySource::new(cx.root(), &self.rules);
        let known = match source.known(cx.environment(), cx.cancel(), cx.now()).await {
            Ok(known) => known,
            Err(error) if self.rules.required || cx.cancel().is_cancelled() => return Err(error),
            Err(error) => {
                let hint = error.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                cx.skip(format!("{error}{hint}"));
                return Ok(Scanned::NOTHING);
            }
        };
        known.doubts.iter().for_each(|doubt| cx.note(doubt));
        let text = fs::read_to_string(cx.root().join(LOCK))
            .map_err(|e| StepError::user(format!("cannot read {LOCK}")).caused_by(&e))?;
        let lockfile = Lockfile::parse(&text, LOCK)
            .map_err(|e| StepError::user(format!("{LOCK} is no lock file that can be understood: {e}")))?;
        cx.log(&format!("{} crates against {}", lockfile.crates().len(), known.name));
        let found = lockfile.crates().iter().flat_map(|(one, place)| known.concerning(one, Some(place)));
        conclude(cx, Self::NAME, &found.collect::<Vec<_>>())
    }

    fn usable(&self, cx: &Cx, scanned: &Scanned) -> bool {
        scanned.is_there(cx)
    }
}
