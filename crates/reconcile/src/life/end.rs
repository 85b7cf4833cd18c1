//! Winding down: the rest is stopped, poststop tasks run, then it is over, or it is made anew, or the version before comes back.

use skerry_wire::poll::AllocStatus;

use super::{Part, Role, ended, task};
use crate::decision::ActionKind;
use crate::facts::State;
use crate::memory::{SlotMemory, Version};
use crate::place::{Status, Work};

impl Work<'_> {
    /// Goes on with the end of the current version. Answers its status.
    pub(crate) fn wind_down(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role]) -> Status {
        let Some(end) = memory.life.end.clone() else { return Status::new(AllocStatus::Pending, String::new()) };
        memory.life.up_since = None;
        if !end.settled {
            let why = if end.failed { format!("its group failed: {}", end.why) } else { end.why.clone() };
            if self.stop_all(memory, current, roles, &why) || self.poststop(memory, current, roles, &why) {
                let status = if end.failed { AllocStatus::Failed } else { AllocStatus::Running };
                return Status::new(status, if end.failed { end.why } else { format!("{}; ends", end.why) });
            }
            if let Some(end) = &mut memory.life.end {
                end.settled = true;
            }
        }
        if !end.failed {
            let missed = roles.iter().find(|r| r.part == Part::Poststop && ended(memory, &r.name) == Some(false));
            return match missed {
                None => Status::new(AllocStatus::Complete, end.why),
                Some(r) => {
                    let why = memory.life.tasks.get(&r.name).map(|t| t.why.clone()).unwrap_or_default();
                    Status::new(AllocStatus::Complete, format!("{}; after it: {why}", end.why))
                }
            };
        }
        self.after_failure(memory, current, &end.why)
    }

    /// Runs the poststop tasks of the current version, once each. Answers whether one is not done yet.
    fn poststop(&mut self, memory: &mut SlotMemory, current: &Version, roles: &[Role], why: &str) -> bool {
        let mut open = false;
        for role in roles.iter().filter(|r| r.part == Part::Poststop) {
            if ended(memory, &role.name).is_some() {
                continue;
            }
            match self.instance(current, &role.name) {
                Some(i) if i.state == State::Running => {}
                Some(i) if self.is_stopping(i) => {}
                Some(_) if self.blocked.is_some() => {}
                Some(i) => {
                    let start = self.on(i, ActionKind::Start, why);
                    self.starts.push(start);
                }
                None if self.cx.observed.blind && role.container => {}
                // It was taken away: there is nothing to run.
                None => {
                    task(memory, &role.name).ended = Some(false);
                    continue;
                }
            }
            open = true;
        }
        open
    }
}
