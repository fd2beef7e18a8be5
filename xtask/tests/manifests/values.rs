//! The sets of values that the chart is tried with: those that lie beside it, and one for each of its switches.

use crate::table;
use std::{collections::BTreeSet, fs};

/// A set of values: where it comes from, and the words `helm` is told.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
}

/// What each switch of the chart is turned on or off by, upon the defaults with images. The first word is the switch's path;
/// what else it needs to make sense follows.
const SWITCHES: [(&str, &[&str]); 20] = [
    ("image.allowTags=true", &["services.api-gateway.image={\"digest\":\"\",\"tag\":\"0.1.0\"}"]),
    (
        "apiKey.externalSecret.enabled=true",
        &[
            "apiKey.secretName=\"key\"",
            "apiKey.externalSecret.remoteKey=\"kairos\"",
            "apiKey.externalSecret.store.name=\"vault\"",
        ],
    ),
    ("priorityClass.create=true", &["priorityClass.name=\"kairos-manifests-test\""]),
    ("services.market-data-ingestor.persistence.enabled=false", &[]),
    ("services.risk-manager.persistence.enabled=false", &[]),
    ("services.strategy-orchestrator.persistence.enabled=false", &[]),
    ("services.risk-manager.autoscaling.enabled=true", &[]),
    ("services.api-gateway.autoscaling.enabled=true", &[]),
    ("services.risk-manager.podDisruptionBudget.enabled=false", &["services.risk-manager.replicas=2"]),
    ("services.api-gateway.podDisruptionBudget.enabled=false", &["services.api-gateway.replicas=2"]),
    ("ingress.enabled=true", &["ingress.hosts=[{\"host\":\"kairos.example.com\",\"tlsSecret\":\"tls\"}]"]),
    ("networkPolicy.enabled=false", &[]),
    ("monitoring.serviceMonitor.enabled=true", &[]),
    ("monitoring.prometheusRule.enabled=true", &[]),
    ("backup.enabled=true", &[]),
    (
        "externalServices.postgresql.enabled=true",
        &[
            "externalServices.postgresql.host=\"db.example.com\"",
            "externalServices.postgresql.secretName=\"db\"",
            "externalServices.postgresql.cidrs=[\"10.20.0.0/24\"]",
        ],
    ),
    (
        "externalServices.redis.enabled=true",
        &[
            "externalServices.redis.host=\"cache.example.com\"",
            "externalServices.redis.secretName=\"cache\"",
            "externalServices.redis.cidrs=[\"10.20.1.0/24\"]",
        ],
    ),
    (
        "externalServices.influxdb.enabled=true",
        &[
            "externalServices.influxdb.host=\"ticks.example.com\"",
            "externalServices.influxdb.secretName=\"ticks\"",
            "externalServices.influxdb.cidrs=[\"fd00::/8\"]",
        ],
    ),
    ("tests.enabled=true", &[]),
    // Both colours at once are two Helm releases beside the shared one.
    ("colour=\"green\"", &["liveColour=\"blue\"", "parts=\"slot\""]),
];

/// The chart's defaults, but for the images, which nobody can leave out.
pub(crate) fn defaults() -> Values {
    let mut args = vec!["--set-json".to_owned(), "image.registry=\"registry.example/kairos\"".to_owned()];
    for service in table::calls().keys() {
        args.extend([
            "--set-json".to_owned(),
            format!("services.{service}.image.digest=\"sha256:{}\"", "1".repeat(64)),
        ]);
    }
    Values { name: "defaults".to_owned(), args }
}

/// A file of values in the chart.
pub(crate) fn file(name: &str) -> Values {
    let path = table::at("helm/kairos/ci").join(name);
    Values { name: name.to_owned(), args: vec!["--values".to_owned(), path.to_str().expect("UTF-8").to_owned()] }
}

/// The defaults, and these values over them.
pub(crate) fn with(values: &[&str]) -> Values {
    let mut all = defaults();
    values[0].clone_into(&mut all.name);
    all.args.extend(values.iter().flat_map(|value| ["--set-json".to_owned(), (*value).to_owned()]));
    all
}

/// Every set.
pub(crate) fn all() -> Vec<Values> {
    let files = fs::read_dir(table::at("helm/kairos/ci")).expect("values lie beside the chart");
    let mut files: Vec<String> =
        files.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    files.sort();
    let mut all: Vec<Values> = [defaults()].into_iter().chain(files.iter().map(|name| file(name))).collect();
    all.extend(SWITCHES.iter().map(|(switch, more)| with(&[&[*switch], *more].concat())));
    all.push(with(&["parts=\"shared\"", "liveColour=\"blue\""]));
    all.push(with(&[
        "reloadable.enable_trading=\"false\"",
        "config.RISK_LIMIT_PCT=\"\"",
        "reloadable.risk_limit_pct=\"1\"",
    ]));
    all
}

/// The paths of all switches in a value, and the way they stand.
fn switches(path: &str, value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Bool(on) => _ = found.insert(format!("{path}={}", !on)),
        serde_json::Value::Object(fields) => {
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                switches(&path, inner, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_switch_of_the_chart_is_tried_both_ways() {
    let values: serde_json::Value = serde_saphyr::from_str(&table::text("helm/kairos/values.yaml")).expect("YAML");
    let mut wanted = BTreeSet::new();
    switches("", &values, &mut wanted);
    let tried =
        SWITCHES.iter().map(|(switch, _)| (*switch).to_owned()).filter(|switch| !switch.contains('"')).collect();
    assert_eq!(wanted, tried, "left: what values.yaml has, the other way round; right: what is tried");
}
