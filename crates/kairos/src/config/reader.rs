//! Reads values by their rules and collects what is wrong with them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::http::Uri;

use super::{ActivationMode, Address, Live, Problem};

/// Of one service; a call remembers in 64 bits which it has tried.
const MAX_REPLICAS: usize = 16;

/// Whether a text names an instrument: 1 to 16 capital letters, digits, dots or dashes.
pub(crate) fn is_instrument(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
}

/// Takes values out and notes what is wrong with them; a wrong one yields some value, never used.
pub(super) struct Reader<'a> {
    pub(super) values: &'a BTreeMap<String, String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn text(&self, variable: &'static str) -> Option<&'a str> {
        self.values.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    pub(super) fn refuse(&mut self, variable: &'static str, allowed: impl Into<String>) {
        let value = self.text(variable).map(str::to_owned);
        self.problems.push(Problem { variable, value, allowed: allowed.into() });
    }

    pub(super) fn number<T>(&mut self, variable: &'static str, default: Option<T>, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Copy + fmt::Display,
    {
        let found = match (self.text(variable), default) {
            (Some(text), _) => text.parse().ok().filter(|number| range.contains(number)),
            (None, default) => default,
        };
        found.unwrap_or_else(|| {
            self.refuse(variable, format!("a number from {} to {}", range.start(), range.end()));
            *range.start()
        })
    }

    pub(super) fn percentage(&mut self, variable: &'static str, default: f64) -> f64 {
        let Some(text) = self.text(variable) else { return default };
        match text.parse::<f64>() {
            Ok(number) if number > 0.0 && number <= 100.0 => number,
            _ => {
                self.refuse(variable, "a number above 0 and up to 100");
                default
            }
        }
    }

    pub(super) fn choice<T: Copy>(&mut self, variable: &'static str, options: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(variable) else { return default };
        if let Some((_, value)) = options.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        self.refuse(variable, names.join(" or "));
        default
    }

    /// Whoever stands a service up in a slot has the last word: `PLIMSOLL_ACTIVATION` goes before `ACTIVATION`.
    pub(super) fn activation(&mut self) -> ActivationMode {
        let modes = [("managed", ActivationMode::Managed), ("always", ActivationMode::Always)];
        let own = self.choice("ACTIVATION", &modes, ActivationMode::Managed);
        self.choice("PLIMSOLL_ACTIVATION", &modes, own)
    }

    pub(super) fn endpoint(&mut self, production: bool) -> Option<String> {
        let text = self.text("API_ENDPOINT")?;
        let uri = text.parse::<Uri>().ok();
        match uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?))) {
            Some(("http" | "https", host)) if !(production && is_this_machine(host)) => Some(text.to_owned()),
            Some(("http" | "https", _)) => {
                self.refuse("API_ENDPOINT", "in production an http or https URL of another host than this machine");
                None
            }
            _ => {
                self.refuse("API_ENDPOINT", "an http or https URL with a host");
                None
            }
        }
    }

    /// `url;zone=a,url;zone=b`. Services talk plain HTTP to each other, so nothing else is accepted.
    pub(super) fn addresses(&mut self, variable: &'static str) -> Option<Vec<Address>> {
        let text = self.text(variable)?;
        let addresses: Option<Vec<Address>> = text.split(',').map(|part| address(part.trim())).collect();
        let distinct = |all: &Vec<Address>| all.iter().map(|a| &a.url).collect::<BTreeSet<_>>().len() == all.len();
        let addresses = addresses.filter(|all| all.len() <= MAX_REPLICAS && distinct(all));
        if addresses.is_none() {
            self.refuse(
                variable,
                "up to 16 different http URLs, comma between, each with a host and without a query, and each with or \
                 without a zone, such as http://127.0.0.1:8080;zone=a",
            );
        }
        addresses
    }

    pub(super) fn zone(&mut self) -> Option<String> {
        let zone = self.text("ZONE")?;
        if !is_zone(zone) {
            self.refuse("ZONE", "1 to 64 letters, digits, dots, dashes or underscores");
        }
        Some(zone.to_owned())
    }

    pub(super) fn instruments(&mut self) -> Vec<String> {
        let text = self.text("INSTRUMENTS").unwrap_or("AAPL,MSFT,GOOG");
        let list: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let distinct: BTreeSet<&String> = list.iter().collect();
        // 64 instruments keep 64 rounds in the ring of 4096 ticks: three times what the strategy looks back.
        if list.len() > 64 || distinct.len() != list.len() || !list.iter().all(|name| is_instrument(name)) {
            self.refuse(
                "INSTRUMENTS",
                "1 to 64 different names, comma between, each 1 to 16 capital letters, digits, dots or dashes",
            );
        }
        list
    }
}

impl Live {
    /// Takes the values that may change while the service runs.
    pub(super) fn read(read: &mut Reader, production: bool) -> Self {
        let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, level));
        Self {
            // The upper bounds keep positions within 32 bits, with room for the sum of a position and an order.
            max_position_size: read.number("MAX_POSITION_SIZE", Some(1000), 1..=1_000_000_000),
            risk_limit_pct: read.percentage("RISK_LIMIT_PCT", 2.0),
            starting_equity: read.number("STARTING_EQUITY", Some(1_000_000.0), 1.0..=1e15),
            enable_trading: read.choice("ENABLE_TRADING", &[("true", true), ("false", false)], !production),
            order_size: read.number("ORDER_SIZE", Some(10), 1..=1_000_000_000),
            log_level: read.choice("LOG_LEVEL", &levels, "info"),
        }
    }
}

fn address(text: &str) -> Option<Address> {
    let (url, zone) = match text.split_once(';') {
        Some((url, zone)) => (url.trim(), Some(zone.trim().strip_prefix("zone=").filter(|zone| is_zone(zone))?)),
        None => (text, None),
    };
    let uri = url.parse::<Uri>().ok()?;
    let plain = uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none();
    plain.then(|| Address { url: url.trim_end_matches('/').to_owned(), zone: zone.map(str::to_owned) })
}

fn is_zone(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a URL's host can only mean the machine that reads it.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let by_address = host.parse::<IpAddr>().is_ok_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    });
    // `127.1` is no address to the parser, yet resolvers take it for one.
    by_address || host == "localhost" || host.ends_with(".localhost") || host.starts_with("127.")
}
