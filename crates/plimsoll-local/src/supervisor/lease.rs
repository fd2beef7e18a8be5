//! Who may have an environment's lock. Pure: clocks are passed in.

use plimsoll_core::Timestamp;
use plimsoll_deploy::{LockOutcome, LockOwner, LockView};
use std::time::Duration;

/// Decides over a wish for the lock. `lapsed` says whether the present holder's lease is over, by the clock that
/// the caller trusts most.
pub(crate) fn decide(
    held: Option<&LockView>,
    lapsed: bool,
    owner: &LockOwner,
    now: Timestamp,
    lease: Duration,
) -> LockOutcome {
    let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let view = |since| LockView {
        run: owner.run.clone(),
        actor: owner.actor.clone(),
        since,
        expires: Timestamp::from_millis(now.as_millis().saturating_add(millis)),
    };
    match held {
        Some(held) if held.run == owner.run => LockOutcome::Held(view(held.since)),
        Some(held) if !lapsed => LockOutcome::Busy(held.clone()),
        Some(_) | None => LockOutcome::Held(view(now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::RunId;

    #[test]
    fn a_lock_is_renewed_by_its_run_refused_to_others_and_taken_over_when_lapsed() {
        let owner = |salt| LockOwner { run: RunId::new(Timestamp::from_millis(0), salt), actor: "ann".to_owned() };
        let at = Timestamp::from_millis;
        let lease = Duration::from_secs(1);
        let LockOutcome::Held(first) = decide(None, false, &owner(1), at(1000), lease) else { panic!("free") };
        assert_eq!((first.since, first.expires), (at(1000), at(2000)));
        let LockOutcome::Held(renewed) = decide(Some(&first), true, &owner(1), at(5000), lease) else { panic!("own") };
        assert_eq!((renewed.since, renewed.expires), (at(1000), at(6000)));
        assert_eq!(decide(Some(&first), false, &owner(2), at(1500), lease), LockOutcome::Busy(first.clone()));
        let LockOutcome::Held(taken) = decide(Some(&first), true, &owner(2), at(2500), lease) else { panic!("lapsed") };
        assert_eq!((taken.run, taken.since), (owner(2).run, at(2500)));
    }
}
