//! One bridge network per environment: its containers reach the proxy at its gateway, and the proxy reaches them in it.

use crate::{EngineError, engine::Engine, labels};
use bollard::{
    models::{NetworkCreateRequest, NetworkInspect},
    query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder},
};
use plimsoll_core::EnvironmentName;
use plimsoll_local::supervisor::{Keep, LocalPaths, project};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, TcpListener},
};

/// The name of an environment's network.
pub(crate) fn name(paths: &LocalPaths, environment: &EnvironmentName) -> String {
    format!("plimsoll-{}-{environment}", project(paths))
}

/// The gateway of an environment's network, which is made when there is none. The caller sees to it that two do not do this
/// at the same time: engines take one name twice.
pub(crate) async fn ensure(
    engine: &Engine,
    paths: &LocalPaths,
    environment: &EnvironmentName,
) -> Result<Ipv4Addr, EngineError> {
    let name = name(paths, environment);
    let look = || async {
        let looked = engine.api.inspect_network(&name, None::<InspectNetworkOptions>).await;
        engine.found(&format!("look at the network {name}"), looked)
    };
    let seen = if let Some(seen) = look().await? {
        seen
    } else {
        let labels =
            [(labels::PROJECT.to_owned(), project(paths)), (labels::ENVIRONMENT.to_owned(), environment.to_string())];
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from(labels)),
            ..NetworkCreateRequest::default()
        };
        let made = engine.api.create_network(request).await;
        made.map_err(|e| engine.failed(format!("make the network {name}"), e))?;
        look().await?.ok_or_else(|| EngineError::Lacks { what: format!("network {name} that it just made") })?
    };
    let gateway =
        gateway(&seen).ok_or_else(|| EngineError::Lacks { what: format!("gateway of the network {name}") })?;
    // Any free port: only whether the address is one of this machine is asked.
    TcpListener::bind((gateway, 0)).map_err(|source| EngineError::Elsewhere { gateway, source })?;
    Ok(gateway)
}

/// The gateway that a network names, for IPv4.
fn gateway(network: &NetworkInspect) -> Option<Ipv4Addr> {
    let configs = network.ipam.as_ref()?.config.as_ref()?;
    configs.iter().find_map(|config| config.gateway.as_ref()?.split('/').next()?.parse().ok())
}

/// Removes the networks of a project whose environments are not to stay.
pub(crate) async fn tidy(engine: &Engine, paths: &LocalPaths, keep: &Keep) -> Result<(), EngineError> {
    let options = ListNetworksOptionsBuilder::new().filters(&labels::all_of(paths)).build();
    let listed = engine.api.list_networks(Some(options)).await;
    for network in listed.map_err(|e| engine.failed("list its networks", e))? {
        let of = network.labels.as_ref().and_then(|l| l.get(labels::ENVIRONMENT));
        let stays =
            of.and_then(|of| of.parse().ok()).is_some_and(|of: EnvironmentName| keep.environments.contains(&of));
        if let Some(id) = network.id.filter(|_| !stays) {
            let removed = engine.api.remove_network(&id).await;
            engine.found(&format!("remove the network {}", network.name.unwrap_or_default()), removed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{Ipam, IpamConfig};

    #[test]
    fn the_gateway_of_the_fourth_protocol_is_taken() {
        let config = |gateway: &str| IpamConfig { gateway: Some(gateway.to_owned()), ..IpamConfig::default() };
        let network = |configs| NetworkInspect {
            ipam: Some(Ipam { config: Some(configs), ..Ipam::default() }),
            ..NetworkInspect::default()
        };
        let wanted = Some(Ipv4Addr::new(172, 18, 0, 1));
        assert_eq!(gateway(&network(vec![config("fd00::1"), config("172.18.0.1")])), wanted);
        assert_eq!(gateway(&network(vec![config("172.18.0.1/16")])), wanted);
        assert_eq!(gateway(&network(Vec::new())), None);
    }
}
