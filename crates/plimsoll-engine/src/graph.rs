//! The graph of a pipeline: steps added one after the other, each wired to handles of earlier ones, so it has no cycles
//! by construction.
//!
//! ```
//! use plimsoll_engine::{Cx, Graph, Pure, Reads, Step, StepError, pipeline};
//! #[derive(serde::Serialize)]
//! struct Double;
//! impl Step for Double {
//!     const NAME: &'static str = "double";
//!     const VERSION: u32 = 1;
//!     type In = u64;
//!     type Out = u64;
//! }
//! impl Pure for Double {
//!     fn reads(&self, _: &Cx) -> Result<Reads, StepError> { Ok(Reads::nothing()) }
//!     async fn run(&self, _: &Cx, input: u64) -> Result<u64, StepError> { Ok(input * 2) }
//! }
//! # #[derive(serde::Serialize)] struct Two;
//! # impl Step for Two { const NAME: &'static str = "two"; const VERSION: u32 = 1; type In = (); type Out = u64; }
//! # impl Pure for Two {
//! #     fn reads(&self, _: &Cx) -> Result<Reads, StepError> { Ok(Reads::nothing()) }
//! #     async fn run(&self, _: &Cx, (): ()) -> Result<u64, StepError> { Ok(2) }
//! # }
//! let built = pipeline("example", |g: &mut Graph<'_>| {
//!     let two = g.pure("", Two, ());
//!     let four = g.pure("first", Double, two);
//!     g.pure("second", Double, four);
//! });
//! assert_eq!(built.step_names(), ["two", "double[first]", "double[second]"]);
//! ```

use crate::{
    node::{Action, Closing, EffectNode, FinallyNode, GateNode, Kind, Node, PureNode},
    step::{Effect, Finally, Gate, Pure, Repeat, Step},
    wire::{Brand, Handle, Wire},
};
use plimsoll_core::Fingerprint;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, marker::PhantomData, sync::Arc};

/// A graph under construction. `'g` is its brand: handles of one graph cannot be used in another.
pub struct Graph<'g> {
    nodes: Vec<Node>,
    closing: Vec<(usize, Arc<dyn Closing>)>,
    names: HashSet<Arc<str>>,
    brand: Brand<'g>,
}

impl<'g> Graph<'g> {
    /// Adds a pure step. `label` tells it from its siblings of the same kind; it may be empty.
    ///
    /// # Panics
    /// If the graph has a step of this name already, as all the adding methods do: names are unique.
    pub fn pure<S: Pure, W: Wire<'g, Value = S::In>>(&mut self, label: &str, step: S, wire: W) -> Handle<'g, S::Out> {
        let (step, mut needs) = (Arc::new(step), Vec::new());
        let take = wire.connect(&mut needs);
        self.push(label, &*step.clone(), Kind::Pure, None, needs, Arc::new(PureNode(step, take)))
    }

    /// Adds an effect.
    pub fn effect<S: Effect, W: Wire<'g, Value = S::In>>(
        &mut self,
        label: &str,
        step: S,
        wire: W,
    ) -> Handle<'g, S::Out> {
        let (step, mut needs) = (Arc::new(step), Vec::new());
        let take = wire.connect(&mut needs);
        self.push(label, &*step.clone(), Kind::Effect, Some(S::REPEAT), needs, Arc::new(EffectNode(step, take)))
    }

    /// Adds a gate.
    pub fn gate<S: Gate, W: Wire<'g, Value = S::In>>(&mut self, label: &str, step: S, wire: W) -> Handle<'g, S::Out> {
        let (step, mut needs) = (Arc::new(step), Vec::new());
        let take = wire.connect(&mut needs);
        self.push(label, &*step.clone(), Kind::Gate, None, needs, Arc::new(GateNode(step, take)))
    }

    /// Adds a step that runs when all others have ended, however they ended.
    pub fn finally<S: Finally>(&mut self, label: &str, step: S) {
        let step = Arc::new(step);
        let node = Arc::new(FinallyNode(Arc::clone(&step)));
        self.closing.push((self.nodes.len(), node.clone()));
        self.push(label, &*step, Kind::Finally, Some(Repeat::AtMostOnce), Vec::new(), node);
    }

    fn push<S: Step>(
        &mut self,
        label: &str,
        step: &S,
        kind: Kind,
        repeat: Option<Repeat>,
        needs: Vec<usize>,
        action: Arc<dyn Action>,
    ) -> Handle<'g, S::Out> {
        let name: Arc<str> = if label.is_empty() { S::NAME.into() } else { format!("{}[{label}]", S::NAME).into() };
        assert!(self.names.insert(Arc::clone(&name)), "two steps are named {name}");
        let params = serde_json::to_string(step).expect("a step's parameters are plain data");
        let version = S::VERSION.to_le_bytes();
        let print = Fingerprint::of_parts([S::NAME.as_bytes(), &version, &[kind as u8], params.as_bytes()]);
        self.nodes.push(Node { name, kind, repeat, needs, print, params, action });
        Handle { node: self.nodes.len() - 1, of: PhantomData, brand: PhantomData }
    }
}

/// A finished graph with its name.
pub struct Pipeline {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) closing: Vec<(usize, Arc<dyn Closing>)>,
}

/// Builds a pipeline. The function is generic over the brand, so no handle can leave it.
pub fn pipeline(name: &str, build: impl for<'g> FnOnce(&mut Graph<'g>)) -> Pipeline {
    let mut graph = Graph { nodes: Vec::new(), closing: Vec::new(), names: HashSet::new(), brand: PhantomData };
    build(&mut graph);
    Pipeline { name: name.to_owned(), nodes: graph.nodes, closing: graph.closing }
}

/// Like [`pipeline`], for a builder that can fail, as one that looks at its configuration may.
pub fn try_pipeline<E>(name: &str, build: impl for<'g> FnOnce(&mut Graph<'g>) -> Result<(), E>) -> Result<Pipeline, E> {
    let mut result = Ok(());
    let pipeline = pipeline(name, |graph| result = build(graph));
    result.map(|()| pipeline)
}

/// A step's share of the plan hash, under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPrint {
    /// The step's name.
    pub name: String,
    /// Hash of kind, version, parameters and the names of the steps it needs.
    pub print: Fingerprint,
}

impl Pipeline {
    /// The pipeline's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of all steps, in the order in which they were added.
    pub fn step_names(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.name.to_string()).collect()
    }

    /// Keeps the steps whose names `keep` takes, all that these need, and the finally-steps.
    ///
    /// What is left is in the same order and has the same names; the plan hash is that of a smaller plan. If `keep` takes no
    /// step that is not a finally-step, no such step is left: whoever restricts looks first.
    pub fn only(self, keep: impl Fn(&str) -> bool) -> Self {
        let Self { name, nodes, closing } = self;
        let mut kept: Vec<bool> = nodes.iter().map(|n| n.kind == Kind::Finally || keep(&n.name)).collect();
        // A step needs only earlier ones, so one pass from the end marks everything.
        for node in (0..nodes.len()).rev().filter(|n| nodes[*n].kind != Kind::Finally) {
            if kept[node] {
                nodes[node].needs.iter().for_each(|need| kept[*need] = true);
            }
        }
        let places: Vec<usize> = kept
            .iter()
            .scan(0, |place, kept| {
                let own = *place;
                *place += usize::from(*kept);
                Some(own)
            })
            .collect();
        let renumber = |node: Node| Node { needs: node.needs.iter().map(|n| places[*n]).collect(), ..node };
        let nodes = nodes.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(node, _)| renumber(node)).collect();
        let closing = closing.into_iter().map(|(node, step)| (places[node], step)).collect();
        Self { name, nodes, closing }
    }

    /// Each step's print.
    pub fn prints(&self) -> Vec<StepPrint> {
        let print = |node: &Node| {
            let needs = node.needs.iter().map(|n| self.nodes[*n].name.as_bytes());
            Fingerprint::of_parts(std::iter::once(node.print.as_bytes().as_slice()).chain(needs))
        };
        self.nodes.iter().map(|n| StepPrint { name: n.name.to_string(), print: print(n) }).collect()
    }

    /// The hash of the whole plan: graph, parameters and versions, not verdicts.
    pub fn plan_hash(&self) -> Fingerprint {
        plan_hash(&self.name, &self.prints())
    }
}

/// The plan hash over the prints of a pipeline's steps.
pub fn plan_hash(pipeline: &str, prints: &[StepPrint]) -> Fingerprint {
    let parts = prints.iter().flat_map(|p| [p.name.as_bytes(), p.print.as_bytes().as_slice()]);
    Fingerprint::of_parts(std::iter::once(pipeline.as_bytes()).chain(parts))
}

/// The names of the steps in which two plans differ: what a refusal to resume says.
pub fn plan_differences(old: &[StepPrint], new: &[StepPrint]) -> Vec<String> {
    let changed = new.iter().filter_map(|n| match old.iter().find(|o| o.name == n.name) {
        None => Some(format!("{} is new", n.name)),
        Some(o) if o.print != n.print => Some(format!("{} differs", n.name)),
        Some(_) => None,
    });
    let gone = old.iter().filter(|o| new.iter().all(|n| n.name != o.name)).map(|o| format!("{} is gone", o.name));
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cx, Reads, StepError};

    #[derive(Serialize)]
    struct Number(u64);

    impl Step for Number {
        const NAME: &'static str = "number";
        const VERSION: u32 = 1;
        type In = Vec<u64>;
        type Out = u64;
    }

    impl Pure for Number {
        fn reads(&self, _: &Cx) -> Result<Reads, StepError> {
            Ok(Reads::nothing())
        }

        async fn run(&self, _: &Cx, input: Vec<u64>) -> Result<u64, StepError> {
            Ok(self.0 + input.iter().sum::<u64>())
        }
    }

    #[derive(Serialize)]
    struct Report;

    impl Step for Report {
        const NAME: &'static str = "report";
        const VERSION: u32 = 1;
        type In = ();
        type Out = ();
    }

    impl Finally for Report {
        async fn run(&self, _: &Cx, _: Arc<crate::Summary>) -> Result<(), StepError> {
            Ok(())
        }
    }

    fn diamond() -> Pipeline {
        pipeline("diamond", |g| {
            let a = g.pure("a", Number(1), Vec::<Handle<'_, u64>>::new());
            let b = g.pure("b", Number(2), vec![a]);
            g.finally("", Report);
            let c = g.pure("c", Number(3), vec![a]);
            let d = g.pure("d", Number(4), vec![b, c]);
            g.pure("e", Number(5), vec![d]);
        })
    }

    fn check(keep: &[&str], expected: &[&str]) {
        let kept = diamond().only(|name| keep.contains(&name));
        assert_eq!(kept.step_names(), expected, "{keep:?}");
        let (whole, kept) = (diamond().prints(), kept.prints());
        assert!(kept.iter().all(|p| whole.contains(p)), "a kept step is the step it was");
    }

    #[test]
    fn a_restricted_pipeline_keeps_what_its_steps_need_and_the_finally_steps() {
        check(&["number[c]"], &["number[a]", "report", "number[c]"]);
        check(&["number[d]"], &["number[a]", "number[b]", "report", "number[c]", "number[d]"]);
        check(&["number[a]"], &["number[a]", "report"]);
        check(&["number[e]"], &diamond().step_names().iter().map(String::as_str).collect::<Vec<_>>());
        check(&[], &["report"]);
    }

    #[test]
    fn the_needs_of_kept_steps_point_at_their_new_places() {
        let kept = diamond().only(|name| name == "number[c]");
        assert_eq!(kept.nodes[2].needs, [0]);
        assert_eq!(kept.closing[0].0, 1);
    }
}
