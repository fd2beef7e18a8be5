//! The order of services: what others depend on comes first; and the cycle, where there is none.

use super::Config;
use crate::ServiceName;
use std::collections::{BTreeMap, BTreeSet};

impl Config {
    /// The services in dependency order, by name among equals: what others depend on comes first.
    pub fn services_in_order(&self) -> Vec<&ServiceName> {
        let depends: BTreeMap<&ServiceName, &[ServiceName]> =
            self.services.iter().map(|(name, service)| (name, service.depends_on.as_slice())).collect();
        order(&depends).expect("a configuration that was read has no cycle")
    }
}

/// The names in dependency order, or a cycle: its members in order, the first again at the end.
pub(super) fn order<'a>(
    depends: &BTreeMap<&'a ServiceName, &'a [ServiceName]>,
) -> Result<Vec<&'a ServiceName>, Vec<&'a ServiceName>> {
    let mut done = BTreeSet::new();
    let mut ordered = Vec::with_capacity(depends.len());
    // Each round places at least one service or ends, so there are at most as many rounds as services.
    while ordered.len() < depends.len() {
        let ready = |(_, needs): &(&&'a ServiceName, &&'a [ServiceName])| {
            needs.iter().all(|need| done.contains(need) || !depends.contains_key(need))
        };
        let next = depends.iter().filter(|(name, _)| !done.contains(**name)).find(ready).map(|(name, _)| *name);
        match next {
            Some(name) => {
                done.insert(name);
                ordered.push(name);
            }
            None => return Err(cycle(depends, &done)),
        }
    }
    Ok(ordered)
}

/// Every service that is not done waits for another that is not done: following them must meet one twice.
fn cycle<'a>(
    depends: &BTreeMap<&'a ServiceName, &'a [ServiceName]>,
    done: &BTreeSet<&ServiceName>,
) -> Vec<&'a ServiceName> {
    let waiting = |name: &&'a ServiceName| !done.contains(*name) && depends.contains_key(*name);
    let mut path: Vec<&ServiceName> = depends.keys().copied().find(waiting).into_iter().collect();
    for _ in 0..depends.len() {
        let last = path.last().expect("somebody waits");
        let next = depends[last].iter().find(waiting).expect("who waits, waits for somebody");
        let seen = path.iter().position(|name| *name == next);
        path.push(next);
        if let Some(from) = seen {
            return path.split_off(from);
        }
    }
    path
}
