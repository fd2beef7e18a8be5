//! How long a crashed process stays down. Pure: the caller measures and waits.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A process that lived this long did not crash because of how it starts.
const SETTLED: Duration = Duration::from_secs(30);

/// The longest delay of a process that clients wait for in its listener: two starts a second are no hot loop.
const LONGEST_WITH_CLIENTS: Duration = Duration::from_millis(500);

/// The delays between restarts: doubling, bounded, forgotten after a long life.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { failures: 0, longest: LONGEST }
    }
}

impl Backoff {
    /// For a process whose listener others hold, so that its clients wait while it is down.
    pub(crate) fn with_clients_waiting() -> Self {
        Self { longest: LONGEST_WITH_CLIENTS, ..Self::default() }
    }

    /// The delay after a process that lived for `life`.
    pub(crate) fn after(&mut self, life: Duration) -> Duration {
        if life >= SETTLED {
            self.failures = 0;
        }
        let delay = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_bound_and_a_long_life_starts_anew() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..9).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.after(Duration::from_secs(29)).as_secs(), 10);
        assert_eq!(backoff.after(SETTLED), FIRST);
        for _ in 0..100 {
            assert!(backoff.after(Duration::ZERO) <= LONGEST);
        }
    }
}
