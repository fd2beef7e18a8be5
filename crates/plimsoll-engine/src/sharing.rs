//! A cache that machines share. The engine asks it for what its own cache lacks, and offers it what it made; what it is (a
//! registry, a directory) and who may write to it, the engine does not know.
//!
//! Only pure steps that say what they leave ([`Pure::leaves`](crate::Pure::leaves)) take part. A shared cache that cannot be
//! asked, or has something that does not fit, costs its time and nothing else: the step does its work.

use crate::{
    cache::Hit,
    context::Cx,
    error::StepError,
    execute::discovered_holds,
    node::{Action, Node},
    reads::Component,
    wire::Finished,
};
use futures_util::future::BoxFuture;
use plimsoll_core::{Digest, Fingerprint};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{task::JoinHandle, time::Instant};

/// How long the end of a run waits for what is still being given away: a slow registry must not hold a release up.
const GIVING: Duration = Duration::from_mins(5);

/// Something that an output stands for and that lies outside of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaf {
    /// A file, relative to the workspace's root.
    File(PathBuf),
    /// A blob of the store, by its digest.
    Blob(Digest),
}

/// A recorded output, as others get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The step that made it.
    pub step: Arc<str>,
    /// The output, encoded.
    pub output: Arc<str>,
    /// What doing the work found it reads.
    pub discovered: Vec<Component>,
    /// How long the work took, in milliseconds.
    pub millis: u64,
}

/// A cache that machines share.
pub trait SharedCache: Send + Sync {
    /// What is kept under a fingerprint.
    fn find<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Found>>, StepError>>;

    /// Takes an output with all that it stands for, if it is worth it.
    fn give<'a>(
        &'a self,
        cx: &'a Cx,
        print: &'a Fingerprint,
        kept: &'a Kept,
        leaves: &'a [Leaf],
    ) -> BoxFuture<'a, Result<(), StepError>>;
}

/// Something that is kept.
pub trait Found: Send + Sync {
    /// The output.
    fn kept(&self) -> &Kept;

    /// Brings what it stands for here. Whatever does not fit is an error, and nothing of it is left.
    fn bring<'a>(&'a self, cx: &'a Cx, leaves: &'a [Leaf]) -> BoxFuture<'a, Result<(), StepError>>;
}

/// The resource that makes runs share: see [`Resources::with`](crate::Resources::with).
pub struct Sharing(pub Arc<dyn SharedCache>);

/// The output under a fingerprint, with all it stands for, or nothing.
pub(crate) async fn take(
    sharing: &Sharing,
    action: &Arc<dyn Action>,
    cx: &Cx,
    print: &Fingerprint,
) -> Option<(Finished, Hit, u64)> {
    let taken = tokio::select! {
        taken = try_take(sharing, action, cx, print) => taken,
        () = cx.cancel().cancelled() => return None,
    };
    match taken {
        Ok(taken) => taken,
        Err(error) => {
            cx.note(format!("not taken from the shared cache: {error}"));
            None
        }
    }
}

async fn try_take(
    sharing: &Sharing,
    action: &Arc<dyn Action>,
    cx: &Cx,
    print: &Fingerprint,
) -> Result<Option<(Finished, Hit, u64)>, StepError> {
    if !action.is_shared() {
        return Ok(None);
    }
    let Some(found) = sharing.0.find(cx, print).await? else { return Ok(None) };
    let Kept { step, output, discovered, millis } = found.kept().clone();
    let hit = Hit { output, discovered };
    if !discovered_holds(cx.root(), &hit) {
        cx.log("the shared cache has an output of other files than those here");
        return Ok(None);
    }
    let Ok(finished) = action.decode(&hit.output) else {
        return Err(StepError::external(format!("what is kept for {step} is no output of {}", cx.step())));
    };
    let Some(leaves) = action.leaves(cx, &finished) else { return Ok(None) };
    found.bring(cx, &leaves).await?;
    if !action.usable(cx, &finished) {
        return Err(StepError::external(format!("what is kept for {step} is not whole")));
    }
    cx.log(&format!("taken from the shared cache, where it took {millis} ms to make"));
    Ok(Some((finished, hit, millis)))
}

/// What is being given away while the run goes on.
#[derive(Default)]
pub(crate) struct Giving(Vec<(Cx, JoinHandle<()>)>);

impl Giving {
    /// Begins to give an output away.
    pub(crate) fn begin(
        &mut self,
        node: &Node,
        cx: Cx,
        print: Fingerprint,
        finished: &Finished,
        hit: Hit,
        millis: u64,
    ) {
        let Some(sharing) = cx.optional::<Sharing>() else { return };
        let Some(leaves) = node.action.leaves(&cx, finished).filter(|_| node.action.is_shared()) else { return };
        let Hit { output, discovered } = hit;
        let kept = Kept { step: Arc::clone(&node.name), output, discovered, millis };
        let step = cx.clone();
        let giving = tokio::spawn(async move {
            let given = tokio::select! {
                given = sharing.0.give(&cx, &print, &kept, &leaves) => given,
                () = cx.cancel().cancelled() => return,
            };
            if let Err(error) = given {
                cx.note(format!("not given to the shared cache: {error}"));
            }
        });
        self.0.push((step, giving));
    }

    /// Waits a while for what is under way, or breaks it off at once.
    pub(crate) async fn end(&mut self, wait: bool) {
        let until = Instant::now() + if wait { GIVING } else { Duration::ZERO };
        for (cx, mut giving) in self.0.drain(..) {
            if giving.is_finished() || tokio::time::timeout_at(until, &mut giving).await.is_ok() {
                continue;
            }
            giving.abort();
            cx.note("not given to the shared cache: the run has ended");
        }
    }
}
