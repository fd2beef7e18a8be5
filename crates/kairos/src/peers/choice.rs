//! Which replica answers a call. Pure.

/// Whether a replica is worth asking, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    Works,
    /// Its heartbeats say it is gone; its circuit would let a call through.
    Silent,
    /// Its circuit lets no call through.
    Open,
}

/// What is known of a replica when a call is to be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) condition: Condition,
    /// Whether it is in the caller's zone.
    pub(super) near: bool,
    /// Whether this call has failed there before.
    pub(super) tried: bool,
}

/// The index of the replica to ask; replicas that are equally good take turns. None when there is none at all.
///
/// A replica where the call has not failed comes before all else; then one that works, then a near one. Those that seem
/// dead are asked when there are no others: what is known of them may be old.
pub(super) fn choose(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let rank = |candidate: &Candidate| (candidate.tried, candidate.condition, !candidate.near);
    let best = candidates.iter().map(rank).min()?;
    let equal: Vec<usize> = (0..candidates.len()).filter(|index| rank(&candidates[*index]) == best).collect();
    equal.get(turn % equal.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Candidate = Candidate { condition: Condition::Works, near: true, tried: false };
    const FAR: Candidate = Candidate { near: false, ..GOOD };
    const SILENT: Candidate = Candidate { condition: Condition::Silent, ..GOOD };
    const OPEN: Candidate = Candidate { condition: Condition::Open, ..GOOD };
    const TRIED: Candidate = Candidate { tried: true, ..GOOD };

    #[test]
    fn the_own_zone_is_preferred_while_it_has_a_replica_that_works() {
        let cases: [(&[Candidate], usize); 7] = [
            (&[FAR, GOOD], 1),
            (&[SILENT, FAR], 1),
            (&[OPEN, FAR], 1),
            (&[TRIED, FAR], 1),
            (&[OPEN, SILENT], 1),
            (&[TRIED, SILENT], 1),
            (&[OPEN, TRIED], 0),
        ];
        for (candidates, chosen) in cases {
            for turn in 0..3 {
                assert_eq!(choose(candidates, turn), Some(chosen), "{candidates:?}");
            }
        }
        assert_eq!(choose(&[], 0), None);
    }

    #[test]
    fn equally_good_replicas_take_turns_and_others_get_none() {
        let candidates = [GOOD, FAR, GOOD, SILENT, GOOD];
        let chosen: Vec<_> = (0..6).filter_map(|turn| choose(&candidates, turn)).collect();
        assert_eq!(chosen, [0, 2, 4, 0, 2, 4]);
    }
}
