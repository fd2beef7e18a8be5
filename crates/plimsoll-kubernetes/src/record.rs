//! The environment's record in its namespace: a ConfigMap for what is live and its generation, and one for each release.
//!
//! Every change of the record names the resource version it was read with, so that of two writers one loses and knows
//! it. A release's own record is written before the environment's names it, and never changed.

use crate::{
    cluster::{Cluster, refused, unreachable},
    names,
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::api::ObjectMeta;
use plimsoll_core::{EnvironmentName, Generation, RunId, Timestamp};
use plimsoll_deploy::{ReleaseRecord, Switched, TargetError};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

/// Releases kept besides the live one.
pub(crate) const HISTORY: usize = 10;
/// The form of the record; a higher one was written by a newer Plimsoll.
const FORMAT: u32 = 1;
/// The largest release record that is unpacked: the API server takes a megabyte packed.
const MAX_RELEASE: u64 = 32 << 20;
const RECORD_KEY: &str = "record.json";
const RELEASE_KEY: &str = "release.json.gz";

/// What is recorded of an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) generation: Generation,
    pub(crate) live: Option<ReleaseName>,
    /// Newest first.
    pub(crate) history: Vec<ReleaseName>,
    pub(crate) stopped: bool,
    pub(crate) switched: Option<Switched>,
    /// A cut-over that was begun and has not been recorded as done.
    pub(crate) pending: Option<Pending>,
}

/// Which release record is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ReleaseName {
    pub(crate) generation: Generation,
    pub(crate) run: RunId,
}

/// Who began a cut-over, to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) run: RunId,
    pub(crate) actor: String,
    pub(crate) version: String,
    pub(crate) since: Timestamp,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: FORMAT,
            generation: Generation(0),
            live: None,
            history: Vec::new(),
            stopped: false,
            switched: None,
            pending: None,
        }
    }
}

impl Record {
    /// Makes `name` the live release; returns those that are forgotten.
    pub(crate) fn advance(&mut self, name: ReleaseName) -> Vec<ReleaseName> {
        self.generation = name.generation;
        if let Some(before) = self.live.replace(name) {
            self.history.insert(0, before);
        }
        self.pending = None;
        self.history.split_off(self.history.len().min(HISTORY))
    }
}

/// A record with the version it has at the API server.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    version: Option<String>,
}

fn labels(environment: &EnvironmentName) -> BTreeMap<String, String> {
    let pairs = [(names::ENVIRONMENT, environment.as_str()), ("app.kubernetes.io/managed-by", names::MANAGER)];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Reads the environment's record; one that nobody wrote yet is empty.
pub(crate) async fn read(cluster: &Cluster, environment: &EnvironmentName) -> Result<Stored, TargetError> {
    let name = names::environment(environment);
    let Some(map) = cluster.get::<ConfigMap>(&name).await? else {
        return Ok(Stored { record: Record::default(), version: None });
    };
    let what = format!("read the record of {environment}");
    let text = map.data.as_ref().and_then(|data| data.get(RECORD_KEY));
    let text = text.ok_or_else(|| refused(&what, format!("ConfigMap {name} has no key {RECORD_KEY}")))?;
    let record: Record = serde_json::from_str(text).map_err(|e| unreachable(what.clone(), e))?;
    if record.format > FORMAT {
        return Err(refused(&what, format!("it has format {}, written by a newer Plimsoll", record.format)));
    }
    Ok(Stored { record, version: map.metadata.resource_version })
}

/// Writes the record if nobody did since it was read; `None` when somebody did.
pub(crate) async fn write(
    cluster: &Cluster,
    environment: &EnvironmentName,
    stored: Stored,
) -> Result<Option<Stored>, TargetError> {
    let name = names::environment(environment);
    let text = serde_json::to_string(&stored.record).expect("a record is plain data");
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            resource_version: stored.version,
            labels: Some(labels(environment)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(RECORD_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    let done = cluster.compare_and_set(&name, &map).await?;
    Ok(done.map(|map| Stored { record: stored.record, version: map.metadata.resource_version }))
}

/// Reads a release's record.
pub(crate) async fn read_release(
    cluster: &Cluster,
    environment: &EnvironmentName,
    name: &ReleaseName,
) -> Result<Option<ReleaseRecord>, TargetError> {
    let name = names::release(environment, name.generation, &name.run);
    let Some(map) = cluster.get::<ConfigMap>(&name).await? else { return Ok(None) };
    let what = format!("read the release record {name}");
    let packed = map.binary_data.as_ref().and_then(|data| data.get(RELEASE_KEY));
    let packed = packed.ok_or_else(|| refused(&what, format!("it has no key {RELEASE_KEY}")))?;
    let record = unpack(&packed.0).map_err(|e| unreachable(what, e))?;
    Ok(Some(record))
}

/// Writes a release's record, again if it was written before.
pub(crate) async fn write_release(
    cluster: &Cluster,
    environment: &EnvironmentName,
    release: &ReleaseRecord,
) -> Result<(), TargetError> {
    let name = names::release(environment, release.generation, &release.run);
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name), labels: Some(labels(environment)), ..ObjectMeta::default() },
        binary_data: Some(BTreeMap::from([(RELEASE_KEY.to_owned(), ByteString(pack(release)))])),
        ..ConfigMap::default()
    };
    let what = "write the release record";
    let mut object = serde_json::to_value(&map).map_err(|e| unreachable(what.to_owned(), e))?;
    object["apiVersion"] = "v1".into();
    object["kind"] = "ConfigMap".into();
    let object = object.try_into().map_err(|e| crate::cluster::unwritable(what, e))?;
    cluster.apply(&object).await.map(drop)
}

/// Forgets releases that no record names any more.
pub(crate) async fn forget(cluster: &Cluster, environment: &EnvironmentName, releases: &[ReleaseName]) {
    for release in releases {
        let name = names::release(environment, release.generation, &release.run);
        if let Err(error) = cluster.delete::<ConfigMap>(&name).await {
            tracing::warn!(%error, name, "an old release record stays");
        }
    }
}

fn pack(release: &ReleaseRecord) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, release).expect("a release record is plain data, and memory takes it");
    encoder.flush().and_then(|()| encoder.finish()).expect("memory takes all that is written")
}

fn unpack(packed: &[u8]) -> Result<ReleaseRecord, std::io::Error> {
    let mut text = Vec::new();
    GzDecoder::new(packed).take(MAX_RELEASE).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(std::io::Error::from)
}
