//! Values that the chart must refuse, by a sentence that names what is wrong.

use crate::{objects::helm, values::with};

/// Refused by values.schema.json: the values, and what the refusal names.
const BY_SCHEMA: [(&str, &str); 12] = [
    ("colour=\"red\"", "colour"),
    ("config.MAX_POSITION_SIZE=1000", "MAX_POSITION_SIZE"),
    ("config.TICKMS=\"250\"", "TICKMS"),
    ("config.DEPLOY_ENV=\"prod\"", "DEPLOY_ENV"),
    ("image.pullPolicy=\"Sometimes\"", "pullPolicy"),
    ("pod.preStopSeconds=-1", "preStopSeconds"),
    ("pod.antiAffinity=\"hard\"", "antiAffinity"),
    ("services.api-gateway.image.digest=\"sha256:123\"", "digest"),
    ("services.market-data-ingestor.replicas=2", "replicas"),
    ("services.risk-manager.persistence.size=\"one\"", "size"),
    ("backup.keepDays=\"thirty\"", "keepDays"),
    ("networkpolicy.enabled=false", "networkpolicy"),
];

/// Refused by the chart, because no schema can say it.
const BY_CHART: [(&[&str], &str); 6] = [
    (&["services.api-gateway.image.digest=\"\""], "services.api-gateway.image.digest is not set"),
    (&["services.risk-manager.replicas=2", "services.risk-manager.persistence.enabled=false"], "needs persistence"),
    (&["services.api-gateway.autoscaling={\"enabled\":true,\"minReplicas\":9}"], "minReplicas is above maxReplicas"),
    (&["services.risk-manager.pod.terminationGracePeriodSeconds=10"], "terminationGracePeriodSeconds is 10"),
    (&["reloadable.max_position_size=\"5\""], "config.MAX_POSITION_SIZE is set too"),
    (&["ingress.enabled=true"], "ingress.hosts is empty"),
];

#[test]
fn values_that_mean_nothing_are_refused_by_their_names() {
    for (value, named) in BY_SCHEMA {
        for verb in [&["lint", "--strict"][..], &["template", "kairos"]] {
            let Some((done, out, error)) = helm(verb, &with(&[value])) else { return };
            assert!(!done, "{verb:?} takes {value}: {out}");
            let lines: Vec<&str> = out.lines().chain(error.lines()).filter(|line| line.contains("- at '")).collect();
            assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(named)), "{value}: {out}{error}");
        }
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_in_a_sentence() {
    for (values, sentence) in BY_CHART {
        let Some((done, out, error)) = helm(&["template", "kairos"], &with(values)) else { return };
        assert!(!done && error.contains("1 mistake(s)") && error.contains(sentence), "{values:?}: {out}{error}");
    }
}
