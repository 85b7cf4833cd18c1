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

/// Counts one end of a task at `now` and says what follows.
///
/// `attempts` restarts are allowed within `interval`, which begins with the first of them. Each waits for `delay` and up to a quarter
/// of it more, always the same for the same allocation and attempt. When they are spent, mode `delay` waits for the interval's end.
pub(crate) fn after_end(task: &mut TaskMemory, policy: &RestartPolicy, now: u64, alloc: &AllocId, name: &str) -> Verdict {
    let start = match task.interval_start {
        Some(start) if now < start.saturating_add(policy.interval.0) => start,
        _ => {
            task.attempts = 0;
            now
        }
    };
    task.interval_start = Some(start);
    task.attempts = task.attempts.saturating_add(1);
    let jitter = stable(&[alloc.as_bytes(), name.as_bytes(), &task.restarts.to_le_bytes()]) % (policy.delay.0 / 4 + 1);
    let delay = policy.delay.0.saturating_add(jitter);
    let at = if task.attempts <= policy.attempts {
        now.saturating_add(delay)
    } else if policy.mode == RestartMode::Fail {
        task.not_before = None;
        return Verdict::GiveUp;
    } else {
        // The interval's end begins a new one, whose first attempt this is.
        let end = start.saturating_add(policy.interval.0).max(now.saturating_add(delay));
        task.interval_start = Some(end);
        task.attempts = 1;
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
    fn no_interval_and_no_delay_never_go_back_in_time() {
        let (mut task, alloc) = (TaskMemory::default(), AllocId::new([7; 16]));
        let policy = RestartPolicy { attempts: 0, interval: Millis(0), delay: Millis(0), mode: RestartMode::Delay };
        assert_eq!(after_end(&mut task, &policy, u64::MAX, &alloc, "web"), Verdict::At(u64::MAX));
        assert_eq!(after_end(&mut task, &policy, 5, &alloc, "web"), Verdict::At(u64::MAX));
    }
}
