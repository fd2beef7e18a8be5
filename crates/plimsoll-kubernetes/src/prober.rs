//! Asking Services and pods from outside the cluster, through the API server.

use crate::cluster::{Lazy, Question};
use plimsoll_deploy::{Answer, PROBE_HEADER, Prober, SmokeRequest};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// Asks at URLs such as `http://gateway.production.svc:80` and `http://gateway-blue-x.production.pod:8080`.
pub(crate) struct ClusterProber(pub(crate) Arc<Lazy>);

/// Where an URL of the cluster leads.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    name: &'a str,
    namespace: &'a str,
    kind: &'a str,
    port: &'a str,
}

fn place(base: &str) -> Option<Place<'_>> {
    let (host, port) = base.strip_prefix("http://")?.split_once(':')?;
    let (rest, kind) = host.rsplit_once('.')?;
    let (name, namespace) = rest.rsplit_once('.')?;
    let kind = match kind {
        "svc" => "services",
        "pod" => "pods",
        _ => return None,
    };
    Some(Place { name, namespace, kind, port })
}

impl Prober for ClusterProber {
    fn ask<'a>(
        &'a self,
        base: &'a str,
        request: &'a SmokeRequest,
        timeout: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>> {
        Box::pin(async move {
            let at = place(base).ok_or_else(|| format!("{base} is no place in a cluster"))?;
            let cluster = self.0.get().await.map_err(|e| e.to_string())?;
            let start = Instant::now();
            let headers = [(PROBE_HEADER, "1")];
            let target = format!("{}/{}:{}", at.kind, at.name, at.port);
            let question = Question {
                method: &request.method,
                path: &request.path,
                headers: &headers,
                body: Vec::new(),
                limit: timeout,
            };
            let asked = cluster.ask(at.namespace, &target, question);
            let answer = asked.await.map_err(|e| format!("{base} cannot be asked through the API server: {e}"))?;
            Ok(Answer {
                status: answer.status,
                headers: answer.headers,
                body: String::from_utf8_lossy(&answer.body).into_owned(),
                took: start.elapsed(),
            })
        })
    }

    fn is_away(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move {
            match self.0.get().await {
                Ok(cluster) => cluster.is_away().await,
                Err(_) => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_tells_service_or_pod_with_its_namespace() {
        let of = |base| place(base).map(|p| (p.kind, p.name, p.namespace, p.port));
        assert_eq!(of("http://gateway.prod.svc:80"), Some(("services", "gateway", "prod", "80")));
        assert_eq!(of("http://gateway-blue-0.prod.pod:8080"), Some(("pods", "gateway-blue-0", "prod", "8080")));
        assert_eq!(of("http://127.0.0.1:80"), None);
        assert_eq!(of("https://gateway.prod.svc:443"), None);
    }
}
