//! `rollback`: an environment goes back to a release it served before.

use super::environments::{Production, Staging};
use plimsoll::prelude::*;

/// The graph of a rollback of the environment that was named.
pub(crate) fn rollback(g: &mut Graph<'_>, inputs: &Inputs) -> Result<(), StepError> {
    match inputs.options.environment.as_ref().map(EnvironmentName::as_str) {
        Some(Staging::NAME) => put_back::<Staging>(g, inputs)?,
        Some(Production::NAME) => put_back::<Production>(g, inputs)?,
        other => return Err(StepError::user(format!("no pipeline rolls {} back", other.unwrap_or("nothing")))),
    }
    g.finally("", Notify::new(inputs));
    Ok(())
}

fn put_back<E: Environment>(g: &mut Graph<'_>, inputs: &Inputs) -> Result<(), StepError> {
    let picked = g.effect(E::NAME, Pick::<E>::new(inputs), ());
    g.effect(E::NAME, Rollback::<E>::new(inputs)?, picked);
    Ok(())
}
