//! Lengths of time as a configuration writes them: `"500ms"`, `"3s"`, `"10m"`, `"24h"`, `"7d"`.
//!
//! One whole number and one unit: `"1m30s"` and `"1.5s"` are refused, so that each length has few spellings.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// Units from the longest to the shortest, with their lengths in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest length a configuration may name: nothing Plimsoll waits for takes more than 30 days.
const LONGEST_MILLIS: u64 = 30 * 86_400_000;

/// A length of time, from 0 to 30 days, in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(u64);

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no length of time\n{hint}")]
pub struct PeriodError {
    /// The refused text.
    pub text: String,
    /// How to write it.
    pub hint: &'static str,
}

impl Period {
    /// A length of so many milliseconds; what is longer than 30 days becomes 30 days.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > LONGEST_MILLIS { LONGEST_MILLIS } else { millis })
    }

    /// A length of so many seconds; what is longer than 30 days becomes 30 days.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1_000))
    }

    /// The length in milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The length as the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let err = |hint| PeriodError { text: text.chars().take(60).collect(), hint };
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, unit) = text.split_at(end);
        let shape = "write a whole number and a unit (ms, s, m, h or d), such as \"500ms\" or \"30s\"";
        let too_long = "the longest is \"30d\"";
        let &(_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| err(shape))?;
        if digits.is_empty() {
            return Err(err(shape));
        }
        let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        millis.filter(|m| *m <= LONGEST_MILLIS).map(Self).ok_or_else(|| err(too_long))
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*factor);
        let (unit, factor) = UNITS.iter().find(whole).unwrap_or(&("s", 1_000));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_a_number_and_a_unit() {
        for (text, millis) in
            [("0s", 0), ("500ms", 500), ("3s", 3_000), ("10m", 600_000), ("24h", 86_400_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(text.parse::<Period>().map(Period::millis), Ok(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "3", "s", "3 s", " 3s", "-3s", "+3s", "1.5s", "1m30s", "3S", "3sec", "31d", "99999999999999999999s"]
        {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_length_reads_back_in_its_longest_whole_unit() {
        for (millis, text) in
            [(0, "0s"), (1, "1ms"), (1_500, "1500ms"), (60_000, "1m"), (90_000, "90s"), (86_400_000, "1d")]
        {
            assert_eq!(Period::from_millis(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Period::from_millis(millis)));
        }
    }
}
