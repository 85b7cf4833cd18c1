//! Is the current version healthy? Judged on the node, offline, by spans of the boot's clock alone.

use skerry_wire::job::{HealthCheck, Update};
use skerry_wire::poll::AllocStatus;

use super::start::Down;
use super::{Part, Role};
use crate::decision::CheckPlan;
use crate::memory::{SlotMemory, Version};
use crate::place::{Status, Work};

/// A version that is not healthy after this many boots of the node takes the node down with it.
const BOOTS: u32 = 3;

impl Work<'_> {
    /// Judges, and answers the status.
    pub(crate) fn judge_health(
        &mut self,
        memory: &mut SlotMemory,
        current: &Version,
        roles: &[Role],
        down: Option<Down>,
        checks: &[CheckPlan],
    ) -> Status {
        let known = self.group(current).map(|(job, group)| (job.kind.runs_to_end(), group.update));
        if let Some((true, _)) = known {
            return match down {
                Some(down) if !roles.iter().any(|r| r.part == Part::Main && self.runs(current, &r.name)) => down.status(),
                Some(Down { why, .. }) => Status::new(AllocStatus::Running, why),
                None => Status::new(AllocStatus::Running, "its tasks run".to_owned()),
            };
        }
        let update = known.map_or(Update { health_check: HealthCheck::TaskStates, ..Update::default() }, |(_, u)| u);
        let failing = checks.iter().filter(|c| c.id.alloc == current.born).map(|c| format!("{}/{}", c.id.service, c.id.check));
        let failing: Vec<String> = failing.filter(|key| !memory.life.passing.contains(key)).collect();
        let by_checks = update.health_check == HealthCheck::Checks;
        let well = down.is_none() && (failing.is_empty() || !by_checks);
        let mut status = match (down, failing.first()) {
            (Some(down), _) => down.status(),
            (None, Some(key)) => Status::new(AllocStatus::Running, format!("all tasks run; check `{key}` does not pass")),
            (None, None) => Status::new(AllocStatus::Running, "all tasks run".to_owned()),
        };
        let now = self.cx.now;
        if !well {
            memory.life.up_since = None;
        } else {
            let good_at = memory.life.up_since.get_or_insert(now).saturating_add(update.min_healthy_time.0);
            if now < good_at {
                self.wake(good_at);
                status.until = Some(good_at);
            } else {
                self.is_healthy(memory, current);
            }
        }
        if memory.life.healthy.is_none() {
            self.judge_deadline(memory, current, &update, &status.reason);
        }
        status
    }

    fn is_healthy(&mut self, memory: &mut SlotMemory, current: &Version) {
        if memory.life.healthy != Some(true) {
            memory.life.healthy = Some(true);
            memory.note(self.cx.now, format!("version {} is healthy", current.version));
        }
        memory.life.boots = 0;
        // What ran for longer than it waited last has waited enough; how often it was made anew still counts.
        let wait = memory.life.again.waits.0;
        if wait > 0 {
            let at = memory.life.up_since.unwrap_or(self.cx.now).saturating_add(wait);
            if self.cx.now < at {
                self.wake(at);
            } else {
                memory.life.again.waits = (0, 0);
            }
        }
        if memory.last_good.as_ref() != Some(current) {
            memory.last_good = Some(current.clone());
        }
    }

    /// Not healthy in time: back to the version before, if there is one.
    fn judge_deadline(&mut self, memory: &mut SlotMemory, current: &Version, update: &Update, state: &str) {
        let Some(since) = memory.life.since else { return };
        let late = if memory.life.boots >= BOOTS {
            format!("the node restarted {BOOTS} times before it was healthy")
        } else {
            let deadline = since.saturating_add(update.healthy_deadline.0);
            if update.healthy_deadline.0 == 0 {
                return;
            }
            if self.cx.now < deadline {
                self.wake(deadline);
                return;
            }
            format!("was not healthy within {}: {state}", update.healthy_deadline)
        };
        memory.life.healthy = Some(false);
        if update.auto_revert && memory.refuge().is_some() {
            self.condemn(memory, current, late);
        } else {
            memory.note(self.cx.now, format!("version {} {late}", current.version));
            // The next look tells it.
            self.wake(self.cx.now.saturating_add(1));
        }
    }

    /// The current version is left for the one before, and not tried again by itself.
    pub(crate) fn condemn(&mut self, memory: &mut SlotMemory, current: &Version, why: String) {
        memory.life.healthy = Some(false);
        let good = memory.refuge().map(|v| v.version);
        let back = good.map_or_else(String::new, |v| format!("; goes back to version {v}"));
        let text = format!("version {} {why}{back}", current.version);
        memory.note(self.cx.now, text.clone());
        memory.condemn(current.specification, text);
        self.wake(self.cx.now.saturating_add(1));
    }
}
