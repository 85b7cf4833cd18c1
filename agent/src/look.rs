//! What the engine shows, without waiting for an engine that is away.
//!
//! In: nothing but the wish to know. Out: containers and images as they are, or as they were when the engine last answered, and whether it
//! answers. A question that takes long goes on by itself; whoever waits for it is told when it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use skerry_engine::{ContainerState, Engine, EngineError};
use skerry_wire::ImageId;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a decision waits for an engine that answered the last time.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest wait before an engine that is away is asked again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What the engine has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Containers of this node.
    pub(crate) containers: Vec<ContainerState>,
    /// Images.
    pub(crate) images: BTreeSet<ImageId>,
    /// How many bundles had ended before.
    pub(crate) ended: u64,
}

/// Asks the engine.
#[derive(Debug)]
pub(crate) struct Look<E> {
    engine: E,
    /// Told when a late answer came.
    late: Arc<Notify>,
    /// Does nobody wait for the answer any more?
    left: Arc<AtomicBool>,
    seen: Option<Seen>,
    under_way: Option<JoinHandle<Result<Seen, EngineError>>>,
    failures: u32,
    retry: Option<Instant>,
    /// Why it is away; none when it answers.
    pub(crate) away: Option<String>,
}

impl<E: Engine + Clone + 'static> Look<E> {
    pub(crate) fn new(engine: E, late: Arc<Notify>) -> Self {
        Self { engine, late, left: Arc::default(), seen: None, under_way: None, failures: 0, retry: None, away: None }
    }

    /// What was seen last; none when the engine never answered.
    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// When an engine that is away will be asked again.
    pub(crate) fn retry_in(&self) -> Option<Duration> {
        self.retry.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Asks, and waits a little; `ended` bundles have ended by now. True when the engine went away, or was away, since the last call.
    pub(crate) async fn look(&mut self, label: &str, ended: u64) -> bool {
        let was_away = self.away.is_some();
        if self.under_way.is_none() {
            if self.retry.is_some_and(|at| at > Instant::now()) {
                return true;
            }
            let (engine, label, late) = (self.engine.clone(), label.to_owned(), Arc::clone(&self.late));
            let left = Arc::clone(&self.left);
            left.store(false, Ordering::SeqCst);
            let before = self.seen.as_ref().map(|s| s.containers.clone()).unwrap_or_default();
            self.under_way = Some(tokio::spawn(async move {
                let containers = engine.look(&label, &before).await;
                let images = match &containers {
                    Ok(_) => engine.images().await,
                    Err(_) => Ok(vec![]),
                };
                if left.load(Ordering::SeqCst) {
                    late.notify_one();
                }
                Ok(Seen { containers: containers?, images: images?.into_iter().collect(), ended })
            }));
        }
        let patience = if was_away { Duration::from_millis(50) } else { PATIENCE };
        let Some(handle) = &mut self.under_way else { return was_away };
        let answer = match timeout(patience, handle).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(broken)) => {
                tracing::error!("the look at the engine broke off: {broken}");
                self.under_way = None;
                return was_away;
            }
            Err(_) => {
                self.left.store(true, Ordering::SeqCst);
                if self.under_way.as_ref().is_some_and(JoinHandle::is_finished) {
                    self.late.notify_one();
                }
                if !was_away {
                    self.gone("the engine takes very long to answer".to_owned());
                }
                return true;
            }
        };
        self.under_way = None;
        match answer {
            Ok(seen) => {
                if was_away {
                    tracing::info!("the engine answers again");
                }
                (self.seen, self.away, self.failures, self.retry) = (Some(seen), None, 0, None);
                was_away
            }
            Err(error) => {
                self.gone(error.to_string());
                true
            }
        }
    }

    /// An action found that it is away.
    pub(crate) fn gone(&mut self, why: String) {
        if self.away.is_none() {
            tracing::error!("{why}; containers are left as they are until it answers, processes go on");
        }
        let wait = RETRY.0.saturating_mul(1 << self.failures.min(10)).min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        self.retry = Some(Instant::now() + wait);
        self.away = Some(why);
    }
}
