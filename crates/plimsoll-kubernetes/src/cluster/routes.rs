//! HTTPRoutes of the Gateway API, which a cluster need not know.

use super::{Cluster, error, limited, pages_of, patient};
use crate::{names::MANAGER, route::Route};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use plimsoll_deploy::TargetError;

/// The most pages of routes; a namespace with more than ten thousand of them is not ours.
const MOST_PAGES: u32 = 20;

impl Cluster {
    fn route_api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// All routes of the namespace. None where the cluster does not know them, and where we may not see them: who may not
    /// see them gave no weights.
    pub(crate) async fn routes(&self) -> Result<Vec<Route>, TargetError> {
        let (api, params) = (self.route_api(), ListParams::default());
        let found = pages_of(&api, "list HTTPRoutes", params, MOST_PAGES, &[403, 404]).await?;
        Ok(found.unwrap_or_default().into_iter().map(Route::of).collect())
    }

    /// A route, if there is one.
    pub(crate) async fn route(&self, name: &str) -> Result<Option<Route>, TargetError> {
        let (api, what) = (self.route_api(), format!("read HTTPRoute {name}"));
        Ok(patient(&what, || api.get_opt(name)).await?.map(Route::of))
    }

    /// A JSON patch; `Ok(Some(_))` tells why it was not done: the route changed meanwhile or is gone, or the API server
    /// does not take what it would be.
    pub(crate) async fn patch_route(
        &self,
        name: &str,
        patch: json_patch::Patch,
    ) -> Result<Option<String>, TargetError> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        match limited(self.route_api().patch(name, &params, &Patch::<()>::Json(patch))).await {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(s)) if s.is_conflict() || s.is_invalid() || s.is_not_found() => Ok(Some(s.message)),
            Err(e) => Err(error(&format!("patch HTTPRoute {name}"), e)),
        }
    }
}
