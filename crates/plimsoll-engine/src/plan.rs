//! The plan: per step, what a run would do and why. Pure: what was read, cached and recorded is passed in.

use crate::{node::Kind, reads::Component, step::Repeat};
use plimsoll_core::Fingerprint;
use serde::Serialize;
use std::sync::Arc;

/// What a run would do with a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// Its recorded output is used.
    Cached {
        /// Why that is right.
        reason: String,
    },
    /// It does its work.
    Runs {
        /// Why.
        reason: String,
    },
    /// Whether it works depends on the output of a step that runs first.
    DependsOn {
        /// That step.
        step: Arc<str>,
    },
    /// An effect or a gate: the world is asked when it is its turn.
    CheckedWhenRun {
        /// What is asked.
        reason: String,
    },
}

/// A planned step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedStep {
    /// Its name.
    pub name: Arc<str>,
    /// What kind of step it is.
    pub kind: Kind,
    /// The names of the steps whose outputs it takes.
    pub needs: Vec<Arc<str>>,
    /// What a run would do with it.
    #[serde(flatten)]
    pub decision: Decision,
    /// For an effect, whether the world can be asked if it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// Its parameters, as JSON.
    #[serde(skip)]
    pub params: String,
    /// What it reads, by name: `file src/lib.rs`, `env RUSTFLAGS`. Of pure steps only.
    #[serde(skip)]
    pub reads: Vec<String>,
    /// How long it took when it last did its work, in milliseconds.
    pub expected_millis: Option<u64>,
}

/// A whole plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// The plan hash: what an approval is bound to.
    pub hash: Fingerprint,
    /// The steps, each after those it needs.
    pub steps: Vec<PlannedStep>,
}

/// What is known of a step before anything runs.
pub(crate) struct Facts<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) needs: &'a [usize],
    pub(crate) print: Fingerprint,
    pub(crate) reads: Option<&'a [Component]>,
}

/// Answers of cache and journal.
pub(crate) trait Known {
    /// The output recorded for a pure step's fingerprint.
    fn cached(&self, node: usize, print: &Fingerprint) -> Option<Arc<str>>;
    /// The output the resumed run has recorded for the step, if it was made from these inputs.
    fn replayed(&self, node: usize, inputs: &Fingerprint) -> Option<Arc<str>>;
    /// Why the cache has nothing.
    fn miss(&self, node: usize) -> String;
}

/// The fingerprint of a pure step: its print, what it declared to read, and the recorded outputs of its inputs. Outputs, not
/// the inputs' own fingerprints: a step that came to an equal output stops the change there.
pub(crate) fn fingerprint(print: &Fingerprint, reads: &[Component], inputs: &Fingerprint) -> Fingerprint {
    let reads = reads.iter().flat_map(|c| [c.name.as_bytes(), c.hash.as_bytes().as_slice()]);
    Fingerprint::of_parts([print.as_bytes().as_slice(), inputs.as_bytes()].into_iter().chain(reads))
}

/// The hash of the recorded outputs a step gets.
pub(crate) fn inputs_hash<'a>(outputs: impl IntoIterator<Item = &'a str>) -> Fingerprint {
    Fingerprint::of_parts(outputs.into_iter().map(str::as_bytes))
}

/// Decides each step, in order; gives the recorded output of each that has one, too.
pub(crate) fn decide(facts: &[Facts<'_>], known: &dyn Known) -> (Vec<Decision>, Vec<Option<Arc<str>>>) {
    let mut outputs: Vec<Option<Arc<str>>> = Vec::with_capacity(facts.len());
    let mut decisions = Vec::with_capacity(facts.len());
    for (node, fact) in facts.iter().enumerate() {
        let (decision, output) = decide_one(node, fact, facts, &outputs, known);
        decisions.push(decision);
        outputs.push(output);
    }
    (decisions, outputs)
}

fn decide_one(
    node: usize,
    fact: &Facts<'_>,
    facts: &[Facts<'_>],
    outputs: &[Option<Arc<str>>],
    known: &dyn Known,
) -> (Decision, Option<Arc<str>>) {
    let checked = |reason: &str| (Decision::CheckedWhenRun { reason: reason.to_owned() }, None);
    if fact.kind == Kind::Finally {
        return checked("runs when all other steps have ended");
    }
    if let Some(open) = fact.needs.iter().find(|n| outputs[**n].is_none()) {
        if fact.kind == Kind::Pure {
            return (Decision::DependsOn { step: Arc::clone(&facts[*open].name) }, None);
        }
    } else {
        let inputs = inputs_hash(fact.needs.iter().filter_map(|n| outputs[*n].as_deref()));
        if let Some(output) = known.replayed(node, &inputs) {
            return (Decision::Cached { reason: "this run has done it".to_owned() }, Some(output));
        }
        if let (Kind::Pure, Some(reads)) = (fact.kind, fact.reads) {
            let print = fingerprint(&fact.print, reads, &inputs);
            return match known.cached(node, &print) {
                Some(output) => (Decision::Cached { reason: "nothing it reads has changed".to_owned() }, Some(output)),
                None => (Decision::Runs { reason: known.miss(node) }, None),
            };
        }
    }
    match fact.kind {
        Kind::Gate => checked("asks whether it is approved"),
        _ => checked("asks the world what is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Table {
        cached: HashMap<Fingerprint, Arc<str>>,
    }

    impl Known for Table {
        fn cached(&self, _: usize, print: &Fingerprint) -> Option<Arc<str>> {
            self.cached.get(print).cloned()
        }

        fn replayed(&self, _: usize, _: &Fingerprint) -> Option<Arc<str>> {
            None
        }

        fn miss(&self, _: usize) -> String {
            "new".to_owned()
        }
    }

    fn fact<'a>(name: &str, kind: Kind, needs: &'a [usize]) -> Facts<'a> {
        Facts { name: name.into(), kind, needs, print: Fingerprint::of(name.as_bytes()), reads: Some(&[]) }
    }

    #[test]
    fn what_follows_a_running_step_depends_on_it_and_what_follows_a_cached_one_is_decided() {
        let facts = [
            fact("a", Kind::Pure, &[]),
            fact("b", Kind::Pure, &[0]),
            fact("c", Kind::Pure, &[]),
            fact("d", Kind::Pure, &[2]),
            fact("e", Kind::Effect, &[1]),
        ];
        let a = fingerprint(&facts[0].print, &[], &inputs_hash([]));
        let b = fingerprint(&facts[1].print, &[], &inputs_hash(["out"]));
        let table = Table { cached: HashMap::from([(a, "out".into()), (b, "b-out".into())]) };
        let (decisions, outputs) = decide(&facts, &table);
        assert_eq!(
            outputs.iter().map(Option::as_deref).collect::<Vec<_>>(),
            [Some("out"), Some("b-out"), None, None, None]
        );
        let words: Vec<&str> = decisions
            .iter()
            .map(|d| match d {
                Decision::Cached { .. } => "cached",
                Decision::Runs { .. } => "runs",
                Decision::DependsOn { .. } => "depends",
                Decision::CheckedWhenRun { .. } => "checked",
            })
            .collect();
        assert_eq!(words, ["cached", "cached", "runs", "depends", "checked"]);
    }
}
