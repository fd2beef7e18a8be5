//! Waits that servers asked for, shared by all requests of a client: one answer "too many requests" holds all of them back,
//! and they do not come back at the same moment.

use crate::random_unit;
use reqwest::Url;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Those who waited are spread over this share of the wait, and over this much at least.
const SPREAD: f64 = 0.1;
const LEAST_SPREAD: Duration = Duration::from_millis(100);

/// Until when which server is left alone. As many entries as servers that asked lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses(Arc<Mutex<HashMap<String, (Instant, Duration)>>>);

impl Pauses {
    /// A server asked to be left alone for so long.
    pub(crate) fn asked(&self, url: &Url, wait: Duration, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (until, _)| *until > now);
        let until = now + wait;
        let entry = all.entry(url.origin().ascii_serialization()).or_insert((until, wait));
        if until > entry.0 {
            *entry = (until, wait);
        }
    }

    /// How long a request to a server has to wait; `spread` lies in 0..1.
    fn left(&self, url: &Url, now: Instant, spread: f64) -> Duration {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((until, wait)) = all.get(&url.origin().ascii_serialization()).filter(|(until, _)| *until > now) else {
            return Duration::ZERO;
        };
        *until - now + wait.mul_f64(SPREAD).max(LEAST_SPREAD).mul_f64(spread)
    }

    /// Waits as long as the server asked to be left alone, at most `cap`.
    pub(crate) async fn wait(&self, url: &Url, cap: Duration) {
        let left = self.left(url, Instant::now(), random_unit()).min(cap);
        if !left.is_zero() {
            tracing::debug!(?left, "the server asked to wait");
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_asked_is_left_alone_by_all_and_others_are_not() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        let url = |text: &str| text.parse::<Url>().expect("a URL");
        let (here, there) = (url("http://a.example/v2/x"), url("http://a.example:81/"));
        let second = Duration::from_secs(1);
        pauses.asked(&here, 10 * second, now);
        assert_eq!(pauses.left(&url("http://a.example/other"), now + second, 0.0), 9 * second);
        // They come back within a second of each other.
        assert_eq!(pauses.left(&here, now + second, 1.0), 10 * second);
        assert_eq!(pauses.left(&there, now, 0.0), Duration::ZERO);
        // A shorter wait that another answer asks for does not end it.
        pauses.asked(&here, second, now + second);
        assert_eq!(pauses.left(&here, now + second, 0.0), 9 * second);
        assert_eq!(pauses.left(&here, now + 10 * second, 1.0), Duration::ZERO);
    }
}
