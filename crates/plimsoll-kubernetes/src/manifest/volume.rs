//! What a pod can mount, and claims of storage.

use super::{
    Build,
    meta::{Meta, SUBDOMAIN, cut},
    mistake::{Findings, Nonsense},
};
use crate::{Object, ObjectError};
use k8s_openapi::{
    api::core::v1::{
        ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaim, PersistentVolumeClaimSpec,
        PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume as Typed, VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use plimsoll_core::ByteSize;
use plimsoll_deploy::Access;
use std::{collections::BTreeMap, fmt::Display};

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub(super) name: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    ConfigMap(String),
    Secret(String),
    Claim(String),
    Scratch(String),
}

impl Volume {
    /// The keys of a `ConfigMap` as files.
    pub fn config_map(name: impl Into<String>, config_map: impl Into<String>) -> Self {
        Self { name: name.into(), source: Source::ConfigMap(config_map.into()) }
    }

    /// The keys of a Secret as files that only the pod's own user reads.
    pub fn secret(name: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { name: name.into(), source: Source::Secret(secret.into()) }
    }

    /// What a [`Claim`] got.
    pub fn claim(name: impl Into<String>, claim: impl Into<String>) -> Self {
        Self { name: name.into(), source: Source::Claim(claim.into()) }
    }

    /// An empty directory that ends with the pod, and the pod with it when it grows beyond `size`.
    pub fn scratch(name: impl Into<String>, size: impl Display) -> Self {
        Self { name: name.into(), source: Source::Scratch(size.to_string()) }
    }

    pub(super) fn checked(&self, found: &mut Findings) -> Typed {
        let field = format!("spec.volumes[{}]", self.name);
        super::meta::name(found, &field, &self.name, super::meta::LABEL);
        let mut volume = Typed { name: self.name.clone(), ..Typed::default() };
        match &self.source {
            Source::ConfigMap(name) => {
                volume.config_map =
                    Some(ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() });
            }
            Source::Secret(name) => {
                let secret_name = Some(name.clone());
                let default_mode = Some(0o440);
                volume.secret = Some(SecretVolumeSource { secret_name, default_mode, ..SecretVolumeSource::default() });
            }
            Source::Claim(claim) => {
                let claim_name = claim.clone();
                volume.persistent_volume_claim =
                    Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None });
            }
            Source::Scratch(size) => {
                found.unless(size.parse::<ByteSize>().is_ok(), field, || Nonsense::Quantity(cut(size)));
                let size_limit = Some(Quantity(size.clone()));
                volume.empty_dir = Some(EmptyDirVolumeSource { medium: None, size_limit });
            }
        }
        volume
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub(super) meta: Meta,
    size: String,
    class: Option<String>,
    access: Access,
}

impl Claim {
    /// Storage of this size, of the cluster's default class, for the pods of one node.
    pub fn new(meta: impl Into<Meta>, size: impl Display) -> Self {
        Self { meta: meta.into(), size: size.to_string(), class: None, access: Access::ReadWriteOnce }
    }

    /// Of this storage class.
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// For these at once.
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(super) fn checked(&self, field: &str, found: &mut Findings) -> PersistentVolumeClaim {
        let size = self.size.parse::<ByteSize>();
        let storage = format!("{field}spec.resources.requests.storage");
        found.unless(size.is_ok(), storage.as_str(), || Nonsense::Quantity(cut(&self.size)));
        found.unless(size != Ok(ByteSize::new(0)), storage, || Nonsense::Below { number: 0, least: 1 });
        let requests = BTreeMap::from([("storage".to_owned(), Quantity(self.size.clone()))]);
        PersistentVolumeClaim {
            metadata: self.meta.checked(SUBDOMAIN, found),
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec![self.access.as_str().to_owned()]),
                resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
                storage_class_name: self.class.clone(),
                ..PersistentVolumeClaimSpec::default()
            }),
            status: None,
        }
    }
}

impl Build for Claim {
    fn title(&self) -> String {
        format!("PersistentVolumeClaim {}", self.meta.name)
    }

    fn render(&self, found: &mut Findings) -> Result<Object, ObjectError> {
        Object::of(&self.checked("", found))
    }
}
