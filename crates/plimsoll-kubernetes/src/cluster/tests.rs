//! Reads of an API server that forgets.

use super::*;
use http::{Request, Response};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use std::{
    convert::Infallible,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::net::TcpListener;

/// Two pages of a list; what the first one's token leads to is forgotten `forgets` times.
fn page(query: &str, forgets: &AtomicU32) -> (u16, Value) {
    let item = |name: &str| json!({"metadata": {"name": name}});
    let list = |token: &str, name: &str| json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"continue": token}, "items": [item(name)]});
    if !query.contains("continue=") {
        return (200, list("more", "one"));
    }
    match forgets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        Ok(_) => {
            let reason =
                json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "gone"});
            (410, reason)
        }
        Err(_) => (200, list("", "two")),
    }
}

async fn cluster(directory: &std::path::Path, forgets: u32) -> Cluster {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let forgets = std::sync::Arc::new(AtomicU32::new(forgets));
        // Ends with the test's runtime.
        while let Ok((stream, _)) = listener.accept().await {
            let forgets = std::sync::Arc::clone(&forgets);
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (status, body) = page(request.uri().query().unwrap_or_default(), &forgets);
                std::future::ready(Ok::<_, Infallible>(
                    Response::builder().status(status).body(body.to_string()).expect("a response"),
                ))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    let kubeconfig = directory.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let access = Access { kubeconfig: vec![kubeconfig], context: None };
    Cluster::connect(&access, "default".to_owned()).await.unwrap()
}

#[tokio::test]
async fn a_list_whose_next_page_is_forgotten_begins_anew_and_tells_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    for forgets in [0, 1, 3] {
        let cluster = cluster(directory.path(), forgets).await;
        let listed = cluster.list::<ConfigMap>("a=b").await.unwrap();
        let names: Vec<_> = listed.into_iter().filter_map(|object| object.metadata.name).collect();
        assert_eq!(names, ["one", "two"], "forgotten {forgets} times");
    }
}
