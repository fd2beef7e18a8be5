//! What a service should be promised, from what it was seen to use. Pure.
//!
//! | | |
//! |---|---|
//! | `cpu` | the 95th percentile, rounded up to 5m |
//! | `memory` | the most, and 20 % of it, rounded up to 4Mi |
//! | `memory_limit` | the most, and half of it, rounded up to 4Mi |
//! | `cpu_limit` | as it is configured; twice `cpu` where that would be less than what was used |
//!
//! It knows what was seen and no more: a service that was idle meanwhile is proposed what an idle one needs.

use crate::capacity::Resources;
use plimsoll_core::{ByteSize, Millicores, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// With fewer samples the percentile is an accident.
pub const MIN_SAMPLES: usize = 6;

const CPU_PERCENTILE: usize = 95;
const CPU_STEP: u64 = 5;
const MEMORY_STEP: u64 = 4 << 20;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// What one replica was seen to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSample {
    /// Which replica.
    pub pod: String,
    /// When it was measured.
    pub at: Timestamp,
    /// Processor time, in billionths of a core.
    pub cpu_nanocores: u64,
    /// Memory that cannot be taken back from it (the working set).
    pub memory: ByteSize,
}

/// What was seen of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many samples, each measurement counted once.
    pub samples: usize,
    /// Of how many replicas.
    pub pods: usize,
    /// From the first to the last of them, in seconds.
    pub span_s: u64,
    /// The 95th percentile of the processor time, rounded up.
    pub cpu_p95: Millicores,
    /// The most processor time, rounded up.
    pub cpu_max: Millicores,
    /// The most memory.
    pub memory_max: ByteSize,
    /// What to promise; `None` where too little was seen.
    pub proposed: Option<Resources>,
}

/// Sums up what was seen of a service that asks for `present`, and proposes what it should ask for.
pub fn rightsize(samples: &[UsageSample], present: &Resources) -> Usage {
    // Asked more often than it measures, a metrics server tells the same again.
    let once: BTreeMap<(&str, Timestamp), &UsageSample> = samples.iter().map(|s| ((s.pod.as_str(), s.at), s)).collect();
    let mut cpu: Vec<u64> = once.values().map(|s| s.cpu_nanocores.div_ceil(NANOS_PER_MILLI)).collect();
    cpu.sort_unstable();
    let times: BTreeSet<i64> = once.keys().map(|(_, at)| at.as_millis()).collect();
    let span = times.last().zip(times.first()).map_or(0, |(last, first)| last - first);
    let (p95, most) = (percentile(&cpu), cpu.last().copied().unwrap_or(0));
    let memory = once.values().map(|s| s.memory.get()).max().unwrap_or(0);
    Usage {
        samples: once.len(),
        pods: once.keys().map(|(pod, _)| pod).collect::<BTreeSet<_>>().len(),
        span_s: u64::try_from(span / 1000).unwrap_or(0),
        cpu_p95: Millicores::new(p95),
        cpu_max: Millicores::new(most),
        memory_max: ByteSize::new(memory),
        proposed: (once.len() >= MIN_SAMPLES).then(|| proposal(p95, most, memory, present)),
    }
}

fn proposal(p95: u64, most: u64, memory: u64, present: &Resources) -> Resources {
    // Nothing is promised for nothing: a request of 0 is none.
    let cpu = p95.max(1).next_multiple_of(CPU_STEP);
    let memory = memory.max(1);
    let bytes = |amount: u64| ByteSize::new(amount.next_multiple_of(MEMORY_STEP));
    let limit =
        present.cpu_limit.map(|limit| if limit.get() < most.max(cpu) { cpu.max(most) * 2 } else { limit.get() });
    Resources {
        cpu: Some(Millicores::new(cpu)),
        memory: Some(bytes(memory + memory.div_ceil(5))),
        cpu_limit: limit.map(Millicores::new),
        memory_limit: Some(bytes(memory + memory.div_ceil(2))),
    }
}

/// The smallest value that so many per cent of all do not exceed (nearest rank).
fn percentile(sorted: &[u64]) -> u64 {
    let rank = (sorted.len() * CPU_PERCENTILE).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MI: u64 = 1 << 20;

    fn samples(cpu_millis: &[u64], memory_mi: u64) -> Vec<UsageSample> {
        let sample = |(at, cpu): (usize, &u64)| UsageSample {
            pod: "api-0".to_owned(),
            at: Timestamp::from_millis(i64::try_from(at).unwrap() * 15_000),
            cpu_nanocores: cpu * NANOS_PER_MILLI,
            memory: ByteSize::new(memory_mi * MI),
        };
        cpu_millis.iter().enumerate().map(sample).collect()
    }

    fn proposed(samples: &[UsageSample], present: &Resources) -> [Option<String>; 4] {
        let r = rightsize(samples, present).proposed.unwrap();
        let (cpu, memory) =
            (|m: Option<Millicores>| m.map(|m| m.to_string()), |b: Option<ByteSize>| b.map(|b| b.to_string()));
        [cpu(r.cpu), memory(r.memory), cpu(r.cpu_limit), memory(r.memory_limit)]
    }

    #[test]
    fn one_peak_in_twenty_is_above_what_is_promised() {
        let mut cpu = vec![11; 19];
        cpu.push(400);
        let expected = [Some("15m".to_owned()), Some("12Mi".to_owned()), None, Some("16Mi".to_owned())];
        assert_eq!(proposed(&samples(&cpu, 10), &Resources::default()), expected);
        cpu.push(390);
        assert_eq!(proposed(&samples(&cpu, 10), &Resources::default())[0], Some("390m".to_owned()));
    }

    #[test]
    fn amounts_are_rounded_up_and_whole_steps_stay() {
        let check = |cpu: u64, memory: u64, expected: [&str; 3]| {
            let [c, m, _, l] = proposed(&samples(&[cpu; 6], memory), &Resources::default());
            assert_eq!([c, m, l].map(Option::unwrap), expected, "{cpu}m {memory}Mi");
        };
        check(5, 20, ["5m", "24Mi", "32Mi"]);
        check(6, 40, ["10m", "48Mi", "60Mi"]);
        check(1000, 1000, ["1", "1200Mi", "1500Mi"]);
        // What is idle is promised a little, and not nothing.
        check(0, 0, ["5m", "4Mi", "4Mi"]);
    }

    #[test]
    fn a_limit_of_processor_time_stays_unless_it_was_reached() {
        let with = |limit: u64| Resources { cpu_limit: Some(Millicores::new(limit)), ..Resources::default() };
        let limit = |cpu: &[u64], of: u64| proposed(&samples(cpu, 10), &with(of))[2].clone();
        assert_eq!(limit(&[10; 6], 250), Some("250m".to_owned()));
        assert_eq!(limit(&[10, 10, 10, 10, 10, 260], 250), Some("520m".to_owned()));
        assert_eq!(limit(&[7; 6], 8), Some("20m".to_owned()));
    }

    #[test]
    fn too_few_samples_propose_nothing_and_are_counted() {
        let usage = rightsize(&samples(&[1, 2, 3, 4, 5], 10), &Resources::default());
        assert_eq!((usage.samples, usage.proposed), (5, None));
        assert_eq!((usage.span_s, usage.cpu_max), (60, Millicores::new(5)));
        assert_eq!(rightsize(&[], &Resources::default()).samples, 0);
    }

    #[test]
    fn a_measurement_that_is_told_twice_counts_once() {
        let mut told = samples(&[1, 2, 3], 10);
        told.extend(told.clone());
        told.extend(told.clone());
        let usage = rightsize(&told, &Resources::default());
        assert_eq!((usage.samples, usage.pods, usage.proposed), (3, 1, None));
        for (at, sample) in told.iter_mut().enumerate().skip(3).take(3) {
            sample.pod = format!("api-{at}");
        }
        assert_eq!(
            (rightsize(&told, &Resources::default()).samples, rightsize(&told, &Resources::default()).pods),
            (6, 4)
        );
    }
}
