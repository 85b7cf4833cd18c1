//! Performs decisions: the steps of one place in their order, the places side by side, stops in the background.
//!
//! In: the actions of a decision. Out: failures, and the names of what is being stopped. A place that is still busy with an older decision
//! is left alone: the next decision sees what came of it. Nothing here decides: what is skipped is decided again. Of files and signals no
//! observation says whether they were written and sent, so those that are skipped are told as failures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skerry_engine::Engine;
use skerry_reconcile::{Action, ActionKind, Failure, Slot};
use tokio::sync::{Notify, Semaphore};

use crate::runner::{Drivers, RunError};
use crate::steps::{self, Step as At};

/// Places worked on at once: a small node has one disk.
const SIDE_BY_SIDE: usize = 3;

/// Work under way. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Work<E> {
    drivers: Drivers<E>,
    state: Arc<Mutex<State>>,
    /// Told when a place is done.
    idle: Arc<Notify>,
    /// The main loop's: told when a place is done, and when something was stopped.
    news: Arc<Notify>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    busy: BTreeSet<Slot>,
    stopping: BTreeSet<String>,
    failures: Vec<Failure>,
    /// What an action said of an engine that is away.
    away: Option<String>,
}

impl State {
    /// The decision's memory counts files as written and signals as sent. Those that are left out come back as failures, and are tried
    /// again; every other step is seen to be undone.
    fn put_off(&mut self, actions: Vec<Action>, why: &str) {
        let unseen = |a: &Action| matches!(a.kind, ActionKind::Write(_) | ActionKind::Signal(_));
        for action in actions.into_iter().filter(unseen) {
            let step = action.step();
            let Action { slot, alloc, task, .. } = action;
            self.failures.push(Failure { slot, alloc, task, step, error: format!("put off: {why}") });
        }
    }
}

impl<E: Engine + Clone + 'static> Work<E> {
    pub(crate) fn new(drivers: Drivers<E>, news: Arc<Notify>) -> Self {
        Self { drivers, state: Arc::default(), idle: Arc::default(), news, room: Arc::new(Semaphore::new(SIDE_BY_SIDE)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being stopped.
    pub(crate) fn stopping(&self) -> BTreeSet<String> {
        self.state().stopping.clone()
    }

    /// What failed since the last call, and what was said of an engine that is away.
    pub(crate) fn take_failures(&self) -> (Vec<Failure>, Option<String>) {
        let mut state = self.state();
        (std::mem::take(&mut state.failures), state.away.take())
    }

    /// Begins what can be begun. Answers whether that is anything.
    pub(crate) fn begin(&self, actions: &[Action]) -> bool {
        let mut places: BTreeMap<&Slot, Vec<Action>> = BTreeMap::new();
        for action in actions {
            places.entry(&action.slot).or_default().push(action.clone());
        }
        let mut begun = false;
        for (slot, actions) in places {
            let mut state = self.state();
            if state.busy.contains(slot) {
                state.put_off(actions, "its place is busy");
                continue;
            }
            let (steps, skipped) = steps(actions, &state.stopping);
            state.put_off(skipped, "its task is being stopped");
            if steps.is_empty() {
                continue;
            }
            state.busy.insert(slot.clone());
            drop(state);
            begun = true;
            tokio::spawn(self.clone().place(slot.clone(), steps));
        }
        begun
    }

    /// Notes what is not begun at all.
    pub(crate) fn leave(&self, actions: Vec<Action>, why: &str) {
        self.state().put_off(actions, why);
    }

    /// Waits until no place is busy, at most for `limit`. True when none is.
    pub(crate) async fn settled(&self, limit: Duration) -> bool {
        let idle = async {
            while !self.state().busy.is_empty() {
                self.idle.notified().await;
            }
        };
        tokio::time::timeout(limit, idle).await.is_ok()
    }

    /// The steps of one place. After a failure the rest waits for the next decision.
    async fn place(self, slot: Slot, steps: Vec<Action>) {
        let room = self.room.acquire().await;
        let mut steps = steps.into_iter();
        for action in steps.by_ref() {
            if let ActionKind::Stop { .. } = action.kind {
                self.state().stopping.insert(action.instance.clone());
                tokio::spawn(self.clone().stop(action));
                continue;
            }
            let ended = self.drivers.perform(&action).await;
            if !self.note(action, ended) {
                break;
            }
        }
        drop(room);
        self.state().put_off(steps.collect(), "a step before it failed");
        self.state().busy.remove(&slot);
        self.idle.notify_one();
        self.news.notify_one();
    }

    async fn stop(self, action: Action) {
        let ended = self.drivers.perform(&action).await;
        self.state().stopping.remove(&action.instance);
        self.note(action, ended);
        self.news.notify_one();
    }

    /// Notes how an action ended. False when it failed.
    fn note(&self, action: Action, ended: Result<(), RunError>) -> bool {
        let step = action.step();
        let Err(error) = ended else {
            match action.kind {
                ActionKind::Create(_) => steps::reached(At::NewCreated),
                ActionKind::Start => steps::reached(At::NewStarted),
                ActionKind::Stop { .. } => steps::reached(At::OldStopped),
                ActionKind::Remove => steps::reached(At::OldRemoved),
                ActionKind::Signal(_) | ActionKind::Write(_) => {}
            }
            tracing::info!("{}: {step} {}: {}", action.slot, action.instance, action.reason);
            return true;
        };
        tracing::warn!("{}: {step} {} failed: {error}", action.slot, action.instance);
        let mut state = self.state();
        // An engine that is away is no fault of the task.
        if error.engine_is_away() {
            state.away = Some(error.to_string());
        } else {
            state.failures.push(Failure { slot: action.slot, alloc: action.alloc, task: action.task, step, error: error.to_string() });
        }
        false
    }
}

/// What can be done now of one place's actions, and what cannot: nothing on what is being stopped, and no start behind a stop, which only
/// begins here.
fn steps(actions: Vec<Action>, stopping: &BTreeSet<String>) -> (Vec<Action>, Vec<Action>) {
    let mut stops: BTreeSet<String> = BTreeSet::new();
    let (mut steps, mut skipped) = (Vec::new(), Vec::new());
    for action in actions {
        let being_stopped = stopping.contains(&action.instance) || stops.contains(&action.instance);
        let now = match action.kind {
            ActionKind::Stop { .. } => stops.insert(action.instance.clone()) && !stopping.contains(&action.instance),
            ActionKind::Start if !stops.is_empty() => false,
            _ => !being_stopped,
        };
        if now { steps.push(action) } else { skipped.push(action) }
    }
    (steps, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_wire::{AllocId, Millis};

    fn action(instance: &str, kind: ActionKind) -> Action {
        Action {
            slot: Slot { job: "j".into(), group: "g".into(), index: 0 },
            alloc: AllocId::new([1; 16]),
            task: "t".into(),
            instance: instance.into(),
            kind,
            reason: String::new(),
        }
    }

    fn stop() -> ActionKind {
        ActionKind::Stop { delay: Millis(0), timeout: Millis(0) }
    }

    #[test]
    fn stops_go_first_and_alone() {
        use ActionKind::{Remove, Start};
        let none = BTreeSet::new();
        let busy = BTreeSet::from(["old".to_owned()]);
        let names = |actions: Vec<Action>, stopping: &BTreeSet<String>| {
            steps(actions, stopping).0.into_iter().map(|a| format!("{} {}", a.step(), a.instance)).collect::<Vec<_>>()
        };
        let switch = || vec![action("old", stop()), action("old", Remove), action("new", Start)];
        assert_eq!(names(switch(), &none), ["stop old"]);
        assert_eq!(names(switch(), &busy), Vec::<String>::new());
        assert_eq!(names(vec![action("old", Remove), action("new", Start)], &none), ["remove old", "start new"]);
        assert_eq!(names(vec![action("old", Remove), action("gone", Remove)], &busy), ["remove gone"]);
    }

    #[test]
    fn files_and_signals_that_are_left_out_are_told() {
        use ActionKind::{Remove, Signal, Start, Write};
        let busy = BTreeSet::from(["a".to_owned()]);
        let (done, skipped) = steps(vec![action("a", Write(vec![])), action("b", Write(vec![])), action("a", Start)], &busy);
        assert_eq!((done.len(), done[0].instance.as_str(), skipped.len()), (1, "b", 2));
        let mut state = State::default();
        state.put_off(skipped, "its task is being stopped");
        state.put_off(vec![action("a", Signal("SIGHUP".into())), action("a", Remove), action("a", stop())], "its place is busy");
        let told: Vec<String> = state.failures.iter().map(|f| format!("{}: {}", f.step, f.error)).collect();
        assert_eq!(told, ["write: put off: its task is being stopped", "signal: put off: its place is busy"]);
    }
}
