//! How long a crashed process stays down. Pure: the caller measures and waits.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A process that lived this long did not crash because of how it starts.
const SETTLED: Duration = Duration::from_secs(30);

/// The delays between restarts: doubling, bounded, forgotten after a long life.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after a process that lived for `life`.
    pub(crate) fn after(&mut self, life: Duration) -> Duration {
        if life >= SETTLED {
            self.failures = 0;
        }
        let delay = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
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
