//! How long a drive goes on with a target that cannot be reached.

use super::{DriveError, DriveEvent, DriveObserver};
use crate::target::{TargetError, TargetKind};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A supervisor that does not answer within seconds will not by itself. A control plane may be away for a minute, as when it is
/// upgraded, and what serves goes on meanwhile.
const fn limit(kind: TargetKind) -> Duration {
    match kind {
        TargetKind::Local | TargetKind::Docker => Duration::from_secs(5),
        TargetKind::Kubernetes => Duration::from_secs(90),
    }
}

/// The pauses grow from 50 ms to 1.6 s: so often is a target asked again at most.
pub(super) const TRIES: usize = 64;
const LAST_PAUSE: u32 = 6;
/// A target that was reached for so long since its last fault is away anew.
const QUIET: Duration = Duration::from_secs(30);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    tries: u32,
    begun: Option<Instant>,
    last: Option<Instant>,
}

impl Patience {
    /// All of it.
    pub(super) const fn with(kind: TargetKind) -> Self {
        Self { limit: limit(kind), tries: 0, begun: None, last: None }
    }

    /// Pauses before an unreachable target is asked again; every other error, and one that goes on too long, is returned.
    pub(super) async fn again(&mut self, observer: &dyn DriveObserver, error: TargetError) -> Result<(), DriveError> {
        if self.last.is_some_and(|last| last.elapsed() > QUIET) {
            (self.tries, self.begun) = (0, None);
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        if !matches!(error, TargetError::Unreachable { .. }) || begun.elapsed() >= self.limit {
            return Err(DriveError::Target(error));
        }
        self.tries += 1;
        observer.on(&DriveEvent::TryingAgain { reason: plimsoll_core::chain(&error) });
        sleep(Duration::from_millis(25 << self.tries.min(LAST_PAUSE))).await;
        self.last = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lasts(kind: TargetKind) -> (Duration, usize) {
        let (mut patience, begun, mut tries) = (Patience::with(kind), Instant::now(), 0);
        let error = || TargetError::Unreachable { what: "look".to_owned(), source: "away".into() };
        while patience.again(&(), error()).await.is_ok() {
            tries += 1;
        }
        (begun.elapsed(), tries)
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_plane_may_be_away_for_a_minute_and_a_supervisor_for_seconds() {
        let (took, tries) = lasts(TargetKind::Kubernetes).await;
        assert!((90..93).contains(&took.as_secs()) && tries <= TRIES, "{took:?} {tries}");
        let (took, _) = lasts(TargetKind::Local).await;
        assert!((5..8).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_long_after_another_one_is_one_of_its_own_and_a_refusal_is_never_asked_again() {
        let mut patience = Patience::with(TargetKind::Local);
        let error = || TargetError::Unreachable { what: "look".to_owned(), source: "away".into() };
        while patience.again(&(), error()).await.is_ok() {}
        sleep(QUIET * 2).await;
        patience.again(&(), error()).await.expect("it is asked again");
        let refused = TargetError::Refused { what: "look".to_owned(), reason: "no".to_owned() };
        assert!(patience.again(&(), refused).await.is_err());
    }
}
