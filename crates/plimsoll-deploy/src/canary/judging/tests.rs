//! The verdict on simulated courses, and on numbers that are missing.

use super::*;
use crate::traffic::Probed;
use std::collections::BTreeMap;

/// A generator that gives the same numbers on every machine (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }
}

/// A slot: how many of its requests fail, and how much longer they take.
#[derive(Clone, Copy)]
struct Slot {
    fails: f64,
    slower_us: f64,
}

const GOOD: Slot = Slot { fails: 0.001, slower_us: 0.0 };

fn answer(slot: Slot, dice: &mut Dice, into: &mut Answers) {
    // Latencies with a tail: 1 ms, and one in a hundred above 10 ms.
    let us = 1000.0 / (1.0 - dice.roll()).sqrt() + slot.slower_us;
    into.requests += 1;
    into.failed += u64::from(dice.roll() < slot.fails);
    // Buckets of 6 %, as the proxy's are.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of a request")]
    let bound = |steps: f64| 1.0625_f64.powf(steps).ceil() as u64;
    let steps = (us.ln() / 1.0625_f64.ln()).ceil();
    into.latency.counts.entry(bound(steps - 1.0)).or_default();
    *into.latency.counts.entry(bound(steps)).or_default() += 1;
}

/// Requests shared half and half, judged after every five hundred; the verdict and after how many requests of the new slot.
fn course(canary: &Canary, new: Slot, old: Slot, first: u64, most: u64) -> (Judgement, u64) {
    let (mut dice, mut seen) = (Dice(first), Compared::default());
    loop {
        for _ in 0..500 {
            answer(new, &mut dice, &mut seen.canary);
            answer(old, &mut dice, &mut seen.stable);
        }
        let judgement = judge(canary, 1, &seen);
        if !matches!(judgement, Judgement::Hold(_)) || seen.canary.requests >= most {
            return (judgement, seen.canary.requests);
        }
    }
}

#[test]
fn three_in_a_hundred_that_fail_are_found_early_and_always() {
    let canary = Canary::default();
    for seed in 0..100 {
        let (judgement, requests) = course(&canary, Slot { fails: 0.03, ..GOOD }, GOOD, seed, 20_000);
        assert!(matches!(judgement, Judgement::Abort(_)), "{judgement:?} after {requests}");
        assert!(requests <= 5000, "{requests}");
    }
}

#[test]
fn an_equal_release_is_promoted_and_aborted_no_more_often_than_stated() {
    let canary = Canary::default();
    let mut aborted = 0;
    for seed in 0..100 {
        let (judgement, requests) = course(&canary, GOOD, GOOD, seed, 60_000);
        match judgement {
            Judgement::Promote => {}
            Judgement::Abort(_) => aborted += 1,
            Judgement::Hold(reason) => panic!("after {requests}: {reason}"),
        }
    }
    assert!(aborted <= 5, "{aborted} of 100");
}

#[test]
fn a_worse_release_is_promoted_no_more_often_than_stated() {
    let canary = Canary::default();
    let mut promoted = 0;
    for seed in 0..100 {
        // Just beyond what is allowed, so that the test has no easy case.
        let (judgement, _) = course(&canary, Slot { fails: 0.0062, ..GOOD }, GOOD, seed, 20_000);
        promoted += u32::from(judgement == Judgement::Promote);
    }
    assert!(promoted <= 5, "{promoted} of 100");
}

#[test]
fn a_release_that_is_fifty_milliseconds_slower_is_not_promoted() {
    let (judgement, _) = course(&Canary::default(), Slot { slower_us: 50_000.0, ..GOOD }, GOOD, 1, 20_000);
    let Judgement::Abort(reason) = judgement else { panic!("{judgement:?}") };
    assert!(reason.contains("more than 10 ms longer"), "{reason}");
}

#[test]
fn too_few_requests_and_missing_latencies_hold() {
    let canary = Canary::default();
    let holds = |seen: &Compared, why: &str| {
        let Judgement::Hold(reason) = judge(&canary, 1, seen) else { panic!("{why}: it does not hold") };
        assert!(reason.contains(why), "{reason}");
    };
    holds(&Compared::default(), "0 of at least 100 requests");
    let mut one = Compared::default();
    one.stable.requests = 1_000_000;
    one.canary.requests = 1;
    holds(&one, "the new slot had 1 of at least 100");
    // Failures alone do not make up for what is missing, nor does their absence.
    one.canary.requests = 1_000_000;
    holds(&one, "no latencies of the new slot");
    one.canary.latency = Histogram { counts: BTreeMap::from([(1000, 1_000_000)]) };
    holds(&one, "no latencies of the live slot");
}

#[test]
fn everything_beyond_the_last_bucket_counts_as_slow() {
    let mut seen = Compared::default();
    for (answers, bound) in [(&mut seen.stable, 1000), (&mut seen.canary, u64::MAX)] {
        answers.requests = 10_000;
        answers.latency = Histogram { counts: BTreeMap::from([(bound, 10_000)]) };
    }
    assert!(matches!(judge(&Canary::default(), 1, &seen), Judgement::Abort(_)));
}

#[test]
fn probes_count_only_where_they_are_to() {
    let counted = |requests| SlotTraffic { requests, ..SlotTraffic::default() };
    let traffic = Traffic::of("proxy", Probed { real: counted(3), probe: counted(40) });
    let (mut with, mut without) = (Answers::default(), Answers::default());
    with.add(&traffic, true);
    without.add(&traffic, false);
    assert_eq!((with.requests, with.probes, without.requests, without.probes), (43, 40, 3, 0));
}

#[test]
fn a_live_slot_that_is_slower_than_its_histogram_can_tell_is_nothing_to_be_compared_with() {
    let mut seen = Compared::default();
    for answers in [&mut seen.stable, &mut seen.canary] {
        answers.requests = 10_000;
        answers.latency = Histogram { counts: BTreeMap::from([(1000, 9000), (u64::MAX, 1000)]) };
    }
    let Judgement::Hold(reason) = judge(&Canary::default(), 1, &seen) else { panic!("it does not hold") };
    assert!(reason.contains("beyond the last bucket"), "{reason}");
}
