//! Runs the checks that the reconciler names, and keeps what they found.
//!
//! In: the checks of the newest decision. Out: a [`CheckState`] per check, and a word to the main loop when a result may change what is
//! decided: at every turn between passing and failing, until it counts as passing, and while failures are few enough for a threshold to
//! be among them. Checks of one interval run at the same instants, so that an idle node wakes once for all of them.

mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use skerry_engine::Engine;
use skerry_reconcile::{CheckId, CheckPlan, CheckState};
use tokio::sync::Notify;

use crate::clock::boottime_ms;
use crate::runner::Drivers;

/// Failures in a row that wake the main loop: a threshold above is noticed with its next look.
const FAILED: u32 = 32;
/// Checks under way at once.
const SIDE_BY_SIDE: usize = 8;
/// Kept of what a check says.
pub(crate) const OUTPUT: usize = 256;

/// The checks of a node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    plans: BTreeMap<CheckId, Entry>,
    states: BTreeMap<CheckId, CheckState>,
}

#[derive(Debug)]
struct Entry {
    plan: CheckPlan,
    /// Next run, in milliseconds of the boot.
    next: u64,
    running: bool,
}

/// What one run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    passed: bool,
    output: String,
}

impl Checks {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs these from now on, and no others; forgets what the others found.
    pub(crate) fn set(&self, plans: &[CheckPlan]) {
        let now = boottime_ms();
        let mut table = self.table();
        let named: BTreeSet<&CheckId> = plans.iter().map(|p| &p.id).collect();
        let before = table.plans.len();
        table.plans.retain(|id, _| named.contains(id));
        table.states.retain(|id, _| named.contains(id));
        let mut changed = table.plans.len() != before;
        for plan in plans {
            match table.plans.get_mut(&plan.id) {
                Some(entry) if entry.plan == *plan => {}
                Some(entry) => {
                    entry.plan = plan.clone();
                    entry.next = entry.next.min(aligned(now.saturating_add(plan.interval.0), plan.interval.0));
                    changed = true;
                }
                None => {
                    let next = aligned(now.saturating_add(plan.interval.0), plan.interval.0);
                    table.plans.insert(plan.id.clone(), Entry { plan: plan.clone(), next, running: false });
                    changed = true;
                }
            }
        }
        if changed {
            self.0.changed.notify_one();
        }
    }

    /// What was found so far.
    pub(crate) fn states(&self) -> BTreeMap<CheckId, CheckState> {
        self.table().states.clone()
    }

    /// Runs what is due, for ever. `news` is told when the main loop should look.
    pub(crate) async fn run<E: Engine>(self, drivers: Drivers<E>, news: Arc<Notify>) {
        type Run<'a> = Pin<Box<dyn Future<Output = (CheckId, Found)> + Send + 'a>>;
        let mut running: FuturesUnordered<Run<'_>> = FuturesUnordered::new();
        loop {
            while running.len() < SIDE_BY_SIDE {
                let Some(plan) = self.take_due(boottime_ms()) else { break };
                let drivers = &drivers;
                running.push(Box::pin(async move {
                    let found = run::one(drivers, &plan).await;
                    (plan.id, found)
                }));
            }
            let wait = self.next().map(|at| Duration::from_millis(at.saturating_sub(boottime_ms())));
            let full = running.len() >= SIDE_BY_SIDE;
            // Cancel-safe: the stream keeps its runs, `changed` its word, and the timer is made anew.
            tokio::select! {
                biased;
                Some((id, found)) = running.next() => {
                    if self.note(&id, found, boottime_ms()) {
                        news.notify_one();
                    }
                }
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600))), if !full => {}
            }
        }
    }

    /// One that is due; it counts as running from then on.
    fn take_due(&self, now: u64) -> Option<CheckPlan> {
        let mut table = self.table();
        let entry = table.plans.values_mut().filter(|e| !e.running && e.next <= now).min_by_key(|e| e.next)?;
        let interval = entry.plan.interval.0.max(1000);
        // From start to start; what was missed is not made up for.
        entry.next = entry.next.saturating_add(interval).max(aligned(now.saturating_add(1), interval));
        entry.running = true;
        Some(entry.plan.clone())
    }

    fn next(&self) -> Option<u64> {
        self.table().plans.values().filter(|e| !e.running).map(|e| e.next).min()
    }

    /// Keeps a result. Answers whether it may change what is decided.
    fn note(&self, id: &CheckId, found: Found, at: u64) -> bool {
        let mut table = self.table();
        let Some(entry) = table.plans.get_mut(id) else { return false };
        entry.running = false;
        let passes = entry.plan.passes;
        let empty = || CheckState { passed: 0, failed: 0, at, output: String::new() };
        let state = table.states.entry(id.clone()).or_insert_with(empty);
        (state.passed, state.failed) = if found.passed { (state.passed.saturating_add(1), 0) } else { (0, state.failed.saturating_add(1)) };
        (state.at, state.output) = (at, found.output);
        if found.passed { state.passed <= passes } else { state.failed <= FAILED }
    }
}

/// The first instant of a common beat that is not before `at`.
fn aligned(at: u64, interval: u64) -> u64 {
    let beat = match interval {
        10_000.. => 5000,
        2000..10_000 => 1000,
        _ => 1,
    };
    at.div_ceil(beat).saturating_mul(beat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_reconcile::CheckRun;
    use skerry_wire::{AllocId, Millis};

    fn plan(check: &str, interval: u64) -> CheckPlan {
        let id = CheckId { alloc: AllocId::new([1; 16]), service: "s".into(), check: check.into() };
        CheckPlan {
            id,
            kind: CheckRun::Tcp { address: "127.0.0.1:1".into() },
            interval: Millis(interval),
            timeout: Millis(1000),
            passes: 3,
        }
    }

    fn found(passed: bool) -> Found {
        Found { passed, output: "x".into() }
    }

    #[test]
    fn counts_wake_while_they_can_matter_and_are_forgotten() {
        let checks = Checks::default();
        let one = plan("a", 1000);
        checks.set(std::slice::from_ref(&one));
        for n in 1..=20 {
            assert_eq!(checks.note(&one.id, found(true), n), n <= 3, "{n}");
        }
        assert!(checks.note(&one.id, found(false), 21), "a turn is news");
        let state = &checks.states()[&one.id];
        assert_eq!((state.passed, state.failed, state.at), (0, 1, 21));
        checks.set(&[]);
        assert!(checks.states().is_empty());
        assert!(!checks.note(&one.id, found(true), 22), "a run that ends after its check was dropped");
        assert!(checks.states().is_empty());
    }

    #[test]
    fn runs_come_at_their_interval_and_on_a_common_beat() {
        let checks = Checks::default();
        checks.set(&[plan("a", 10_000), plan("b", 10_000)]);
        let (a, b) = {
            let t = checks.table();
            (t.plans[&plan("a", 0).id].next, t.plans[&plan("b", 0).id].next)
        };
        assert!(a == b && a % 5000 == 0 && a >= boottime_ms() + 9_000);
        assert!(checks.take_due(a - 1).is_none());
        let first = checks.take_due(a).unwrap();
        let second = checks.take_due(a).unwrap();
        assert_ne!(first.id, second.id);
        assert!(checks.take_due(a).is_none() && checks.next().is_none(), "both run");
        checks.note(&first.id, found(true), a + 5);
        assert_eq!(checks.next(), Some(a + 10_000));
        assert!(checks.take_due(a + 9_999).is_none());
        // Late by several intervals: one run, not one for each.
        assert!(checks.take_due(a + 45_000).is_some());
        checks.note(&first.id, found(true), a + 45_001);
        assert!(checks.next().unwrap() > a + 45_000);
    }
}
