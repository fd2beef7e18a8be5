//! When a `CronJob` runs: the five fields of cron as Kubernetes reads them, or one of its words.
//!
//! Minute, hour, day of the month, month, day of the week; each a list of `*`, `?`, a number, a range or a name, with an
//! optional step. What other crons know (`L`, `W`, `#`, seconds, `TZ=`) Kubernetes does not.

use super::{meta::cut, mistake::Nonsense};

/// What stands for a whole schedule.
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "the minute", least: 0, most: 59, names: &[] },
    Field { name: "the hour", least: 0, most: 23, names: &[] },
    Field { name: "the day of the month", least: 1, most: 31, names: &[] },
    Field { name: "the month", least: 1, most: 12, names: &MONTHS },
    Field { name: "the day of the week", least: 0, most: 6, names: &DAYS },
];

/// Whether Kubernetes can read the schedule.
pub(super) fn check(schedule: &str) -> Result<(), Nonsense> {
    let refused = |why: String| Err(Nonsense::Schedule { schedule: cut(schedule), why });
    if schedule.starts_with('@') {
        let known = WORDS.contains(&schedule);
        return if known { Ok(()) } else { refused(format!("the words are {}", WORDS.join(", "))) };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return refused(format!("it has {} fields and not five", parts.len()));
    }
    for (field, part) in FIELDS.iter().zip(parts) {
        if !part.split(',').all(|item| field.has(item)) {
            return refused(format!("{} is from {} to {}, and not `{part}`", field.name, field.least, field.most));
        }
    }
    Ok(())
}

impl Field {
    /// `*`, `N`, `N-M`, each with `/STEP` behind it.
    fn has(&self, item: &str) -> bool {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let stepped = step.is_none_or(|step| number(step).is_some_and(|step| (1..=self.most).contains(&step)));
        let ranged = match range.split_once('-') {
            _ if range == "*" || range == "?" => true,
            Some((from, to)) => matches!((self.value(from), self.value(to)), (Some(from), Some(to)) if from <= to),
            None => self.value(range).is_some(),
        };
        stepped && ranged
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let value = match named {
            Some(at) => u32::try_from(at).ok()? + self.least,
            None => number(text)?,
        };
        (self.least..=self.most).contains(&value).then_some(value)
    }
}

/// A plain number; a sign is none.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_kubernetes_reads_them() {
        for schedule in [
            "*/5 * * * *",
            "0 3 * * 1-5",
            "0,30 0-6/2 1 JAN-mar sun",
            "@daily",
            "15 2 ? * ?",
            "0 0 31 12 6",
            "3/10 * * * *",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn what_names_no_time_is_refused_with_the_field() {
        for (schedule, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("0 * * * * *", "6 fields"),
            ("60 * * * *", "the minute is from 0 to 59"),
            ("* 24 * * *", "the hour"),
            ("* * 0 * *", "the day of the month"),
            ("* * * 13 *", "the month"),
            ("* * * * 7", "the day of the week"),
            ("5-1 * * * *", "the minute"),
            ("*/0 * * * *", "the minute"),
            ("*/5/2 * * * *", "the minute"),
            ("+5 * * * *", "the minute"),
            ("1,,2 * * * *", "the minute"),
            ("* * L * *", "the day of the month"),
            ("* * * * mon#2", "the day of the week"),
            ("@often", "the words are"),
        ] {
            let refused = check(schedule).expect_err(schedule).to_string();
            assert!(refused.contains(why), "{schedule}: {refused}");
        }
    }
}
