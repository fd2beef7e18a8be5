//! Which advisories pass, and which do not.

use crate::{Advisory, Dependency, Finding, Kind, Level, Place};
use jiff::civil::Date;
use plimsoll_core::config::{AdvisoryLimit, IgnoredAdvisory};
use serde::Serialize;

/// What passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The highest severity that passes.
    pub limit: AdvisoryLimit,
    /// Advisories that do not count.
    pub ignore: Vec<IgnoredAdvisory>,
}

/// What becomes of an advisory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It does not pass.
    Refused,
    /// It is worth a look.
    Warned,
    /// Somebody looked at it, and gave a reason.
    Ignored(String),
}

impl Limits {
    /// What becomes of an advisory on a day.
    pub fn judge(&self, advisory: &Advisory, today: Date) -> Verdict {
        let holds = |one: &&IgnoredAdvisory| one.id == advisory.id && one.until.is_none_or(|until| today <= until);
        if let Some(ignored) = self.ignore.iter().find(holds) {
            return Verdict::Ignored(ignored.reason.clone());
        }
        match &advisory.kind {
            Kind::Vulnerability(severity) if !self.passes(severity.as_deref()) => Verdict::Refused,
            Kind::Vulnerability(_) | Kind::Informational(_) => Verdict::Warned,
        }
    }

    /// An advisory as a finding.
    pub fn finding(&self, advisory: &Advisory, dependency: &Dependency, place: Option<Place>, today: Date) -> Finding {
        let mut message = format!("{dependency}: {} ({}; {})", advisory.title, advisory.kind, advisory.advice());
        let ended = self.ignore.iter().filter(|one| one.id == advisory.id).find_map(|one| one.until);
        let level = match self.judge(advisory, today) {
            verdict @ (Verdict::Refused | Verdict::Warned) => {
                if let Some(until) = ended {
                    message = format!("{message}; it was ignored until {until}");
                }
                if verdict == Verdict::Refused { Level::Error } else { Level::Warning }
            }
            Verdict::Ignored(reason) => {
                message = format!("{message}; ignored: {reason}");
                Level::Note
            }
        };
        let mut finding = Finding::new(&advisory.id, level, message).more(Some(advisory.address()));
        finding.place = place;
        finding
    }

    fn passes(&self, severity: Option<&str>) -> bool {
        let least = match severity {
            Some("none") => AdvisoryLimit::None,
            Some("low") => AdvisoryLimit::Low,
            Some("medium") => AdvisoryLimit::Medium,
            Some("high") => AdvisoryLimit::High,
            // One that nobody judged may be as bad as any.
            _ => AdvisoryLimit::Critical,
        };
        least <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::tests::database;

    fn check(limit: AdvisoryLimit, ignore: Option<(&str, Option<&str>)>, refused: &[&str]) {
        let ignored = |(id, until): (&str, Option<&str>)| IgnoredAdvisory {
            id: id.to_owned(),
            reason: "never called".to_owned(),
            until: until.map(|until| until.parse().unwrap()),
        };
        let limits = Limits { limit, ignore: ignore.map(ignored).into_iter().collect() };
        let dependency = Dependency { name: "reader".into(), version: "1.0.0".parse().unwrap() };
        let today = "2026-07-01".parse().unwrap();
        let found = database().concerning(&dependency);
        let refusals = found.iter().filter(|one| limits.judge(one, today) == Verdict::Refused).map(|one| &one.id[8..]);
        assert_eq!(refusals.collect::<Vec<_>>(), refused, "{limits:?}");
    }

    #[test]
    fn what_is_above_the_limit_is_refused_and_so_is_what_nobody_judged() {
        let (critical, low, unknown) = ("2026-0001", "2026-0002", "2026-0003");
        check(AdvisoryLimit::None, None, &[critical, low, unknown]);
        check(AdvisoryLimit::Low, None, &[critical, unknown]);
        check(AdvisoryLimit::High, None, &[critical, unknown]);
        check(AdvisoryLimit::Critical, None, &[]);
    }

    #[test]
    fn what_is_ignored_passes_until_its_day() {
        let id = "RUSTSEC-2026-0001";
        check(AdvisoryLimit::High, Some((id, None)), &["2026-0003"]);
        check(AdvisoryLimit::High, Some((id, Some("2026-07-01"))), &["2026-0003"]);
        check(AdvisoryLimit::High, Some((id, Some("2026-06-30"))), &["2026-0001", "2026-0003"]);
    }

    #[test]
    fn a_finding_says_what_is_wrong_and_what_mends_it() {
        let limits = Limits { limit: AdvisoryLimit::None, ignore: Vec::new() };
        let dependency = Dependency { name: "reader".into(), version: "1.0.0".parse().unwrap() };
        let found = database().concerning(&dependency);
        let finding = limits.finding(&found[0], &dependency, None, "2026-07-01".parse().unwrap());
        let expected = "error RUSTSEC-2026-0001: reader 1.0.0: About RUSTSEC-2026-0001 (critical; mended in >=1.2.0)";
        assert_eq!(finding.to_string(), expected);
        assert_eq!(finding.more.as_deref(), Some("https://rustsec.org/advisories/RUSTSEC-2026-0001"));
        let until = Some("2026-06-30".parse().unwrap());
        let ignored = IgnoredAdvisory { id: found[0].id.clone(), reason: "never called".into(), until };
        let limits = Limits { limit: AdvisoryLimit::None, ignore: vec![ignored] };
        let finding = limits.finding(&found[0], &dependency, None, "2026-07-01".parse().unwrap());
        assert!(finding.message.ends_with("; it was ignored until 2026-06-30"), "{}", finding.message);
    }
}
