//! The end of a run: undoing what must not stay after a failure, then the finally-steps.

use crate::{
    context::Cx,
    error::StepError,
    execute::Execution,
    journal::{Landing, Record},
    node::{Closing, Kind},
    plan,
    step::Summary,
};
use plimsoll_core::{Ending, Event};
use plimsoll_process::Cancel;
use std::{io, sync::Arc, time::Instant};

impl Execution<'_> {
    /// Takes back, last first, the effects that ask for it and changed the world. Returns those that could not be taken back.
    pub(crate) async fn undo(&mut self) -> io::Result<Vec<(String, StepError)>> {
        let mut stuck = Vec::new();
        for index in (0..self.nodes.len()).rev() {
            let node = &self.nodes[index];
            let changed = self.ended[index].as_ref().is_some_and(|e| e.changed);
            let (true, Some(bound), Some(output)) = (changed, self.bound.get(&index), self.values.0[index].clone())
            else {
                continue;
            };
            // A fresh token: undoing goes on after the run was told to stop.
            let cx = Cx::new(Arc::clone(&self.shared), Arc::clone(&node.name), Cancel::new());
            let Some(work) = Arc::clone(bound).undo(cx, output) else { continue };
            let step = node.name.to_string();
            self.append(&Record::UndoIntent { step: step.clone() }, true)?;
            let undone = tokio::time::timeout(node.action.timeout(), work)
                .await
                .unwrap_or_else(|_| Err(StepError::external("undoing took longer than the step may take")));
            match undone {
                Ok(()) => self.append(&Record::Undone { step }, true)?,
                Err(error) => {
                    self.append(&Record::UndoFailed { step: step.clone(), error: error.one_line() }, true)?;
                    stuck.push((step, error));
                }
            }
        }
        Ok(stuck)
    }

    /// Runs the finally-steps, one after the other. One that was begun for this same outcome before is not repeated.
    pub(crate) async fn close(&mut self, closing: &[(usize, Arc<dyn Closing>)], summary: Summary) -> io::Result<()> {
        let summary = Arc::new(summary);
        for (index, step) in closing {
            let node = &self.nodes[*index];
            debug_assert_eq!(node.kind, Kind::Finally);
            let key = format!("{}@{}", node.name, summary.outcome.word());
            if self.prior.intents.contains(&key) || self.prior.outcomes.contains_key(&key) {
                continue;
            }
            self.append(&Record::Intent { step: key.clone() }, true)?;
            let begun = Instant::now();
            self.shared.observer.event(&Event::StepStarted { step: Arc::clone(&node.name), expected_millis: None });
            let cx = Cx::new(Arc::clone(&self.shared), Arc::clone(&node.name), Cancel::new());
            let result = tokio::time::timeout(node.action.timeout(), step.close(cx, Arc::clone(&summary)))
                .await
                .unwrap_or_else(|_| Err(StepError::external("it took longer than it may")));
            let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            let ending = match result {
                Ok(()) => {
                    let (inputs, output) = (plan::inputs_hash([]), "null".to_owned());
                    let record = Record::Outcome { step: key, landing: Landing::Done, inputs, output, millis };
                    self.append(&record, true)?;
                    Ending::Done
                }
                Err(error) => {
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
