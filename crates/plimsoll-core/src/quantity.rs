//! Amounts of processor and memory as Kubernetes writes them: `"250m"`, `"2"`, `"128Mi"`, `"1.5Gi"`, `"1e9"`.
//!
//! A quantity is a decimal number with a suffix: thousandths and less (`m`, `u`, `n`), powers of ten (`k` … `E`), powers of
//! two (`Ki` … `Ei`), or an exponent. All arithmetic is exact: what is no whole number of the type's unit is refused, where
//! Kubernetes would round it.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Suffixes and what they stand for, as a fraction: the longer suffix before the one it ends with.
const SUFFIXES: [(&str, u128, u128); 15] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
];

/// As many digits as any quantity below 2^63 needs, with nine behind the point.
const MOST_DIGITS: usize = 28;

/// The largest exponent Kubernetes has a use for; it has no larger suffix than `E`.
const LARGEST_EXPONENT: u32 = 18;

/// A text that is no quantity, or none of this unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no amount of {what}\n{hint}")]
pub struct QuantityError {
    /// The refused text, cut.
    pub text: String,
    /// What it should be an amount of.
    pub what: &'static str,
    /// How to write it.
    pub hint: &'static str,
}

/// Processor time in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Millicores(u64);

/// Memory or storage in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

impl Millicores {
    /// So many thousandths of a core.
    pub const fn new(thousandths: u64) -> Self {
        Self(thousandths)
    }

    /// The number of thousandths of a core.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Millicores {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let hint = "write thousandths of a core, such as \"250m\", or cores, such as \"2\"";
        parse(text, 1_000).map(Self).ok_or_else(|| refused(text, "processor time", hint))
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let hint = "write a number and a unit (Ki, Mi, Gi, Ti, or k, M, G, T), such as \"128Mi\"";
        parse(text, 1).map(Self).ok_or_else(|| refused(text, "bytes", hint))
    }
}

/// Whole cores as a plain number, anything else in thousandths.
impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) { write!(f, "{}", self.0 / 1_000) } else { write!(f, "{}m", self.0) }
    }
}

/// In the largest unit that leaves a whole number, of powers of two first.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor, part): &&(&str, u128, u128)| {
            self.0 != 0 && *part == 1 && u128::from(self.0).is_multiple_of(*factor)
        };
        let (binary, decimal) = SUFFIXES.split_at(6);
        match binary.iter().rev().find(whole).or_else(|| decimal.iter().rev().find(whole)) {
            Some((suffix, factor, _)) => write!(f, "{}{suffix}", u128::from(self.0) / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// The two types are texts wherever they are written down.
macro_rules! as_text {
    ($($name:ident)*) => {
        $(impl TryFrom<String> for $name {
            type Error = QuantityError;

            fn try_from(text: String) -> Result<Self, QuantityError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(amount: $name) -> Self {
                amount.to_string()
            }
        })*
    };
}

as_text! { Millicores ByteSize }

fn refused(text: &str, what: &'static str, hint: &'static str) -> QuantityError {
    QuantityError { text: text.chars().take(60).collect(), what, hint }
}

/// The quantity in units of which `scale` make one; `None` where it is no quantity, not whole, or 2^63 and more.
fn parse(text: &str, scale: u128) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, part) = factor(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MOST_DIGITS || fraction.contains('.') {
        return None;
    }
    let below = 10_u128.pow(u32::try_from(fraction.len()).ok()?).checked_mul(part)?;
    let above = digits.parse::<u128>().ok()?.checked_mul(factor)?.checked_mul(scale)?;
    let amount = above.is_multiple_of(below).then(|| above / below)?;
    i64::try_from(amount).ok().and_then(|amount| u64::try_from(amount).ok())
}

/// What a number with this suffix is to be multiplied with, as a fraction.
fn factor(suffix: &str) -> Option<(u128, u128)> {
    if suffix.is_empty() {
        return Some((1, 1));
    }
    if let Some(&(_, factor, part)) = SUFFIXES.iter().find(|(name, ..)| *name == suffix) {
        return Some((factor, part));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let (negative, digits) = match exponent.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let power = plain.then(|| digits.parse::<u32>().ok()).flatten().filter(|power| *power <= LARGEST_EXPONENT)?;
    Some(if negative { (1, 10_u128.pow(power)) } else { (10_u128.pow(power), 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_in_cores_and_thousandths() {
        for (text, thousandths) in [
            ("100m", 100),
            ("2", 2_000),
            ("0.5", 500),
            (".25", 250),
            ("1.", 1_000),
            ("5e-1", 500),
            ("1k", 1_000_000),
            ("1000000n", 1),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<Millicores>().map(Millicores::get), Ok(thousandths), "{text}");
        }
    }

    #[test]
    fn memory_is_read_in_all_units_of_kubernetes() {
        for (text, bytes) in [
            ("128Mi", 128 << 20),
            ("1.5Gi", 3 << 29),
            ("129e6", 129_000_000),
            ("129M", 129_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1_000),
            ("123456", 123_456),
            ("2000m", 2),
            ("7Ei", 7 << 60),
            ("9223372036854775807", i64::MAX.cast_unsigned()),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::get), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_or_no_whole_number_of_units_is_refused() {
        for text in [
            "",
            ".",
            "m",
            "1 m",
            "1mi",
            "1KB",
            "-1",
            "+1",
            "1.2.3",
            "0.0001",
            "1u",
            "1e",
            "1e1.5",
            "1e99",
            "1e3m",
            "8Ei",
            "½",
            "99999999999999999999999999999",
        ] {
            assert!(text.parse::<Millicores>().is_err(), "{text}");
        }
        for text in ["1m", "0.5", "8Ei", "9223372036854775808", "64mb", "64MiB", "0x10"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_amount_reads_back_as_it_was() {
        for text in ["0", "100m", "2", "1500m"] {
            assert_eq!(text.parse::<Millicores>().unwrap().to_string(), text);
        }
        for text in ["0", "1", "1000k", "64Mi", "1536Mi", "1Gi", "129M", "1025"] {
            let read: ByteSize = text.parse().unwrap();
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        assert_eq!(ByteSize::new(64 << 20).to_string(), "64Mi");
        assert_eq!(ByteSize::new(129_000_000).to_string(), "129M");
    }
}
