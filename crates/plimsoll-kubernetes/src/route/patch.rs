//! Changes of a route as JSON patches, each of which fails when the route is not the one that was read.

use super::{Memory, Route};
use crate::names;
use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use serde_json::{Value, json};

impl Route {
    /// The change to these rules and this note; `None` where it says so already.
    pub(super) fn patch(&self, rules: &[Value], memory: Option<&Memory>) -> Option<Patch> {
        let path = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
        let mut changes = Vec::new();
        for (number, rule) in rules.iter().enumerate().filter(|(number, rule)| self.rules.get(*number) != Some(rule)) {
            let path = path(&["spec", "rules", &number.to_string(), "backendRefs"]);
            changes.push(PatchOperation::Replace(ReplaceOperation { path, value: rule["backendRefs"].clone() }));
        }
        let wanted = memory.map(|memory| serde_json::to_string(memory).expect("it is plain data"));
        let at = path(&["metadata", "annotations", names::SHARE]);
        match wanted {
            wanted if wanted == self.remembered => {}
            Some(text) if self.has_annotations => {
                changes.push(PatchOperation::Add(AddOperation { path: at, value: text.into() }));
            }
            Some(text) => {
                let (path, value) = (path(&["metadata", "annotations"]), json!({ (names::SHARE): text }));
                changes.push(PatchOperation::Add(AddOperation { path, value }));
            }
            None => changes.push(PatchOperation::Remove(RemoveOperation { path: at })),
        }
        if changes.is_empty() {
            return None;
        }
        changes.insert(0, self.test());
        Some(Patch(changes))
    }

    /// The change by which nobody else's server-side apply conflicts with us any more, once it says what it said before.
    pub(crate) fn disown(&self) -> Option<Patch> {
        if self.owned.is_empty() || self.remembered.is_some() {
            return None;
        }
        let path = |at: &usize| PointerBuf::from_tokens(["metadata", "managedFields", &at.to_string()]);
        // From behind: the others keep their places.
        let remove = |at: &usize| PatchOperation::Remove(RemoveOperation { path: path(at) });
        Some(Patch(std::iter::once(self.test()).chain(self.owned.iter().rev().map(remove)).collect()))
    }

    fn test(&self) -> PatchOperation {
        let path = PointerBuf::from_tokens(["metadata", "resourceVersion"]);
        PatchOperation::Test(TestOperation { path, value: self.version.clone().into() })
    }
}
