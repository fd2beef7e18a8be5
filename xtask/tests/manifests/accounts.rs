//! Accounts of services may do nothing in a cluster, and pods have no token to try.

use crate::{
    cluster::Cluster,
    namespace::Namespace,
    objects::{self, Rendered, WIDEST, documents, title},
    server::moved,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// What every account of a cluster may do: ask who it is and what it may, and read which APIs there are.
const OF_EVERYBODY: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews"];

fn of_kind<'a>(rendered: &'a Rendered, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    rendered.objects.iter().filter(move |object| object["kind"] == kind)
}

/// The pods of a source: templates of workloads and jobs, and pods by themselves.
fn pods(rendered: &Rendered) -> impl Iterator<Item = (String, &Value)> {
    let spec = |object: &'_ Value| {
        let at = match object["kind"].as_str()? {
            "Deployment" | "StatefulSet" => "/spec/template/spec",
            "CronJob" => "/spec/jobTemplate/spec/template/spec",
            "Pod" => "/spec",
            _ => return None,
        };
        Some(at)
    };
    rendered.objects.iter().filter_map(move |object| Some((title(object), object.pointer(spec(object)?)?)))
}

#[test]
fn nothing_grants_rights_and_no_pod_has_a_token() {
    let Some(all) = objects::all() else { return };
    // The workloads of one colour have the accounts that both share.
    let whole =
        |rendered: &&Rendered| of_kind(rendered, "ServiceAccount").next().is_some() && pods(rendered).next().is_some();
    let sources: Vec<&Rendered> = all.iter().filter(whole).collect();
    assert_eq!(sources.len(), all.len() - 2, "all but the parts `shared` and `slot`");
    for source in sources {
        let name = &source.title;
        let grants = source.objects.iter().filter(|o| o["apiVersion"].as_str().is_some_and(|v| v.starts_with("rbac.")));
        let grants: Vec<String> = grants.map(title).collect();
        assert!(grants.is_empty(), "{name}: {grants:?}");
        for account in of_kind(source, "ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}: {}", title(account));
        }
        let accounts: BTreeSet<_> = of_kind(source, "ServiceAccount").map(|o| o["metadata"]["name"].as_str()).collect();
        let mut used = BTreeSet::new();
        for (pod, spec) in pods(source) {
            assert_eq!(spec["automountServiceAccountToken"], false, "{name}: {pod}");
            // The pod of `helm test` asks over the network only, and has nobody's account.
            used.extend(spec["serviceAccountName"].as_str().map(Some));
        }
        assert_eq!(accounts, used, "{name}: accounts that are made, and those that pods have");
        assert!(accounts.len() >= 4, "{name}: {accounts:?}");
    }
}

/// What an account may do, one right a line.
fn rights(cluster: &Cluster, namespace: &str, account: &str) -> BTreeSet<String> {
    let account = format!("--as=system:serviceaccount:{account}");
    let text = cluster.kubectl(&["auth", "can-i", "--list", "--no-headers", "--namespace", namespace, &account]);
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn accounts_may_do_in_a_cluster_what_everybody_may() {
    let Some(cluster) = Cluster::find() else { return };
    let Some(sources) = objects::some(&WIDEST) else { return };
    let namespace = Namespace::restricted(&cluster, "manifests-accounts");
    // An account that nobody ever heard of, elsewhere: what binds whole namespaces does not reach it.
    let everybody = |namespace: &str| rights(&cluster, namespace, &format!("{namespace}-elsewhere:nobody"));
    for source in sources {
        // Besides the accounts whatever could give them rights.
        let is_meant = |object: &&Value| {
            object["kind"] == "ServiceAccount" || object["apiVersion"].as_str().is_some_and(|v| v.starts_with("rbac."))
        };
        let meant: Vec<&Value> = source.objects.iter().filter(is_meant).collect();
        let applied = documents(&moved(&meant));
        namespace.kubectl(&["apply", "--server-side", "-f", "-"], &applied);
        let everybody = everybody(namespace.name());
        let own = |line: &&String| !line.starts_with('[') && !OF_EVERYBODY.iter().any(|of| line.starts_with(of));
        assert_eq!(everybody.iter().find(own), None, "this cluster lets everybody do this");
        let stored = namespace.kubectl(&["get", "serviceaccounts", "--output", "json"], "");
        let stored: Value = serde_json::from_str(&stored).expect("JSON");
        let accounts = stored["items"].as_array().expect("a list");
        for account in accounts.iter().filter(|account| account["metadata"]["name"] != "default") {
            let name = account["metadata"]["name"].as_str().expect("a name");
            assert_eq!(account["automountServiceAccountToken"], false, "{}: {name}", source.title);
            let found = rights(&cluster, namespace.name(), &format!("{}:{name}", namespace.name()));
            let more: Vec<_> = found.difference(&everybody).collect();
            assert!(more.is_empty(), "{}: {name} may {more:?}", source.title);
        }
        let looked_at = accounts.iter().filter(|account| account["metadata"]["name"] != "default").count();
        assert_eq!(looked_at, of_kind(source, "ServiceAccount").count(), "{}", source.title);
        namespace.kubectl(&["delete", "--wait", "-f", "-"], &applied);
    }
}
