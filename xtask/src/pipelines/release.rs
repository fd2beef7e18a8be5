//! `release`: check what ships, build it, push it, stage it, smoke-test it, ask, cut production over, tell.

use super::environments::{Production, Staging};
use plimsoll::prelude::*;

/// The graph of a release.
pub(crate) fn release(g: &mut Graph<'_>, inputs: &Inputs) -> Result<(), StepError> {
    let packages = shipped_packages(inputs);
    let lints = vec![g.pure("", Fmt, ()), g.pure("", Clippy { packages: packages.clone() }, ())];
    let tests = packages.into_iter().map(|package| g.pure(&package.clone(), Test::of(package), ())).collect::<Vec<_>>();
    let images = built(g, inputs);

    started(g, inputs);
    let pushed = g.effect("", Push::new(inputs), (images, lints, tests));
    let attested = g.effect("", Attest::new(inputs), pushed);
    let staged = g.effect("staging", Deploy::<Staging>::new(inputs)?, attested);
    let smoked = g.effect("staging", Smoke::<Staging>::new(inputs)?, staged);
    let approval = g.gate("production", Approve::<Production, Staging>::new(inputs)?, smoked);
    let live = g.effect("production", Promote::<Production>::new(inputs)?, approval);
    g.effect("production", Smoke::<Production>::new(inputs)?, live);
    g.finally("", Notify::new(inputs));
    Ok(())
}
