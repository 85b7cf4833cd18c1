//! How long to wait: between polls, and after errors.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The least wait after an error.
pub(crate) const MIN: Duration = Duration::from_secs(1);
/// The longest wait after errors of the link, for nodes that ask seldom, and for those that ask every minute.
const MAX: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// The longest wait after errors of the link: a third of the poll interval, so that a link that is back serves soon where asking is
/// cheap, and what tries cost where it is dear stays small.
pub(crate) fn longest(poll_interval: Duration) -> Duration {
    (poll_interval / 3).clamp(MAX.1, MAX.0).min(poll_interval)
}

/// Exponential back-off with full jitter: after `failures` failures in a row, anything up to `MIN * 2^failures`, but at least `MIN` and
/// at most `max`. Many nodes that lost the same server do not come back in step.
pub(crate) fn after_failures(failures: u32, max: Duration, random: u32) -> Duration {
    let max = max.max(MIN);
    let ceiling = MIN.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(max);
    MIN + (ceiling.saturating_sub(MIN)).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A wait of `span`, give or take a tenth.
pub(crate) fn jittered(span: Duration, random: u32) -> Duration {
    span.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}

/// Random bytes from the system; zeros if it has none, which costs spread, not safety.
pub(crate) fn random() -> u32 {
    #[cfg(feature = "simulation")]
    if let Some(machine) = crate::simulate::machine() {
        return machine.random();
    }
    let mut bytes = [0; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let max = Duration::from_secs(20);
        for (failures, ceiling) in [(0, 1), (1, 2), (3, 8), (5, 20), (40, 20), (u32::MAX, 20)] {
            assert_eq!(after_failures(failures, max, 0), MIN);
            assert_eq!(after_failures(failures, max, u32::MAX), Duration::from_secs(ceiling), "{failures}");
        }
        assert_eq!(after_failures(9, Duration::ZERO, u32::MAX), MIN);
    }

    #[test]
    fn the_longest_wait_follows_the_poll_interval() {
        for (interval, longest_s) in [(3, 3), (20, 20), (60, 20), (120, 40), (900, 60), (86_400, 60)] {
            assert_eq!(longest(Duration::from_secs(interval)), Duration::from_secs(longest_s), "{interval}");
        }
    }

    #[test]
    fn jitter_is_a_tenth() {
        let span = Duration::from_secs(60);
        assert_eq!(jittered(span, 0), Duration::from_secs(54));
        assert_eq!(jittered(span, u32::MAX), Duration::from_secs(66));
    }
}
