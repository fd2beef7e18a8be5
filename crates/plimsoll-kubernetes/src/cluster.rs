//! The API server, as far as this crate asks it: typed reads, server-side apply, patches, and requests to pods.
//!
//! Reads are repeated while the API server cannot be reached, up to [`PATIENCE`]. Writes are not: whoever writes looks
//! first what the world says.

mod routes;

use crate::{
    names::MANAGER,
    object::{Object, ObjectError},
};
use http_body_util::BodyExt as _;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::{GroupVersionKind, NamespaceResourceScope, gvk::ParseGroupVersionError},
    discovery::{self, Scope},
};
use plimsoll_core::chain;
use plimsoll_deploy::TargetError;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

/// How long reads go on while the API server does not answer: a control plane that is upgraded is away for a minute.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one request may take; etcd under load answers in seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Items per page of a list.
const PAGE: u32 = 500;
/// The largest answer of a pod that is read.
const MAX_BODY: usize = 1 << 20;

/// Where the cluster is, and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Files in the form of `KUBECONFIG`, the first that says something wins; empty: `~/.kube/config`, else the service
    /// account of the pod this runs in.
    pub kubeconfig: Vec<PathBuf>,
    /// The context; `None`: the current one.
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", shown(.files))]
    Kubeconfig {
        /// Its files.
        files: Vec<PathBuf>,
        /// Why.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// There is no kubeconfig and this is no pod.
    #[error("there is no kubeconfig; set KUBECONFIG, or `context` of the environment")]
    None(#[source] Box<kube::config::InferConfigError>),
    /// No HTTP client can be made of it.
    #[error("cannot make a client for the cluster")]
    Client(#[source] Box<kube::Error>),
}

fn shown(files: &[PathBuf]) -> String {
    files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(":")
}

/// A cluster that is looked for when somebody first asks it something: an environment whose cluster nobody reaches from
/// here must not keep anyone from another one.
pub(crate) struct Lazy {
    access: Access,
    namespace: String,
    found: OnceCell<Cluster>,
}

impl Lazy {
    pub(crate) const fn new(access: Access, namespace: String) -> Self {
        Self { access, namespace, found: OnceCell::const_new() }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) async fn get(&self) -> Result<&Cluster, TargetError> {
        let found = self.found.get_or_try_init(|| Cluster::connect(&self.access, self.namespace.clone())).await;
        found.map_err(|error| refused(&format!("find the cluster of namespace {}", self.namespace), chain(&error)))
    }
}

/// How long an API server may take to say that it is there.
const PRESENT: Duration = Duration::from_secs(2);

/// One namespace of a cluster.
pub(crate) struct Cluster {
    client: Client,
    /// Without the client's own retries of 503, which is what a pod that does not answer looks like.
    direct: Client,
    namespace: String,
    kinds: Mutex<BTreeMap<(String, String), (ApiResource, Scope)>>,
}

/// A kind of this crate's own reading.
pub(crate) trait Kind:
    kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned
{
}

impl<K> Kind for K where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned
{
}

/// What a pod is asked.
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Vec<u8>,
    /// How long the whole answer may take.
    pub(crate) limit: Duration,
}

/// What a pod answered.
#[derive(Debug)]
pub(crate) struct PodAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Cluster {
    /// Finds the cluster; asks it nothing yet. Must be called within a tokio runtime.
    pub(crate) async fn connect(access: &Access, namespace: String) -> Result<Self, AccessError> {
        let mut config = config(access).await?;
        config.default_namespace.clone_from(&namespace);
        config.connect_timeout = Some(Duration::from_secs(5));
        // A watch is silent for minutes; requests have a limit of their own.
        config.read_timeout = Some(Duration::from_mins(5));
        let client = |config: Config| Client::try_from(config).map_err(|e| AccessError::Client(Box::new(e)));
        let mut without_retry = config.clone();
        without_retry.default_retry = false;
        Ok(Self { client: client(config)?, direct: client(without_retry)?, namespace, kinds: Mutex::default() })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The version of the API server, asked once.
    pub(crate) async fn version(&self) -> Result<String, TargetError> {
        let told = timeout(PRESENT, self.direct.apiserver_version()).await;
        let told = told.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
        told.map(|version| version.git_version)
            .map_err(|e| unreachable("ask the cluster for its version".to_owned(), e))
    }

    pub(crate) fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An object, if there is one.
    pub(crate) async fn get<K: Kind>(&self, name: &str) -> Result<Option<K>, TargetError> {
        let api = self.api::<K>();
        let what = format!("read {} {name}", K::kind(&()));
        patient(&what, || api.get_opt(name)).await
    }

    /// All objects with these labels.
    pub(crate) async fn list<K: Kind>(&self, labels: &str) -> Result<Vec<K>, TargetError> {
        self.pages(format!("list {} with {labels}", K::plural(&())), ListParams::default().labels(labels)).await
    }

    /// All objects with these fields.
    pub(crate) async fn list_where<K: Kind>(&self, fields: &str) -> Result<Vec<K>, TargetError> {
        self.pages(format!("list {} where {fields}", K::plural(&())), ListParams::default().fields(fields)).await
    }

    async fn pages<K: Kind>(&self, what: String, params: ListParams) -> Result<Vec<K>, TargetError> {
        // A namespace that holds more than a million objects is not ours.
        let found = pages_of(&self.api::<K>(), &what, params, 2000, &[]).await?;
        Ok(found.expect("no answer counts as none"))
    }

    /// What is there of the kind and name of `object`, whoever made it.
    pub(crate) async fn read(&self, object: &Object) -> Result<Option<Value>, TargetError> {
        let api = self.dynamic(object).await?;
        let what = format!("read {}", object.title());
        let found = patient(&what, || api.get_opt(object.name())).await?;
        found.map(|found| serde_json::to_value(found).map_err(|e| unreachable(what, e))).transpose()
    }

    /// All objects of a kind, such as (`apps/v1`, `Deployment`), whoever made them.
    pub(crate) async fn all(&self, api_version: &str, kind: &str) -> Result<Vec<Value>, TargetError> {
        let what = format!("list every {kind}");
        let sample = serde_json::json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "any"}});
        let sample = Object::try_from(sample).map_err(|e| unwritable(&what, e))?;
        let api = self.dynamic(&sample).await?;
        let found = patient(&what, || async { api.list(&ListParams::default()).await }).await?;
        let values = found.items.into_iter().map(serde_json::to_value);
        values.collect::<Result<_, _>>().map_err(|e| unreachable(what, e))
    }

    /// Makes an object as `object` says, whoever made it. Fields that others own and this does not name stay.
    pub(crate) async fn apply(&self, object: &Object) -> Result<Value, TargetError> {
        let api = self.dynamic(object).await?;
        let params = PatchParams::apply(MANAGER).force();
        let what = format!("apply {}", object.title());
        let done = limited(api.patch(object.name(), &params, &Patch::Apply(object.value()))).await;
        let done = done.map_err(|e| error(&what, e))?;
        serde_json::to_value(done).map_err(|e| unreachable(what, e))
    }

    /// Makes an object unless there is one of its name.
    pub(crate) async fn create_if_missing(&self, object: &Object) -> Result<(), TargetError> {
        let api = self.dynamic(object).await?;
        let what = format!("create {}", object.title());
        let data: DynamicObject =
            serde_json::from_value(object.value().clone()).map_err(|e| unreachable(what.clone(), e))?;
        match limited(api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }, &data))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(e) => Err(error(&what, e)),
        }
    }

    /// Replaces or creates; `Ok(false)` when somebody else was quicker.
    pub(crate) async fn compare_and_set<K: Kind + Serialize>(
        &self,
        name: &str,
        data: &K,
    ) -> Result<Option<K>, TargetError> {
        let (api, params) =
            (self.api::<K>(), PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() });
        let what = format!("write {} {name}", K::kind(&()));
        let done = if data.meta().resource_version.is_some() {
            limited(api.replace(name, &params, data)).await
        } else {
            limited(api.create(&params, data)).await
        };
        match done {
            Ok(done) => Ok(Some(done)),
            Err(kube::Error::Api(s)) if s.is_conflict() || s.is_already_exists() || s.is_not_found() => Ok(None),
            Err(e) => Err(error(&what, e)),
        }
    }

    /// A JSON patch (RFC 6902); `Ok(None)` when one of its tests failed or the object changed meanwhile.
    pub(crate) async fn patch_if<K: Kind>(
        &self,
        name: &str,
        manager: &str,
        patch: json_patch::Patch,
    ) -> Result<Option<K>, TargetError> {
        let what = format!("patch {} {name}", K::kind(&()));
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..Default::default() };
        match limited(self.api::<K>().patch(name, &params, &Patch::<()>::Json(patch))).await {
            Ok(done) => Ok(Some(done)),
            Err(kube::Error::Api(s)) if s.is_conflict() || s.is_invalid() => Ok(None),
            Err(e) => Err(error(&what, e)),
        }
    }

    /// A JSON merge patch (RFC 7396).
    pub(crate) async fn merge<K: Kind>(&self, name: &str, patch: &Value) -> Result<(), TargetError> {
        let what = format!("patch {} {name}", K::kind(&()));
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        limited(self.api::<K>().patch(name, &params, &Patch::Merge(patch))).await.map_err(|e| error(&what, e))?;
        Ok(())
    }

    /// Deletes an object and what it owns, in the background. It may be gone already.
    pub(crate) async fn delete<K: Kind>(&self, name: &str) -> Result<(), TargetError> {
        let what = format!("delete {} {name}", K::kind(&()));
        match limited(self.api::<K>().delete(name, &DeleteParams::background())).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(e) => Err(error(&what, e)),
        }
    }

    /// Sends one request through the API server to `place`, such as `pods/gateway-0:8080`, whatever its answer.
    pub(crate) async fn ask(
        &self,
        namespace: &str,
        place: &str,
        question: Question<'_>,
    ) -> Result<PodAnswer, kube::Error> {
        let Question { method, path, headers, body, limit } = question;
        let uri = format!("/api/v1/namespaces/{namespace}/{place}/proxy{path}");
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body)).map_err(kube::Error::HttpError)?;
        let exchange = async {
            let (head, body) = self.direct.send(request).await?.into_parts();
            let body = http_body_util::Limited::new(body, MAX_BODY);
            let body = body.collect().await.map_err(kube::Error::Service)?.to_bytes().to_vec();
            let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
            let headers = head.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect();
            Ok(PodAnswer { status: head.status.as_u16(), headers, body })
        };
        timeout(limit, exchange).await.unwrap_or_else(|late| Err(kube::Error::Service(late.into())))
    }

    /// Whether the API server does not answer at all.
    pub(crate) async fn is_away(&self) -> bool {
        let asked = timeout(PRESENT, self.direct.apiserver_version()).await;
        !matches!(asked, Ok(Ok(_) | Err(kube::Error::Api(_))))
    }

    /// The API of an object's kind, which is looked up once.
    async fn dynamic(&self, object: &Object) -> Result<Api<DynamicObject>, TargetError> {
        let key = (object.api_version().to_owned(), object.kind().to_owned());
        let known = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let (resource, scope) = if let Some(known) = known {
            known
        } else {
            let found = self.discover(object).await?;
            self.kinds.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.clone());
            found
        };
        Ok(match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        })
    }

    async fn discover(&self, object: &Object) -> Result<(ApiResource, Scope), TargetError> {
        let what = format!("find the kind {} of {}", object.kind(), object.api_version());
        let version: kube::core::GroupVersion =
            object.api_version().parse().map_err(|e: ParseGroupVersionError| unreachable(what.clone(), e))?;
        let kind = GroupVersionKind::gvk(&version.group, &version.version, object.kind());
        let found = patient(&what, || discovery::pinned_kind(&self.client, &kind)).await;
        found.map(|(resource, capabilities)| (resource, capabilities.scope)).map_err(|e| match e {
            TargetError::Refused { what, .. } => TargetError::Refused {
                what,
                reason: "the cluster does not know it; is its custom resource definition installed?".to_owned(),
            },
            other => other,
        })
    }
}

async fn config(access: &Access) -> Result<Config, AccessError> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let refused = |source| AccessError::Kubeconfig { files: access.kubeconfig.clone(), source: Box::new(source) };
    let mut merged: Option<Kubeconfig> = None;
    for file in access.kubeconfig.iter().filter(|f| f.exists()) {
        let next = Kubeconfig::read_from(file).map_err(refused)?;
        merged = Some(match merged {
            Some(before) => before.merge(next).map_err(refused)?,
            None => next,
        });
    }
    match (merged, &access.context) {
        (Some(merged), _) => Config::from_custom_kubeconfig(merged, &options).await.map_err(refused),
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(refused),
        (None, None) => Config::infer().await.map_err(|e| AccessError::None(Box::new(e))),
    }
}

async fn limited<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    timeout(REQUEST_TIMEOUT, request).await.unwrap_or_else(|late| Err(kube::Error::Service(late.into())))
}

/// Repeats a read while the API server cannot be reached.
async fn patient<T, F: Future<Output = Result<T, kube::Error>>>(
    what: &str,
    mut read: impl FnMut() -> F,
) -> Result<T, TargetError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    // Ends by the bound on patience.
    loop {
        match limited(read()).await.map_err(|e| error(what, e)) {
            Err(TargetError::Unreachable { what, source }) if begun.elapsed() < PATIENCE => {
                tracing::debug!(what, error = %source, "asking the API server again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}

/// What an error of the API means to a deployment.
pub(crate) fn error(what: &str, error: kube::Error) -> TargetError {
    match &error {
        kube::Error::Api(status) => match status.code {
            401 => refused(what, format!("the cluster does not know who asks: {}", status.message)),
            403 if status.message.contains("exceeded quota") => refused(what, status.message.clone()),
            403 => refused(what, format!("not allowed: {}", status.message)),
            400 | 404 | 405 | 409 | 413 | 415 | 422 => refused(what, status.message.clone()),
            _ => unreachable(what.to_owned(), error),
        },
        kube::Error::Discovery(_) => refused(what, error.to_string()),
        _ => unreachable(what.to_owned(), error),
    }
}

pub(crate) fn refused(what: &str, reason: impl Into<String>) -> TargetError {
    TargetError::Refused { what: what.to_owned(), reason: reason.into() }
}

pub(crate) fn unreachable(what: String, source: impl std::error::Error + Send + Sync + 'static) -> TargetError {
    TargetError::Unreachable { what, source: Box::new(source) }
}

/// An object that cannot be written.
pub(crate) fn unwritable(what: &str, source: ObjectError) -> TargetError {
    unreachable(what.to_owned(), source)
}

/// All pages of a list, at most `most`; `None` where the answer has a status that `none` names.
async fn pages_of<K: Clone + Debug + DeserializeOwned>(
    api: &Api<K>,
    what: &str,
    params: ListParams,
    most: u32,
    none: &[u16],
) -> Result<Option<Vec<K>>, TargetError> {
    let first = params.limit(PAGE);
    let (mut params, mut items) = (first.clone(), Vec::new());
    // Each turn brings a page, or begins anew.
    for _ in 0..most {
        let read = || async {
            match api.list(&params).await {
                Err(kube::Error::Api(status)) if status.code == 410 || none.contains(&status.code) => {
                    Ok(Err(status.code))
                }
                page => page.map(Ok),
            }
        };
        let page = match patient(what, read).await? {
            Ok(page) => page,
            // What the list was at its first page is forgotten by now.
            Err(410) => {
                (params, items) = (first.clone(), Vec::new());
                continue;
            }
            Err(_) => return Ok(None),
        };
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(Some(items)),
        }
    }
    Err(refused(what, "there is no end of its pages"))
}

#[cfg(test)]
mod tests;
