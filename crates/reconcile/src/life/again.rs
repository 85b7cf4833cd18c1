//! What follows a failed allocation: back to the last good version, or made anew in its place after a wait that grows.

use skerry_wire::job::{DelayFunction, Reschedule};
use skerry_wire::poll::AllocStatus;

use super::{Role, task};
use crate::facts::State;
use crate::hash::stable;
use crate::memory::{Again, SlotMemory, TaskMemory, Version};
use crate::place::{Status, Work};

/// When a failed allocation is made anew; none when its tries are spent.
pub(crate) fn next_try(again: &mut Again, policy: &Reschedule, now: u64, seed: &[u8]) -> Option<u64> {
    if !policy.unlimited {
        let start = again.interval_start.filter(|s| now < s.saturating_add(policy.interval.0));
        if start.is_none() {
            (again.count, again.waits) = (0, (0, 0));
        }
        again.interval_start = Some(start.unwrap_or(now));
        if again.count >= policy.attempts {
            return None;
        }
    }
    let (last, before) = again.waits;
    let delay = policy.delay.0;
    let wait = match (policy.delay_function, last) {
        (DelayFunction::Constant, _) | (_, 0) => delay,
        (DelayFunction::Exponential, last) => last.saturating_mul(2),
        (DelayFunction::Fibonacci, last) => last.saturating_add(before.max(if before == 0 { delay } else { 0 })),
    };
    let most = if policy.delay_function == DelayFunction::Constant { u64::MAX } else { policy.max_delay.0.max(delay) };
    let wait = wait.min(most);
    again.count = again.count.saturating_add(1);
    again.waits = (wait, last);
    let jitter = stable(&[seed, b"again", &again.count.to_le_bytes()]) % (wait / 8 + 1);
    Some(now.saturating_add(wait).saturating_add(jitter))
}

impl Work<'_> {
    /// The allocation failed and has stopped. Answers its status.
    pub(crate) fn after_failure(&mut self, memory: &mut SlotMemory, current: &Version, why: &str) -> Status {
        let failed = || Status::new(AllocStatus::Failed, why.to_owned());
        let group = self.group(current).map(|(_, g)| (g.update, g.reschedule));
        let Some((update, reschedule)) = group else { return failed() };
        if memory.life.healthy != Some(true) && update.auto_revert && memory.refuge().is_some() {
            self.condemn(memory, current, format!("failed before it was healthy: {why}"));
            return failed();
        }
        let now = self.cx.now;
        if memory.life.again.at.is_none() && !memory.life.again.spent {
            memory.life.again.at = next_try(&mut memory.life.again, &reschedule, now, current.born.as_bytes());
            memory.life.again.spent = memory.life.again.at.is_none();
        }
        let Some(at) = memory.life.again.at else {
            return Status::new(AllocStatus::Failed, format!("{why}; it was made anew as often as it may be"));
        };
        if now < at {
            self.wake(at);
            return failed().until(at);
        }
        self.remake(memory, &format!("made anew: {why}"));
        self.wake(now.saturating_add(1));
        Status::new(AllocStatus::Pending, format!("made anew: {why}"))
    }

    /// Begins the current version's life again, with new instances.
    pub(crate) fn remake(&mut self, memory: &mut SlotMemory, why: &str) {
        memory.note(self.cx.now, why.to_owned());
        let life = &mut memory.life;
        life.end = None;
        life.again.at = None;
        life.again.remaking = true;
        life.run_since = None;
        life.up_since = None;
        for task in life.tasks.values_mut() {
            let (restarts, exit) = (task.restarts.saturating_add(1), task.exit.take());
            *task = TaskMemory { restarts, exit, why: why.to_owned(), ..TaskMemory::default() };
        }
    }

    /// Stops and removes the instances of the life before. None when they are gone.
    pub(crate) fn clear_for_remaking(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role]) -> Option<Status> {
        let why = "made anew with new instances";
        let own: Vec<_> = self.instances.iter().copied().filter(|c| c.labels.alloc == current.born && c.state != State::Created).collect();
        if own.is_empty() && self.cx.observed.blind && roles.iter().any(|r| r.container) {
            return Some(Status::new(AllocStatus::Pending, "the engine has not answered yet"));
        }
        if own.is_empty() {
            memory.life.again.remaking = false;
            return None;
        }
        if !self.stop_all(memory, current, roles, why) {
            for instance in own {
                if instance.state == State::Running {
                    self.stop(instance, skerry_wire::Millis(0), instance.labels.kill_timeout, why);
                } else {
                    self.remove(instance, why);
                }
                task(memory, &instance.labels.task).files.clear();
            }
        }
        let why = memory.life.tasks.values().map(|t| t.why.clone()).find(|w| !w.is_empty());
        Some(Status::new(AllocStatus::Pending, why.unwrap_or_else(|| "made anew".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use skerry_wire::Millis;

    use super::*;

    #[test]
    fn waits_grow_as_the_policy_says() {
        let base = Reschedule { delay: Millis(1_000), max_delay: Millis(6_000), ..Reschedule::SERVICE };
        let rows = [
            (DelayFunction::Constant, [1_000, 1_000, 1_000, 1_000, 1_000]),
            (DelayFunction::Exponential, [1_000, 2_000, 4_000, 6_000, 6_000]),
            (DelayFunction::Fibonacci, [1_000, 2_000, 3_000, 5_000, 6_000]),
        ];
        for (delay_function, waits) in rows {
            let (policy, mut again, mut now) = (Reschedule { delay_function, ..base }, Again::default(), 50);
            for wait in waits {
                let at = next_try(&mut again, &policy, now, b"x").unwrap();
                assert!((now + wait..=now + wait + wait / 8).contains(&at), "{delay_function:?} {wait} {}", at - now);
                now = at;
            }
        }
    }

    #[test]
    fn nodes_spread_over_an_eighth() {
        let policy = Reschedule { delay: Millis(8_000), ..Reschedule::SERVICE };
        let at = |seed: u32| next_try(&mut Again::default(), &policy, 50, &seed.to_le_bytes()).unwrap() - 50;
        let waits: std::collections::BTreeSet<u64> = (0..40_000).map(at).collect();
        assert_eq!((waits.first(), waits.last(), waits.len()), (Some(&8_000), Some(&9_000), 1_001));
    }

    #[test]
    fn tries_are_spent_and_come_back_with_the_interval() {
        let policy = Reschedule { attempts: 2, interval: Millis(100_000), unlimited: false, ..Reschedule::BATCH };
        let mut again = Again::default();
        assert!(next_try(&mut again, &policy, 0, b"x").is_some());
        assert!(next_try(&mut again, &policy, 10_000, b"x").is_some());
        assert_eq!(next_try(&mut again, &policy, 99_999, b"x"), None);
        assert!(next_try(&mut again, &policy, 100_000, b"x").is_some());
        assert_eq!(again.count, 1);
    }
}
