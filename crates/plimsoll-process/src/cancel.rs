//! The token by which work is told to stop: cheap to clone, forming a tree.
//!
//! Cancelling a token cancels its children, never its parent. It only tells: whoever holds the work does the stopping.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

/// A cancellation token. Clones are the same token; [`Cancel::child`] makes one that follows it.
#[derive(Clone, Debug)]
pub struct Cancel {
    node: Arc<Node>,
}

#[derive(Debug)]
struct Node {
    cancelled: watch::Sender<bool>,
    children: Mutex<Children>,
}

#[derive(Debug, Default)]
struct Children {
    nodes: Vec<Weak<Node>>,
    /// Dropped children are forgotten when the list has grown to this length: amortised constant per child.
    prune_at: usize,
}

/// Below this many children pruning is not worth the walk.
const PRUNE_FLOOR: usize = 64;

impl Cancel {
    /// A token that is not cancelled and follows no other.
    pub fn new() -> Self {
        Self::with(false)
    }

    fn with(cancelled: bool) -> Self {
        let children = Mutex::new(Children { nodes: Vec::new(), prune_at: PRUNE_FLOOR });
        Self { node: Arc::new(Node { cancelled: watch::Sender::new(cancelled), children }) }
    }

    /// A token that is cancelled when this one is, and can be cancelled alone.
    pub fn child(&self) -> Self {
        // The lock is held while the flag is read, so that a `cancel` at the same time either sees the child or is seen.
        let mut children = self.node.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = Self::with(*self.node.cancelled.borrow());
        if children.nodes.len() >= children.prune_at {
            children.nodes.retain(|node| node.strong_count() > 0);
            children.prune_at = (children.nodes.len() * 2).max(PRUNE_FLOOR);
        }
        children.nodes.push(Arc::downgrade(&child.node));
        child
    }

    /// Cancels this token and all that follow it. Doing it twice is the same as once.
    pub fn cancel(&self) {
        // A stack instead of recursion: the depth is the caller's, and need not fit ours. It ends: the tree has no cycles.
        let mut waiting = vec![Arc::clone(&self.node)];
        while let Some(node) = waiting.pop() {
            let mut children = node.children.lock().unwrap_or_else(PoisonError::into_inner);
            node.cancelled.send_replace(true);
            waiting.extend(children.nodes.drain(..).filter_map(|child| child.upgrade()));
        }
    }

    /// Whether [`Cancel::cancel`] was called on this token or one above it.
    pub fn is_cancelled(&self) -> bool {
        *self.node.cancelled.borrow()
    }

    /// Completes when the token is cancelled; at once when it already is.
    pub async fn cancelled(&self) {
        let mut receiver = self.node.cancelled.subscribe();
        let seen = receiver.wait_for(|cancelled| *cancelled).await;
        // The sender lives in `self`, so the channel cannot close while we wait.
        debug_assert!(seen.is_ok());
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_cancels_its_children_and_a_child_does_not_cancel_its_parent() {
        let parent = Cancel::new();
        let (first, second) = (parent.child(), parent.child());
        let grandchild = first.child();
        first.cancel();
        assert!(first.is_cancelled() && grandchild.is_cancelled());
        assert!(!parent.is_cancelled() && !second.is_cancelled());
        parent.cancel();
        assert!(second.is_cancelled());
    }

    #[test]
    fn a_child_of_a_cancelled_token_is_born_cancelled() {
        let parent = Cancel::new();
        parent.cancel();
        assert!(parent.child().is_cancelled());
    }

    #[test]
    fn dropped_children_are_forgotten() {
        let parent = Cancel::new();
        for _ in 0..10_000 {
            drop(parent.child());
        }
        assert!(parent.node.children.lock().unwrap().nodes.len() <= PRUNE_FLOOR);
    }

    #[tokio::test]
    async fn waiting_ends_when_an_ancestor_is_cancelled() {
        let parent = Cancel::new();
        let grandchild = parent.child().child();
        // The child between is dropped: its own list must not be what keeps the grandchild connected.
        let middle = parent.child();
        let leaf = middle.child();
        let waiter = tokio::spawn(async move { tokio::join!(leaf.cancelled(), async { drop(grandchild) }) });
        parent.cancel();
        waiter.await.unwrap();
    }
}
