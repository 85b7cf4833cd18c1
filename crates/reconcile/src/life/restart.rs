//! The restart policy: what follows when a task ends by itself.

use skerry_wire::AllocId;
use skerry_wire::job::{RestartMode, RestartPolicy};

use crate::hash::stable;
use crate::memory::TaskMemory;

/// What follows an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start again at this time of the boot, in milliseconds.
    At(u64),
    /// The allocation fails.
    GiveUp,
}

/// The longest wait before a restart of what keeps crashing.
const LONGEST_MS: u64 = 3_600_000;

/// What ran for less than this did not run well, however short the interval is.
const WELL_MS: u64 = 60_000;

/// Counts one end of a task at `now` and says what follows.
///
/// `attempts` restarts are allowed within `interval`, which begins with the first of them. Each waits for `delay` and up to a quarter
/// of it more, always the same for the same allocation and attempt. When they are spent, mode `delay` waits for the interval's end; from
/// one spent interval to the next the delay doubles, up to an hour. An interval without an end forgives all.
pub(crate) fn after_end(task: &mut TaskMemory, policy: &RestartPolicy, now: u64, alloc: &AllocId, name: &str) -> Verdict {
    let start = match task.interval_start {
        Some(start) if now < start.saturating_add(policy.interval.0) => start,
        _ => {
            // What it waited for is no time that it ran well.
            let well = policy.interval.0.max(WELL_MS);
            if task.not_before.is_none_or(|at| now >= at.saturating_add(well)) {
                task.spent = 0;
            }
            task.attempts = 0;
            now
        }
    };
    task.interval_start = Some(start);
    task.attempts = task.attempts.saturating_add(1);
    let grown = policy.delay.0.saturating_mul(1 << task.spent.min(31)).min(LONGEST_MS.max(policy.delay.0));
    let jitter = stable(&[alloc.as_bytes(), name.as_bytes(), &task.restarts.to_le_bytes()]) % (grown / 4 + 1);
    let delay = grown.saturating_add(jitter);
    // Waits that all attempts do not fit with into the interval would never spend it.
    let room = task.spent == 0 || grown.saturating_mul(u64::from(policy.attempts)) < policy.interval.0;
    let at = if task.attempts <= policy.attempts && (room || policy.mode == RestartMode::Fail) {
        now.saturating_add(delay)
    } else if policy.mode == RestartMode::Fail {
        task.not_before = None;
        return Verdict::GiveUp;
    } else {
        // The interval's end begins a new one, whose first attempt this is.
        let end = start.saturating_add(policy.interval.0).max(now.saturating_add(delay));
        task.interval_start = Some(end);
        task.attempts = 1;
        task.spent = task.spent.saturating_add(1);
        end
    };
    task.restarts = task.restarts.saturating_add(1);
    task.not_before = Some(at);
    Verdict::At(at)
}

#[cfg(test)]
mod tests {
    use skerry_wire::Millis;

    use super::*;

    fn policy(attempts: u32, mode: RestartMode) -> RestartPolicy {
        RestartPolicy { attempts, interval: Millis(60_000), delay: Millis(1_000), mode }
    }

    #[test]
    fn attempts_then_the_rest_of_the_interval() {
        let (mut task, policy, alloc) = (TaskMemory::default(), policy(2, RestartMode::Delay), AllocId::new([7; 16]));
        let mut now = 1_000;
        for _ in 0..2 {
            let Verdict::At(at) = after_end(&mut task, &policy, now, &alloc, "web") else { panic!("gave up") };
            assert!((now + 1_000..=now + 1_250).contains(&at), "{at}");
            now = at + 10;
        }
        assert_eq!(after_end(&mut task, &policy, now, &alloc, "web"), Verdict::At(61_000));
        assert_eq!((task.restarts, task.attempts), (3, 1));
    }

    #[test]
    fn mode_fail_gives_up() {
        let (mut task, policy, alloc) = (TaskMemory::default(), policy(1, RestartMode::Fail), AllocId::new([7; 16]));
        assert!(matches!(after_end(&mut task, &policy, 0, &alloc, "web"), Verdict::At(_)));
        assert_eq!(after_end(&mut task, &policy, 5_000, &alloc, "web"), Verdict::GiveUp);
    }

    #[test]
    fn no_attempts_and_mode_fail_gives_up_at_once() {
        let (mut task, policy, alloc) = (TaskMemory::default(), policy(0, RestartMode::Fail), AllocId::new([7; 16]));
        assert_eq!(after_end(&mut task, &policy, 0, &alloc, "web"), Verdict::GiveUp);
    }

    #[test]
    fn a_quiet_interval_forgives() {
        let (mut task, policy, alloc) = (TaskMemory::default(), policy(1, RestartMode::Fail), AllocId::new([7; 16]));
        for n in 0..5 {
            assert!(matches!(after_end(&mut task, &policy, n * 60_000, &alloc, "web"), Verdict::At(_)));
        }
    }

    #[test]
    fn what_keeps_crashing_waits_longer_and_longer_up_to_an_hour() {
        let alloc = AllocId::new([7; 16]);
        for (attempts, interval, delay) in [(2, 60_000, 1_000), (0, 0, 5_000), (3, 1_800_000, 15_000), (1, 10, 1)] {
            let policy = RestartPolicy { attempts, interval: Millis(interval), delay: Millis(delay), mode: RestartMode::Delay };
            let (mut task, mut now, mut waits) = (TaskMemory::default(), 1_000, vec![]);
            for _ in 0..120 {
                let Verdict::At(at) = after_end(&mut task, &policy, now, &alloc, "web") else { panic!("gave up") };
                waits.push(at - now);
                now = at + 5;
            }
            assert!(waits.iter().all(|w| *w <= LONGEST_MS * 5 / 4), "{waits:?}");
            assert!(waits[100..].iter().any(|w| *w >= LONGEST_MS), "{waits:?}");
            assert!(waits[1] <= (delay * 2 + 1) * 5 / 4 + interval, "{waits:?}");
            // An interval without an end forgives.
            now += LONGEST_MS * 2 + interval;
            let Verdict::At(at) = after_end(&mut task, &policy, now, &alloc, "web") else { panic!("gave up") };
            assert!(at - now <= delay * 5 / 4 + interval, "{} after a quiet time", at - now);
        }
    }

    #[test]
    fn no_interval_and_no_delay_never_go_back_in_time() {
        let (mut task, alloc) = (TaskMemory::default(), AllocId::new([7; 16]));
        let policy = RestartPolicy { attempts: 0, interval: Millis(0), delay: Millis(0), mode: RestartMode::Delay };
        assert_eq!(after_end(&mut task, &policy, u64::MAX, &alloc, "web"), Verdict::At(u64::MAX));
        assert_eq!(after_end(&mut task, &policy, 5, &alloc, "web"), Verdict::At(u64::MAX));
    }
}
