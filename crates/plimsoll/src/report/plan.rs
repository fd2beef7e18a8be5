//! A plan as a tree, a Mermaid flowchart or a Graphviz digraph; a step explained. Pure.

use super::text::{Tone, count, duration, one_line, paint};
use plimsoll_engine::{Decision, Kind, Plan, PlannedStep, Repeat};
use std::{collections::HashMap, fmt::Write, sync::Arc};

/// The word for a decision.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Cached { .. } => "cached",
        Decision::Runs { .. } => "runs",
        Decision::DependsOn { .. } => "depends",
        Decision::CheckedWhenRun { .. } => "checked when run",
    }
}

/// Decision and reason, in words.
fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Cached { reason } | Decision::Runs { reason } | Decision::CheckedWhenRun { reason } => {
            format!("{}: {}", word(decision), one_line(reason))
        }
        Decision::DependsOn { step } => format!("depends on {step}"),
    }
}

fn tone(decision: &Decision) -> Tone {
    match decision {
        Decision::Cached { .. } => Tone::Faint,
        Decision::Runs { .. } => Tone::Good,
        Decision::DependsOn { .. } | Decision::CheckedWhenRun { .. } => Tone::Look,
    }
}

/// How many further needs a line of the tree names.
const NAMED_NEEDS: usize = 3;

/// The plan as a tree: each step stands below the last of the steps it needs, which is the one it waits for longest in the order
/// of the plan; what else it needs is named beside it.
pub(crate) fn tree(plan: &Plan, color: bool) -> String {
    let places: HashMap<&str, usize> = plan.steps.iter().enumerate().map(|(at, step)| (&*step.name, at)).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); plan.steps.len()];
    let mut roots = Vec::new();
    for (at, step) in plan.steps.iter().enumerate() {
        match step.needs.iter().filter_map(|need| places.get(&**need)).max() {
            Some(parent) => children[*parent].push(at),
            None => roots.push(at),
        }
    }
    let mut out = format!("{}  {}  plan {}\n", plan.pipeline, count(plan.steps.len(), "step"), plan.hash.short());
    // A stack instead of recursion: a pipeline may be one chain of any length. Each step is pushed once.
    let mut open: Vec<(usize, String, bool)> = Vec::new();
    let push = |open: &mut Vec<(usize, String, bool)>, of: &[usize], indent: &str| {
        let last = of.last().copied();
        open.extend(of.iter().rev().map(|at| (*at, indent.to_owned(), Some(*at) == last)));
    };
    push(&mut open, &roots, "");
    while let Some((at, indent, last)) = open.pop() {
        let step = &plan.steps[at];
        let branch = if last { "└─ " } else { "├─ " };
        let note = paint(color, tone(&step.decision), &decided(&step.decision));
        let _ = writeln!(out, "{indent}{branch}{}  {note}{}", step.name, also_needs(step, &places));
        push(&mut open, &children[at], &format!("{indent}{}", if last { "   " } else { "│  " }));
    }
    let of = |what: &str| plan.steps.iter().filter(|step| word(&step.decision) == what).count();
    let counts = ["cached", "runs", "depends", "checked when run"].map(|what| (of(what), what));
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let _ = writeln!(out, "{}", counts.join(", "));
    out
}

fn also_needs(step: &PlannedStep, places: &HashMap<&str, usize>) -> String {
    let parent = step.needs.iter().max_by_key(|need| places.get(&***need));
    let mut others: Vec<&str> = step.needs.iter().filter(|need| Some(*need) != parent).map(|need| &**need).collect();
    others.dedup();
    let more = others.len().saturating_sub(NAMED_NEEDS);
    others.truncate(NAMED_NEEDS);
    match (others.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("  (also needs {})", others.join(", ")),
        (false, more) => format!("  (also needs {} and {more} more)", others.join(", ")),
    }
}

/// The plan as a Mermaid flowchart.
pub(crate) fn mermaid(plan: &Plan) -> String {
    let places = numbered(plan);
    let mut out = "flowchart TD\n".to_owned();
    for (at, step) in plan.steps.iter().enumerate() {
        let name = step.name.replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;");
        let (open, close) = match step.kind {
            Kind::Pure => ("[", "]"),
            Kind::Effect => ("([", "])"),
            Kind::Gate => ("{{", "}}"),
            Kind::Finally => ("[[", "]]"),
        };
        let _ = writeln!(out, "  s{at}{open}\"{name}<br/>{}\"{close}", word(&step.decision));
    }
    for (at, step) in plan.steps.iter().enumerate() {
        for need in step.needs.iter().filter_map(|need| places.get(need)) {
            let _ = writeln!(out, "  s{need} --> s{at}");
        }
    }
    out
}

/// The plan as a Graphviz digraph.
pub(crate) fn dot(plan: &Plan) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n", quoted(&plan.pipeline));
    for step in &plan.steps {
        let shape = match step.kind {
            Kind::Pure => "box",
            Kind::Effect => "ellipse",
            Kind::Gate => "hexagon",
            Kind::Finally => "note",
        };
        let name = quoted(&step.name);
        let _ = writeln!(out, "  \"{name}\" [shape={shape}, label=\"{name}\\n{}\"];", word(&step.decision));
    }
    for step in &plan.steps {
        for need in &step.needs {
            let _ = writeln!(out, "  \"{}\" -> \"{}\";", quoted(need), quoted(&step.name));
        }
    }
    out.push_str("}\n");
    out
}

fn numbered(plan: &Plan) -> HashMap<Arc<str>, usize> {
    plan.steps.iter().enumerate().map(|(at, step)| (Arc::clone(&step.name), at)).collect()
}

/// A step explained.
pub(crate) fn explain(plan: &Plan, step: &PlannedStep) -> String {
    let kind = match (step.kind, step.repeat) {
        (Kind::Pure, _) => "pure: its output is cached by all it depends on",
        (Kind::Effect, Some(Repeat::AtMostOnce)) => {
            "effect: begun at most once, and reported as unknown if it broke off"
        }
        (Kind::Effect, _) => "effect: the world is asked what is missing before anything is done",
        (Kind::Gate, _) => "gate: waits for a person",
        (Kind::Finally, _) => "finally: runs when all others have ended",
    };
    let needs: Vec<&str> = step.needs.iter().map(|need| &**need).collect();
    let needed: Vec<&str> =
        plan.steps.iter().filter(|other| other.needs.contains(&step.name)).map(|other| &*other.name).collect();
    let list = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let params = if step.params == "null" { "none".to_owned() } else { one_line(&step.params) };
    let expected = step.expected_millis.map_or_else(|| "not known: it has not run here".to_owned(), duration);
    let mut reads: Vec<String> = step.reads.iter().map(|name| format!("  reads      {}", one_line(name))).collect();
    reads.push(String::new());
    format!(
        "{} in {}\n  decision   {}\n  kind       {kind}\n  parameters {}\n  needs      {}\n  needed by  {}\n  last time  {expected}\n{}",
        step.name,
        plan.pipeline,
        decided(&step.decision),
        params,
        list(&needs),
        list(&needed),
        reads.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::Fingerprint;

    fn step(name: &str, kind: Kind, needs: &[&str], decision: Decision) -> PlannedStep {
        PlannedStep {
            name: name.into(),
            kind,
            needs: needs.iter().map(|need| (*need).into()).collect(),
            decision,
            repeat: (kind == Kind::Effect).then_some(Repeat::Reconcilable),
            params: "{\"package\":\"api\"}".into(),
            reads: vec!["file src/lib.rs".into(), "env CC".into()],
            expected_millis: (name == "image").then_some(1_500),
        }
    }

    fn plan() -> Plan {
        let cached = || Decision::Cached { reason: "nothing it reads has changed".into() };
        let steps = vec![
            step("compile[a]", Kind::Pure, &[], cached()),
            step("compile[b]", Kind::Pure, &[], Decision::Runs { reason: "file b.rs changed".into() }),
            step("image", Kind::Pure, &["compile[a]", "compile[b]"], Decision::DependsOn { step: "compile[b]".into() }),
            step("push", Kind::Effect, &["image"], Decision::CheckedWhenRun { reason: "asks the world".into() }),
            step("approve[\"x\"]", Kind::Gate, &["push"], Decision::CheckedWhenRun { reason: "asks".into() }),
        ];
        Plan { pipeline: "release".into(), hash: Fingerprint::of(b"plan"), steps }
    }

    #[test]
    fn a_tree_has_each_step_once_with_its_reason() {
        let hash = Fingerprint::of(b"plan").short();
        let expected = format!(
            "release  5 steps  plan {hash}\n\
             ├─ compile[a]  cached: nothing it reads has changed\n\
             └─ compile[b]  runs: file b.rs changed\n\
             \u{20}  └─ image  depends on compile[b]  (also needs compile[a])\n\
             \u{20}     └─ push  checked when run: asks the world\n\
             \u{20}        └─ approve[\"x\"]  checked when run: asks\n\
             1 cached, 1 runs, 1 depends, 2 checked when run\n"
        );
        assert_eq!(tree(&plan(), false), expected);
    }

    #[test]
    fn a_flowchart_and_a_digraph_have_every_step_and_every_need() {
        let text = mermaid(&plan());
        assert!(text.starts_with("flowchart TD\n  s0[\"compile[a]<br/>cached\"]\n"), "{text}");
        assert!(text.contains("  s4{{\"approve[#quot;x#quot;]<br/>checked when run\"}}\n"), "{text}");
        assert_eq!(text.matches(" --> ").count(), 4);
        let text = dot(&plan());
        assert!(text.contains("  \"approve[\\\"x\\\"]\" [shape=hexagon"), "{text}");
        assert_eq!(text.matches(" -> ").count(), 4);
    }

    #[test]
    fn a_chain_of_any_length_is_a_tree() {
        let name = |n: usize| format!("s{n}");
        let runs = || Decision::Runs { reason: "new".into() };
        let steps = (0..2_000).map(|n| match n {
            0 => step("s0", Kind::Pure, &[], runs()),
            n => step(&name(n), Kind::Pure, &[&name(n - 1)], runs()),
        });
        let plan = Plan { pipeline: "p".into(), hash: Fingerprint::of(b""), steps: steps.collect() };
        assert_eq!(tree(&plan, false).lines().count(), 2_002);
    }

    #[test]
    fn a_step_is_explained_with_what_it_needs_and_what_needs_it() {
        let plan = plan();
        let text = explain(&plan, &plan.steps[2]);
        for part in [
            "image in release",
            "depends on compile[b]",
            "compile[a], compile[b]",
            "needed by  push",
            "1.5 s",
            "reads      env CC",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
