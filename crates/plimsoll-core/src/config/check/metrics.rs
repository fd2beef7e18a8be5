//! The rules of `metrics`: names that no metric or label can have would never be found.

use super::Check;
use crate::config::Metrics;

impl Check<'_> {
    pub(super) fn metrics(&mut self, name: &str, metrics: &Metrics) {
        let at = |key| ["services", name, "metrics", key];
        if let Some(path) = &metrics.path {
            self.path(&at("path"), path);
        }
        self.port(&at("port"), metrics.port);
        for (key, metric) in [("requests", &metrics.requests), ("duration", &metrics.duration)] {
            if let Some(metric) = metric.as_ref().filter(|metric| !is_name(metric, ":_")) {
                let hint = "letters, digits, underscores and colons, no digit first, such as http_requests_total";
                self.value(&at(key), format!("`{metric}` is no name of a metric"), hint);
            }
        }
        for (key, label) in [("status", &metrics.status), ("probe", &metrics.probe)] {
            self.labels(&at(key), label.as_slice());
        }
        self.labels(&at("route"), metrics.route.as_deref().unwrap_or_default());
        for path in metrics.ignore.iter().flatten() {
            self.path(&at("ignore"), path);
        }
    }

    fn labels(&mut self, at: &[&str], labels: &[String]) {
        for label in labels.iter().filter(|label| !is_name(label, "_")) {
            let hint = "letters, digits and underscores, no digit first, such as status";
            self.value(at, format!("`{label}` is no name of a label"), hint);
        }
    }
}

/// The Prometheus data model: letters, digits, and `others`, no digit first.
fn is_name(text: &str, others: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || others.contains(c);
    text.starts_with(begins) && text.chars().all(|c| begins(c) || c.is_ascii_digit()) && text.len() <= 200
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn names_that_nothing_can_have_are_refused() {
        let check = |line: &str, words: &str| {
            let text =
                format!("[project]\nname = \"p\"\n[services.web]\npackage = \"p\"\n[services.web.metrics]\n{line}\n");
            match (Config::parse(&text, "plimsoll.toml"), words) {
                (Ok(_), "") => {}
                (Err(error), words) if !words.is_empty() => assert!(error.to_string().contains(words), "{error}"),
                (result, words) => panic!("{line}: {result:?}, expected `{words}`"),
            }
        };
        check("", "");
        check("requests = \"shop:answers_total\"\nstatus = \"code\"\nroute = [\"handler\"]\nport = 9090", "");
        check("requests = \"http requests\"", "`http requests` is no name of a metric");
        check("duration = \"5xx\"", "`5xx` is no name of a metric");
        check("status = \"\"", "`` is no name of a label");
        check("route = [\"path\", \"a:b\"]", "`a:b` is no name of a label");
        check("path = \"metrics\"", "`metrics` is no path of a request");
        check("ignore = [\"up\"]", "`up` is no path of a request");
        check("port = 0", "no client can use port 0");
        check("counter = \"a\"", "counter");
    }
}
