//! Whose pods go first when room is short.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::api::scheduling::v1::PriorityClass as Typed;

/// What is above belongs to the system.
const HIGHEST: i32 = 1_000_000_000;

/// A `PriorityClass`, known in the whole cluster; never the one of pods that name none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriorityClass {
    meta: Meta,
    value: i32,
    preempts: bool,
    description: String,
}

impl PriorityClass {
    /// Pods of a higher value go first; they wait for room and take none from others.
    pub fn new(meta: impl Into<Meta>, value: i32, description: impl Into<String>) -> Self {
        Self { meta: meta.into(), value, preempts: false, description: description.into() }
    }

    /// Pods of lower value are ended to make room.
    pub const fn preempting(mut self) -> Self {
        self.preempts = true;
        self
    }
}

impl Build for PriorityClass {
    fn title(&self) -> String {
        format!("PriorityClass {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        let (number, most) = (i64::from(self.value), i64::from(HIGHEST));
        found.unless(number <= most, "value", || Nonsense::Above { number, most });
        found.unless(!self.meta.name.starts_with("system-"), "metadata.name", || Nonsense::Name {
            name: self.meta.name.clone(),
            kind: "name of a priority class",
            rule: "`system-` is for the cluster's own",
        });
        Object::of(&Typed {
            metadata: self.meta.checked(SUBDOMAIN, found),
            value: self.value,
            global_default: Some(false),
            description: Some(self.description.clone()),
            preemption_policy: Some(if self.preempts { "PreemptLowerPriority" } else { "Never" }.to_owned()),
        })
    }
}
