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
