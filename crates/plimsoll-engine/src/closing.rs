//! The end of a run: undoing what must not stay after a failure, then the finally-steps.

use crate::{
    context::Cx,
    error::StepError,
    execute::Execution,
    journal::{Landing, Record},
    node::{Closing, Kind},
    plan,
    step::{Summary, World},
    wire::Finished,
};
use futures_util::future::BoxFuture;
use plimsoll_core::{Ending, Event};
use plimsoll_process::Cancel;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

impl Execution<'_> {
    /// Takes back, last first, the effects that ask for it and changed the world. Returns those that could not be taken back.
    pub(crate) async fn undo(&mut self) -> io::Result<Vec<(String, StepError)>> {
        let mut stuck = Vec::new();
        for index in (0..self.nodes.len()).rev() {
            if !self.nodes[index].action.undone_on_failure() {
                continue;
            }
            let step = self.nodes[index].name.to_string();
            let undone = match self.to_undo(index).await {
                Ok(None) => continue,
                Ok(Some(output)) => {
                    self.append(&Record::UndoIntent { step: step.clone() }, true)?;
                    self.undo_one(index, output).await
                }
                Err(error) => Err(error),
            };
            match undone {
                Ok(()) => self.append(&Record::Undone { step }, true)?,
                Err(error) => {
                    let error = self.shared.redact_error(error);
                    self.append(&Record::UndoFailed { step: step.clone(), error: error.one_line() }, true)?;
                    stuck.push((step, error));
                }
            }
        }
        Ok(stuck)
    }

    /// The output to take back, if this run changed the world. An effect that was begun and has no outcome is looked up: its
    /// act may have failed after it was done. What cannot be told is an error: nothing is left out silently.
    async fn to_undo(&self, index: usize) -> Result<Option<Finished>, StepError> {
        let node = &self.nodes[index];
        let ended = self.ended[index].as_ref();
        if let Some(output) = &self.values.0[index] {
            return Ok(ended.is_some_and(|e| e.changed).then(|| output.clone()));
        }
        if !self.begun.contains(&index) && !self.prior.begun.contains(&*node.name) {
            return Ok(None);
        }
        let look = self.bound.get(&index).and_then(|bound| Arc::clone(bound).look(self.closing_cx(index)));
        let Some(look) = look else {
            return Err(StepError::external("it was begun, and nothing shows whether there is something to take back"));
        };
        match guarded(look, node.action.timeout(), "looking if it was done").await? {
            World::Done(output) => Ok(Some(output)),
            World::NotDone => Ok(None),
            World::Half => Err(StepError::external("it is half done, and only what is done can be taken back")),
        }
    }

    async fn undo_one(&self, index: usize, output: Finished) -> Result<(), StepError> {
        let bound = self.bound.get(&index).expect("an effect with an output was bound");
        for _ in 0..if self.limits.twice { 2 } else { 1 } {
            if let Some(work) = Arc::clone(bound).undo(self.closing_cx(index), output.clone()) {
                guarded(work, self.nodes[index].action.timeout(), "undoing").await?;
            }
        }
        Ok(())
    }

    /// Has a token of its own: closing goes on after the run was told to stop.
    fn closing_cx(&self, index: usize) -> Cx {
        Cx::new(Arc::clone(&self.shared), Arc::clone(&self.nodes[index].name), Cancel::new())
    }

    /// Runs the finally-steps, one after the other. One that was begun for this same outcome before (the same
    /// word, the same steps that failed or wait) is not repeated.
    pub(crate) async fn close(&mut self, closing: &[(usize, Arc<dyn Closing>)], summary: Summary) -> io::Result<()> {
        let outcome = outcome_key(&summary);
        let summary = Arc::new(summary);
        for (index, step) in closing {
            let node = &self.nodes[*index];
            debug_assert_eq!(node.kind, Kind::Finally);
            let key = format!("{}@{outcome}", node.name);
            if self.prior.intents.contains(&key) || self.prior.outcomes.contains_key(&key) {
                continue;
            }
            self.append(&Record::Intent { step: key.clone() }, true)?;
            let begun = Instant::now();
            self.shared.observer.event(&Event::StepStarted { step: Arc::clone(&node.name), expected_millis: None });
            let cx = Cx::new(Arc::clone(&self.shared), Arc::clone(&node.name), Cancel::new());
            let result = guarded(step.close(cx, Arc::clone(&summary)), node.action.timeout(), "it").await;
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let ending = match result {
                Ok(()) => {
                    let (inputs, output) = (plan::inputs_hash([]), "null".to_owned());
                    let record = Record::Outcome { step: key, landing: Landing::Done, inputs, output, millis };
                    self.append(&record, true)?;
                    Ending::Done
                }
                Err(error) => {
                    let error = self.shared.redact_error(error);
                    let record = Record::Failed { step: key, class: error.class, error: error.one_line(), millis };
                    self.append(&record, true)?;
                    Ending::Failed { class: error.class, error: error.one_line(), detail: error.detail }
                }
            };
            let step = Arc::clone(&node.name);
            self.shared.observer.event(&Event::StepEnded { step, ending, millis });
        }
        Ok(())
    }
}

/// The outcome as far as a finally-step can tell one from another.
fn outcome_key(summary: &Summary) -> String {
    let told = summary.steps.iter().filter(|s| s.error.is_some() || s.waiting.is_some());
    let names: Vec<&str> = told.map(|s| &*s.name).collect();
    let word = summary.outcome.word();
    if names.is_empty() { word.to_owned() } else { format!("{word}:{}", names.join(",")) }
}

/// Waits for `work` at most `timeout`; a panic in it is an error of its own and takes nothing along.
async fn guarded<T: Send + 'static>(
    work: BoxFuture<'static, Result<T, StepError>>,
    timeout: Duration,
    what: &str,
) -> Result<T, StepError> {
    let mut task = tokio::spawn(work);
    match tokio::time::timeout(timeout, &mut task).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(StepError::internal("the step panicked").caused_by(&error)),
        Err(_) => {
            task.abort();
            Err(StepError::external(format!("{what} took longer than its {} s", timeout.as_secs_f32())))
        }
    }
}
