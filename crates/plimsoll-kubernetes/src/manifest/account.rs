//! Who pods are to the API, and what they may do there: nothing, unless a role says so.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::api::{
    core::v1::ServiceAccount as TypedAccount,
    rbac::v1::{PolicyRule, Role as TypedRole, RoleBinding as TypedBinding, RoleRef, Subject},
};

/// A `ServiceAccount`, whose token no pod gets by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    meta: Meta,
}

impl ServiceAccount {
    /// An account that may do nothing.
    pub fn new(meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into() }
    }
}

impl Build for ServiceAccount {
    fn title(&self) -> String {
        format!("ServiceAccount {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        Object::of(&TypedAccount {
            metadata: self.meta.checked(SUBDOMAIN, found),
            automount_service_account_token: Some(false),
            ..TypedAccount::default()
        })
    }
}

/// A Role of one namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    meta: Meta,
    rules: Vec<PolicyRule>,
}

impl Role {
    /// A role that allows nothing yet.
    pub fn new(meta: impl Into<Meta>) -> Self {
        Self { meta: meta.into(), rules: Vec::new() }
    }

    /// Allows verbs on resources of an API group; the core group is `""`.
    pub fn allow(mut self, group: &str, resources: &[&str], verbs: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        self.rules.push(PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(owned(resources)),
            verbs: owned(verbs),
            ..PolicyRule::default()
        });
        self
    }
}

impl Build for Role {
    fn title(&self) -> String {
        format!("Role {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        found.unless(!self.rules.is_empty(), "rules", || Nonsense::Empty("what it allows"));
        for rule in &self.rules {
            let resources = rule.resources.as_deref().unwrap_or_default();
            found.unless(!resources.is_empty(), "rules.resources", || Nonsense::Empty("on what"));
            found.unless(!rule.verbs.is_empty(), "rules.verbs", || Nonsense::Empty("what may be done"));
        }
        Object::of(&TypedRole { metadata: self.meta.checked(SUBDOMAIN, found), rules: Some(self.rules.clone()) })
    }
}

/// A `RoleBinding` of a role to accounts of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleBinding {
    meta: Meta,
    role: String,
    accounts: Vec<String>,
}

impl RoleBinding {
    /// Lets these accounts do what the role allows.
    pub fn new(meta: impl Into<Meta>, role: &Role, accounts: &[&ServiceAccount]) -> Self {
        let accounts = accounts.iter().map(|account| account.meta.name.clone()).collect();
        Self { meta: meta.into(), role: role.meta.name.clone(), accounts }
    }
}

impl Build for RoleBinding {
    fn title(&self) -> String {
        format!("RoleBinding {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        found.unless(!self.accounts.is_empty(), "subjects", || Nonsense::Empty("who gets the role"));
        found.once("subjects", self.accounts.iter().map(String::as_str));
        let subject =
            |name: &String| Subject { kind: "ServiceAccount".to_owned(), name: name.clone(), ..Subject::default() };
        Object::of(&TypedBinding {
            metadata: self.meta.checked(SUBDOMAIN, found),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: self.role.clone(),
            },
            subjects: Some(self.accounts.iter().map(subject).collect()),
        })
    }
}
