//! The key of the gateway, and the one before it for as long as both work. Pure: the time is passed in.

use std::time::{Duration, Instant};

use crate::config::Secret;

/// The keys that are accepted.
#[derive(Debug)]
pub(crate) struct Keys {
    current: Option<Secret>,
    /// Until when it is accepted.
    before: Option<(Secret, Instant)>,
}

impl Keys {
    /// One key, or none where everybody may place orders.
    pub(super) fn new(current: Option<Secret>) -> Self {
        Self { current, before: None }
    }

    /// Whether `given` may place orders at `now`.
    pub(crate) fn accept(&self, given: &[u8], now: Instant) -> bool {
        let Some(current) = &self.current else { return true };
        // Both are compared whatever the first says: the time tells nothing about either.
        let before = self.before.as_ref().is_some_and(|(key, until)| key.matches(given) && now < *until);
        current.matches(given) | before
    }

    /// These keys after `new` has come; none when it is the current one.
    pub(super) fn rotated(&self, new: Secret, now: Instant, grace: Duration) -> Option<Self> {
        if self.current.as_ref() == Some(&new) {
            return None;
        }
        let before = self.current.clone().map(|key| (key, now + grace));
        Some(Self { current: Some(new), before })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Service};

    fn key(text: &str) -> Secret {
        let pairs = [("PORT", "0"), ("KAIROS_API_KEY", text)];
        let values: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Config::from_values(Service::ApiGateway, &values).expect("valid").api_key.expect("a key")
    }

    #[test]
    fn both_keys_work_for_the_grace_and_only_the_new_one_after_it() {
        let (now, grace) = (Instant::now(), Duration::from_mins(1));
        let keys = Keys::new(Some(key("old"))).rotated(key("new"), now, grace).expect("another");
        let accepted = |at: Instant| [&b"old"[..], b"new", b""].map(|given| keys.accept(given, at));
        assert_eq!(accepted(now), [true, true, false]);
        assert_eq!(accepted(now + grace), [false, true, false]);
        assert!(keys.rotated(key("new"), now, grace).is_none(), "the same key does not end the grace");
    }

    #[test]
    fn without_a_key_everything_is_accepted() {
        assert!(Keys::new(None).accept(b"anything", Instant::now()));
    }
}
